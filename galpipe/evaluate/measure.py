"""What is measured on every field alike, real or mock: sources, noise patches, stars."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from galpipe.config import SURVEY_PIXSCALE
from galpipe.evaluate.fields import BANDS, Field, Look

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PATCH = 24
"""Side of a noise patch, pixels."""

LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 3), (3, 0), (0, 6), (6, 0))
"""Lags (rows, columns) of the autocorrelation."""

BRIGHTEST, FAINTEST = 17.5, 24.2
"""r magnitudes of the galaxies that are compared."""


@dataclass(frozen=True)
class Sources:
    """Detected sources of one field; arrays of shape (N,)."""

    x: Floats
    y: Floats
    mag: dict[str, Floats]
    """Aperture magnitudes per band (Kron-like aperture of the detection band); NaN where the flux is not positive."""
    r50: Floats
    """Half-light radius in r, arcsec, PSF included."""
    q: Floats
    """Axis ratio."""
    snr: Floats
    star: Mask
    """As compact as the field's stars."""
    blended: Mask
    clean: Mask
    """Far from the edge, not saturated."""


@dataclass(frozen=True)
class Measured:
    """A field, background-subtracted, with what was found."""

    field: Field
    planes: dict[str, Floats]
    sky: Mask
    """Pixels without source."""
    sigma: dict[str, float]
    sources: Sources
    star_r50: float
    """Half-light radius of stars in r, arcsec."""


def measure(field: Field) -> Measured:
    """Find sources in r and measure them in every band."""
    planes, sigma = {}, {}
    for band in BANDS:
        plane = np.ascontiguousarray(field.planes[band], np.float64)
        # coarse: a finer one would follow the noise that is compared
        planes[band] = plane - sep.Background(plane, bw=128, bh=128).back()
    found, segments = _detect(planes["r"])
    for band in BANDS:
        sigma[band] = _scatter(planes[band][segments == 0])
    sky = ~binary_dilation(_any_source(planes, sigma), iterations=4)
    for band in BANDS:
        planes[band] = planes[band] - np.median(planes[band][sky])
        sigma[band] = _scatter(planes[band][sky])
    sources, star_r50 = _measure_sources(planes, sigma, found)
    return Measured(field, planes, sky, sigma, sources, star_r50)


def _detect(plane: Floats) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    noise = _scatter(plane)
    kernel = np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    found, segments = sep.extract(plane, 1.3, err=noise, minarea=5, filter_kernel=kernel, deblend_cont=0.005, segmentation_map=True)
    return found, segments


def _any_source(planes: dict[str, Floats], sigma: dict[str, float]) -> Mask:
    mask = np.zeros(planes["r"].shape, bool)
    for band in BANDS:
        _, segments = sep.extract(planes[band], 1.5, err=sigma[band], minarea=8, segmentation_map=True)
        mask |= segments > 0
    return mask


def _scatter(values: Floats) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _measure_sources(planes: dict[str, Floats], sigma: dict[str, float], found: NDArray[np.void]) -> tuple[Sources, float]:
    x, y = found["x"], found["y"]
    reach = np.clip(3.0 * found["a"], 6.0, 60.0)
    total, error, _ = sep.sum_circle(planes["r"], x, y, reach, err=sigma["r"])
    half, _ = sep.flux_radius(planes["r"], x, y, reach, 0.5, normflux=total, subpix=5)
    mag = {}
    for band in BANDS:
        flux, _, _ = sep.sum_circle(planes[band], x, y, reach)
        mag[band] = np.where(flux > 0, 22.5 - 2.5 * np.log10(np.maximum(flux, 1e-9)), np.nan)
    q, snr = found["b"] / np.maximum(found["a"], 1e-6), total / error
    height, width = planes["r"].shape
    clean = (np.minimum(x, y) > 20) & (x < width - 20) & (y < height - 20) & (found["peak"] < 6) & (half > 0)
    compact = half[(snr > 30) & clean & (q > 0.8)]
    # a field's compact sources are stars, but noise and blends must not decide alone
    star_r50 = float(np.clip(np.percentile(compact, 20) if len(compact) >= 3 else 2.5, 1.9, 3.0))
    star = half < 1.12 * star_r50
    blended = (found["flag"] & (sep.OBJ_MERGED)) > 0
    return Sources(x, y, mag, half * SURVEY_PIXSCALE, q, snr, star, blended, clean), star_r50 * SURVEY_PIXSCALE


