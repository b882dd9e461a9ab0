"""What a run will do: the bricks of a region of the sky, once each, with an estimate of files and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from galpipe.config import FetchSettings
from galpipe.errors import ConfigurationError
from galpipe.survey.files import NEIGHBOUR
from galpipe.survey.region import parse_region
from galpipe.survey.releases import Release
from galpipe.unit import Unit

RESOLVE_DEC = 32.375
"""Deg, an edge of the brick grid: north of it (and of the Galactic plane) a source comes from the northern survey."""

RULED = ("north", "south")
"""Regions that the rule knows."""

TYPICAL_BYTES = {"image": 12_000_000, "invvar": 11_000_000, "nexp": 300_000, "psfsize": 400_000, "maskbits": 400_000, "tractor": 13_000_000}
"""Published mean sizes, used where no brick of the plan can be measured."""


@dataclass(frozen=True)
class Plan:
    """What will be fetched.

    Parameters
    ----------
    units : tuple of Unit
        Sorted by region and brickid.
    bands : dict
        Bands to fetch by region: those asked for that it has.
    files_estimate, bytes_estimate : int
        To fetch, from the size of one brick's files.
    missing : tuple of str
        Bricks asked for by name that the release does not have.
    notes : tuple of str
        What else there is to know before it starts: bands that are left aside, bricks in regions that no rule parts.
    """

    units: tuple[Unit, ...]
    bands: dict[str, tuple[str, ...]]
    files_estimate: int
    bytes_estimate: int
    missing: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


def make_plan(release: Release, region_text: str, fetch: FetchSettings | None = None) -> Plan:
    """The bricks of a release that a region touches.

    Parameters
    ----------
    release : Release
    region_text : str
        See `galpipe.survey.region.parse_region`.
    fetch : FetchSettings, optional
        Which products are wanted, for the estimate.

    Raises
    ------
    ConfigurationError
        If the region is not understood or has no brick in the release.
    BadData, RemoteFailure
        If the brick tables cannot be had.
    """
    region, settings = parse_region(region_text), fetch or FetchSettings()
    tables = {name: release.brick_table(name) for name in release.regions()}
    tables = {name: table.filter(pa.array(region.touches(table))) for name, table in tables.items()}
    owned, notes = resolve(tables)
    units: list[Unit] = []
    bands: dict[str, tuple[str, ...]] = {}
    for name, table in tables.items():
        found = table.filter(pa.array(owned[name])).select(["brickid", "brickname"]).sort_by("brickid")["brickname"].to_pylist()
        units += [release.unit(name, brick) for brick in found]
        own = release.bands(name)
        bands[name] = tuple(band for band in own if band in (settings.bands or own))
        if set(own) - set(bands[name]):
            notes.append(f"{name}: bands that are not asked for: {', '.join(sorted(set(own) - set(bands[name])))}")
    if not units:
        raise ConfigurationError("a region with bricks in it", f"{region_text!r}, which has none", unit=release.name)
    have = {unit.brick for unit in units} if region.named() else set()
    missing = tuple(brick for brick in region.named() if brick not in have)
    files, size = _estimate(release, units[len(units) // 2], settings, bands)
    return Plan(tuple(units), bands, files * len(units), size * len(units), missing, tuple(notes))


def resolve(tables: Mapping[str, pa.Table]) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Which region each brick is taken from: every brick of the tables once, unless a table says that another region has it.

    ``survey_primary`` where the table has it; else north where Dec >= 32.375 and Galactic latitude > 0, and south elsewhere (the
    rule of the survey's own target selection). A brick that is still in several regions (each table of a union may claim it) goes
    by that rule; a region that the rule does not know comes after the two that it knows. A single region is taken whole.

    Parameters
    ----------
    tables : mapping of str to pyarrow.Table
        Brick tables by region, as `galpipe.survey.tables.read_brick_table`.

    Returns
    -------
    owned : dict of ndarray of bool, shape (rows,) each
    notes : list of str
        Bricks that no rule parts.
    """
    if len(tables) == 1:
        return {name: np.ones(table.num_rows, bool) for name, table in tables.items()}, []
    claims = {name: _claimed(table, name) for name, table in tables.items()}
    brickid = np.concatenate([table["brickid"].to_numpy() for table in tables.values()])
    rank = np.concatenate([_rank(table, name) for name, table in tables.items()])
    claimed, order = np.concatenate(list(claims.values())), np.argsort(rank, kind="stable")
    order = order[claimed[order]]
    kept = np.zeros(len(brickid), bool)
    kept[order[np.unique(brickid[order], return_index=True)[1]]] = True
    strange = [name for name in tables if name not in RULED]
    doubled = len(order) - np.count_nonzero(kept)
    notes = [f"{doubled} bricks are in several regions, and no rule is known for {', '.join(strange)}"] if strange and doubled else []
    ends = np.cumsum([table.num_rows for table in tables.values()])
    return dict(zip(tables, np.split(kept, ends[:-1]), strict=True)), notes


def _northern(table: pa.Table) -> NDArray[np.bool_]:
    ra, dec = (np.asarray(table[name].to_numpy(), np.float64) for name in ("ra", "dec"))
    north = dec >= RESOLVE_DEC
    if north.any():
        north[north] = SkyCoord(ra[north] * u.deg, dec[north] * u.deg).galactic.b.deg > 0
    return north


def _claimed(table: pa.Table, region: str) -> NDArray[np.bool_]:
    """The table's own word, or the rule's where it has none; shape (rows,)."""
    stated = np.asarray(table["survey_primary"].cast(pa.int8()).fill_null(-1).to_numpy())
    return np.where(stated >= 0, stated > 0, _rank(table, region) < 2)


def _rank(table: pa.Table, region: str) -> NDArray[np.int64]:
    """0 where the rule gives a brick to the region, 1 where it says nothing of the region, 2 where it gives it to another."""
    if region not in RULED:
        return np.ones(table.num_rows, np.int64)
    return np.where(_northern(table) == (region == "north"), 0, 2)


def _estimate(release: Release, unit: Unit, fetch: FetchSettings, bands: dict[str, tuple[str, ...]]) -> tuple[int, int]:
    """Files and bytes of one brick: measured on the one in the middle, or typical where that fails."""
    wanted = release.wanted_files(unit, fetch, bands[unit.region])
    sizes = [release.source.size(item.path) for item in wanted]
    known = [size for size in sizes if size is not None]
    if known:
        return len(known), sum(known)
    return len(wanted), sum(TYPICAL_BYTES.get(item.product.partition(NEIGHBOUR)[0], 1_000_000) for item in wanted)
