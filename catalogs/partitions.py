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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.io.validation import is_valid_catalog, is_valid_collection
from hats.pixel_math.healpix_pixel import HealpixPixel

from catalogs.hatsfiles import CATALOG, MARGIN, MARGIN_CACHE, OBJECT, STAMP_INDEX, STAMPS, collect, describe, partition_path, sky_map
from catalogs.inventory import Entry, Inventory, read_listed
from catalogs.margins import MARGIN_ARCSEC, MarginWork, margins
from catalogs.memory import KEYS as KEYS
from catalogs.memory import Memory, recall, remember
from catalogs.nested import publish_schema, publishable
from catalogs.parquet import PARQUET, published_options
from catalogs.resolve import RESOLVED, Resolver
from catalogs.schema import HEALPIX, HEALPIX_ORDER
from catalogs.shard import read_shard
from catalogs.stampindex import INDEX, index_rows, kept_stores
from catalogs.tiling import Limits, Tiling, tile
from galpipe.commit import fault_point, link
from galpipe.errors import BadData
from galpipe.fingerprint import ALGORITHM_VERSIONS
from galpipe.layout import Layout

RESOLVED_FILE = "resolved.parquet"
"""Name of the file that says which rows of the shards were left out because another brick has the source (`catalogs.resolve`)."""

Members = tuple[tuple[Entry, int], ...]
Resolved = tuple[int, int, int, int | None, str]
"""One row of `RESOLVED`."""
Progress = Callable[[int, int], None]


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

    def old(self, catalog: str, pixel: HealpixPixel) -> Path:
        """File of a partition in the version before, which there is."""
        if self.previous is None:
            raise RuntimeError("a link to a version before the first")
        return partition_path(self.previous / catalog, pixel)


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
    basis = _basis(schema)
    before, splits = recall(work.previous, basis)
    tiling = tile(work.stock, work.shards, splits, work.limits)
    made = _Making(work, tiling, schema, before, Memory(basis, split=tiling.split))
    told = made.partitions(progress)
    margins_written, margins_linked = made.margins()
    made.stamps()
    remember(work.target, made.now, tiling)
    pq.write_table(told, work.target / RESOLVED_FILE, **PARQUET)
    reasons = dict(sorted(Counter(told["reason"].to_pylist()).items()))
    made.describe()
    collect(work.target, work.name)
    fault_point("publish.metadata", work.target)
    rows, indexed, written = made.now.total(CATALOG), made.now.total(STAMPS), len(made.written)
    _check(work, rows, left_out(reasons))
    orders = Counter(int(pixel.order) for pixel in tiling.members)
    by_order = {str(order): count for order, count in sorted(orders.items())}
    kept = {"kept": indexed, "absent": rows - indexed}
    return Built(rows, written, len(tiling.members) - written, reasons, by_order, margins_written, margins_linked, kept)


def left_out(resolved: dict[str, int]) -> int:
    """Rows of shards that a version does not show, from its counts by reason."""
    return sum(count for reason, count in resolved.items() if reason != "rescued")


def _basis(schema: pa.Schema) -> str:
    """Hash of what all partitions and margins share."""
    body = [ALGORITHM_VERSIONS["publish"], schema.to_string(), MARGIN_ARCSEC]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


class _Making:
    """A version while it is made: what the one before remembers, and what this one will."""

    def __init__(self, work: Build, tiling: Tiling, schema: pa.Schema, before: Memory, now: Memory) -> None:
        self.work, self.tiling, self.schema = work, tiling, schema
        self.published = publish_schema(schema)
        self.before, self.now = before, now
        self.written: set[HealpixPixel] = set()

    def _link(self, catalog: str, pixel: HealpixPixel) -> None:
        link(self.work.old(catalog, pixel), partition_path(self.work.target / catalog, pixel))
        self.now.count(catalog, pixel, self.before.rows[catalog][pixel])

    def _write(self, catalog: str, pixel: HealpixPixel, table: pa.Table) -> None:
        path = partition_path(self.work.target / catalog, pixel)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **published_options(table.schema))
        self.now.count(catalog, pixel, table.num_rows)

    def partitions(self, progress: Progress | None) -> pa.Table:
        """Write or link every partition; returns what was resolved in all of them."""
        linked, told = set(), [RESOLVED.empty_table()]
        for done, (pixel, members) in enumerate(self.tiling.members.items(), 1):
            self.now.keys[pixel] = key = partition_key(members, self.now.basis, self.work.resolver)
            if self.before.keys.get(pixel) == key:
                self._link(CATALOG, pixel)
                linked.add(pixel)
            else:
                rows, resolved = _rows_of(self.work, pixel, (members, self.schema))
                self._write(CATALOG, pixel, rows)
                self.written.add(pixel)
                told.append(resolved)
            fault_point("publish.partition", self.work.target)
            if progress:
                progress(done, len(self.tiling.members))
        if linked and self.work.previous:
            told.append(_resolved_before(self.work.previous, linked))
        return pa.concat_tables(told).sort_by([(name, "ascending") for name in ("order", "pixel", "source_id")]).combine_chunks()

    def margins(self) -> tuple[int, int]:
        """Write or link the margin of every pixel; how many were written and linked."""
        there = MarginWork(
            self.tiling,
            frozenset(self.written),
            frozenset(self.before.keys) - frozenset(self.tiling.members),
            lambda pixel: partition_path(self.work.target / CATALOG, pixel),
            self.before.strips,
            lambda pixel: self.work.old(MARGIN, pixel),
        )
        counts = {True: 0, False: 0}
        for margin in margins(there):
            if margin.strips or margin.pixel in self.tiling.members:
                self.now.strips[margin.pixel] = margin.strips
            if not margin.strips:
                continue
            if margin.unchanged:
                self._link(MARGIN, margin.pixel)
            else:
                self._write(MARGIN, margin.pixel, sorted_rows(pa.concat_tables(margin.rows).cast(self.published)))
            counts[margin.unchanged] += 1
            fault_point("publish.partition", self.work.target)
        return counts[False], counts[True]

    def stamps(self) -> None:
        """Write or link the index of stamps of every partition that has some."""
        kept = kept_stores(self.work.layout, self.work.name, self.work.stock.shards)
        for pixel, members in self.tiling.members.items():
            stores = [kept[entry.path] for entry, _ in members if entry.path in kept]
            if not stores:
                continue
            body = [self.now.keys[pixel], [[store.path, store.fingerprint, store.content_hash] for store in stores]]
            key = hashlib.sha256(json.dumps(body).encode()).hexdigest()
            if self.before.stamps.get(pixel) == key:
                self._link(STAMPS, pixel)
            else:
                rows = index_rows(self.work.layout, partition_path(self.work.target / CATALOG, pixel), stores)
                if not rows.num_rows:
                    continue
                self._write(STAMPS, pixel, rows)
            self.now.stamps[pixel] = key

    def describe(self) -> None:
        """Make catalogs of the three folders."""
        catalog, rows = self.work.target / CATALOG, self.now.rows
        before = self.work.previous / CATALOG if self.work.previous and self.before.keys else None
        counts = sky_map(catalog, before, self.written.__contains__, self.tiling.members)
        describe(catalog, OBJECT, rows.get(CATALOG, {}), self.published, counts)
        describe(self.work.target / MARGIN, MARGIN_CACHE, rows.get(MARGIN, {}), self.published)
        describe(self.work.target / STAMPS, STAMP_INDEX, rows.get(STAMPS, {}), INDEX)


