"""Fluxes, magnitudes, dust and ellipticities: the conversions of the Tractor catalogs (reference: Legacy Survey "description").

Fluxes are in nanomaggies: 1 nMgy is AB magnitude 22.5. They may be zero or negative, where a magnitude does not exist (NaN).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ZERO_POINT = 22.5
POGSON = 2.5 / np.log(10.0)


def nanomaggies_to_mag(flux: ArrayLike) -> Floats:
    """AB magnitude, ``22.5 - 2.5 log10(flux)``.

    Parameters
    ----------
    flux : array_like
        Nanomaggies, any shape.

    Returns
    -------
    ndarray
        Magnitudes, same shape; NaN where flux <= 0.
    """
    value = np.asarray(flux, np.float64)
    good = value > 0
    return np.where(good, ZERO_POINT - 2.5 * np.log10(np.where(good, value, 1.0)), np.nan)


def mag_to_nanomaggies(mag: ArrayLike) -> Floats:
    """Flux in nanomaggies of an AB magnitude; the inverse of `nanomaggies_to_mag`."""
    return np.asarray(10.0 ** ((ZERO_POINT - np.asarray(mag, np.float64)) / 2.5))


def mag_error(flux: ArrayLike, flux_ivar: ArrayLike) -> Floats:
    """First-order 1-sigma error of a magnitude, ``2.5 / ln 10 / (flux sqrt(ivar))``.

    Parameters
    ----------
    flux, flux_ivar : array_like
        Nanomaggies and 1/nanomaggies^2, shapes that broadcast.

    Returns
    -------
    ndarray
        Magnitudes; NaN where flux or its inverse variance is not positive.
    """
    value, ivar = np.broadcast_arrays(np.asarray(flux, np.float64), np.asarray(flux_ivar, np.float64))
    good = (value > 0) & (ivar > 0)
    return np.where(good, POGSON / (np.where(good, value, 1.0) * np.sqrt(np.where(good, ivar, 1.0))), np.nan)


def deredden(flux: ArrayLike, mw_transmission: ArrayLike) -> Floats:
    """Flux corrected for Galactic dust, ``flux / mw_transmission``; NaN where the transmission is not positive."""
    value, transmission = np.broadcast_arrays(np.asarray(flux, np.float64), np.asarray(mw_transmission, np.float64))
    good = transmission > 0
    return np.where(good, value / np.where(good, transmission, 1.0), np.nan)


def axis_ratio(e1: ArrayLike, e2: ArrayLike) -> Floats:
    """b/a of Tractor ellipticity components, ``(1 - e) / (1 + e)`` with ``e = hypot(e1, e2)``."""
    e = np.hypot(np.asarray(e1, np.float64), np.asarray(e2, np.float64))
    return np.asarray((1 - e) / (1 + e))


def position_angle(e1: ArrayLike, e2: ArrayLike) -> Floats:
    """Position angle of the major axis, degrees east of north in [0, 180): ``atan2(e2, e1) / 2``."""
    angle = np.degrees(0.5 * np.arctan2(np.asarray(e2, np.float64), np.asarray(e1, np.float64))) % 180.0
    # -1e-17 % 180 rounds to 180, which is outside the half-open range
    return np.where(angle >= 180.0, 0.0, angle)


def ellipticity(ba: ArrayLike, pa: ArrayLike) -> tuple[Floats, Floats]:
    """Tractor components (e1, e2) of an axis ratio and a position angle (deg east of north).

    The inverse of `axis_ratio` and `position_angle`.
    """
    ratio, angle = np.asarray(ba, np.float64), np.radians(2 * np.asarray(pa, np.float64))
    e = (1 - ratio) / (1 + ratio)
    return np.asarray(e * np.cos(angle)), np.asarray(e * np.sin(angle))


def depth_to_mag(depth: ArrayLike, sigmas: float = 5.0) -> Floats:
    """AB magnitude of an n-sigma detection, ``22.5 - 2.5 log10(n / sqrt(depth))``.

    Parameters
    ----------
    depth : array_like
        psfdepth or galdepth: inverse variance of a source's flux, 1/nanomaggies^2.
    sigmas : float
        n.

    Returns
    -------
    ndarray
        Magnitudes; NaN where depth <= 0 (not observed).
    """
    value = np.asarray(depth, np.float64)
    good = value > 0
    return nanomaggies_to_mag(np.where(good, sigmas / np.sqrt(np.where(good, value, 1.0)), np.nan))


def pixel_sigma(psfdepth: ArrayLike, psfsize: ArrayLike, pixscale: float) -> Floats:
    """Sky noise per pixel from a point-source depth, ``1/sigma^2 = psfdepth 4 pi (psfsize / 2.3548 / pixscale)^2``.

    Parameters
    ----------
    psfdepth, psfsize : array_like
        1/nanomaggies^2 and arcsec (FWHM), shapes that broadcast.
    pixscale : float
        Arcsec per pixel.

    Returns
    -------
    ndarray
        Nanomaggies per pixel; NaN where not observed.
    """
    width = np.asarray(psfsize, np.float64) / 2.3548 / pixscale
    ivar = np.asarray(psfdepth, np.float64) * 4 * np.pi * width**2
    good = ivar > 0
    return np.where(good, 1 / np.sqrt(np.where(good, ivar, 1.0)), np.nan)