def galaxies(measured: Measured) -> NDArray[np.int64]:
    """Indices of the resolved sources that are compared."""
    s = measured.sources
    with np.errstate(invalid="ignore"):
        wanted = (s.mag["r"] > BRIGHTEST) & (s.mag["r"] < FAINTEST) & (s.snr > 7)
    return np.flatnonzero(wanted & s.clean & ~s.star)


def look_of(measured: Measured, usual: dict[str, float]) -> Look:
    """What a real field was like, for the mock to draw the same.

    Parameters
    ----------
    measured : Measured
    usual : dict
        FWHM per band where the field has no star.
    """
    fwhm = {band: star_fwhm(measured, band) or usual[band] for band in BANDS}
    middle = int(np.argmin(np.hypot(measured.sources.x - 128, measured.sources.y - 128)))
    plane = measured.planes["z"]
    flux, _, _ = sep.sum_circle(plane, [measured.sources.x[middle]], [measured.sources.y[middle]], 45.0)
    return Look(dict(measured.sigma), fwhm, float(22.5 - 2.5 * np.log10(max(float(flux[0]), 1e-3))))


def star_fwhm(measured: Measured, band: str) -> float | None:
    """Median FWHM (arcsec) of a field's isolated stars in a band, from their half-maximum radius; None without a star."""
    s, plane = measured.sources, measured.planes[band]
    found = []
    for k in np.flatnonzero(s.star & s.clean & ~s.blended & (s.snr > 40) & (s.q > 0.85)):
        radius, profile = radial_profile(plane, float(s.x[k]), float(s.y[k]), np.arange(0, 12, 0.75))
        peak = float(plane[round(s.y[k]) - 1 : round(s.y[k]) + 2, round(s.x[k]) - 1 : round(s.x[k]) + 2].max())
        below = np.flatnonzero(profile < 0.5 * peak)
        if peak > 15 * measured.sigma[band] and peak < 5 and len(below) and below[0] > 0:
            found.append(2 * float(np.interp(-0.5 * peak, -profile[: below[0] + 1], radius[: below[0] + 1])) * SURVEY_PIXSCALE)
    return float(np.median(found)) if found else None


def radial_profile(plane: Floats, x: float, y: float, edges: Floats) -> tuple[Floats, Floats]:
    """Mean radius (pixels) and median brightness in rings; rings without pixel are left out."""
    reach = int(edges[-1]) + 2
    y0, y1 = max(round(y) - reach, 0), min(round(y) + reach + 1, plane.shape[0])
    x0, x1 = max(round(x) - reach, 0), min(round(x) + reach + 1, plane.shape[1])
    r = np.hypot(np.arange(x0, x1)[None, :] - x, np.arange(y0, y1)[:, None] - y)
    part = plane[y0:y1, x0:x1]
    rings = [(r >= low) & (r < high) for low, high in pairwise(edges)]
    kept = [ring for ring in rings if ring.any()]
    return np.array([r[ring].mean() for ring in kept]), np.array([np.median(part[ring]) for ring in kept])


def autocorrelation(plane: Floats, sky: Mask, lag: tuple[int, int]) -> float:
    """Correlation of sky pixels at a lag (rows, columns)."""
    dy, dx = lag
    one, two = plane[: plane.shape[0] - dy, : plane.shape[1] - dx], plane[dy:, dx:]
    both = sky[: sky.shape[0] - dy, : sky.shape[1] - dx] & sky[dy:, dx:]
    if both.sum() < 50:
        return float("nan")
    return float((one * two)[both].mean() / np.maximum((plane[sky] ** 2).mean(), 1e-30))


def noise_patches(measured: Measured) -> list[tuple[int, int]]:
    """Corners (x, y) of the squares of `PATCH` pixels that hold at least 92 % sky."""
    height, width = measured.sky.shape
    corners = [(x, y) for y in range(4, height - PATCH, PATCH) for x in range(4, width - PATCH, PATCH)]
    return [(x, y) for x, y in corners if measured.sky[y : y + PATCH, x : x + PATCH].mean() > 0.92]
