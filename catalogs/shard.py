"""One Parquet shard per brick: the truth of the catalog.

The same rows always give the same bytes: fixed schema, order, codec and row groups, and nothing in the footer but hashes of
what went in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.derive import derive
from catalogs.schema import HEALPIX, HEALPIX_ORDER, MEASURED_PREFIXES, MEASURED_UNITS, PARTITION_ORDER, assemble
from galpipe.columns import Column
from galpipe.commit import replace_file
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.unit import Unit

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


FROM_THE_MODEL = ("embedding", "source_id", "bands_used", "degraded")
"""Base columns that predictions may bring; what the model says it used goes before what the stamps suggest."""


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Parameters
    ----------
    unit : Unit
    provenance_id : int
        From `catalogs.provenance.provenance_id`.
    model_bands : tuple of str
        Bands that the model was trained on, in its order.
    """

    unit: Unit
    provenance_id: int
    model_bands: tuple[str, ...] = ("g", "r", "z")


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
        )


def build_shard(sources: pa.Table, predictions: pa.Table, heads: Sequence[Column], origin: Origin) -> pa.Table:
    """Join what the survey and the stamp say with what the heads answered, in the catalog's schema and order.

    Parameters
    ----------
    sources : pyarrow.Table
        The predicted rows: columns of `galpipe.survey.tractor.tractor_subset` and per-stamp columns. Base columns that it
        lacks are null; columns that the catalog does not have are left out.
    predictions : pyarrow.Table
        Same rows in the same order, exactly the heads' columns, with `FROM_THE_MODEL` as options.
    heads : sequence of Column
        Columns declared by the heads.
    origin : Origin

    Returns
    -------
    pyarrow.Table
        Schema ``assemble(heads)``, rows in the order given.

    Raises
    ------
    ConfigurationError
        If predictions lack a declared column or have one that no head declares.
    BadData
        If the two tables are not of the same rows, an id is missing or repeated, or a value does not fit its type.
    """
    _check_rows(sources, predictions, origin.unit)
    _check_columns(predictions, heads)
    schema = assemble(heads)
    given = {name: sources[name] for name in sources.column_names}
    given |= derive(sources, origin.unit, origin.model_bands)
    given |= {name: predictions[name] for name in predictions.column_names if name != "source_id"}
    given |= _without_truncated(given, heads)
    given["provenance_id"] = pa.array(np.full(sources.num_rows, origin.provenance_id, np.int64))
    columns = [_fit(given.get(item.name), item, sources.num_rows, origin.unit) for item in schema]
    return pa.table(columns, schema=schema)


def _without_truncated(given: Mapping[str, pa.ChunkedArray | pa.Array], heads: Sequence[Column]) -> dict[str, pa.ChunkedArray | pa.Array]:
    """The heads' sizes, fluxes and angles, null where the stamp cuts the galaxy off (science.md section 1)."""
    cut_off = pc.fill_null(given["stamp_truncated"], False)
    whole = [item.name for item in heads if item.unit in MEASURED_UNITS and item.name.startswith(MEASURED_PREFIXES)]
    return {name: pc.if_else(cut_off, pa.scalar(None, given[name].type), given[name]) for name in whole}


def _check_rows(sources: pa.Table, predictions: pa.Table, unit: Unit) -> None:
    if sources.num_rows != predictions.num_rows:
        raise BadData(f"{sources.num_rows} predictions", f"{predictions.num_rows}", unit=str(unit))
    ids = sources["source_id"]
    if ids.null_count or len(pc.unique(ids)) != len(ids):
        raise BadData(
            "one distinct source_id per row", f"{ids.null_count} null, {len(pc.unique(ids))} of {len(ids)} distinct", unit=str(unit)
        )
    if "source_id" in predictions.column_names and not predictions["source_id"].equals(ids):
        raise BadData("predictions in the order of the sources", "other ids or another order", unit=str(unit))


def _check_columns(predictions: pa.Table, heads: Sequence[Column]) -> None:
    declared, came = {column.name for column in heads}, set(predictions.column_names) - set(FROM_THE_MODEL)
    if declared != came:
        missing, extra = sorted(declared - came), sorted(came - declared)
        raise ConfigurationError("exactly the columns that the heads declare", f"missing {missing}, undeclared {extra}")


def _fit(values: pa.ChunkedArray | pa.Array | None, item: pa.Field, rows: int, unit: Unit) -> pa.Array:
    if values is None:
        return pa.nulls(rows, item.type)
    try:
        result = pc.cast(values, item.type, safe=pa.types.is_integer(item.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadData(f"{item.type} in column {item.name!r}", str(error), unit=str(unit)) from error
    return result.combine_chunks() if isinstance(result, pa.ChunkedArray) else result


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
    return _footer_of(metadata, path)


def _footer_of(metadata: pq.FileMetaData, path: Path) -> dict[str, Any]:
    text = (metadata.metadata or {}).get(FOOTER.encode())
    if text is None:
        raise BadData(f"key {FOOTER!r} in the Parquet footer", "none", file=str(path))
    return {**json.loads(text), "rows_in_file": metadata.num_rows}


def write_shard(path: Path, table: pa.Table, meta: ShardMeta) -> tuple[ShardMeta, str]:
    """Replace a brick's shard in one step.

    Parameters
    ----------
    path : Path
        From `galpipe.layout.Layout.shard`.
    table : pyarrow.Table
        From `build_shard`; may have no rows.
    meta : ShardMeta

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
    write_parquet(path, table, json.loads(full.as_json()))
    return read_shard_meta(path), sha256_file(path)


def read_shard_meta(path: Path) -> ShardMeta:
    """What a shard's footer says, without reading rows.

    Raises
    ------
    BadData
        If the file is not a shard.
    """
    footer = read_footer(path)
    rows = footer.pop("rows_in_file")
    try:
        meta = ShardMeta.from_json(json.dumps(footer))
    except (KeyError, TypeError, ValueError) as error:
        raise BadData("a shard's footer", f"{type(error).__name__} {error}", file=str(path)) from error
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
            footer = _footer_of(file.metadata, path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable shard", str(error), file=str(path)) from error
    footer.pop("rows_in_file")
    return table.replace_schema_metadata(None), ShardMeta.from_json(json.dumps(footer))
