"""Build one HATS version: a Parquet file per HEALPix pixel, and the metadata files that `hats` expects.

Memory is bounded by one partition (3.4 square degrees at order 5), not by the catalog.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.catalog.dataset.table_properties import TableProperties
from hats.catalog.partition_info import PartitionInfo
from hats.io import file_io, write_parquet_metadata
from hats.io.paths import pixel_catalog_file
from hats.io.validation import is_valid_catalog
from hats.pixel_math.healpix_pixel import HealpixPixel
from mocpy import MOC
from numpy.typing import NDArray

from catalogs.inventory import Entry, Inventory, StaleInventory
from catalogs.parquet import PARQUET
from catalogs.resolve import RESOLVED, Resolver
from catalogs.schema import HEALPIX, HEALPIX_ORDER, PARTITION_ORDER
from catalogs.shard import read_shard
from galpipe.commit import fault_point
from galpipe.errors import BadData
from galpipe.fingerprint import ALGORITHM_VERSIONS

MAP_ORDER = 8
"""HEALPix order of the sky map and coverage (13.7 arcmin pixels, about a brick)."""

KEYS = "partitions.json"
"""Name of the file that remembers what each partition was made from."""

RESOLVED_FILE = "resolved.parquet"
"""Name of the file that says which rows of the shards were left out because another brick has the source (`catalogs.resolve`)."""


@dataclass(frozen=True)
class Build:
    """What a version is built from.

    Parameters
    ----------
    shards : Path
        Folder of the catalog's shards.
    target : Path
        Empty folder to fill.
    previous : Path or None
        The version before, whose unchanged partitions are linked.
    stock : Inventory
    name : str
        The catalog's name.
    """

    shards: Path
    target: Path
    previous: Path | None
    stock: Inventory
    name: str


@dataclass(frozen=True)
class Built:
    """What `build` made."""

    rows: int
    written: int
    linked: int
    resolved: dict[str, int]
    """Rows named in `RESOLVED_FILE`, by reason."""


def build(work: Build, progress: Callable[[int, int], None] | None = None) -> Built:
    """Fill a folder with a valid HATS catalog.

    Raises
    ------
    BadData
        If a shard is damaged or of another schema, rows are lost, or `hats` finds the result invalid.
    StaleInventory
        If a shard was replaced meanwhile.
    """
    schema = _common_schema(work)
    members = _members(work.stock)
    resolver = Resolver(work.shards, work.stock.outcomes)
    keys = {pixel: _key(entries, schema, resolver) for pixel, entries in members.items()}
    old = json.loads((work.previous / KEYS).read_text()) if work.previous else {}
    told: list[pa.Table] = [RESOLVED.empty_table()]
    (work.target / "dataset").mkdir(parents=True)
    linked = 0
    for done, (pixel, entries) in enumerate(members.items(), 1):
        path = partition_path(work.target, pixel)
        path.parent.mkdir(parents=True, exist_ok=True)
        if work.previous and old.get(str(pixel)) == keys[pixel]:
            _link(partition_path(work.previous, pixel), path)
            told.append(_resolved_before(work.previous, pixel))
            linked += 1
        else:
            rows, resolved = _rows_of(work, pixel, (entries, schema), resolver)
            pq.write_table(rows, path, **PARQUET)
            told.append(resolved)
        fault_point("publish.partition")
        if progress:
            progress(done, len(members))
    (work.target / KEYS).write_text(json.dumps(keys))
    resolved = pa.concat_tables(told).combine_chunks()
    pq.write_table(resolved, work.target / RESOLVED_FILE, **PARQUET)
    reasons = dict(sorted(Counter(resolved["reason"].to_pylist()).items()))
    count = _write_metadata(work, sorted(members), publish_schema(schema))
    fault_point("publish.metadata")
    _check(work, count, left_out(reasons))
    return Built(count, len(members) - linked, linked, reasons)


def left_out(resolved: dict[str, int]) -> int:
    """Rows of shards that a version does not show, from its counts by reason."""
    return sum(count for reason, count in resolved.items() if reason != "rescued")


def _resolved_before(previous: Path, pixel: int) -> pa.Table:
    return pq.read_table(previous / RESOLVED_FILE, filters=[("pixel", "==", pixel)], schema=RESOLVED)


def partition_path(folder: Path, pixel: int) -> Path:
    """File of a pixel in a version's folder."""
    return Path(str(pixel_catalog_file(folder, HealpixPixel(PARTITION_ORDER, pixel))))


