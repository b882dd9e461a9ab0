"""The survey-like PSF: two Moffats for the core, and the outer wings that differ per band and camera."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, kv

from galpipe.mock.cameras import Camera

Floats = NDArray[np.float64]

SECOND_BETA = 2.2
"""Moffat beta of the core's wings."""

SOFT = 5.0
"""Arcsec inside which the outer profile flattens: there the core outshines it."""


def moffat_transform(k: Floats, fwhm: float, beta: float) -> Floats:
    """Fourier transform of a Moffat of unit flux.

    Parameters
    ----------
    k : ndarray
        Angular frequency, radians per arcsec.
    fwhm : float
        Arcsec.
    beta : float

    Returns
    -------
    ndarray
        ``2 (s/2)^(beta-1) K_(beta-1)(s) / Gamma(beta-1)`` with ``s = k alpha`` (modified Bessel function of the second kind).
    """
    s = np.maximum(k * fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1)), 1e-6)
    return np.asarray(2 * (s / 2) ** (beta - 1) * kv(beta - 1, s) / gamma(beta - 1))


@cache
def _core_table(core: tuple[float, float, float]) -> tuple[Floats, Floats]:
    """Frequency times FWHM, and the core's transform there."""
    beta, share, wide = core
    k = np.concatenate([[0.0], np.geomspace(1e-3, 60, 600)])
    return k, (1 - share) * moffat_transform(k, 1.0, beta) + share * moffat_transform(k, wide, SECOND_BETA)


def core_transform(k: Floats, fwhm: Floats | float, camera: Camera) -> Floats:
    """Fourier transform of the PSF's core of unit flux at angular frequency ``k`` (radians per arcsec); shapes broadcast."""
    return np.asarray(np.interp(k * fwhm, *_core_table(camera.core)))


@cache
def size_over_fwhm(camera: Camera) -> float:
    """The survey's PSF size over the core's FWHM.

    The survey states ``2.3548 sqrt(A / 4 pi)`` with ``A`` the noise-equivalent area, which is the FWHM of a Gaussian and about 1.3
    times the FWHM of a Moffat. ``1 / A`` is the integral of the squared profile, taken in Fourier space.
    """
    k, f = _core_table(camera.core)
    inverse_area = float(np.trapezoid(f**2 * k, k) / (2 * np.pi))
    return float(2.3548 * np.sqrt(1 / inverse_area / (4 * np.pi)))


def core_profile(radius: Floats, fwhm: Floats | float, camera: Camera) -> Floats:
    """Surface brightness of the core of unit flux, per square arcsec, at radii in arcsec."""
    beta, share, wide = camera.core
    return (1 - share) * _moffat(radius, fwhm, beta) + share * _moffat(radius, wide * fwhm, SECOND_BETA)


def _moffat(radius: Floats, fwhm: Floats | float, beta: float) -> Floats:
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return np.asarray((beta - 1) / (np.pi * alpha**2) * (1 + (radius / alpha) ** 2) ** -beta)


def outer_profile(radius: Floats, camera: Camera) -> Floats:
    """Surface brightness of the outer wings of a star of unit flux, per square arcsec, at radii in arcsec.

    A power law ``w / r^2`` or a weighted Moffat (Legacy Survey DR9, page on the PSF's outer wings), flattened inside 5 arcsec.
    """
    alpha, beta, weight = camera.outer
    soft = np.hypot(radius, SOFT)
    moffat = weight * (beta - 1) / (np.pi * alpha**2) * (1 + (radius / alpha) ** 2) ** -beta if weight > 0 else 0.0
    return np.asarray(camera.power_law / soft**2 + moffat)
