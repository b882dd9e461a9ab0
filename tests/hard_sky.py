"""A mock sky of hard cases: two large galaxies, a bright star with galaxies in its halo, and a brick without any galaxy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galpipe.mock import release
from galpipe.mock.release import make_release
from galpipe.mock.sky import Catalog, brick_sky
from galpipe.mock.spec import MockSpec, MockSummary
from galpipe.survey.bricks import Brick

if TYPE_CHECKING:
    import pytest

HARD = MockSpec(bricks=2, seed=12, galaxies=16, faint=20, stars=12, center=(210.2, 5.3), empty_bricks=(1,), workers=1)
"""The second brick has stars only; what is put into the first one is below."""

DISK, ELLIPTICAL = 14.0, 9.5
"""Half-light radii (arcsec) of the two large galaxies."""

IN_HALO, IN_ELLIPSE = 3, 2
"""Galaxies moved into the bright star's mask, and into the large disk's ellipse."""

RADII = ("bulge_re", "disk_re", "half_light_radius", "bar_length", "ring_radius")


def hard_sky(spec: MockSpec, area: Brick, empty: bool = False) -> Catalog:
    """The spec's own sources; in the first brick some of them are made large, bright, or moved beside those."""
    catalog = brick_sky(spec, area, empty)
    first = spec.brick_list()[0]
    if area != first:
        return catalog
    galaxies = np.flatnonzero((catalog["kind"] != "star") & ~catalog["faint"])
    disk, elliptical, *others = galaxies.tolist()
    _enlarge(catalog, disk, "disk_spiral", (DISK, 5000.0))
    _enlarge(catalog, elliptical, "smooth_elliptical", (ELLIPTICAL, 1500.0))
    star = int(np.flatnonzero(catalog["kind"] == "star")[0])
    catalog["flux"][star] = 10 ** (0.4 * (22.5 - 10.5))
    for row, east, north in ((disk, 120.0, 150.0), (elliptical, -180.0, 60.0), (star, 100.0, -200.0)):
        _put(catalog, row, (first.ra, first.dec), (east, north))
    for k, row in enumerate(others[:IN_HALO]):
        _put(catalog, row, (catalog["ra"][star], catalog["dec"][star]), (13.0 * np.cos(2.0 * k), 13.0 * np.sin(2.0 * k)))
    for k, row in enumerate(others[IN_HALO : IN_HALO + IN_ELLIPSE]):
        # the disk's major axis runs north: both lie within its ellipse of three half-light radii
        _put(catalog, row, (catalog["ra"][disk], catalog["dec"][disk]), (0.0, (-1) ** k * 25.0))
    return catalog


def _enlarge(catalog: Catalog, row: int, kind: str, wanted: tuple[float, float]) -> None:
    """Another size (arcsec) and r flux (nanomaggies); the shape of its profile stays."""
    radius, flux = wanted
    catalog["kind"][row] = kind
    if kind == "smooth_elliptical":
        catalog["bulge"][row], catalog["bulge_n"][row], catalog["sersic_n"][row] = 1.0, 2.0, 2.0
        catalog["bulge_re"][row] = catalog["half_light_radius"][row]
    scale = radius / catalog["half_light_radius"][row]
    for name in RADII:
        catalog[name][row] *= scale
    for name in ("arms", "bar", "ring", "tail", "einstein", "arc", "clumps", "dust", "arm_strength"):
        catalog[name][row] = 0
    catalog["pa"][row], catalog["disk_q"][row], catalog["bulge_q"][row] = 0.0, 0.7, 0.8
    catalog["flux"][row] *= flux / catalog["flux"][row, 1]


def _put(catalog: Catalog, row: int, center: tuple[float, float], offset: tuple[float, float]) -> None:
    """Move a source to arcsec east and north of a position (deg)."""
    catalog["dec"][row] = center[1] + offset[1] / 3600
    catalog["ra"][row] = center[0] + offset[0] / 3600 / np.cos(np.radians(center[1]))


def build_hard(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    """Write the release, once per session however many fixtures ask; read only."""
    return _build(tmp_path_factory.getbasetemp() / "hard-release" / "dr9")


@cache
def _build(folder: Path) -> MockSummary:
    kept = release.brick_sky
    release.brick_sky = hard_sky
    try:
        return make_release(folder, HARD)
    finally:
        release.brick_sky = kept
