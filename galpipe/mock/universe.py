"""The true sky of the survey-like mock: as many sources as the survey finds, with colors and sizes near the real ones.

Stated models, tuned by eye and by `galpipe evaluate realism` against twelve real cutouts; none is a measurement:

* counts: 10^(0.45 z) from z = 13.5 to 20, then 10^(0.37 z) to ``faint_limit`` and 10^(0.33 z) beyond, where nothing is fitted and
  the galaxies are the unresolved background of the noise;
* redshift: median 0.03 x 10^(0.155 (z_mag - 13.5)), 40 % scatter;
* colors: early types follow the red sequence to g-r = 1.8, late types scatter around g-r = 0.45 and bluer beyond;
* sizes: kiloparsecs by luminosity as in `galpipe.mock.populations`, larger scatter, smaller when faint;
* stars: a disk-and-halo sequence, and M dwarfs that redden in r-z at g-r = 1.4.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from galpipe.mock.cameras import star_count
from galpipe.mock.populations import Floats, comoving_distance, magnitudes, step_n
from galpipe.mock.sky import SOURCE, Catalog, blank, bring_together, finish_places, pair_mergers, structure
from galpipe.mock.spec import BRIGHT_LIMIT, BY_LATITUDE, MockSpec
from galpipe.mock.structure import bulge_shares
from galpipe.survey.bricks import Brick

KINDS = {
    "smooth_elliptical": 0.32,
    "disk_spiral": 0.27,
    "disk_barred": 0.13,
    "ring": 0.03,
    "edge_on": 0.12,
    "merger": 0.03,
    "lens": 0.01,
    "irregular": 0.09,
}
"""Share of each kind among galaxies with z < 20: rare kinds still several times more frequent than in the sky."""

SURVEY_LIMIT = 23.7
"""z magnitude to which the survey finds most galaxies: 6,000 to 7,700 rows a brick with the stars."""

BACKGROUND_LIMIT = 25.5
"""z magnitude of the faintest galaxies drawn."""

BACKGROUND_SLOPE = 0.33
FAINT_SLOPE = 0.37


def survey_count(limit: float, bright: int = 250) -> int:
    """Galaxies per brick between z = 20 and a limit, for ``bright`` of them with z < 20."""
    return round(bright * (10 ** (FAINT_SLOPE * (limit - BRIGHT_LIMIT)) - 1))


def survey_spec(spec: MockSpec, limit: float | None = None) -> MockSpec:
    """The same request for the survey-like sky at the survey's density: faint galaxies by `survey_count`, stars by galactic latitude.

    Parameters
    ----------
    spec : MockSpec
    limit : float, optional
        Faintest z magnitude of a fitted galaxy; without one, `SURVEY_LIMIT`.
    """
    faintest = SURVEY_LIMIT if limit is None else limit
    return replace(spec, sky="survey", faint=survey_count(faintest), faint_limit=faintest, stars=BY_LATITUDE)


def survey_sky(spec: MockSpec, area: Brick, empty: bool) -> Catalog:
    """All true sources that the fitter may find and whose centers lie in a brick's own area.

    Parameters
    ----------
    spec : MockSpec
    area : Brick
    empty : bool
        Leave the galaxies out.
    """
    stars = star_count(area) if spec.stars == BY_LATITUDE else spec.stars
    rng = np.random.default_rng([spec.seed, area.brickid, 22])
    parts = [_bright(rng, spec.galaxies), _faint(rng, spec.faint, (BRIGHT_LIMIT, spec.faint_limit), FAINT_SLOPE), _stars(rng, stars)]
    catalog = np.concatenate(parts)
    _place(rng, catalog, area)
    _cluster(rng, catalog)
    bring_together(rng, catalog)
    finish_places(spec, catalog, area)
    return catalog[catalog["kind"] == "star"] if empty else catalog


def background_sky(spec: MockSpec, area: Brick, empty: bool) -> Catalog:
    """Galaxies too faint to be fitted; their light is part of what noise patches hold."""
    if empty or spec.faint == 0 or spec.faint_limit >= BACKGROUND_LIMIT:
        return np.zeros(0, SOURCE)
    rng = np.random.default_rng([spec.seed, area.brickid, 23])
    # the density at the limit goes on without a step
    density = spec.faint * np.log(10) * FAINT_SLOPE / (1 - 10 ** (-FAINT_SLOPE * (spec.faint_limit - BRIGHT_LIMIT)))
    span = 10 ** (BACKGROUND_SLOPE * (BACKGROUND_LIMIT - spec.faint_limit)) - 1
    count = round(density * span / (BACKGROUND_SLOPE * np.log(10)))
    catalog = _faint(rng, count, (spec.faint_limit, BACKGROUND_LIMIT), BACKGROUND_SLOPE)
    _place(rng, catalog, area)
    return catalog


def _place(rng: np.random.Generator, catalog: Catalog, area: Brick) -> None:
    catalog["ra"] = rng.uniform(area.ra1, area.ra2, len(catalog))
    low, high = np.sin(np.radians([area.dec1, area.dec2]))
    catalog["dec"] = np.degrees(np.arcsin(rng.uniform(low, high, len(catalog))))
    catalog["brickid"] = area.brickid
    catalog["number"] = np.arange(len(catalog))


def _cluster(rng: np.random.Generator, catalog: Catalog) -> None:
    """Gather a tenth of the faint early types around bright ones, as groups and clusters do."""
    hosts = np.flatnonzero((catalog["kind"] == "smooth_elliptical") & ~catalog["faint"])
    members = np.flatnonzero(catalog["faint"])
    members = members[rng.random(len(members)) < np.where(catalog["bulge"][members, 1] > 0, 0.30, 0.06)]
    if not len(hosts) or not len(members):
        return
    host = rng.choice(hosts[: max(1, len(hosts) // 8)], len(members))
    apart, angle = 45 / 3600 * rng.exponential(1.0, len(members)), rng.uniform(0, 2 * np.pi, len(members))
    catalog["dec"][members] = catalog["dec"][host] + apart * np.cos(angle)
    catalog["ra"][members] = catalog["ra"][host] + apart * np.sin(angle) / np.cos(np.radians(catalog["dec"][host]))


def redshifts(rng: np.random.Generator, z_mag: Floats) -> Floats:
    """Redshifts for observed z magnitudes."""
    median = 0.03 * 10 ** (0.155 * (z_mag - 13.5))
    return np.asarray(np.clip(median * np.exp(0.40 * rng.standard_normal(len(z_mag))), 0.003, 2.5))


def fluxes(rng: np.random.Generator, z_mag: Floats, redshift: Floats, early: Floats) -> Floats:
    """g, r, i, z nanomaggies, shape (N, 4); ``early`` runs from 0 (late) to 1 (early type)."""
    count = len(z_mag)
    red_gr = np.clip(0.72 + 2.4 * redshift, 0, 1.75) - 0.5 * np.clip(redshift - 0.9, 0, 1)
    red_rz = np.clip(0.55 + 1.1 * redshift, 0, 2.1)
    # dust and age redden both colors together
    age = rng.standard_normal(count)
    blue_gr = 0.45 + 0.75 * np.clip(redshift, 0, 0.55) - 0.55 * np.clip(redshift - 0.55, 0, 1) + 0.18 * age
    blue_rz = 0.30 + 0.90 * np.clip(redshift, 0, 1.0) + 0.15 * age + 0.10 * rng.standard_normal(count)
    gr = early * red_gr + (1 - early) * blue_gr + 0.05 * rng.standard_normal(count)
    rz = early * red_rz + (1 - early) * blue_rz + 0.05 * rng.standard_normal(count)
    r = z_mag + rz
    return np.asarray(10 ** (0.4 * (22.5 - np.stack([r + gr, r, r - 0.55 * rz, z_mag], axis=1))))


def sizes(rng: np.random.Generator, z_mag: Floats, redshift: Floats, early: Floats) -> Floats:
    """Half-light radius in arcsec."""
    distance = comoving_distance(redshift)
    absolute = z_mag - 5 * np.log10(distance * (1 + redshift)) - 25
    late, compact = 5.6 * 10 ** (-0.15 * (absolute + 21)), 3.8 * 10 ** (-0.22 * (absolute + 21))
    kpc = compact**early * late ** (1 - early) * (1 + redshift) ** -0.6 * np.exp(0.38 * rng.standard_normal(len(z_mag)))
    return np.asarray(np.clip(kpc / (distance * 1e3 / (1 + redshift)) * 206264.8, 0.10, 15.0))


def _bright(rng: np.random.Generator, count: int) -> Catalog:
    """Galaxies with z < 20, with all their structure."""
    catalog = blank(count)
    catalog["kind"] = rng.choice(np.array(list(KINDS)), count, p=np.array(list(KINDS.values())))
    pair_mergers(catalog)
    kind = catalog["kind"]
    z_mag = magnitudes(rng, count, (13.5, BRIGHT_LIMIT), 0.45)
    z_mag[kind == "lens"] = 17.0 + 3.0 * rng.random(count)[kind == "lens"]
    early = np.select(
        [kind == "smooth_elliptical", kind == "lens", kind == "irregular", kind == "edge_on"],
        [rng.uniform(0.8, 1.05, count), np.ones(count), rng.uniform(0, 0.1, count), rng.uniform(0.1, 0.7, count)],
        rng.beta(1.3, 1.6, count) * 0.9,
    )
    catalog["redshift"] = redshifts(rng, z_mag)
    catalog["flux"] = fluxes(rng, z_mag, catalog["redshift"], early)
    structure(rng, catalog, sizes(rng, z_mag, catalog["redshift"], early))
    mixed = (catalog["bulge"][:, 1] > 0) & (catalog["bulge"][:, 1] < 1)
    shares = bulge_shares(catalog["bulge"][:, 1], rng.uniform(0.1, 0.5, count))
    catalog["bulge"] = np.where(mixed[:, None], shares, catalog["bulge"])
    for name in ("arm_strength", "ring"):
        catalog[name] *= rng.uniform(0.30, 0.90, count)
    return catalog


def _faint(rng: np.random.Generator, count: int, edges: tuple[float, float], slope: float) -> Catalog:
    """Galaxies of one Sersic component, without structure."""
    catalog = blank(count)
    z_mag = magnitudes(rng, count, edges, slope)
    early = (rng.random(count) < np.clip(0.40 - 0.09 * (z_mag - BRIGHT_LIMIT), 0.05, 0.4)) * rng.uniform(0.6, 1.0, count)
    catalog["kind"] = np.where(early > 0, "smooth_elliptical", np.where(rng.random(count) < 0.5, "disk_spiral", "irregular"))
    catalog["faint"] = True
    catalog["redshift"] = redshifts(rng, z_mag)
    catalog["flux"] = fluxes(rng, z_mag, catalog["redshift"], early)
    catalog["bulge"] = (early > 0)[:, None]
    catalog["bulge_n"] = step_n(np.where(early > 0, rng.uniform(1.5, 4.5, count), 1.0))
    size = np.minimum(sizes(rng, z_mag, catalog["redshift"], early), 2.5)
    catalog["bulge_re"] = catalog["disk_re"] = catalog["half_light_radius"] = size
    catalog["bulge_q"] = catalog["disk_q"] = np.clip(rng.beta(2.6, 1.9, count), 0.15, 1.0)
    catalog["sersic_n"] = catalog["bulge_n"]
    catalog["pa"] = rng.uniform(0, 180, count)
    catalog["pattern"] = rng.integers(0, 2**32, count, dtype=np.uint32)
    return catalog


def _stars(rng: np.random.Generator, count: int) -> Catalog:
    """Stars with 9.5 < r < 23, counts as 10^(0.2 r)."""
    catalog = blank(count)
    catalog["kind"] = "star"
    r = magnitudes(rng, count, (9.5, 23.0), 0.2)
    dwarf = rng.random(count) < np.clip(0.15 + 0.06 * (r - 15), 0.1, 0.6)
    color = rng.beta(1.9, 2.0, count)
    gr = np.where(dwarf, 1.42 + 0.06 * rng.standard_normal(count), 0.38 + 0.95 * color + 0.03 * rng.standard_normal(count))
    rz = np.where(dwarf, 0.9 + 1.5 * rng.beta(1.4, 2.4, count), 0.55 * gr - 0.05 + 0.03 * rng.standard_normal(count))
    catalog["flux"] = 10 ** (0.4 * (22.5 - np.stack([r + gr, r, r - 0.55 * rz, r - rz], axis=1)))
    return catalog
