"""One Parquet shard per brick: the truth of the catalog."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.parquet import footer_of, hash_schema, read_footer, write_parquet
from catalogs.schema import HEALPIX, HEALPIX_ORDER, PARTITION_ORDER
from galpipe.commit import Replace, replace_file
from galpipe.errors import BadData, ConfigurationError
from galpipe.unit import Unit


@dataclass(frozen=True)
class ShardMeta:
    """What a shard's footer says.

    Parameters
    ----------
    unit : Unit
    fingerprint : str
        Hash of everything the shard was made from.
    provenance_id : int
    model : str
        Name, version or hash of the model.
    counts : dict
        Totals by name; ``predicted`` must equal the rows.
    rows : int
        Filled in by `write_shard`.
    content_hash : str
        sha256 of the rows as encoded, independent of the footer; filled in by `write_shard`.
    pixels : dict
        Rows by HEALPix pixel at `PARTITION_ORDER`; rows without position are in none. Filled in by `write_shard`.
    schema_hash : str
        Hash of column names and types; filled in by `write_shard`.
    binding : str
        Hash of the model and of every setting that decides rows: the same in all shards of a catalog.
    parts : dict
        Hashes of what each part was made by, so that a later run can carry over what is still the same:
        ``pixels`` (stamps, encoder and all that answers but the heads) and ``heads`` by name.
    """

    unit: Unit
    fingerprint: str = ""
    provenance_id: int = 0
    model: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    content_hash: str = ""
    pixels: Mapping[int, int] = field(default_factory=dict)
    schema_hash: str = ""
    binding: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """Text for the footer; the same values give the same text."""
        body = {
            "unit": str(self.unit),
            "fingerprint": self.fingerprint,
            "provenance_id": str(self.provenance_id),
            "model": self.model,
            "counts": dict(self.counts),
            "rows": self.rows,
            "content_hash": self.content_hash,
            "pixels": {str(pixel): count for pixel, count in self.pixels.items()},
            "schema_hash": self.schema_hash,
            "binding": self.binding,
            "parts": dict(self.parts),
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ShardMeta:
        """The inverse of `as_json`."""
        body = json.loads(text)
        return cls(
            unit=Unit.parse(body["unit"]),
            fingerprint=body["fingerprint"],
            provenance_id=int(body["provenance_id"]),
            model=body["model"],
            counts=body["counts"],
            rows=body["rows"],
            content_hash=body["content_hash"],
            pixels={int(pixel): count for pixel, count in body["pixels"].items()},
            schema_hash=body["schema_hash"],
            binding=body.get("binding", ""),
            parts=body.get("parts", {}),
        )


def pixel_counts(healpix: pa.Array | pa.ChunkedArray) -> dict[int, int]:
    """Rows by pixel at `PARTITION_ORDER`.

    Parameters
    ----------
    healpix : pyarrow.Array
        Order-29 indices, shape (rows,); nulls are rows without a position.
    """
    values = healpix.drop_null().to_numpy() >> (2 * (HEALPIX_ORDER - PARTITION_ORDER))
    pixels, counts = np.unique(values, return_counts=True)
    return {int(pixel): int(count) for pixel, count in zip(pixels, counts, strict=True)}


def write_shard(path: Path, table: pa.Table, meta: ShardMeta, replace_by: Replace = replace_file) -> tuple[ShardMeta, str]:
    """Replace a brick's shard in one step.

    Parameters
    ----------
    path : Path
        From `galpipe.layout.Layout.shard`.
    table : pyarrow.Table
        From `catalogs.join.build_shard`; may have no rows.
    meta : ShardMeta
    replace_by : callable, optional
        From `galpipe.commit.replace_together`.

    Returns
    -------
    ShardMeta
        As in the footer.
    str
        sha256 of the file, for receipt and ledger.

    Raises
    ------
    BadData
        If the count ``predicted`` is not the number of rows.
    """
    told = meta.counts.get("predicted", table.num_rows)
    if told != table.num_rows:
        raise BadData(f"{told} rows, the count of predicted sources", f"{table.num_rows}", unit=str(meta.unit), file=path.name)
    full = replace(meta, rows=table.num_rows, content_hash="", pixels=pixel_counts(table[HEALPIX]), schema_hash=hash_schema(table.schema))
    content_hash, sha256 = write_parquet(path, table, json.loads(full.as_json()), replace_by)
    return replace(full, content_hash=content_hash), sha256


def read_shard_meta(path: Path) -> ShardMeta:
    """What a shard's footer says, without reading rows.

    Raises
    ------
    BadData
        If the file is not a shard.
    """
    footer = read_footer(path)
    rows = footer.pop("rows_in_file")
    meta = _meta_of(footer, path)
    if rows != meta.rows:
        raise BadData(f"{meta.rows} rows", f"{rows}", unit=str(meta.unit), file=str(path))
    return meta


def read_shard(path: Path) -> tuple[pa.Table, ShardMeta]:
    """Rows and footer of a shard, from one opened file, so that a writer in between cannot mix them.

    Raises
    ------
    BadData
        If the file is not a readable shard.
    """
    try:
        # not a Python file: Arrow's threads may let go of one while the interpreter ends, which aborts the process
        with pa.OSFile(str(path), "rb") as handle:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            table = file.read()
            footer = footer_of(file.metadata, path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable shard", str(error), file=str(path)) from error
    footer.pop("rows_in_file")
    return table.replace_schema_metadata(None), _meta_of(footer, path)


def _meta_of(footer: Mapping[str, Any], path: Path) -> ShardMeta:
    try:
        return ShardMeta.from_json(json.dumps(footer))
    except (KeyError, TypeError, ValueError, ConfigurationError) as error:
        raise BadData("a shard's footer", f"{type(error).__name__} {error}", file=str(path)) from error
