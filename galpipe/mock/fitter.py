"""The survey-like sky's Tractor table: realistic errors, types that follow S/N and seeing, and rows that do not pair with the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.cameras import camera
from galpipe.mock.components import Components, components, point_area
from galpipe.mock.frame import Frame, in_gaia, signal_to_noise
from galpipe.mock.noise import flux_gain
from galpipe.mock.pixels import is_large
from galpipe.mock.spec import ALL_BANDS
from galpipe.mock.tractor import (
    Fit,
    dchisq,
    flux_columns,
    identity_columns,
    pixel_columns,
    positions,
    reference_columns,
    shape_columns,
    wise_columns,
)

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[np.generic]]

OUTLIERS = 0.03
"""Share of rows whose flux is wrong by far more than stated: blends, artefacts, unmasked rays."""

MISMATCH = (0.01, 0.003)
"""Scatter of fluxes that no inverse variance knows: what smooth models miss of galaxies, and of every source (guess)."""

BRIGHT_BIT, GALAXY_BIT, CLUSTER_BIT, MEDIUM_BIT = 1, 12, 13, 11
"""Maskbits that force point sources, and the one of fainter stars."""

FORCED, RADIUS_LIMIT, SERSIC_LIMIT, STAR_BRIGHT, STAR_MEDIUM, STAR_GAIA, LARGE, GAIA_POINT, ITERATIVE = 0, 2, 3, 5, 6, 7, 9, 12, 13
"""Fitbits."""

LIMITS = {"sersic": 6.0, "shape_r": 30.0}
"""Where the fitter's priors stop."""


def survey_fit(frame: Frame, rng: np.random.Generator) -> Fit:
    """Make the table of a survey-like frame.

    Parameters
    ----------
    frame : Frame
    rng : numpy.random.Generator
    """
    snr, _ = signal_to_noise(frame)
    gain = np.array([flux_gain(camera(frame.spec.region, band).pixscale) for band in frame.bands])
    total = np.sqrt((np.maximum(snr, 0) ** 2 / gain).sum(axis=1))
    total = np.maximum(total, np.where(in_gaia(frame.catalog), 100.0, 0.1))
    parts = components(frame, total, rng)
    joined, rows = parts.frame, parts.rows
    snr, ivar = signal_to_noise(joined)
    snr, ivar = snr / np.sqrt(gain), ivar / gain
    total = np.maximum(np.sqrt((np.maximum(snr, 0) ** 2).sum(axis=1)), np.where(in_gaia(joined.catalog), 100.0, 3.0))[rows]
    columns = positions(joined, rows, total, rng)
    columns |= pixel_columns(joined, columns)
    types = _types(parts, total, columns, rng)
    columns |= shape_columns(joined, rows, types, total, rng)
    columns |= flux_columns(joined, rows, (snr[rows], ivar[rows]), rng, MISMATCH)
    _depths(joined, rows, columns, ivar)
    _wrong_fluxes(joined, rows, columns, rng)
    _fit_bits(parts, columns)
    columns |= identity_columns(joined, columns)
    columns |= reference_columns(joined, rows)
    columns |= wise_columns(joined, rows, rng)
    columns["dchisq"] = dchisq(types, total)
    source = np.where(rows < parts.true, rows, -1)
    return Fit(columns, source, _matches(parts))


def _matches(parts: Components) -> dict[str, NDArray[np.generic]]:
    """Rows and the true sources whose light they hold."""
    objid = {int(row): k for k, row in enumerate(parts.rows)}
    entries = [(objid[row], row, "main") for row in objid if row < parts.true]
    entries += [(objid[host], lost, "merged") for lost, host in parts.merged.items()]
    entries += [(objid[piece], parent, "shred") for piece, parent in parts.parent.items()]
    entries.sort()
    return {
        "objid": np.array([entry[0] for entry in entries], np.int32),
        "source": np.array([entry[1] for entry in entries], np.int64),
        "role": np.array([entry[2] for entry in entries], "U6"),
    }


