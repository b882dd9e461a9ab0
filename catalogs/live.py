"""The catalog as it would be published now: the newest version, with the shards that changed since.

Shards and outcomes are compared with the inventory of the version. The rows of bricks that changed, and of those whose rows at common
edges depend on them, come from their shards, resolved as publication resolves them, so that no source is there twice; all other rows are
the version's. Partitions that differ are written to a folder outside the root, the others are read where they are.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.pixel_math.healpix_pixel import HealpixPixel

from catalogs import inventory
from catalogs.diff.pairs import Cell, cell_of
from catalogs.hats import CURRENT, INVENTORY, version_folder
from catalogs.hatsfiles import COMMON, partition_path
from catalogs.inventory import Entry, Inventory, StaleInventory
from catalogs.nested import publish_schema, publishable
from catalogs.parquet import PARQUET
from catalogs.partitions import RESOLVED_FILE, resolved_table, rows_in, sorted_rows
from catalogs.resolve import RESOLVED, Resolver
from catalogs.schema import HEALPIX, HEALPIX_ORDER, PARTITION_ORDER
from catalogs.versions import partitions_of
from galpipe.errors import ConfigurationError, ResourceFailure
from galpipe.layout import Layout
from galpipe.survey.bricks import brick_by_id, brickids_of, geometry_of, ids_at, known_brick, names_of
from galpipe.survey.neighbours import touching
from galpipe.survey.region import Box, Cone, Everything, Region, parse_region

_ATTEMPTS = 3

_FEW = 2000
"""Bricks up to which naming them one by one is quicker than sorting the names of all."""


@dataclass(frozen=True)
class LiveFolder:
    """What reads like a version.

    Parameters
    ----------
    path : Path
        Holds what differs from the version, and ``resolved.parquet``; outside the root.
    files : tuple of Path
        All partitions, those of the version among them; of an empty catalog the file with the columns.
    schema : pyarrow.Schema
        Columns as published.
    replaced : tuple of str
        Bricks whose rows come from shards, ``release/region/brick``.
    partitions_written : int
    """

    path: Path
    files: tuple[Path, ...]
    schema: pa.Schema
    replaced: tuple[str, ...]
    partitions_written: int

    def last_as_long_as(self, owner: object) -> None:
        """Delete the folder with an object, or at the end of the process."""
        weakref.finalize(owner, shutil.rmtree, self.path, ignore_errors=True)


def live_folder(layout: Layout, name: str, region: str = "all") -> LiveFolder | None:
    """What a publication would show now, in a region.

    Parameters
    ----------
    layout : Layout
    name : str
    region : str
        As `galpipe.survey.region.parse_region` reads it. Files of bricks that it does not touch are not looked at; beyond it rows
        are the version's.

    Returns
    -------
    LiveFolder or None
        None for the whole of a catalog that has no version yet.

    Raises
    ------
    ConfigurationError
        If there is neither a version nor a shard in the region, the shards have other columns than the version, or they are of more
        than one model or of other settings: a publication would refuse them too.
    BadData
        If a shard does not read.
    ResourceFailure
        If shards keep changing while they are read.
    """
    wanted = parse_region(region)
    base = version_folder(layout, name) if (layout.hats(name) / CURRENT).exists() else None
    if base is None and isinstance(wanted, Everything):
        return None
    for _ in range(_ATTEMPTS):
        target = Path(tempfile.mkdtemp(prefix="galpipe-live-"))
        try:
            return _Live(layout, name, base, target).make(_nearby(wanted))
        except StaleInventory:
            shutil.rmtree(target, ignore_errors=True)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    raise ResourceFailure("shards that keep still while they are read", f"changes in {_ATTEMPTS} attempts", file=str(layout.catalog(name)))


@dataclass(frozen=True)
class _Nearby:
    """Bricks whose rows may lie in the region, and those on which what is published of them depends; None for all."""

    rows: frozenset[str] | None
    asked: frozenset[str] | None


def _nearby(region: Region) -> _Nearby:
    if isinstance(region, Everything):
        return _Nearby(None, None)
    inside = list(region.named()) or _touched(region)
    rows = _grown(inside)
    # a row's fate depends on the bricks around its own, and theirs on one ring more
    return _Nearby(rows, _grown(_grown(rows)))


def _touched(region: Region) -> list[str]:
    """Bricks that a region touches, looked for in its rows of the grid only where it says how far north and south it goes."""
    low, high = -90.0, 90.0
    if isinstance(region, Cone):
        low, high = region.dec - region.radius, region.dec + region.radius
    if isinstance(region, Box):
        low, high = region.dec1, region.dec2
    ids = np.arange(int(ids_at(0.0, max(-90.0, low))), int(ids_at(360 - 1e-9, min(90.0, high))) + 1)
    found = ids[region.touches(pa.table({"brickid": ids, **geometry_of(ids)}))]
    return [brick_by_id(brickid).name for brickid in found.tolist()] if len(found) < _FEW else names_of(found).tolist()


def _grown(names: Iterable[str]) -> frozenset[str]:
    listed = list(names)
    return frozenset(listed) | {other.name for name in listed if (area := known_brick(name)) for other in touching(area)}


def _unit_of(path: str) -> str:
    """``release/region/brick`` of a shard or outcomes file."""
    release, region, _, file = path.split("/")
    return f"{release}/{region}/{file.partition('.')[0]}"


def _brick_of(unit: str) -> str:
    return unit.rpartition("/")[2]


@dataclass
class _Live:
    """One folder in the making."""

    layout: Layout
    name: str
    base: Path | None
    target: Path
    told: list[pa.Table] = field(default_factory=list)
    written: int = 0

    def make(self, nearby: _Nearby) -> LiveFolder:
        before, now = self._inventories(nearby)
        replaced = _replaced(before, now, nearby)
        shards = {_unit_of(entry.path): entry for entry in now.shards}
        touched: dict[int, list[Entry]] = {}
        for entry in (*before.shards, *now.shards):
            unit = _unit_of(entry.path)
            for pixel, _ in entry.pixels if unit in replaced else ():
                members = touched.setdefault(pixel, [])
                if unit in shards and shards[unit] not in members:
                    members.append(shards[unit])
        schema = self._schema(now)
        resolver = Resolver(self.layout.catalog(self.name), now.outcomes)
        published = {cell_of(path): path for path in (partitions_of(self.base) if self.base else [])}
        for pixel, members in sorted(touched.items()):
            resolver.forget(members)
            cells = {cell: path for cell, path in published.items() if cell.at(PARTITION_ORDER) == pixel}
            self._pixel(Cell(PARTITION_ORDER, pixel), cells, self._rows(members, resolver, schema, pixel), replaced)
        shared = [path for cell, path in published.items() if cell.at(PARTITION_ORDER) not in touched]
        self._finish(schema, replaced)
        files = (*partitions_of(self.target), *shared) or (self.target / COMMON,)
        return LiveFolder(self.target, files, schema, tuple(sorted(replaced)), self.written)

    def _inventories(self, nearby: _Nearby) -> tuple[Inventory, Inventory]:
        groups = None if nearby.asked is None else frozenset(name[:2] for name in nearby.asked)
        before = inventory.load(self.base / INVENTORY, groups) if self.base else Inventory((), ())
        if nearby.asked is not None:
            before = Inventory(
                *(tuple(entry for entry in part if _brick_of(_unit_of(entry.path)) in nearby.asked) for part in _parts(before))
            )
        files = None if nearby.asked is None else _files_of(self.layout.catalog(self.name), nearby.asked)
        now = inventory.take(self.layout, self.name, before, files)
        if self.base is None and not now.shards:
            raise ConfigurationError(f"shards of catalog {self.name!r}", "none in the region", file=str(self.layout.catalog(self.name)))
        if mixed := now.mixture():
            raise ConfigurationError(
                f"shards of one model and configuration in catalog {self.name!r}", f"{mixed}; run the other bricks again"
            )
        return before, now

    def _schema(self, now: Inventory) -> pa.Schema:
        """Columns as published."""
        if self.base is not None:
            return pq.read_schema(self.base / COMMON)
        return publish_schema(pq.read_schema(self.layout.catalog(self.name) / now.shards[0].path).remove_metadata())

    def _rows(self, members: list[Entry], resolver: Resolver, schema: pa.Schema, pixel: int) -> pa.Table:
        """Rows of shards in a pixel, as publication would show them."""
        parts = [schema.empty_table()]
        for entry in members:
            part, told = rows_in(self.layout.catalog(self.name), entry, HealpixPixel(PARTITION_ORDER, pixel), resolver)
            if sorted(part.column_names) != sorted(schema.names):
                odd = sorted(set(part.column_names) ^ set(schema.names))
                raise ConfigurationError(
                    "shards with the columns of the newest version", f"differences {odd[:6]}; publish", file=entry.path
                )
            parts.append(publishable(part).select(schema.names).cast(schema))
            self.told.append(resolved_table(told))
        return pa.concat_tables(parts)

    def _pixel(self, root: Cell, published: dict[Cell, Path], fresh: pa.Table, replaced: set[str]) -> None:
        """Write the partitions of a pixel: what stays of each, and the fresh rows that lie in it."""
        for cell, path in published.items():
            inside = pc.equal(pc.shift_right(fresh[HEALPIX], 2 * (HEALPIX_ORDER - cell.order)), cell.pixel)
            old = pq.ParquetFile(path).read()
            self._write(cell, pa.concat_tables([old.filter(_stays(old, replaced)), fresh.filter(inside).cast(old.schema)]))
            fresh = fresh.filter(pc.invert(inside))
        if fresh.num_rows:
            self._write(root, fresh)

    def _write(self, cell: Cell, table: pa.Table) -> None:
        path = partition_path(self.target, HealpixPixel(cell.order, cell.pixel))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(sorted_rows(table), path, **PARQUET)
        self.written += 1

    def _finish(self, schema: pa.Schema, replaced: set[str]) -> None:
        """What reading a version takes besides its partitions."""
        (self.target / COMMON).parent.mkdir(exist_ok=True)
        pq.write_metadata(schema, self.target / COMMON)
        told = [RESOLVED.empty_table(), *self.told]
        if self.base is not None:
            old = pq.read_table(self.base / RESOLVED_FILE, partitioning=None).select(RESOLVED.names).cast(RESOLVED)
            ids = brickids_of(sorted({_brick_of(unit) for unit in replaced})) if replaced else np.empty(0, np.int64)
            bricks = old["source_id"].to_numpy() >> 22 & (1 << 20) - 1
            told.append(old.filter(pa.array(~np.isin(bricks, ids))))
        pq.write_table(pa.concat_tables(told), self.target / RESOLVED_FILE, **PARQUET)


def _parts(stock: Inventory) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    return stock.shards, stock.outcomes


def _replaced(before: Inventory, now: Inventory, nearby: _Nearby) -> set[str]:
    """Bricks whose published rows do not count any more, or may not: ``release/region/brick``."""
    shards, outcomes = (
        {path for path, _ in {(entry.path, entry.content_hash) for entry in one} ^ {(entry.path, entry.content_hash) for entry in other}}
        for one, other in zip(_parts(before), _parts(now), strict=True)
    )
    asked_anew = _grown(_brick_of(_unit_of(path)) for path in outcomes)
    units = {_unit_of(entry.path) for entry in (*before.shards, *now.shards)}
    found = {_unit_of(path) for path in shards} | {unit for unit in units if _brick_of(unit) in asked_anew}
    return {unit for unit in found if nearby.rows is None or _brick_of(unit) in nearby.rows}


def _stays(rows: pa.Table, replaced: set[str]) -> pa.ChunkedArray:
    """Rows that are of none of the bricks."""
    units = pc.binary_join_element_wise(rows["release_name"], rows["region"], rows["brickname"], "/")
    return pc.invert(pc.fill_null(pc.is_in(units, pa.array(sorted(replaced), pa.string())), False))


def _files_of(folder: Path, bricks: frozenset[str]) -> Iterator[Path]:
    """Shards and outcomes of bricks, sorted, without looking at those of others."""
    groups = sorted({name[:3] for name in bricks})
    for region in sorted(folder.glob("*/*/")):
        for group in groups:
            for path in sorted((region / group).glob("*.parquet")):
                if path.name.partition(".")[0] in bricks:
                    yield path
