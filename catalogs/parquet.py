"""How every Parquet file of a catalog is written: replaced in one step, and the same rows always give the same bytes.

Fixed schema, order, codec and row groups, and nothing in the footer but hashes of what went in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from io import BufferedWriter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.schema import SCHEMA_VERSION
from galpipe.commit import Replace, replace_file
from galpipe.errors import BadData

FOOTER = "galpipe"
"""Key of our JSON in a Parquet footer."""

PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "data_page_version": "1.0",
    "write_page_checksum": True,
}
"""How every Parquet file of a catalog is written; the checksums let a reader find a flipped bit."""

ROW_GROUP = 16_384
"""Rows of a published partition that are read together, by measurement (docs/catalogs-query.md): half of it spares a cone little and
makes sums over the whole catalog slower."""


def published_options(schema: pa.Schema) -> dict[str, Any]:
    """How a published partition is written, for `pyarrow.parquet.write_table`.

    Measured numbers hardly repeat, so that a dictionary of them makes files larger and reading slower (docs/catalogs-query.md).
    """
    floats = [item.name for item in schema if item.type in (pa.float32(), pa.float64())]
    repeated = [item.name for item in schema if not pa.types.is_nested(item.type) and item.name not in (*floats, *_UNIQUE)]
    return {**PARQUET, "row_group_size": ROW_GROUP, "use_dictionary": repeated, "use_byte_stream_split": floats}


_UNIQUE = ("_healpix_29", "source_id", "objid")


_BLOCK = 1 << 20
"""Bytes that are hashed and written at a time: Arrow writes a page at a time, often a few hundred bytes."""


class _HashingFile:
    """A file that hashes what is written to it."""

    def __init__(self, handle: BufferedWriter) -> None:
        self._handle = handle
        self.hash = hashlib.sha256()
        self.closed = False

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._handle.write(data)

    def tell(self) -> int:
        return self._handle.tell()

    def flush(self) -> None:
        self._handle.flush()

    def close(self) -> None:
        self.closed = True


@lru_cache(maxsize=16)
def hash_schema(schema: pa.Schema) -> str:
    """Hash of column names and types, in order."""
    return hashlib.sha256(schema.to_string(show_field_metadata=False, show_schema_metadata=False).encode()).hexdigest()[:32]


def write_parquet(path: Path, table: pa.Table, footer: Mapping[str, Any], replace: Replace = replace_file) -> tuple[str, str]:
    """Replace a Parquet file in one step, byte for byte the same for the same rows and footer.

    Parameters
    ----------
    path : Path
    table : pyarrow.Table
    footer : mapping
        JSON-ready values for the footer; ``content_hash`` (sha256 of schema and encoded rows) is added.
    replace : callable, optional
        From `galpipe.commit.replace_together`, for a file that gets its name together with others.

    Returns
    -------
    str
        The content hash.
    str
        sha256 of the file.
    """
    # one chunk per column: how rows arrived must not show in the pages
    whole = table.combine_chunks()
    with replace(path) as aside, aside.open("wb") as handle:
        sink = _HashingFile(handle)
        blocks = pa.BufferedOutputStream(pa.PythonFile(sink, mode="w"), _BLOCK)
        with pq.ParquetWriter(blocks, whole.schema, **PARQUET) as writer:
            writer.write_table(whole, row_group_size=max(1, whole.num_rows))
            blocks.flush()
            content = sink.hash.copy()
            content.update(hash_schema(whole.schema).encode())
            content_hash = content.hexdigest()
            text = json.dumps({"schema": SCHEMA_VERSION, **footer, "content_hash": content_hash}, sort_keys=True, separators=(",", ":"))
            writer.add_key_value_metadata({FOOTER: text})
        blocks.flush()
    return content_hash, sink.hash.hexdigest()


def read_footer(path: Path) -> dict[str, Any]:
    """Our JSON in a Parquet footer, without reading rows; ``rows`` is the file's own count.

    Raises
    ------
    BadData
        If the file is not Parquet or was not written by `write_parquet`.
    """
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable Parquet file", str(error), file=str(path)) from error
    return footer_of(metadata, path)


def footer_of(metadata: pq.FileMetaData, path: Path) -> dict[str, Any]:
    """Our JSON in an opened file's footer, as `read_footer`."""
    text = (metadata.metadata or {}).get(FOOTER.encode())
    if text is None:
        raise BadData(f"key {FOOTER!r} in the Parquet footer", "none", file=str(path))
    try:
        told = json.loads(text)
        check_schema(told, path)
    except ValueError as error:
        raise BadData(f"JSON under {FOOTER!r} in the Parquet footer", str(error), file=str(path)) from error
    return {**told, "rows_in_file": metadata.num_rows}


def check_schema(told: Mapping[str, Any], path: Path) -> None:
    """Refuse what a newer galpipe wrote: its columns may mean something else.

    Parameters
    ----------
    told : mapping
        A footer or a version's description; ``schema`` is missing where an older galpipe wrote it.
    path : Path
        Named in the error.

    Raises
    ------
    BadData
        If it is of a newer schema than this code's.
    """
    if told.get("schema", 0) > SCHEMA_VERSION:
        wanted = f"schema version {SCHEMA_VERSION} or older, which is what this galpipe reads"
        raise BadData(wanted, f"version {told['schema']}, written by a newer one (update galpipe)", file=str(path))
