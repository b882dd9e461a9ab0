"""Build one HATS version: a Parquet file per HEALPix pixel, its margin, where its stamps are, and what makes these a collection.

    v<N>/collection.properties        what LSDB opens: the catalog with its margin
    v<N>/catalog, margin, stamps      three HATS catalogs; dataset is a link to catalog/dataset
    v<N>/partitions.json              what each partition was made from, which were split, and the hash of every strip of margin

Memory is bounded by one partition, not by the catalog.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.io.validation import is_valid_catalog, is_valid_collection
from hats.pixel_math.healpix_pixel import HealpixPixel

from catalogs.hatsfiles import CATALOG, MARGIN, MARGIN_CACHE, OBJECT, STAMP_INDEX, STAMPS, collect, describe, partition_path, sky_map
from catalogs.inventory import Entry, Inventory, StaleInventory
from catalogs.margins import MARGIN_ARCSEC, MarginWork, margins
from catalogs.nested import publish_schema, publishable
from catalogs.parquet import PARQUET
from catalogs.resolve import RESOLVED, Resolver
from catalogs.schema import HEALPIX, HEALPIX_ORDER
from catalogs.shard import read_shard
from catalogs.stampindex import INDEX, index_rows, kept_stores
from catalogs.tiling import CELLS, Limits, Tiling, load_cells, name_of, pixel_of, save_cells, tile
from galpipe.commit import fault_point, link
from galpipe.errors import BadData
from galpipe.fingerprint import ALGORITHM_VERSIONS
from galpipe.layout import Layout

KEYS = "partitions.json"
"""Name of the file that remembers what each partition was made from."""

RESOLVED_FILE = "resolved.parquet"
"""Name of the file that says which rows of the shards were left out because another brick has the source (`catalogs.resolve`)."""

ROW_GROUP = 65_536
"""Rows per row group: an average partition is one, and a cone in a crowded one reads a part."""

Members = tuple[tuple[Entry, int], ...]
Step = Callable[[], None]


@dataclass(frozen=True)
class Build:
    """What a version is built from.

    Parameters
    ----------
    layout : Layout
    name : str
        The catalog's name.
    target : Path
        Empty folder to fill.
    previous : Path or None
        The version before, whose unchanged partitions are linked.
    stock : Inventory
    limits : Limits
        Of a partition.
    """

    layout: Layout
    name: str
    target: Path
    previous: Path | None
    stock: Inventory
    limits: Limits

    @property
    def shards(self) -> Path:
        """Folder of the catalog's shards."""
        return self.layout.catalog(self.name)

    @cached_property
    def resolver(self) -> Resolver:
        """Of rows at the edges of bricks."""
        return Resolver(self.shards, self.stock.outcomes)

    @cached_property
    def before(self) -> _Before:
        """What the version before remembers."""
        return _remembered(self.previous)

    def old(self, catalog: str, pixel: HealpixPixel) -> Path:
        """File of a partition in the version before, which there is."""
        if self.previous is None:
            raise RuntimeError("a link to a version before the first")
        return partition_path(self.previous / catalog, pixel)


@dataclass(frozen=True)
class _Before:
    """What `KEYS` of a version says."""

    basis: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    split: frozenset[HealpixPixel] = frozenset()
    strips: Mapping[HealpixPixel, Mapping[HealpixPixel, str]] = field(default_factory=dict)
    stamps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """What `build` made."""

    rows: int
    written: int
    linked: int
    resolved: dict[str, int]
    """Rows named in `RESOLVED_FILE`, by reason."""
    partitions: dict[str, int]
    """Partitions by HEALPix order."""
    margins_written: int
    margins_linked: int
    stamps: dict[str, int]
    """Rows by whether their stamp is ``kept`` or ``absent``."""