def _common_schema(work: Build) -> pa.Schema:
    """The schema of every shard: a version mixes nothing."""
    if not work.stock.shards:
        raise BadData("at least one shard", "none", file=str(work.shards))
    first = work.stock.shards[0]
    schema = _schema_of(work, first)
    for entry in work.stock.shards:
        if entry.schema_hash != first.schema_hash:
            odd = sorted(set(map(str, _schema_of(work, entry))) ^ set(map(str, schema)))
            raise BadData(
                f"the columns of {first.path}", f"differences {odd[:6]}; publish after every shard was done again", file=entry.path
            )
    return schema


def _schema_of(work: Build, entry: Entry) -> pa.Schema:
    return pq.read_schema(work.shards / entry.path).remove_metadata()


def _members(stock: Inventory) -> dict[int, list[Entry]]:
    members: dict[int, list[Entry]] = {}
    for entry in stock.shards:
        for pixel, _ in entry.pixels:
            members.setdefault(pixel, []).append(entry)
    return dict(sorted(members.items()))


def _key(entries: list[Entry], schema: pa.Schema, resolver: Resolver) -> str:
    made_from = [[entry.path, entry.content_hash] for entry in entries]
    body = [ALGORITHM_VERSIONS["publish"], schema.to_string(), made_from, resolver.depends_on(entries)]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # file systems without hard links
        shutil.copyfile(source, target)


def _rows_of(work: Build, pixel: int, wanted: tuple[list[Entry], pa.Schema], resolver: Resolver) -> tuple[pa.Table, pa.Table]:
    """A partition's rows, sorted by position: shard by shard, only the rows of the pixel are kept. And what was resolved."""
    entries, schema = wanted
    parts, expected, resolved = [], 0, []
    resolver.forget(entries)
    for entry in entries:
        path = work.shards / entry.path
        try:
            table, meta = read_shard(path)
        except BadData as error:
            if path.exists():
                raise
            raise StaleInventory(f"{entry.path} is gone") from error
        if meta.content_hash != entry.content_hash:
            raise StaleInventory(f"{entry.path} was replaced")
        inside = pc.equal(pc.shift_right(table[HEALPIX], 2 * (HEALPIX_ORDER - PARTITION_ORDER)), pixel)
        part = table.filter(inside).cast(schema)
        verdicts = resolver.verdicts(entry)
        ids = part["source_id"].to_pylist()
        named = [(source, *verdicts[source]) for source in ids if source in verdicts]
        resolved += [(pixel, *verdict) for verdict in named]
        gone = {source for source, _, reason in named if reason != "rescued"}
        parts.append(part.filter(pa.array([source not in gone for source in ids], pa.bool_())) if gone else part)
        expected += dict(entry.pixels)[pixel] - len(gone)
    whole = pa.concat_tables(parts)
    if whole.num_rows != expected:
        raise BadData(f"{expected} rows in pixel {pixel}", f"{whole.num_rows}", file=entries[0].path)
    order = pc.sort_indices(whole.select([HEALPIX, "source_id"]), sort_keys=[(HEALPIX, "ascending"), ("source_id", "ascending")])
    columns = list(zip(*sorted(resolved), strict=True)) or [()] * len(RESOLVED)
    table = pa.table([pa.array(values, item.type) for values, item in zip(columns, RESOLVED, strict=True)], schema=RESOLVED)
    return _publishable(whole.take(order)), table


