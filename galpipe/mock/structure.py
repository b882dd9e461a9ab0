"""What makes a drawn disk look grown: arms that bend and break, young light that is bluer than old light, dust that reddens.

`galpipe.mock.shapes` draws the ideal pattern; here it is bent, broken up and tinted, band by band.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from galpipe.mock import shapes
from galpipe.mock.spec import ALL_BANDS

Floats = NDArray[np.float64]

YOUNG = {"g": 1.30, "r": 1.0, "i": 0.85, "z": 0.70}
"""Contrast of arms and rings per band, relative to r: young stars are blue."""

CLUMPS = {"g": 1.3, "r": 1.0, "i": 0.85, "z": 0.7}
"""The same for star-forming clumps."""

BAR = {"g": 0.72, "r": 1.0, "i": 1.08, "z": 1.15}
"""Bars are as old as bulges."""

DUST = {"g": 1.25, "r": 1.0, "i": 0.8, "z": 0.6}
"""Optical depth of dust per band, relative to r (about a Milky Way curve, flattened by mixing)."""


def tinted(source: np.void, band: str) -> np.void:
    """The source with its features as strong as a band shows them."""
    own = source.copy()
    own["arm_strength"] = min(float(source["arm_strength"]) * YOUNG[band], 0.97)
    own["ring"] = min(float(source["ring"]) * YOUNG[band], 0.8)
    own["clumps"] = 0.0
    own["bar"] = float(source["bar"]) * BAR[band]
    own["dust"] = min(float(source["dust"]) * DUST[band], 0.9)
    return own


def bent(source: np.void, dx: Floats, dy: Floats) -> tuple[Floats, Floats]:
    """Coordinates bent by a few smooth waves that grow outward: no arm is an ideal spiral, no disk quite round.

    Parameters
    ----------
    source : numpy.void
    dx, dy : ndarray, shape (H, W)
        Arcsec from the center.
    """
    rng = np.random.default_rng([int(source["pattern"]), 2])
    size = max(float(source["disk_re"]), 0.3)
    radius = np.hypot(dx, dy)
    reach = radius / (radius + size)
    out = [dx, dy]
    for axis in (0, 1):
        for _ in range(3):
            wave = rng.normal(0, 1, 2) * 0.9 / size
            out[axis] = out[axis] + 0.14 * size * rng.normal() * reach * np.sin(wave[0] * dx + wave[1] * dy + rng.uniform(0, 2 * np.pi))
    return out[0], out[1]


def texture(source: np.void, shape: tuple[int, int], pixel: float) -> Floats:
    """Mean-one multiplicative texture of young light (flocculence), log-normal with the grain of a fifth of the disk's size."""
    rng = np.random.default_rng([int(source["pattern"]), 3])
    grain = max(0.16 * float(source["disk_re"]) / pixel, 0.9)
    field = gaussian_filter(rng.standard_normal(shape), grain, mode="wrap")
    field /= max(float(field.std()), 1e-9)
    strength = 0.35 if source["arms"] > 0 or source["kind"] == "irregular" else 0.12
    return np.asarray(np.exp(strength * field - strength**2 / 2))


def clumps(source: np.void, light: Floats, pixel: float) -> Floats:
    """Star-forming clumps, in the same places in every band: shares that sum to one, shape (H, W).

    Luminosities follow a power law of slope -2; places follow the young light, which arms and rings hold.

    Parameters
    ----------
    source : numpy.void
    light : ndarray, shape (H, W)
        Young light.
    pixel : float
        Arcsec.
    """
    rng = np.random.default_rng([int(source["pattern"]), 5])
    count = int(rng.integers(15, 50))
    chance = np.cumsum(light.ravel() ** 1.2)
    at = np.minimum(np.searchsorted(chance, rng.random(count) * chance[-1]), light.size - 1)
    points = np.zeros(light.size)
    np.add.at(points, at, np.minimum(1 / rng.random(count), 12.0))
    width = max(0.06 * float(source["disk_re"]) / pixel, 0.7)
    blobs = gaussian_filter(points.reshape(light.shape), width, mode="constant")
    return np.asarray(blobs / max(float(blobs.sum()), 1e-12))