def build(work: Build, progress: Callable[[int, int], None] | None = None) -> Built:
    """Fill a folder with a valid HATS collection.

    Raises
    ------
    BadData
        If a shard is damaged or of another schema, rows are lost, or `hats` finds the result invalid.
    StaleInventory
        If a shard was replaced meanwhile.
    """
    schema = _common_schema(work)
    tiling = tile(work.stock, work.shards, _tiling_before(work), work.limits)
    published = publish_schema(schema)
    keys, written, told = _write_partitions(work, tiling, schema, progress)
    strips, margin_counts = _write_margins(work, tiling, frozenset(written), published)
    stamps, indexed = _write_stamps(work, tiling, keys)
    _remember(work, tiling, _Before(_basis(schema), keys, tiling.split, strips, stamps))
    resolved = pa.concat_tables(told).combine_chunks()
    pq.write_table(resolved, work.target / RESOLVED_FILE, **PARQUET)
    reasons = dict(sorted(Counter(resolved["reason"].to_pylist()).items()))
    catalog = work.target / CATALOG
    # nothing is linked from a version that was made otherwise
    before = work.previous / CATALOG if work.previous and len(written) < len(keys) else None
    counts = sky_map(catalog, before, written.__contains__, tiling.members)
    rows = describe(catalog, OBJECT, tiling.members, published, counts)
    describe(work.target / MARGIN, MARGIN_CACHE, [pixel for pixel, parts in strips.items() if parts], published)
    collect(work.target, work.name)
    fault_point("publish.metadata")
    _check(work, rows, left_out(reasons))
    orders = Counter(pixel.order for pixel in tiling.members)
    by_order = {str(order): count for order, count in sorted(orders.items())}
    kept = {"kept": indexed, "absent": rows - indexed}
    return Built(rows, len(written), len(keys) - len(written), reasons, by_order, *margin_counts, kept)


def left_out(resolved: dict[str, int]) -> int:
    """Rows of shards that a version does not show, from its counts by reason."""
    return sum(count for reason, count in resolved.items() if reason != "rescued")


def _tiling_before(work: Build) -> Tiling:
    return Tiling({}, work.before.split, load_cells(work.previous / CELLS) if work.previous else {})


def _remembered(folder: Path | None) -> _Before:
    body: dict[str, Any] = json.loads((folder / KEYS).read_text()) if folder else {}
    if "basis" not in body:
        # an older galpipe kept a flat list, of partitions that are all written again
        return _Before()
    strips = {
        pixel_of(pixel): {pixel_of(source): told for source, told in parts.items()} for pixel, parts in body["strips"].items()
    }
    return _Before(body["basis"], body["keys"], frozenset(map(pixel_of, body["split"])), strips, body["stamps"])


def _remember(work: Build, tiling: Tiling, made: _Before) -> None:
    strips = {name_of(pixel): {name_of(source): told for source, told in parts.items()} for pixel, parts in sorted(made.strips.items())}
    body = {"basis": made.basis, "keys": made.keys, "split": sorted(map(name_of, made.split)), "strips": strips, "stamps": made.stamps}
    (work.target / KEYS).write_text(json.dumps(body))
    save_cells(tiling.cells, work.target / CELLS)


def _basis(schema: pa.Schema) -> str:
    """Hash of what all partitions and margins share."""
    body = [ALGORITHM_VERSIONS["publish"], schema.to_string(), MARGIN_ARCSEC]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _write_partitions(
    work: Build, tiling: Tiling, schema: pa.Schema, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, str], set[HealpixPixel], list[pa.Table]]:
    """Write or link every partition; what each was made from, which were written, and what was resolved."""
    basis = _basis(schema)
    keys = {name_of(pixel): _key(members, basis, work.resolver) for pixel, members in tiling.members.items()}
    written: set[HealpixPixel] = set()
    told: list[pa.Table] = [RESOLVED.empty_table()]
    for done, (pixel, members) in enumerate(tiling.members.items(), 1):
        path = partition_path(work.target / CATALOG, pixel)
        if work.before.keys.get(name_of(pixel)) == keys[name_of(pixel)]:
            link(work.old(CATALOG, pixel), path)
            told.append(_resolved_before(work, pixel))
        else:
            rows, resolved = _rows_of(work, pixel, (members, schema))
            _write(rows, path)
            written.add(pixel)
            told.append(resolved)
        fault_point("publish.partition")
        if progress:
            progress(done, len(tiling.members))
    return keys, written, told


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=ROW_GROUP, **PARQUET)


def _resolved_before(work: Build, pixel: HealpixPixel) -> pa.Table:
    if work.previous is None:
        return RESOLVED.empty_table()
    wanted = [("order", "==", pixel.order), ("pixel", "==", pixel.pixel)]
    return pq.read_table(work.previous / RESOLVED_FILE, filters=wanted, schema=RESOLVED)


def _write_margins(
    work: Build, tiling: Tiling, written: frozenset[HealpixPixel], schema: pa.Schema
) -> tuple[dict[HealpixPixel, dict[HealpixPixel, str]], tuple[int, int]]:
    """Write or link the margin of every partition; their strips, and how many were written and linked."""
    # with another schema or algorithm every partition is written, and no strip is what it was
    before = work.before.strips if len(written) < len(tiling.members) else {}
    there = MarginWork(
        tiling, written, lambda pixel: partition_path(work.target / CATALOG, pixel), before, lambda pixel: work.old(MARGIN, pixel)
    )
    strips: dict[HealpixPixel, dict[HealpixPixel, str]] = {}
    counts = {True: 0, False: 0}
    for margin in margins(there):
        strips[margin.pixel] = margin.strips
        if not margin.strips:
            continue
        path = partition_path(work.target / MARGIN, margin.pixel)
        if margin.unchanged:
            link(work.old(MARGIN, margin.pixel), path)
        else:
            _write(_sorted(pa.concat_tables(margin.rows).cast(schema)), path)
        counts[margin.unchanged] += 1
        fault_point("publish.partition")
    return strips, (counts[False], counts[True])


