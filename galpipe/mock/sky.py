"""The true sky of a brick: which sources there are, and what each one is.

Every brick's sources are drawn from ``(seed, brickid)`` alone, so that any frame that overlaps the brick shows the same ones.

How magnitudes, colors, sizes and redshifts hang together is stated in `galpipe.mock.populations`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from galpipe.mock.populations import Floats, fluxes, magnitudes, redshifts, single_component, sizes, step_n
from galpipe.mock.spec import BRIGHT_LIMIT, EDGE_REACH, FAINT_SLOPE, MockSpec
from galpipe.survey.bricks import Brick

Catalog = NDArray[np.void]
"""Structured array of `SOURCE`, one element per true source."""

KINDS = {
    "smooth_elliptical": 0.30,
    "disk_spiral": 0.24,
    "disk_barred": 0.13,
    "ring": 0.06,
    "edge_on": 0.10,
    "merger": 0.05,
    "lens": 0.03,
    "irregular": 0.09,
}
"""Share of each kind among galaxies with z < 20; rare kinds are far more frequent than in the sky."""

SOURCE = np.dtype(
    [
        ("brickid", "i4"),
        ("number", "i4"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("kind", "U17"),
        ("faint", "?"),
        ("flux", "f8", 4),  # g, r, i, z nanomaggies, all components
        ("redshift", "f8"),
        ("bulge", "f8", 4),  # share of the flux in the bulge, per band
        ("bulge_re", "f8"),
        ("bulge_n", "f8"),
        ("bulge_q", "f8"),
        ("disk_re", "f8"),
        ("disk_q", "f8"),
        ("pa", "f8"),
        ("half_light_radius", "f8"),
        ("sersic_n", "f8"),
        ("arms", "i4"),
        ("pitch", "f8"),
        ("arm_strength", "f8"),
        ("bar", "f8"),
        ("bar_length", "f8"),
        ("ring", "f8"),
        ("ring_radius", "f8"),
        ("tail", "f8"),
        ("einstein", "f8"),
        ("arc", "f8"),
        ("clumps", "f8"),
        ("dust", "f8"),
        ("spin", "f8"),
        ("pattern", "u4"),
    ]
)
"""One true source. Radii in arcsec along the major axis, angles in degrees east of north, strengths as shares of the disk's flux."""


def brick_sky(spec: MockSpec, area: Brick, empty: bool = False) -> Catalog:
    """All true sources whose centers lie in a brick's own area.

    Parameters
    ----------
    spec : MockSpec
    area : Brick
    empty : bool
        Leave the galaxies out.
    """
    if spec.sky == "survey":
        # the other sky is built from this module's pieces
        from galpipe.mock.universe import survey_sky

        return survey_sky(spec, area, empty)
    rng = np.random.default_rng([spec.seed, area.brickid])
    parts = [_bright(rng, spec.galaxies), _faint(rng, spec.faint, spec.faint_limit), _stars(rng, spec.stars)]
    catalog = np.concatenate(parts)
    catalog["ra"] = rng.uniform(area.ra1, area.ra2, len(catalog))
    low, high = np.sin(np.radians([area.dec1, area.dec2]))
    catalog["dec"] = np.degrees(np.arcsin(rng.uniform(low, high, len(catalog))))
    bring_together(rng, catalog)
    finish_places(spec, catalog, area)
    catalog["brickid"] = area.brickid
    catalog["number"] = np.arange(len(catalog))
    return catalog[catalog["kind"] == "star"] if empty else catalog


def finish_places(spec: MockSpec, catalog: Catalog, area: Brick) -> None:
    """Move what is wanted at the edges there, and keep every source inside its brick (in place)."""
    if area.ra2 - area.ra1 == 360:
        catalog["ra"] %= 360  # around the pole there is no edge to stop at
    if spec.edge_galaxies:
        _to_the_edges(np.random.default_rng([spec.seed, area.brickid, 5]), catalog[: min(spec.edge_galaxies, spec.galaxies)], area)
    catalog["ra"] = np.clip(catalog["ra"], area.ra1 + 1e-7, area.ra2 - 1e-7)
    catalog["dec"] = np.clip(catalog["dec"], area.dec1 + 1e-7, area.dec2 - 1e-7)


def _to_the_edges(rng: np.random.Generator, catalog: Catalog, area: Brick) -> None:
    """Move sources to just inside the edges of their brick, in turn west, east, south and north."""
    inside = EDGE_REACH * rng.uniform(0, 1, len(catalog)) / 3600
    side = np.arange(len(catalog)) % 4
    across = inside / np.cos(np.radians(catalog["dec"]))
    catalog["ra"] = np.select([side == 0, side == 1], [area.ra1 + across, area.ra2 - across], catalog["ra"])
    catalog["dec"] = np.select([side == 2, side == 3], [area.dec1 + inside, area.dec2 - inside], catalog["dec"])


def blank(count: int) -> Catalog:
    """Sources without any light."""
    catalog = np.zeros(count, SOURCE)
    catalog["bulge_n"], catalog["bulge_q"], catalog["disk_q"] = 4.0, 1.0, 1.0
    return catalog


