"""Summary features of noise patches and galaxies, by which a classifier may tell real from mock."""

from __future__ import annotations

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import kurtosis, skew

from galpipe.evaluate.fields import BANDS
from galpipe.evaluate.measure import LAGS, PATCH, Measured, autocorrelation, galaxies, noise_patches

Floats = NDArray[np.float64]

NOISE_FEATURES = (
    *(f"{band}: correlation at {lag[1]}, {lag[0]} px" for band in BANDS for lag in LAGS),
    *(f"{band}: {name}" for band in BANDS for name in ("scatter over the field's", "skewness", "kurtosis", "slope", "large-scale power")),
    "correlation of g and r",
    "correlation of r and z",
)

GALAXY_FEATURES = (
    "g - r",
    "r - z",
    "half-light radius over a star's",
    "axis ratio",
    "concentration",
    "asymmetry in r",
    "substructure in g",
    "peak over mean brightness",
    "g - r of the core less that of the whole",
    "r - z of the core less that of the whole",
    "light of neighbors",
)

HALF = 16
"""Half side of a galaxy's stamp, pixels."""


def noise_features(measured: Measured) -> Floats:
    """One row per noise patch, shape (patches, len(NOISE_FEATURES)); amplitudes relative to the field's own noise."""
    rows = []
    for x, y in noise_patches(measured):
        where = np.s_[y : y + PATCH, x : x + PATCH]
        sky = measured.sky[where]
        planes = {band: np.where(sky, measured.planes[band][where] / measured.sigma[band], 0.0) for band in BANDS}
        row = [autocorrelation(planes[band] - planes[band][sky].mean(), sky, lag) for band in BANDS for lag in LAGS]
        for band in BANDS:
            row += _moments(planes[band], sky)
        row += [_correlation(planes["g"], planes["r"], sky), _correlation(planes["r"], planes["z"], sky)]
        rows.append(row)
    return np.array(rows).reshape(-1, len(NOISE_FEATURES))


def _moments(plane: Floats, sky: NDArray[np.bool_]) -> list[float]:
    values = plane[sky]
    line = np.arange(PATCH) - PATCH / 2
    slope = float(np.hypot((plane * line[None, :]).mean(), (plane * line[:, None]).mean()))
    large = float(gaussian_filter(plane, 3)[4:-4, 4:-4].std())
    return [float(values.std()), float(skew(values)), float(kurtosis(values)), slope, large]


def _correlation(one: Floats, two: Floats, sky: NDArray[np.bool_]) -> float:
    return float(np.corrcoef(one[sky], two[sky])[0, 1])


def galaxy_features(measured: Measured) -> tuple[Floats, Floats]:
    """Features of a field's galaxies, shape (N, len(GALAXY_FEATURES)), and their r magnitudes, shape (N,)."""
    s = measured.sources
    rows = galaxies(measured)
    found = [_galaxy(measured, int(k)) for k in rows]
    return np.array(found).reshape(-1, len(GALAXY_FEATURES)), s.mag["r"][rows]


def galaxy_stamps(measured: Measured) -> NDArray[np.float32]:
    """Stamps of a field's galaxies in units of the noise, asinh-stretched, shape (N, 3, 2 HALF, 2 HALF)."""
    s = measured.sources
    stamps = []
    for k in galaxies(measured):
        x, y = round(float(s.x[k])), round(float(s.y[k]))
        where = np.s_[y - HALF : y + HALF, x - HALF : x + HALF]
        stamps.append(np.stack([np.arcsinh(measured.planes[band][where] / measured.sigma[band] / 3) for band in BANDS]))
    return np.array(stamps, np.float32).reshape(-1, len(BANDS), 2 * HALF, 2 * HALF)


def noise_stamps(measured: Measured) -> NDArray[np.float32]:
    """Noise patches in units of the noise, what is not sky at zero, shape (N, 3, PATCH, PATCH)."""
    stamps = []
    for x, y in noise_patches(measured):
        where = np.s_[y : y + PATCH, x : x + PATCH]
        stamps.append(np.stack([np.where(measured.sky[where], measured.planes[b][where] / measured.sigma[b], 0) for b in BANDS]))
    return np.array(stamps, np.float32).reshape(-1, len(BANDS), PATCH, PATCH)


def _galaxy(measured: Measured, k: int) -> list[float]:
    s = measured.sources
    x, y = float(s.x[k]), float(s.y[k])
    reach = float(np.clip(3 * s.r50[k] / 0.262, 6, 40))
    plane, sigma = measured.planes["r"], measured.sigma["r"]
    radii, _ = sep.flux_radius(plane, [x], [y], [reach], [0.2, 0.8], subpix=5)
    concentration = float(5 * np.log10(max(radii[0][1], 0.3) / max(radii[0][0], 0.3)))
    gr, rz = _color(s.mag["g"][k], s.mag["r"][k]), _color(s.mag["r"][k], s.mag["z"][k])
    core = {band: float(sep.sum_circle(measured.planes[band], [x], [y], 3.0)[0][0]) for band in BANDS}
    core_gr, core_rz = _flux_color(core["g"], core["r"]), _flux_color(core["r"], core["z"])
    around, _, _ = sep.sum_circann(plane, [x], [y], reach, reach + 8)
    flux = float(sep.sum_circle(plane, [x], [y], reach)[0][0])
    half = round(min(reach, 18))
    part = plane[round(y) - half : round(y) + half + 1, round(x) - half : round(x) + half + 1]
    turned = part[::-1, ::-1]
    noise = sigma * np.sqrt(part.size)
    asymmetry = float((np.abs(part - turned).sum() / 2 - 0.56 * noise * np.sqrt(part.size)) / max(part.sum(), noise))
    blue = measured.planes["g"][round(y) - half : round(y) + half + 1, round(x) - half : round(x) + half + 1]
    fine = blue - gaussian_filter(blue, 2.5)
    rough = float(np.sqrt(np.mean(fine**2)) / max(float(blue.mean()), measured.sigma["g"] / 3))
    peak = float(part.max() / max(float(part.mean()), sigma / 3))
    return [
        gr,
        rz,
        float(s.r50[k] / measured.star_r50),
        float(s.q[k]),
        concentration,
        asymmetry,
        rough,
        float(np.log(max(peak, 0.1))),
        core_gr - gr,
        core_rz - rz,
        float(np.arcsinh(around[0] / max(flux, 1e-3))),
    ]


def _color(one: float, two: float) -> float:
    """A color, at the edge of what is seen where a flux is not positive."""
    return float(np.clip(one - two, -1, 4)) if np.isfinite(one) and np.isfinite(two) else 4.0


def _flux_color(one: float, two: float) -> float:
    return float(np.clip(-2.5 * np.log10(max(one, 1e-3) / max(two, 1e-3)), -1, 4))