def _write_stamps(work: Build, tiling: Tiling, keys: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """Write or link the index of stamps of every partition that has some; what each was made from, and their rows."""
    kept = kept_stores(work.layout, work.name, work.stock.shards)
    made: dict[str, str] = {}
    for pixel, members in tiling.members.items():
        stores = [kept[entry.path] for entry, _ in members if entry.path in kept]
        if not stores:
            continue
        name, path = name_of(pixel), partition_path(work.target / STAMPS, pixel)
        body = [keys[name], [[store.path, store.fingerprint, store.content_hash] for store in stores]]
        key = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        if work.before.stamps.get(name) == key:
            link(work.old(STAMPS, pixel), path)
        else:
            rows = index_rows(work.layout, partition_path(work.target / CATALOG, pixel), stores)
            if not rows.num_rows:
                continue
            _write(rows, path)
        made[name] = key
    return made, describe(work.target / STAMPS, STAMP_INDEX, map(pixel_of, made), INDEX)


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


def _key(members: Members, basis: str, resolver: Resolver) -> str:
    entries = [entry for entry, _ in members]
    body = [basis, [[entry.path, entry.content_hash] for entry in entries], resolver.depends_on(entries)]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _rows_of(work: Build, pixel: HealpixPixel, wanted: tuple[Members, pa.Schema]) -> tuple[pa.Table, pa.Table]:
    """A partition's rows, sorted by position: shard by shard, only the rows of the pixel are kept. And what was resolved."""
    members, schema = wanted
    parts, expected, resolved = [], 0, []
    work.resolver.forget(entry for entry, _ in members)
    for entry, rows in members:
        inside = pc.equal(pc.shift_right((table := _read(work, entry))[HEALPIX], 2 * (HEALPIX_ORDER - pixel.order)), pixel.pixel)
        part = table.filter(inside).cast(schema)
        verdicts = work.resolver.verdicts(entry)
        ids = part["source_id"].to_pylist()
        named = [(source, *verdicts[source]) for source in ids if source in verdicts]
        resolved += [(int(pixel.order), int(pixel.pixel), *verdict) for verdict in named]
        gone = {source for source, _, reason in named if reason != "rescued"}
        parts.append(part.filter(pa.array([source not in gone for source in ids], pa.bool_())) if gone else part)
        expected += rows - len(gone)
    whole = pa.concat_tables(parts)
    if whole.num_rows != expected:
        raise BadData(f"{expected} rows in pixel {pixel}", f"{whole.num_rows}", file=members[0][0].path)
    columns = list(zip(*sorted(resolved), strict=True)) or [()] * len(RESOLVED)
    table = pa.table([pa.array(values, item.type) for values, item in zip(columns, RESOLVED, strict=True)], schema=RESOLVED)
    return publishable(_sorted(whole)), table


def _read(work: Build, entry: Entry) -> pa.Table:
    path = work.shards / entry.path
    try:
        table, meta = read_shard(path)
    except BadData as error:
        if path.exists():
            raise
        raise StaleInventory(f"{entry.path} is gone") from error
    if meta.content_hash != entry.content_hash:
        raise StaleInventory(f"{entry.path} was replaced")
    return table


def _sorted(table: pa.Table) -> pa.Table:
    keys = table.select([HEALPIX, "source_id"])
    return table.take(pc.sort_indices(keys, sort_keys=[(HEALPIX, "ascending"), ("source_id", "ascending")]))


def _check(work: Build, rows: int, gone: int) -> None:
    expected = sum(entry.placed_rows for entry in work.stock.shards) - gone
    if rows != expected:
        raise BadData(f"{expected} rows, those of the shards that have a position, less {gone} resolved", f"{rows}", file=str(work.target))
    if not is_valid_collection(work.target, strict=True):
        raise BadData("a catalog and a margin that hats finds valid", "an invalid one", file=str(work.target))
    if not is_valid_catalog(work.target / STAMPS, strict=True):
        raise BadData("an index of stamps that hats finds valid", "an invalid one", file=str(work.target / STAMPS))
