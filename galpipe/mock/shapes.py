"""What a galaxy's disk looks like before the atmosphere: arms, bars, rings, tails, dust, clumps, lensed arcs.

Each function returns surface brightness on a grid of pixel centers. Azimuthal patterns keep the azimuthal mean, so that flux and
half-light radius stay those of the smooth disk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import i0e

Floats = NDArray[np.float64]

EXPONENTIAL_B = 1.6783469900166605
"""Half-light radius over scale length of an exponential disk."""


def plane(dx: Floats, dy: Floats, pa: float, q: float) -> tuple[Floats, Floats]:
    """Coordinates in the galaxy's plane.

    Parameters
    ----------
    dx, dy : ndarray, shape (H, W)
        Arcsec from the center along +x (west) and +y (north).
    pa : float
        Degrees east of north.
    q : float
        Axis ratio.

    Returns
    -------
    u, v : ndarray, shape (H, W)
        Along the major axis, and along the minor axis stretched to a face-on view.
    """
    angle = np.radians(pa)
    # east is -x, so the major axis points along (-sin, cos)
    u = -np.sin(angle) * dx + np.cos(angle) * dy
    v = -np.cos(angle) * dx - np.sin(angle) * dy
    return u, v / q


def disk(source: np.void, dx: Floats, dy: Floats) -> Floats:
    """Surface brightness of the structured disk, flux share per pixel; sums to one less what lies outside the grid.

    Parameters
    ----------
    source : numpy.void
        One element of a `galpipe.mock.sky.SOURCE` array.
    dx, dy : ndarray, shape (H, W)
        Arcsec from the center, +x and +y.
    """
    q = float(source["disk_q"])
    u, v = plane(dx, dy, float(source["pa"]), q)
    radius = np.hypot(u, v)
    scale = float(source["disk_re"]) / EXPONENTIAL_B
    pixel = abs(float(dx[0, 1] - dx[0, 0])) ** 2
    smooth = np.exp(-radius / scale) * pixel / (2 * np.pi * scale**2 * q)
    phi = np.arctan2(v, u) * float(source["spin"])
    light = smooth
    if source["ring"] > 0:
        light = _ring(source, light, radius)
    if source["arms"] > 0:
        light = light * _arms(source, radius, phi, scale)
    if source["clumps"] > 0:
        light = _clumps(source, light, dx.shape)
    if source["bar"] > 0:
        light = _bar(source, light, u, v * q)
    if source["dust"] > 0:
        light = light * (1 - float(source["dust"]) * np.exp(-0.5 * (v * q / (0.25 * q * scale)) ** 2) * (radius < 4 * scale))
        light *= smooth.sum() / light.sum()
    if source["tail"] > 0:
        light = _tail(source, light, radius, phi)
    return light


def _arms(source: np.void, radius: Floats, phi: Floats, scale: float) -> Floats:
    """Logarithmic spirals as an azimuthal modulation of mean one."""
    kappa, pitch = 2.5, np.tan(np.radians(float(source["pitch"])))
    arms = int(source["arms"])
    start = float(source["bar_length"]) if source["bar"] > 0 else 0.5 * scale
    phase = arms * (phi - np.log(np.maximum(radius, 1e-3) / start) / pitch)
    crest = np.exp(kappa * (np.cos(phase) - 1)) / i0e(kappa)
    rise = float(source["arm_strength"]) / (1 + np.exp(-(radius - start) / (0.25 * scale)))
    return np.asarray(1 - rise + rise * crest)


def _ring(source: np.void, light: Floats, radius: Floats) -> Floats:
    at = float(source["ring_radius"])
    ring = np.exp(-0.5 * ((radius - at) / (0.13 * at)) ** 2)
    share = float(source["ring"])
    return np.asarray((1 - share) * light + share * light.sum() * ring / max(ring.sum(), 1e-12))


def _bar(source: np.void, light: Floats, u: Floats, v: Floats) -> Floats:
    """A boxy bar along the disk's major axis turned by the pattern's angle."""
    turn = np.pi * float(source["pattern"] % 360) / 360
    q = float(source["disk_q"])
    face = v / q
    along, across = u * np.cos(turn) + face * np.sin(turn), -u * np.sin(turn) + face * np.cos(turn)
    length = float(source["bar_length"])
    profile = np.exp(-((np.abs(along / length) ** 2.5 + np.abs(across / (0.28 * length)) ** 2.5) ** (2 / 2.5)))
    share = float(source["bar"])
    return np.asarray((1 - share) * light + share * light.sum() * profile / max(profile.sum(), 1e-12))


def _clumps(source: np.void, light: Floats, shape: tuple[int, ...]) -> Floats:
    """Star-forming clumps: some of the light drawn together at random places."""
    rng = np.random.default_rng(int(source["pattern"]))
    share, count = float(source["clumps"]), int(rng.integers(6, 20))
    if light.sum() <= 0:
        return light
    chance = np.cumsum(light.ravel())
    at = np.searchsorted(chance, rng.random(count) * chance[-1])
    points = np.zeros(light.size)
    np.add.at(points, np.minimum(at, light.size - 1), rng.uniform(0.3, 1.0, count) ** 2)
    pixel = 0.262
    width = max(0.10 * float(source["disk_re"]) / pixel, 0.8)
    blobs = gaussian_filter(points.reshape(shape), width, mode="constant")
    return np.asarray((1 - share) * light + share * light.sum() * blobs / max(blobs.sum(), 1e-12))


def _tail(source: np.void, light: Floats, radius: Floats, phi: Floats) -> Floats:
    """A one-armed tidal tail from one to four half-light radii."""
    re = float(source["disk_re"])
    turn = 2 * np.pi * float(source["pattern"] % 360) / 360
    winding = 0.35 + 0.5 * float(source["pattern"] % 97) / 97
    path = np.angle(np.exp(1j * (phi - turn - np.log(np.maximum(radius, 1e-3) / re) / winding / 2)))
    width = 0.28 * re
    along = np.exp(-0.5 * ((radius - 2.2 * re) / (0.9 * re)) ** 2)
    tail = along * np.exp(-0.5 * (path * radius / width) ** 2)
    share = float(source["tail"])
    return np.asarray((1 - share) * light + share * light.sum() * tail / max(tail.sum(), 1e-12))


def arcs(source: np.void, dx: Floats, dy: Floats) -> Floats:
    """A background galaxy seen through a singular isothermal ellipsoid, as flux shares that sum to one.

    Deflections: Kormann, Schneider & Bartelmann (1994), as written by Keeton (2001) for a core radius of zero.
    """
    rng = np.random.default_rng(int(source["pattern"]) + 1)
    q = float(np.clip(source["bulge_q"], 0.55, 0.95))
    u, v = plane(dx, dy, float(source["pa"]), 1.0)
    psi = np.sqrt(q**2 * u**2 + v**2) + 1e-6
    flat = np.sqrt(1 - q**2)
    radius = float(source["einstein"])
    strength = radius * np.sqrt(q) / flat
    bu = u - strength * np.arctan(flat * u / psi)
    bv = v - strength * np.arctanh(flat * v / psi)
    off, angle = radius * rng.uniform(0.05, 0.35), rng.uniform(0, 2 * np.pi)
    size = rng.uniform(0.10, 0.22)
    light = np.exp(-np.hypot(bu - off * np.cos(angle), bv - off * np.sin(angle)) / size)
    return np.asarray(light / max(light.sum(), 1e-12))
