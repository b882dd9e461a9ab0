"""What a run will do: the bricks of a region of the sky, once each, with an estimate of files and bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from galpipe.config import FetchSettings
from galpipe.errors import ConfigurationError
from galpipe.survey.region import parse_region
from galpipe.survey.releases import Release
from galpipe.unit import Unit

RESOLVE_DEC = 32.375
"""Deg, an edge of the brick grid: north of it (and of the Galactic plane) a source comes from the northern survey."""

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
        Band letters by region.
    files_estimate, bytes_estimate : int
        To fetch, from the size of one brick's files.
    missing : tuple of str
        Bricks asked for by name that the release does not have.
    """

    units: tuple[Unit, ...]
    bands: dict[str, tuple[str, ...]]
    files_estimate: int
    bytes_estimate: int
    missing: tuple[str, ...] = field(default=())


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
    units: list[Unit] = []
    bands: dict[str, tuple[str, ...]] = {}
    names = release.regions()
    for name in names:
        table = release.brick_table(name)
        chosen = region.touches(table)
        if len(names) > 1:
            chosen &= resolved(table, name)
        found = table.filter(pa.array(chosen)).sort_by("brickid")["brickname"].to_pylist()
        units += [Unit(release.name, name, brick) for brick in found]
        bands[name] = settings.bands or release.bands(name)
    if not units:
        raise ConfigurationError("a region with bricks in it", f"{region_text!r}, which has none", unit=release.name)
    have = {unit.brick for unit in units}
    missing = tuple(brick for brick in region.named() if brick not in have)
    files, size = _estimate(release, units[len(units) // 2], settings, bands)
    return Plan(tuple(units), bands, files * len(units), size * len(units), missing)


def resolved(table: pa.Table, region: str) -> NDArray[np.bool_]:
    """Which bricks of a region to take when the release has north and south, shape (rows,).

    ``survey_primary`` where the table has it; else north where Dec >= 32.375 and Galactic latitude > 0, and south elsewhere
    (the rule of the survey's own target selection).
    """
    ra, dec = (np.asarray(table[name].to_numpy(), np.float64) for name in ("ra", "dec"))
    latitude = SkyCoord(ra * u.deg, dec * u.deg).galactic.b.deg
    north = (dec >= RESOLVE_DEC) & (latitude > 0)
    by_rule = north if region == "north" else ~north if region == "south" else np.ones(table.num_rows, bool)
    stated = np.array([-1 if value is None else int(value) for value in table["survey_primary"].to_pylist()], np.int64)
    return np.where(stated >= 0, stated > 0, by_rule)


def _estimate(release: Release, unit: Unit, fetch: FetchSettings, bands: dict[str, tuple[str, ...]]) -> tuple[int, int]:
    """Files and bytes of one brick: measured on the one in the middle, or typical where that fails."""
    wanted = release.wanted_files(unit, fetch, bands[unit.region])
    sizes = [release.source.size(item.path) for item in wanted]
    known = [size for size in sizes if size is not None]
    if known:
        return len(known), sum(known)
    return len(wanted), sum(TYPICAL_BYTES.get(item.product, 1_000_000) for item in wanted)
