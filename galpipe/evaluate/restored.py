"""Figures of one restored plane against the noiseless one (science.md section 6), and their means over galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from galpipe.evaluate.restorers import Degraded, Plane
from galpipe.heads.restoration import PEAK

Floats = NDArray[np.float64]

APERTURE = 8.0
"""Radius in pixels (2.1 arcsec) of the flux."""

GROWTH = 20.0
"""Radius in pixels of the flux whose half defines r50."""

WINDOW = 6.0
"""Sigma in pixels of the weight of the moments."""

CENTER = 16.0
"""Radius in pixels of the central PSNR."""

DETECTION = 3.0
"""Threshold of sources, sky sigmas of the degraded stamp per pixel, the same for the restored image and the noiseless one."""

LEAST_AREA, NEAR, BORDER = 5, 3, 6
"""Pixels of a source, around its center where its counterpart may lie, and of the edge that is left out."""

RESAMPLES = 400

SHAPES = ("flux", "r50", "ellipticity")
MEDIANS = (*SHAPES, "chi2")
"""A few stamps with bright stars would decide a mean of these."""

MEANS = ("psnr", "psnr_center")
RATES = {"false": ("false_sources", "found_sources"), "lost": ("lost_sources", "true_sources")}


@dataclass(frozen=True)
class Scene:
    """What is known of a stamp in one band.

    Parameters
    ----------
    clean : ndarray
        Float32, shape (S, S), noiseless flux at the wanted PSF, nanomaggies.
    known : ndarray
        Bool, shape (S, S), where the truth says something.
    center : tuple of float
        x, y of the source, pixels.
    softening : float
    """

    clean: Plane
    known: NDArray[np.bool_]
    center: tuple[float, float]
    softening: float


def figures(restored: Plane, scene: Scene, stamp: Degraded) -> dict[str, float]:
    """Figures of one plane; NaN where the truth gives none."""
    error = np.arcsinh(restored / scene.softening) - np.arcsinh(scene.clean / scene.softening)
    middle = scene.known & (_distance(scene) <= CENTER)
    result = {"psnr": _psnr(error[scene.known]), "psnr_center": _psnr(error[middle]), "chi2": _chi2(restored, stamp)}
    result |= shapes(restored, scene) | sources(restored, scene, stamp)
    return result


def _distance(scene: Scene) -> Floats:
    rows, columns = np.indices(scene.clean.shape)
    return np.hypot(columns - scene.center[0], rows - scene.center[1])


def _psnr(error: NDArray[np.float32]) -> float:
    return float(10 * np.log10(PEAK**2 / max(float(np.mean(error.astype(np.float64) ** 2)), 1e-12))) if error.size else float("nan")


def _chi2(restored: Plane, stamp: Degraded) -> float:
    """Mean squared difference of the restored image, brought back to the stamp's PSF, and the stamp, over the sky's variance."""
    again = gaussian_filter(restored, stamp.ratio_sigma, mode="reflect") if stamp.ratio_sigma > 0 else restored
    away = ((again - stamp.flux)[stamp.valid] / max(stamp.noise, 1e-9)).astype(np.float64)
    return float(np.mean(away**2)) if away.size else float("nan")


def shapes(restored: Plane, scene: Scene) -> dict[str, float]:
    """Relative errors of flux and r50, and the error of the ellipticity along the true one."""
    ours, true = (_shape(plane, scene) for plane in (restored, scene.clean))
    if not true[0] > 0:
        return dict.fromkeys(SHAPES, float("nan"))
    length = float(np.hypot(true[2], true[3]))
    along = (ours[2] * true[2] + ours[3] * true[3]) / max(length, 1e-9) - length
    return {"flux": ours[0] / true[0] - 1, "r50": ours[1] / true[1] - 1 if true[1] > 0 else float("nan"), "ellipticity": along}


def _shape(plane: Plane, scene: Scene) -> tuple[float, float, float, float]:
    """Aperture flux, r50 (px), and two components of the ellipticity from weighted moments."""
    image = np.ascontiguousarray(plane, dtype=np.float64)
    x, y = scene.center
    flux, _, _ = sep.sum_circle(image, [x], [y], APERTURE)
    whole, _, _ = sep.sum_circle(image, [x], [y], GROWTH)
    half, _ = sep.flux_radius(image, [x], [y], [GROWTH], 0.5, normflux=whole, subpix=5)
    rows, columns = np.indices(image.shape)
    dx, dy = columns - x, rows - y
    weighted = image * np.exp(-(dx**2 + dy**2) / (2 * WINDOW**2))
    total = max(float(weighted.sum()), 1e-9)
    xx, yy, xy = (float((weighted * part).sum()) / total for part in (dx**2, dy**2, dx * dy))
    size = max(xx + yy, 1e-9)
    return float(flux[0]), float(half[0]), (xx - yy) / size, 2 * xy / size


def sources(restored: Plane, scene: Scene, stamp: Degraded) -> dict[str, float]:
    """Counts of sources found, of those that the truth lacks, of true ones, and of those that the restored image lacks.

    A source found counts as false where the noiseless image stays under half the threshold around it; a true one of twice the
    threshold counts as lost where the restored image stays under the threshold around it, and the stamp had data there.
    """
    level = DETECTION * stamp.noise
    found, true = _extract(restored, level), _extract(scene.clean, 2 * level)
    side = 2 * NEAR + 1
    highest_true, highest_ours = (maximum_filter(plane, size=side) for plane in (scene.clean, restored))
    found, true = found[scene.known[_places(found)]], true[(scene.known & stamp.valid)[_places(true)]]
    return {
        "found_sources": float(len(found)),
        "false_sources": float((highest_true[_places(found)] < level / 2).sum()),
        "true_sources": float(len(true)),
        "lost_sources": float((highest_ours[_places(true)] < level).sum()),
    }


def _places(positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return positions[:, 1], positions[:, 0]


def _extract(plane: Plane, level: float) -> NDArray[np.int64]:
    """Nearest pixels (x, y) of the sources above a level, shape (K, 2)."""
    image = np.ascontiguousarray(plane, dtype=np.float32)
    sep.set_extract_pixstack(1_000_000)
    found = sep.extract(image, max(level, 1e-9), minarea=LEAST_AREA, filter_kernel=None)
    x, y = np.rint(found["x"]).astype(np.int64), np.rint(found["y"]).astype(np.int64)
    last = plane.shape[0] - 1 - BORDER
    inside = (x >= BORDER) & (y >= BORDER) & (x <= last) & (y <= last)
    return np.stack([x[inside], y[inside]], axis=1)


def summary(rows: list[dict[str, float]], seed: int = 0) -> dict[str, dict[str, float]]:
    """Medians, means and rates over galaxies with 95 % intervals, galaxies resampled.

    Parameters
    ----------
    rows : list of dict
        Figures of each galaxy.
    seed : int
        Of the resampling.
    """
    draws = np.random.default_rng([seed, 13]).integers(len(rows), size=(RESAMPLES, len(rows)))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    result = {}
    for name, values in columns.items():
        if name in MEDIANS:
            result[name] = _with_interval(float(np.nanmedian(values)), np.nanmedian(values[draws], axis=1))
            spread = 1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values)))
            result[f"{name}_scatter"] = {"value": float(spread)}
        elif name in MEANS or name.startswith("coverage"):
            result[name] = _with_interval(float(np.nanmean(values)), np.nanmean(values[draws], axis=1))
    for name, (above, below) in RATES.items():
        if above in columns:
            many = columns[above][draws].sum(axis=1) / np.maximum(columns[below][draws].sum(axis=1), 1)
            result[name] = _with_interval(float(columns[above].sum() / max(columns[below].sum(), 1)), many)
            result[name]["of"] = float(columns[below].sum())
    return result


def _with_interval(value: float, drawn: Floats) -> dict[str, float]:
    low, high = np.nanpercentile(drawn, (2.5, 97.5)) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high)}