def _types(parts: Components, total: Floats, columns: Columns, rng: np.random.Generator) -> NDArray[np.str_]:
    """PSF, REX, EXP, DEV or SER, as chi-squared differences of a fit with this S/N and seeing would choose.

    The gain of an extended model over a point grows with S/N squared and with how far the source's noise-equivalent area exceeds a
    star's; that of elongation and of the index with the size over the seeing. Each difference scatters by the root of twice itself.
    """
    frame, rows = parts.frame, parts.rows
    catalog = frame.catalog[rows]
    band = "r" if "r" in frame.bands else frame.bands[-1]
    k = frame.bands.index(band)
    point = point_area(frame, band)
    blur = np.clip(1 - point / np.maximum(frame.drawn.nea[rows, k], point), 0, 1)
    q = catalog["bulge"][:, 1] * catalog["bulge_q"] + (1 - catalog["bulge"][:, 1]) * catalog["disk_q"]
    wide = np.clip(catalog["half_light_radius"] / frame.state.seeing[band], 0, 2)
    resolved = wide**2 / (wide**2 + 0.25)
    n = catalog["sersic_n"]

    def noisy(gain: Floats) -> Floats:
        return np.asarray(gain + np.sqrt(2 * np.maximum(gain, 1) + 2) * rng.standard_normal(len(rows)))

    extended = noisy(total**2 * 0.45 * blur**2)
    shaped = noisy(total**2 * resolved * (0.10 * (1 - q) ** 2 + 0.004 * np.abs(n - 1)))
    index = noisy(total**2 * resolved * 0.010 * (n - 1) * np.abs(n - 1))
    free = noisy(total**2 * resolved * 0.004 * np.minimum(np.abs(n - 1), np.abs(n - 4)))
    types = np.where(index > 0, np.where(n > 2.0, "DEV", "EXP"), "EXP")
    # round profiles of high index are told from exponentials only when bright
    types = np.where((n > 2.0) & (np.abs(index) < 4), np.where(rng.random(len(rows)) < 0.5, "DEV", "EXP"), types)
    types = np.where(free > 20, "SER", types)
    types = np.where(shaped < 9, "REX", types)
    types = np.where(extended < 9, "PSF", types)
    star = catalog["kind"] == "star"
    types = np.where(star, np.where((rng.random(len(rows)) < 0.02) & (total < 60), "REX", "PSF"), types)
    bits, large = columns["maskbits"].astype(np.int64), is_large(catalog) & (rows < parts.true)
    forced = np.any([(bits >> bit) & 1 for bit in (BRIGHT_BIT, GALAXY_BIT, CLUSTER_BIT)], axis=0) & ~large
    columns["forced"] = forced & (types != "PSF")
    types = np.where(forced, "PSF", np.where(large, "SER", types))
    columns["type"] = types
    return np.asarray(types)


def _depths(frame: Frame, rows: NDArray[np.int64], columns: Columns, ivar: Floats) -> None:
    """Depths for a star and a round galaxy from the PSF size at each place, in place."""
    for k, band in enumerate(frame.bands):
        local = ivar[rows, k] * frame.drawn.nea[rows, k]
        size = np.asarray(columns[f"psfsize_{band}"], np.float64) / 2.3548 / SURVEY_PIXSCALE
        area = 4 * np.pi * np.maximum(size, 0.5) ** 2
        columns[f"psfdepth_{band}"] = np.where(size > 0, local / area, 0)
        # a 0.45 arcsec exponential spreads a star's area by about its own: 4 pi (0.55 re)^2 and cross terms
        columns[f"galdepth_{band}"] = np.where(size > 0, local / (area + 4 * np.pi * (0.62 * 0.45 / SURVEY_PIXSCALE) ** 2 * 2.2), 0)


def _wrong_fluxes(frame: Frame, rows: NDArray[np.int64], columns: Columns, rng: np.random.Generator) -> None:
    """What wrong types and bad luck do to fluxes, in place."""
    catalog, types = frame.catalog[rows], columns["type"]
    n, star = catalog["sersic_n"], catalog["kind"] == "star"
    bias = np.where((types == "DEV") & (n < 2), 1.08, np.where(np.isin(types, ["EXP", "REX"]) & (n > 2.5), 0.88, 1.0))
    unlucky = rng.random(len(rows)) < OUTLIERS
    for k, band in enumerate(frame.bands):
        nea = frame.drawn.nea[rows, k]
        point = point_area(frame, band)
        # a point fitted to a galaxy takes the light that fits under the PSF
        lost = np.where((types == "PSF") & ~star, np.clip(point / np.maximum(nea, point), 0.02, 1) ** 0.25, 1.0)
        flux, ivar = np.asarray(columns[f"flux_{band}"], np.float64), np.asarray(columns[f"flux_ivar_{band}"], np.float64)
        error = np.where(ivar > 0, 1 / np.sqrt(np.maximum(ivar, 1e-30)), 0)
        own = catalog["flux"][:, ALL_BANDS.index(band)]
        # only the expected light is scaled: the noise stays as it is
        flux = flux + own * (np.where(star, 1.0, bias) * lost - 1) * (ivar > 0)
        columns[f"flux_{band}"] = flux + np.where(unlucky, 4 * error * rng.standard_normal(len(rows)), 0)


def _fit_bits(parts: Components, columns: Columns) -> None:
    """The FITBITS column, in place; values at the priors' limits are set to them."""
    catalog = parts.frame.catalog[parts.rows]
    star, magnitude = catalog["kind"] == "star", 22.5 - 2.5 * np.log10(np.maximum(catalog["flux"][:, 1], 1e-9))
    known, large = in_gaia(catalog), is_large(catalog) & (parts.rows < parts.true)
    bits = (columns.pop("forced").astype(np.int64) << FORCED) | (large.astype(np.int64) << LARGE)
    for name, bit in (("sersic", SERSIC_LIMIT), ("shape_r", RADIUS_LIMIT)):
        values = np.asarray(columns[name], np.float64)
        bits |= (values >= LIMITS[name]).astype(np.int64) << bit
        columns[name] = np.minimum(values, LIMITS[name])
    bits |= (known.astype(np.int64) << STAR_GAIA) | ((known & (columns["type"] == "PSF")).astype(np.int64) << GAIA_POINT)
    bits |= ((star & (magnitude < 16)).astype(np.int64) << STAR_MEDIUM) | ((star & (magnitude < 13)).astype(np.int64) << STAR_BRIGHT)
    # found in what the first round of fits left over: fragments, and faint sources in others' light
    bits |= (parts.rows >= parts.true).astype(np.int64) << ITERATIVE
    columns["fitbits"] = bits
