"""How every Parquet file of a catalog is written: replaced in one step, and the same rows always give the same bytes.

Fixed schema, order, codec and row groups, and nothing in the footer but hashes of what went in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from galpipe.commit import replace_file
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


def hash_schema(schema: pa.Schema) -> str:
    """Hash of column names and types, in order."""
    return hashlib.sha256(schema.to_string(show_field_metadata=False, show_schema_metadata=False).encode()).hexdigest()[:32]


def write_parquet(path: Path, table: pa.Table, footer: Mapping[str, Any]) -> str:
    """Replace a Parquet file in one step, byte for byte the same for the same rows and footer.

    Parameters
    ----------
    path : Path
    table : pyarrow.Table
    footer : mapping
        JSON-ready values for the footer; ``content_hash`` (sha256 of schema and encoded rows) is added.

    Returns
    -------
    str
        The content hash.
    """
    # one chunk per column: how rows arrived must not show in the pages
    whole = table.combine_chunks()
    with replace_file(path) as aside, aside.open("wb") as handle:
        sink = _HashingFile(handle)
        with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), whole.schema, **PARQUET) as writer:
            writer.write_table(whole, row_group_size=max(1, whole.num_rows))
            sink.hash.update(hash_schema(whole.schema).encode())
            content_hash = sink.hash.hexdigest()
            text = json.dumps({**footer, "content_hash": content_hash}, sort_keys=True, separators=(",", ":"))
            writer.add_key_value_metadata({FOOTER: text})
    return content_hash


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
    return {**json.loads(text), "rows_in_file": metadata.num_rows}
