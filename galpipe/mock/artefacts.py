"""What telescopes, cameras and passing satellites add to the sky, and what sky subtraction takes away.

Shapes and strengths are stated where they stand; those marked "guess" are not published by the survey and are set by eye.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label, maximum_filter

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.cameras import Camera
from galpipe.mock.psf import outer_profile

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

HALO_LIMIT = 18.0
"""Faintest star (mag in the band) whose outer wings are drawn."""

SUBTRACTED_LIMIT = 13.0
"""DECam's wings of stars brighter than this (the BRIGHT mask's limit) were subtracted from the images, all but a leftover."""

SPIKE_SHARE = 2.5e-3
"""Share of a star's flux in its diffraction spikes (guess)."""

BLEED_LENGTH = 9
"""Length of a bleed trail to each side over the saturated core's width (guess)."""

OVERSUBTRACTION = 0.35
"""Share of extended light that the sky's spline takes for sky (guess)."""


def window(center: tuple[float, float], half: float, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns within ``half`` pixels of a position (x, y); None outside the image."""
    x0, x1 = max(int(center[0] - half), 0), min(int(center[0] + half) + 1, shape[1])
    y0, y1 = max(int(center[1] - half), 0), min(int(center[1] + half) + 1, shape[0])
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def offsets(center: tuple[float, float], where: tuple[slice, slice]) -> tuple[Floats, Floats]:
    """Arcsec along x and y of the window's pixels from a position."""
    dx = (np.arange(where[1].start, where[1].stop) - center[0]) * SURVEY_PIXSCALE
    dy = (np.arange(where[0].start, where[0].stop) - center[1]) * SURVEY_PIXSCALE
    return dx[None, :], dy[:, None]


def add_halo(image: Image, center: tuple[float, float], flux: float, camera: Camera, least: float) -> None:
    """Add a star's outer wings out to where they fall below ``least`` nanomaggies per pixel (in place)."""
    pixel = SURVEY_PIXSCALE**2
    radii = np.geomspace(6.0, 260.0, 80)
    above = radii[abs(flux) * outer_profile(radii, camera) * pixel > least]
    where = window(center, (above[-1] if len(above) else 6.0) / SURVEY_PIXSCALE, image.shape)
    if where is None:
        return
    dx, dy = offsets(center, where)
    radius = np.hypot(dx, dy)
    fade = np.clip(2 - 2 * radius / (above[-1] if len(above) else 6.0), 0, 1)
    image[where] += (flux * pixel * outer_profile(radius, camera) * fade).astype(np.float32)


def spike_length(flux: float, least: float) -> float:
    """Arcsec from the center to where a spike's crest falls below ``least`` nanomaggies per pixel."""
    crest = SPIKE_SHARE * flux * SURVEY_PIXSCALE**2 / 4 / (0.7 * np.sqrt(2 * np.pi)) * 3.0
    return float(max(np.sqrt(crest / least) - 3.0, 0.0))


def add_spikes(image: Image, center: tuple[float, float], flux: float, camera: Camera, least: float) -> None:
    """Add four diffraction spikes, in place: along them 3 / (r + 3)^2, across a Gaussian of sigma 0.7 arcsec."""
    length = spike_length(flux, least)
    where = window(center, length / SURVEY_PIXSCALE, image.shape)
    if length < 3.0 or where is None:
        return
    dx, dy = offsets(center, where)
    angle = np.radians(camera.spike_angle)
    along, across = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
    total = np.zeros((dy.shape[0], dx.shape[1]))
    for a, c in ((along, across), (across, along)):
        total += 3.0 / (np.abs(a) + 3.0) ** 2 * np.exp(-0.5 * (c / 0.7) ** 2)
    image[where] += (SPIKE_SHARE * flux * SURVEY_PIXSCALE**2 / 4 / (0.7 * np.sqrt(2 * np.pi)) * total).astype(np.float32)


def bleed(saturated: Mask, axis: int) -> tuple[Mask, Mask]:
    """What is lost beside saturated pixels: a rim of two pixels and, of large cores, bleed trails along an axis.

    Returns
    -------
    rim, trail : ndarray of bool, shape (H, W)
        Without the saturated pixels themselves.
    """
    trail = np.zeros_like(saturated)
    if not saturated.any():
        return trail, trail
    grown = maximum_filter(saturated, size=5)
    labels, count = label(grown)
    turned = trail if axis == 1 else trail.T
    rows, columns = np.nonzero(grown if axis == 1 else grown.T)
    names = (labels if axis == 1 else labels.T)[rows, columns]
    order = np.argsort(names, kind="stable")
    for part in np.split(order, np.searchsorted(names[order], np.arange(2, count + 1))):
        r, c = rows[part], columns[part]
        width = int(r.max() - r.min() + 1)
        if width <= 16:
            continue
        thick, long = max(width // 10, 1), BLEED_LENGTH * (width - 12) // 2
        middle = int((r.max() + r.min()) // 2)
        turned[max(middle - thick, 0) : middle + thick + 1, max(int(c.min()) - long, 0) : int(c.max()) + long] = True
    return grown & ~saturated, trail & ~grown


def oversubtraction(clean: Image, sigma: float) -> Image:
    """What the sky's spline takes away beside bright stars and large galaxies, nanomaggies per pixel (to be subtracted).

    Masked sources are clipped at three times the sky's noise; what is left of their light, smoothed over 17 arcsec, counts as sky.
    """
    step = 8
    height, width = clean.shape[0] // step * step, clean.shape[1] // step * step
    if min(height, width) < 4 * step:
        return np.zeros_like(clean)
    blocks = np.minimum(clean[:height, :width], np.float32(3 * sigma)).reshape(height // step, step, width // step, step)
    smooth = gaussian_filter(blocks.mean(axis=(1, 3)), 8, mode="nearest")
    smooth = np.maximum(smooth - np.median(smooth), 0)
    return np.float32(OVERSUBTRACTION) * enlarge(smooth, (clean.shape[0], clean.shape[1]))


def enlarge(coarse: NDArray[np.floating], shape: tuple[int, int]) -> Image:
    """Bilinear interpolation of a coarse image that covers the same area onto a fine grid."""
    weights = []
    for count, nodes in zip(shape, coarse.shape, strict=True):
        place = (np.arange(count) + 0.5) * nodes / count - 0.5
        weights.append(np.stack([np.interp(place, np.arange(nodes), unit) for unit in np.eye(nodes)], axis=1).astype(np.float32))
    return np.asarray(weights[0] @ np.asarray(coarse, np.float32) @ weights[1].T, np.float32)


def sky_waves(shape: tuple[int, int], rng: np.random.Generator, amplitude: float) -> Image:
    """What the sky's spline leaves of the sky's own structure: a smooth random field, correlated over some 30 pixels."""
    step = 16
    nodes = (max(shape[0] // step, 2), max(shape[1] // step, 2))
    field = gaussian_filter(rng.standard_normal(nodes), 1.0, mode="wrap")
    return np.float32(amplitude) * enlarge(field / max(float(field.std()), 1e-9), shape)


def add_ghost(image: Image, center: tuple[float, float], flux: float, rng: np.random.Generator) -> None:
    """Add the out-of-focus reflection of a very bright star, in place: a ring of 40 to 90 arcsec beside it, 1e-4 of its flux (guess)."""
    radius = rng.uniform(40, 90)
    shift = rng.normal(0, 60, 2) / SURVEY_PIXSCALE
    at = (center[0] + float(shift[0]), center[1] + float(shift[1]))
    where = window(at, radius / SURVEY_PIXSCALE, image.shape)
    if where is None:
        return
    dx, dy = offsets(at, where)
    r = np.hypot(dx, dy)
    ring = ((r < radius) & (r > 0.35 * radius)) * (0.6 + 0.4 * r / radius)
    image[where] += (1e-4 * flux * SURVEY_PIXSCALE**2 / (np.pi * radius**2) * ring).astype(np.float32)


def trail(shape: tuple[int, int], rng: np.random.Generator, fwhm: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """A satellite's straight trail across the whole image: rows, columns and profile (1 on the crest) of the pixels it touches.

    Parameters
    ----------
    shape : tuple of int
    rng : numpy.random.Generator
    fwhm : float
        Of the PSF, pixels: the trail is as wide.
    """
    angle = rng.uniform(0, np.pi)
    x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
    across = (-np.sin(angle), np.cos(angle))
    sigma, reach = fwhm / 2.355, int(np.ceil(2 * fwhm))
    found = []
    if abs(across[1]) > abs(across[0]):
        columns = np.arange(shape[1])
        crest = y - (columns - x) * across[0] / across[1]
        for step in range(-2 * reach, 2 * reach + 1):
            rows = np.round(crest).astype(np.int64) + step
            found.append((rows, columns, (rows - crest) * across[1]))
    else:
        rows = np.arange(shape[0])
        crest = x - (rows - y) * across[1] / across[0]
        for step in range(-2 * reach, 2 * reach + 1):
            columns = np.round(crest).astype(np.int64) + step
            found.append((rows, columns, (columns - crest) * across[0]))
    rows, columns, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1]) & (np.abs(distance) < reach)
    return rows[inside], columns[inside], np.exp(-0.5 * (distance[inside] / sigma) ** 2)


def streaks(shape: tuple[int, int], rng: np.random.Generator, count: int) -> Mask:
    """Short streaks of cosmic rays, each masked in one exposure."""
    mask = np.zeros(shape, bool)
    x, y = rng.integers(0, shape[1], count), rng.integers(0, shape[0], count)
    angle, length = rng.uniform(0, np.pi, count), rng.integers(2, 12, count)
    for k in range(count):
        steps = np.arange(length[k])
        rows, columns = (y[k] + steps * np.sin(angle[k])).astype(int), (x[k] + steps * np.cos(angle[k])).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        mask[rows[inside], columns[inside]] = True
    return mask
