"""Stated models of the mock's populations (kept simple; none is fitted to data).

* counts rise as 10^(0.35 z) for 14.5 < z < 20 and as 10^(0.3 z) for 20 < z < 22.5; the true slope is steeper, this one leaves
  enough large galaxies for morphology;
* redshift: median 0.03 x 10^(0.135 (z_mag - 13.5)), 35 % log-normal scatter;
* colors: early types g-r = 0.75 + 2.2 z up to 1.7, late types 0.40 + 0.9 z; r-z = 0.60 + 0.9 z and 0.30 + 0.6 z; scatter 0.06;
* sizes: half-light radius 4.5 kpc x 10^(-0.16 (M_z + 21)) for late and 3.6 kpc x 10^(-0.22 (M_z + 21)) for early types, 25 % scatter,
  in flat Lambda-CDM with H0 = 70, Omega_m = 0.3, without K correction.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

Floats = NDArray[np.float64]

SERSIC_STEPS = np.array([0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5])
"""Sersic indices that occur: GalSim builds a table for each new one."""


@cache
def _distance_table() -> tuple[Floats, Floats]:
    z = np.linspace(0, 4, 4001)
    inverse = 1 / np.sqrt(0.3 * (1 + z) ** 3 + 0.7)
    comoving = np.concatenate([[0], np.cumsum((inverse[1:] + inverse[:-1]) / 2 * np.diff(z))]) * 299792.458 / 70
    return z, comoving


def comoving_distance(redshift: Floats) -> Floats:
    """Mpc, flat Lambda-CDM with H0 = 70 and Omega_m = 0.3."""
    return np.asarray(np.interp(redshift, *_distance_table()))


def magnitudes(rng: np.random.Generator, count: int, edges: tuple[float, float], slope: float) -> Floats:
    """Magnitudes between two edges whose counts rise as 10^(slope m)."""
    low, high = 10 ** (slope * edges[0]), 10 ** (slope * edges[1])
    return np.asarray(np.log10(rng.uniform(low, high, count)) / slope)


def redshifts(rng: np.random.Generator, z_mag: Floats) -> Floats:
    """Redshifts for observed z magnitudes."""
    median = 0.03 * 10 ** (0.135 * (z_mag - 13.5))
    return np.asarray(np.clip(median * np.exp(0.35 * rng.standard_normal(len(z_mag))), 0.003, 2.0))


def fluxes(rng: np.random.Generator, z_mag: Floats, redshift: Floats, early: Floats) -> Floats:
    """g, r, i, z nanomaggies, shape (N, 4); ``early`` runs from 0 (late) to 1 (early type)."""
    red = np.minimum(0.75 + 2.2 * redshift, 1.7)
    blue = np.minimum(0.40 + 0.9 * redshift, 1.2)
    gr = early * red + (1 - early) * blue + 0.06 * rng.standard_normal(len(z_mag))
    rz = early * (0.60 + 0.9 * redshift) + (1 - early) * (0.30 + 0.6 * redshift)
    rz = np.minimum(rz, 1.9) + 0.06 * rng.standard_normal(len(z_mag))
    r = z_mag + rz
    mags = np.stack([r + gr, r, r - 0.55 * rz, z_mag], axis=1)
    return np.asarray(10 ** (0.4 * (22.5 - mags)))


def sizes(rng: np.random.Generator, z_mag: Floats, redshift: Floats, early: Floats) -> Floats:
    """Half-light radius in arcsec."""
    distance = comoving_distance(redshift)
    absolute = z_mag - 5 * np.log10(distance * (1 + redshift)) - 25
    late_kpc = 4.5 * 10 ** (-0.16 * (absolute + 21))
    early_kpc = 3.6 * 10 ** (-0.22 * (absolute + 21))
    kpc = early_kpc**early * late_kpc ** (1 - early) * np.exp(0.25 * rng.standard_normal(len(z_mag)))
    arcsec = kpc / (distance * 1e3 / (1 + redshift)) * 206264.8
    return np.asarray(np.clip(arcsec, 0.12, 12.0))


def step_n(n: Floats) -> Floats:
    """The nearest Sersic index that occurs."""
    return SERSIC_STEPS[np.argmin(np.abs(n[:, None] - SERSIC_STEPS), axis=1)]


def _growth(radius: Floats, re: Floats, n: Floats) -> Floats:
    """Share of a Sersic profile's flux inside a radius."""
    b = gammaincinv(2 * n, 0.5)
    return np.asarray(gammainc(2 * n, b * (radius / re) ** (1 / n)))


def single_component(bulge: Floats, bulge_re: Floats, bulge_n: Floats, disk_re: Floats) -> tuple[Floats, Floats]:
    """Half-light radius and Sersic index of bulge plus exponential disk.

    The radius holds half of the summed growth curves (each along its own major axis); the index is that of the Sersic growth
    curve with this radius that comes closest to the sum (least squares at 24 radii from 0.15 to 4 half-light radii).

    Parameters
    ----------
    bulge : ndarray, shape (N,)
        Share of the flux in the bulge.
    bulge_re, disk_re : ndarray, shape (N,)
        Half-light radii, arcsec.
    bulge_n : ndarray, shape (N,)

    Returns
    -------
    radius, n : ndarray, shape (N,)
    """
    grid = np.geomspace(0.02, 60, 400)[None, :] * np.minimum(bulge_re, disk_re)[:, None]
    column = (bulge[:, None], bulge_re[:, None], bulge_n[:, None], disk_re[:, None])
    total = column[0] * _growth(grid, column[1], column[2]) + (1 - column[0]) * _growth(grid, column[3], np.ones_like(column[3]))
    radius = np.array([np.interp(0.5, curve, r) for curve, r in zip(total, grid, strict=True)])
    at = np.geomspace(0.15, 4, 24)
    curves = np.array([np.interp(at * r, g, t) for r, g, t in zip(radius, grid, total, strict=True)]).reshape(-1, len(at))
    candidates = np.arange(0.5, 6.01, 0.1)
    models = np.stack([_growth(at, np.ones(1), np.array([n])) for n in candidates])
    misfit = ((curves[:, None, :] - models[None]) ** 2).sum(axis=2)
    return radius, candidates[np.argmin(misfit, axis=1)]