def _is_list_of_structs(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)


def publish_schema(schema: pa.Schema) -> pa.Schema:
    """Schema of the published partitions: a list of structs becomes a struct of lists.

    LSDB 0.11 shows both as one nested column, but reads single fields of the second form only.
    """
    items = []
    for item in schema:
        if _is_list_of_structs(item.type):
            inner = pa.struct([pa.field(part.name, pa.list_(part.type)) for part in item.type.value_type])
            items.append(pa.field(item.name, inner, metadata=item.metadata))
        else:
            items.append(item)
    return pa.schema(items)


def _publishable(table: pa.Table) -> pa.Table:
    schema = publish_schema(table.schema)
    columns = []
    for item in table.schema:
        column = table[item.name].combine_chunks()
        columns.append(_transpose(column, schema.field(item.name)) if _is_list_of_structs(item.type) else column)
    return pa.table(columns, schema=schema)


def _transpose(column: pa.ListArray, target: pa.Field) -> pa.StructArray:
    absent = np.asarray(column.is_null())
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    # flatten skips null lists, so the offsets count from the lengths
    inner = column.flatten()
    mask = pa.array(absent)
    lists = [pa.ListArray.from_arrays(offsets, pc.struct_field(inner, [index]), mask=mask) for index in range(target.type.num_fields)]
    return pa.StructArray.from_arrays(
        [array.cast(part.type) for array, part in zip(lists, target.type, strict=True)], fields=list(target.type)
    )


def _write_metadata(work: Build, pixels: list[int], schema: pa.Schema) -> int:
    target = work.target
    if pixels:
        rows = int(write_parquet_metadata(target))
    else:
        # hats cannot derive a schema from no file
        for file in ("_metadata", "_common_metadata"):
            pq.write_metadata(schema, target / "dataset" / file)
        rows = 0
    PartitionInfo([HealpixPixel(PARTITION_ORDER, pixel) for pixel in pixels]).write_to_file(catalog_path=target)
    counts = _sky_map(target, pixels)
    covered = np.flatnonzero(counts)
    # the first is what hats takes the coverage from, the second is its newer name for the same map
    for file in ("point_map.fits", "skymap.fits"):
        file_io.write_fits_image(counts, target / file)
    if len(covered):
        MOC.from_healpix_cells(covered.astype(np.uint64), np.full(len(covered), MAP_ORDER, np.uint8), MAP_ORDER).save(
            str(target / "moc.fits"), format="fits"
        )
    TableProperties(
        catalog_name=work.name,
        catalog_type="object",
        total_rows=rows,
        ra_column="ra",
        dec_column="dec",
        healpix_column=HEALPIX,
        healpix_order=HEALPIX_ORDER,
        skymap_order=MAP_ORDER,
        moc_sky_fraction=len(covered) / len(counts),
        hats_builder="galpipe",
        hats_creation_date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M%Z"),
    ).to_properties_file(target)
    return rows


def _sky_map(target: Path, pixels: list[int]) -> NDArray[np.int32]:
    """Rows per pixel at `MAP_ORDER`, NESTED, shape (12 * 4**MAP_ORDER,)."""
    counts = np.zeros(12 * 4**MAP_ORDER, np.int32)
    for pixel in pixels:
        index = pq.read_table(partition_path(target, pixel), columns=[HEALPIX], partitioning=None)[HEALPIX].to_numpy()
        np.add.at(counts, index >> (2 * (HEALPIX_ORDER - MAP_ORDER)), 1)
    return counts


def _check(work: Build, rows: int, gone: int) -> None:
    expected = sum(entry.placed_rows for entry in work.stock.shards) - gone
    if rows != expected:
        raise BadData(f"{expected} rows, those of the shards that have a position, less {gone} resolved", f"{rows}", file=str(work.target))
    if not is_valid_catalog(work.target, strict=True):
        raise BadData("a catalog that hats finds valid", "an invalid one", file=str(work.target))