def _bright(rng: np.random.Generator, count: int) -> Catalog:
    """Galaxies with z < 20, with all their structure."""
    catalog = blank(count)
    names = np.array(list(KINDS))
    catalog["kind"] = rng.choice(names, count, p=np.array(list(KINDS.values())))
    kind = catalog["kind"]
    pair_mergers(catalog)
    z_mag = magnitudes(rng, count, (14.5, 20.0), 0.35)
    z_mag[kind == "lens"] = 17.0 + 3.0 * rng.random(count)[kind == "lens"]
    early = np.select(
        [kind == "smooth_elliptical", kind == "lens", kind == "irregular", kind == "edge_on"],
        [rng.uniform(0.75, 1, count), np.ones(count), rng.uniform(0, 0.1, count), rng.uniform(0.1, 0.6, count)],
        rng.uniform(0.0, 0.55, count),
    )
    catalog["redshift"] = redshifts(rng, z_mag)
    catalog["flux"] = fluxes(rng, z_mag, catalog["redshift"], early)
    structure(rng, catalog, sizes(rng, z_mag, catalog["redshift"], early))
    return catalog


def pair_mergers(catalog: Catalog) -> None:
    """Make the number of merging galaxies even: they come in pairs of neighbouring rows of that kind."""
    merging = np.flatnonzero(catalog["kind"] == "merger")
    if len(merging) % 2:
        catalog["kind"][merging[-1]] = "disk_spiral"


def structure(rng: np.random.Generator, catalog: Catalog, size: Floats) -> None:
    """Fill in bulges, disks and what makes each kind; ``size`` is the wanted half-light radius (arcsec)."""
    count, kind = len(catalog), catalog["kind"]
    smooth = np.isin(kind, ["smooth_elliptical", "lens"])
    pure = smooth & ((rng.random(count) < 0.7) | (kind == "lens"))
    share = np.where(smooth, rng.uniform(0.4, 0.8, count), rng.beta(1.6, 5.0, count))
    share = np.where(pure, 1.0, np.where(kind == "irregular", 0.0, np.where(kind == "edge_on", share * 0.8, share)))
    catalog["bulge"] = np.minimum(share[:, None] * np.array([0.82, 1.0, 1.08, 1.14]), 1.0)
    catalog["bulge"][pure] = 1.0
    catalog["bulge_n"] = step_n(np.where(pure, rng.uniform(2.0, 5.5, count), rng.uniform(1.5, 4.0, count)))
    catalog["bulge_re"] = np.where(pure, size, size * rng.uniform(0.15, 0.4, count))
    catalog["disk_re"] = size * np.where(pure, 1.0, 1.0 + 0.5 * share)
    thin = rng.uniform(0.12, 0.22, count)
    tilt = rng.uniform(0.25, 1.0, count)
    catalog["disk_q"] = np.where(kind == "edge_on", thin, np.sqrt(tilt**2 * (1 - 0.15**2) + 0.15**2))
    rounder = rng.uniform(0.5, 1.0, count)
    catalog["bulge_q"] = np.where(pure, rounder, 0.35 + 0.65 * catalog["disk_q"])
    catalog["pa"] = rng.uniform(0, 180, count)
    radius, n = single_component(catalog["bulge"][:, 1], catalog["bulge_re"], catalog["bulge_n"], catalog["disk_re"])
    catalog["half_light_radius"], catalog["sersic_n"] = radius, n
    catalog["sersic_n"][pure] = catalog["bulge_n"][pure]
    _features(rng, catalog)


def _features(rng: np.random.Generator, catalog: Catalog) -> None:
    count, kind = len(catalog), catalog["kind"]
    spiral = np.isin(kind, ["disk_spiral", "disk_barred"]) | ((kind == "ring") & (rng.random(count) < 0.3))
    arms = rng.choice([1, 2, 3, 4, 5], count, p=[0.06, 0.58, 0.16, 0.12, 0.08])
    catalog["arms"] = np.where(spiral, arms, 0)
    catalog["pitch"] = rng.uniform(9, 35, count)
    catalog["arm_strength"] = np.where(spiral, rng.uniform(0.35, 0.95, count), 0)
    barred = (kind == "disk_barred") | (np.isin(kind, ["disk_spiral", "ring"]) & (rng.random(count) < 0.1))
    catalog["bar"] = np.where(barred, rng.uniform(0.08, 0.30, count), 0)
    catalog["bar_length"] = catalog["disk_re"] * rng.uniform(0.5, 1.0, count)
    catalog["ring"] = np.where(kind == "ring", rng.uniform(0.30, 0.65, count), 0)
    catalog["ring_radius"] = catalog["disk_re"] * rng.uniform(0.9, 1.6, count)
    catalog["tail"] = np.where(kind == "merger", rng.uniform(0.15, 0.35, count), 0)
    catalog["einstein"] = np.where(kind == "lens", rng.uniform(1.2, 3.2, count), 0)
    catalog["arc"] = np.where(kind == "lens", rng.uniform(0.12, 0.35, count), 0)
    catalog["clumps"] = np.select(
        [kind == "irregular", catalog["arms"] > 0], [rng.uniform(0.3, 0.6, count), rng.uniform(0.0, 0.2, count)], 0.0
    )
    catalog["dust"] = np.where((kind == "edge_on") & (rng.random(count) < 0.5), rng.uniform(0.3, 0.7, count), 0)
    catalog["spin"] = rng.choice([-1.0, 1.0], count)
    catalog["pattern"] = rng.integers(0, 2**32, count, dtype=np.uint32)
    lens = kind == "lens"
    # the deflector must not outshine its arcs: a larger Einstein radius than half-light radius
    catalog["half_light_radius"][lens] = np.minimum(catalog["half_light_radius"], 1.6)[lens]
    for name in ("bulge_re", "disk_re"):
        catalog[name][lens] = np.minimum(catalog[name], 1.6)[lens]


