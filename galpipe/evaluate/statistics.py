"""Distributions that real and mock fields are compared by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from galpipe.config import SURVEY_PIXSCALE
from galpipe.evaluate.fields import BANDS
from galpipe.evaluate.measure import LAGS, Measured, autocorrelation, galaxies, radial_profile
from galpipe.mock.cameras import survey_conditions
from galpipe.mock.noise import autocovariance
from galpipe.mock.sky import brick_sky
from galpipe.mock.spec import MockSpec
from galpipe.mock.survey import Scene, survey_pixels
from galpipe.mock.universe import background_sky
from galpipe.survey.bricks import brick_wcs

Floats = NDArray[np.float64]

STAR_RADII = np.array([0, 1, 2, 3, 4, 5, 6, 7.5, 9, 11, 13, 16, 19, 23, 27], float)
GALAXY_RADII = np.array([0, 2, 4, 6, 9, 12, 16, 20, 25, 31, 38, 46, 56, 70, 85, 100], float)
"""Edges of rings, pixels."""

MAGNITUDES = (18.0, 20.0, 21.0, 22.0, 23.0, 24.2)
"""Edges of r-magnitude bins."""


@dataclass(frozen=True)
class Profiles:
    """Radial profiles of several sources on common rings."""

    radius: Floats
    """Arcsec, shape (R,)."""
    values: Floats
    """Shape (N, R)."""


def noise_correlations(fields: list[Measured]) -> dict[str, tuple[list[float], list[float]]]:
    """Mean and scatter over fields of the sky's autocorrelation at `LAGS`, per band."""
    table = {}
    for band in BANDS:
        values = np.array([[autocorrelation(m.planes[band], m.sky, lag) for lag in LAGS] for m in fields])
        table[band] = (np.nanmean(values, axis=0).tolist(), np.nanstd(values, axis=0).tolist())
    return table