def _resolved_before(previous: Path, linked: set[HealpixPixel]) -> pa.Table:
    table = pq.read_table(previous / RESOLVED_FILE, partitioning=None).cast(RESOLVED)
    places = zip(table["order"].to_pylist(), table["pixel"].to_pylist(), strict=True)
    return table.filter(pa.array([HealpixPixel(order, pixel) in linked for order, pixel in places], pa.bool_()))


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


def partition_key(members: Members, basis: str, resolver: Resolver) -> str:
    """Hash of everything that a partition is made from: a partition whose key did not change is linked.

    Parameters
    ----------
    members : tuple of (Entry, int)
        Shards with rows in it, and how many.
    basis : str
        Hash of what all partitions share.
    resolver : Resolver
        Knows which outcomes decide about rows at the edges of bricks.
    """
    entries = [entry for entry, _ in members]
    body = [basis, [[entry.path, entry.content_hash] for entry in entries], resolver.depends_on(entries)]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _rows_of(work: Build, pixel: HealpixPixel, wanted: tuple[Members, pa.Schema]) -> tuple[pa.Table, pa.Table]:
    """A partition's rows, sorted by position: shard by shard, only the rows of the pixel are kept. And what was resolved."""
    members, schema = wanted
    parts, expected = [], 0
    resolved: list[Resolved] = []
    work.resolver.forget(entry for entry, _ in members)
    for entry, rows in members:
        part, told = rows_in(work.shards, entry, pixel, work.resolver)
        parts.append(part.cast(schema))
        resolved += told
        expected += rows - sum(reason != "rescued" for *_, reason in told)
    whole = pa.concat_tables(parts)
    if whole.num_rows != expected:
        raise BadData(f"{expected} rows in pixel {pixel}", f"{whole.num_rows}", file=members[0][0].path)
    return publishable(sorted_rows(whole)), resolved_table(sorted(resolved))


def resolved_table(rows: Sequence[Resolved]) -> pa.Table:
    """Rows as a table of `RESOLVED`."""
    columns = list(zip(*rows, strict=True)) or [()] * len(RESOLVED)
    return pa.table([pa.array(values, item.type) for values, item in zip(columns, RESOLVED, strict=True)], schema=RESOLVED)


def rows_in(shards: Path, entry: Entry, pixel: HealpixPixel, resolver: Resolver) -> tuple[pa.Table, list[Resolved]]:
    """The rows of a shard in a pixel that a version shows, and what was resolved about rows in it.

    Raises
    ------
    BadData
        If the shard does not read.
    StaleInventory
        If it is gone or was replaced.
    """
    table = read_listed(shards, entry, _read)
    part = table.filter(pc.equal(pc.shift_right(table[HEALPIX], 2 * (HEALPIX_ORDER - pixel.order)), pixel.pixel))
    verdicts = resolver.verdicts(entry)
    ids = part["source_id"].to_pylist()
    told = [(int(pixel.order), int(pixel.pixel), source, *verdicts[source]) for source in ids if source in verdicts]
    gone = {source for _, _, source, _, reason in told if reason != "rescued"}
    return part.filter(pa.array([source not in gone for source in ids], pa.bool_())) if gone else part, told


def _read(path: Path) -> tuple[pa.Table, str]:
    table, meta = read_shard(path)
    return table, meta.content_hash


def sorted_rows(table: pa.Table) -> pa.Table:
    """Rows by position, and by id where they share one."""
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