def _faint(rng: np.random.Generator, count: int, limit: float) -> Catalog:
    """Galaxies from z = 20 to the limit: one Sersic component, no structure."""
    catalog = blank(count)
    z_mag = magnitudes(rng, count, (BRIGHT_LIMIT, limit), FAINT_SLOPE)
    early = (rng.random(count) < 0.25) * rng.uniform(0.6, 1.0, count)
    catalog["kind"] = np.where(early > 0, "smooth_elliptical", np.where(rng.random(count) < 0.5, "disk_spiral", "irregular"))
    catalog["faint"] = True
    catalog["redshift"] = redshifts(rng, z_mag)
    catalog["flux"] = fluxes(rng, z_mag, catalog["redshift"], early)
    catalog["bulge"] = (early > 0)[:, None]
    catalog["bulge_n"] = step_n(np.where(early > 0, rng.uniform(1.5, 4.5, count), 1.0))
    size = np.minimum(sizes(rng, z_mag, catalog["redshift"], early), 2.5)
    catalog["bulge_re"] = catalog["disk_re"] = catalog["half_light_radius"] = size
    catalog["bulge_q"] = catalog["disk_q"] = rng.uniform(0.25, 1.0, count)
    catalog["sersic_n"] = catalog["bulge_n"]
    catalog["pa"] = rng.uniform(0, 180, count)
    catalog["pattern"] = rng.integers(0, 2**32, count, dtype=np.uint32)
    return catalog


def _stars(rng: np.random.Generator, count: int) -> Catalog:
    """Stars with 11 < r < 22, counts as 10^(0.2 r)."""
    catalog = blank(count)
    catalog["kind"] = "star"
    r = magnitudes(rng, count, (11.0, 22.0), 0.2)
    gr = rng.uniform(0.3, 1.5, count)
    rz = 0.9 * gr - 0.1 + 0.05 * rng.standard_normal(count)
    catalog["flux"] = 10 ** (0.4 * (22.5 - np.stack([r + gr, r, r - 0.55 * rz, r - rz], axis=1)))
    return catalog


def bring_together(rng: np.random.Generator, catalog: Catalog) -> None:
    """Move merging galaxies beside their partners, and some others into each other's light."""
    merging = np.flatnonzero(catalog["kind"] == "merger")
    galaxies = np.flatnonzero((catalog["kind"] != "star") & (catalog["kind"] != "merger"))
    moved = galaxies[rng.random(len(galaxies)) < 0.05]
    bright = np.flatnonzero((catalog["kind"] != "star") & ~catalog["faint"])
    hosts = rng.choice(bright, len(moved)) if len(bright) else moved
    follow = np.concatenate([merging[1::2], moved]).astype(np.int64)
    lead = np.concatenate([merging[0::2], hosts]).astype(np.int64)
    reach = np.where(np.arange(len(follow)) < len(merging) // 2, rng.uniform(0.8, 2.2, len(follow)), rng.uniform(1.5, 3.5, len(follow)))
    apart = np.maximum(reach * catalog["half_light_radius"][lead], 1.2) / 3600
    angle = rng.uniform(0, 2 * np.pi, len(follow))
    catalog["dec"][follow] = catalog["dec"][lead] + apart * np.cos(angle)
    catalog["ra"][follow] = catalog["ra"][lead] + apart * np.sin(angle) / np.cos(np.radians(catalog["dec"][lead]))
    # partners lie at the same distance and are of comparable brightness
    pairs = len(merging) // 2
    catalog["redshift"][follow[:pairs]] = catalog["redshift"][lead[:pairs]]
    ratio = rng.uniform(0.25, 1.0, pairs) * catalog["flux"][lead[:pairs], 3] / catalog["flux"][follow[:pairs], 3]
    catalog["flux"][follow[:pairs]] *= ratio[:, None]
    wanted = catalog["half_light_radius"][lead[:pairs]] * np.sqrt(rng.uniform(0.4, 1.0, pairs))
    scale = wanted / catalog["half_light_radius"][follow[:pairs]]
    for name in ("bulge_re", "disk_re", "half_light_radius", "bar_length", "ring_radius"):
        catalog[name][follow[:pairs]] *= scale