def power_spectrum(fields: list[Measured], band: str, side: int = 64) -> tuple[Floats, Floats]:
    """Mean power of the sky against frequency (cycles per pixel): transform of the autocorrelation, averaged over directions.

    Lags up to 12 pixels are taken with a Hann taper, so that masked pixels need no filling in.
    """
    reach = 12
    lags = np.arange(reach + 1)
    rows = [[np.nanmean([autocorrelation(m.planes[band], m.sky, lag) for m in fields]) for lag in ((0, n), (n, 0))] for n in lags[1:]]
    mean = np.concatenate([[1.0], np.mean(rows, axis=1)]) * 0.5 * (1 + np.cos(np.pi * lags / (reach + 1)))
    frequency = np.arange(side // 2 + 1) / side
    return frequency, mean[0] + 2 * (mean[1:, None] * np.cos(2 * np.pi * frequency[None, :] * lags[1:, None])).sum(axis=0)


def pixel_shares(fields: list[Measured]) -> dict[str, dict[str, float]]:
    """Shape of the pixel histogram per band, medians over fields: sky pixels beyond 3 sigma, and all pixels beyond 5 and 50 sigma."""
    table = {}
    for band in BANDS:
        scaled = [(m.planes[band] / m.sigma[band], m.sky) for m in fields]
        table[band] = {
            "sky below -3": float(np.median([(v[s] < -3).mean() for v, s in scaled])),
            "sky above 3": float(np.median([(v[s] > 3).mean() for v, s in scaled])),
            "all above 5": float(np.median([(v > 5).mean() for v, s in scaled])),
            "all above 50": float(np.median([(v > 50).mean() for v, s in scaled])),
        }
    return table


def star_profiles(fields: list[Measured], band: str) -> Profiles:
    """Isolated, unsaturated stars of S/N above 80: brightness over their flux within 3 arcsec."""
    found = []
    for m in fields:
        s, plane = m.sources, m.planes[band]
        for k in np.flatnonzero(s.star & s.clean & ~s.blended & (s.snr > 80) & (s.q > 0.85)):
            x, y = float(s.x[k]), float(s.y[k])
            apart = np.hypot(s.x - x, s.y - y)
            brighter = (apart > 0.1) & (apart < 30) & (s.mag["r"] < s.mag["r"][k] + 3)
            flux, _, _ = sep.sum_circle(plane, [x], [y], 3.0 / SURVEY_PIXSCALE)
            inside = min(x, y) > 28 and max(x - plane.shape[1], y - plane.shape[0]) < -28
            if inside and not brighter.any() and flux[0] > 60 * m.sigma[band]:
                _, values = radial_profile(plane, x, y, STAR_RADII)
                if len(values) == len(STAR_RADII) - 1:
                    found.append(values / flux[0] / SURVEY_PIXSCALE**2)
    middle = (STAR_RADII[1:] + STAR_RADII[:-1]) / 2 * SURVEY_PIXSCALE
    return Profiles(middle, np.array(found).reshape(-1, len(STAR_RADII) - 1))


def central_profiles(fields: list[Measured], band: str) -> Profiles:
    """The galaxies in the middle of fields: surface brightness, nanomaggies per square arcsec, on circular rings."""
    found = []
    for m in fields:
        if m.field.center:
            s = m.sources
            middle = int(np.argmin(np.hypot(s.x - m.sky.shape[1] / 2, s.y - m.sky.shape[0] / 2)))
            _, values = radial_profile(m.planes[band], float(s.x[middle]), float(s.y[middle]), GALAXY_RADII)
            if len(values) == len(GALAXY_RADII) - 1:
                found.append(values / SURVEY_PIXSCALE**2)
    middle_radius = (GALAXY_RADII[1:] + GALAXY_RADII[:-1]) / 2 * SURVEY_PIXSCALE
    return Profiles(middle_radius, np.array(found).reshape(-1, len(GALAXY_RADII) - 1))


def galaxy_table(fields: list[Measured]) -> dict[str, Floats]:
    """r, g - r, r - z, half-light radius (arcsec) and axis ratio of all compared galaxies."""
    parts = []
    for m in fields:
        s, rows = m.sources, galaxies(m)
        parts.append(np.stack([s.mag["r"], s.mag["g"] - s.mag["r"], s.mag["r"] - s.mag["z"], s.r50, s.q], axis=1)[rows])
    whole = np.concatenate(parts)
    return {name: whole[:, k] for k, name in enumerate(("r", "g - r", "r - z", "r50", "q"))}


def population_rows(real: dict[str, Floats], mock: dict[str, Floats]) -> list[tuple[str, str, str, str]]:
    """Medians and 16-84 % ranges by r magnitude: bin, quantity, real, mock."""
    rows: list[tuple[str, str, str, str]] = []
    for low, high in pairwise(MAGNITUDES):
        for name in ("g - r", "r - z", "r50"):
            cells = []
            for table in (real, mock):
                chosen = table[name][(table["r"] >= low) & (table["r"] < high)]
                chosen = chosen[np.isfinite(chosen)]
                ends = np.percentile(chosen, [16, 50, 84]) if len(chosen) > 3 else None
                cells.append(
                    f"{ends[1]:.2f} ({ends[0]:.2f} to {ends[2]:.2f}), {len(chosen)}" if ends is not None else f"{len(chosen)} only"
                )
            rows.append((f"{low:g} to {high:g}", name, cells[0], cells[1]))
    return rows


def distances(real: dict[str, Floats], mock: dict[str, Floats], rows: NDArray[np.int64]) -> dict[str, float]:
    """Kolmogorov-Smirnov distances between real galaxies and the mock ones matched to them in r; 0 = alike, 1 = apart."""
    found = {}
    for name in ("g - r", "r - z", "r50", "q"):
        one, two = real[name], mock[name][rows]
        found[name] = float(ks_2samp(one[np.isfinite(one)], two[np.isfinite(two)]).statistic)
    return found


def match_in_magnitude(real: Floats, mock: Floats, each: int, seed: int) -> NDArray[np.int64]:
    """For each real magnitude the ``each`` nearest mock ones within 0.3 mag, none twice: indices of the mock ones."""
    rng = np.random.default_rng(seed)
    free, chosen = np.isfinite(mock), []
    for _ in range(each):
        for value in rng.permutation(real[np.isfinite(real)]):
            apart = np.where(free, np.abs(mock - value), np.inf)
            nearest = int(np.argmin(apart))
            if apart[nearest] < 0.3:
                free[nearest] = False
                chosen.append(nearest)
    return np.array(chosen, np.int64)


def single_band_noise(image: Floats, invvar: Floats) -> list[float]:
    """Autocorrelation at `LAGS` of the sky of a coadd that was not interpolated again; the background is taken out on a grid of 32 px."""
    plane = np.ascontiguousarray(np.where(invvar > 0, image, 0.0))
    sigma = 1.4826 * float(np.median(np.abs(plane[invvar > 0] - np.median(plane[invvar > 0]))))
    mask = invvar <= 0
    plane = plane - sep.Background(plane, mask=mask, bw=32, bh=32).back()
    _, segments = sep.extract(plane, 1.5, err=sigma, mask=mask, minarea=8, segmentation_map=True)
    sky = (segments == 0) & ~mask
    plane = plane - np.median(plane[sky])
    return [autocorrelation(plane, sky, lag) for lag in LAGS]


def kernel_noise(native: float) -> list[float]:
    """Autocorrelation at `LAGS` that the interpolation kernel alone predicts for a native pixel (arcsec)."""
    one = np.array(autocovariance(native)) / autocovariance(native)[0]
    return [float(one[lag[0]] * one[lag[1]]) for lag in LAGS]


def north_noise(seed: int, side: int = 600) -> list[float]:
    """The same of the survey-like sky's northern g band with one exposure, not resampled."""
    spec = MockSpec(bricks=1, seed=seed, center=(150.0, 60.0), sky="survey", faint=4000, faint_limit=23.7, stars=900, workers=1)
    area = spec.brick_list()[0]
    placed = []
    for catalog in (brick_sky(spec, area), background_sky(spec, area, empty=False)):
        x, y = brick_wcs(area).all_world2pix(catalog["ra"], catalog["dec"], 0)
        near = (np.abs(x - 1800) < side) & (np.abs(y - 1800) < side)
        placed.append((catalog[near], x[near] - 1800 + side / 2, y[near] - 1800 + side / 2))
    state = survey_conditions(spec, area)
    single = replace(state, exposures=dict.fromkeys(state.exposures, 1), sigma={**state.sigma, "g": 0.0038})
    products = survey_pixels(Scene(spec, area, single, ("g",), placed[0], placed[1], (side, side)))[1]["g"]
    return single_band_noise(products.image.astype(np.float64), products.invvar.astype(np.float64))