def arm_dust(source: np.void, dx: Floats, dy: Floats) -> Floats:
    """Optical depth in r of dust lanes on the inner side of spiral arms and bars, shape (H, W)."""
    if source["arms"] <= 0:
        return np.zeros(dx.shape)
    rng = np.random.default_rng([int(source["pattern"]), 4])
    u, v = shapes.plane(dx, dy, float(source["pa"]), float(source["disk_q"]))
    radius, scale = np.hypot(u, v), float(source["disk_re"]) / shapes.EXPONENTIAL_B
    start = float(source["bar_length"]) if source["bar"] > 0 else 0.5 * scale
    turn = np.log(np.maximum(radius, 1e-3) / start) / np.tan(np.radians(float(source["pitch"])))
    phase = int(source["arms"]) * (np.arctan2(v, u) * float(source["spin"]) - turn)
    lane = np.exp(6 * (np.cos(phase + 0.9) - 1)) * np.exp(-0.5 * ((radius - 1.6 * scale) / (1.1 * scale)) ** 2)
    return np.asarray(rng.uniform(0.0, 0.5) * lane)


def disk_patterns(source: np.void, dx: Floats, dy: Floats, bands: tuple[str, ...]) -> dict[str, Floats]:
    """Surface brightness of a structured disk per band, flux shares per pixel that sum to the smooth disk's sum.

    Parameters
    ----------
    source : numpy.void
        One element of a `galpipe.mock.sky.SOURCE` array.
    dx, dy : ndarray, shape (H, W)
        Arcsec from the center, +x and +y.
    bands : tuple of str
    """
    x, y = bent(source, dx, dy)
    pixel = abs(float(dx[0, 1] - dx[0, 0]))
    grain, lanes = texture(source, dx.shape, pixel), arm_dust(source, x, y)
    smooth = _smooth_disk(source, dx, dy)
    total = float(smooth.sum())
    # arms fade into the smooth outer disk
    size = max(float(source["disk_re"]), 0.3)
    faded = 1 / (
        1 + np.exp(np.clip((np.hypot(*shapes.plane(x, y, float(source["pa"]), float(source["disk_q"]))) / size - 1.9) / 0.3, -30, 30))
    )
    faded = faded if source["tail"] <= 0 and source["ring"] <= 0 else np.ones_like(faded)
    blobs = clumps(source, shapes.disk(tinted(source, "g"), x, y), pixel) if source["clumps"] > 0 else 0.0
    patterns = {}
    for band in bands:
        light = shapes.disk(tinted(source, band), x, y)
        light = faded * light + (1 - faded) * smooth
        light = light * (1 + YOUNG[band] * 0.8 * (grain - 1)) * np.exp(-DUST[band] * lanes)
        share = min(0.6 * float(source["clumps"]) * CLUMPS[band], 0.5)
        light = np.maximum(light, 0)
        light = (1 - share) * light + share * float(light.sum()) * blobs if source["clumps"] > 0 else light
        patterns[band] = light * (total / max(float(light.sum()), 1e-12))
    return patterns


def _smooth_disk(source: np.void, dx: Floats, dy: Floats) -> Floats:
    """The exponential disk without structure, flux share per pixel."""
    q, scale = float(source["disk_q"]), float(source["disk_re"]) / shapes.EXPONENTIAL_B
    u, v = shapes.plane(dx, dy, float(source["pa"]), q)
    pixel = float(dx[0, 1] - dx[0, 0]) ** 2
    return np.asarray(np.exp(-np.hypot(u, v) / scale) * pixel / (2 * np.pi * scale**2 * q))


def bulge_shares(share: Floats, redder: Floats) -> Floats:
    """Share of the bulge per band, shape (N, bands), when it is redder than the disk.

    Parameters
    ----------
    share : ndarray, shape (N,)
        Share in r.
    redder : ndarray, shape (N,)
        Excess of the bulge in g - r, mag; r - z has 0.6 of it.
    """
    excess = np.stack([-redder, 0 * redder, 0.3 * redder, 0.6 * redder], axis=1)
    bulge = share[:, None] * 10 ** (0.4 * excess)
    return np.asarray(bulge / (bulge + (1 - share[:, None])), np.float64)[:, : len(ALL_BANDS)]
