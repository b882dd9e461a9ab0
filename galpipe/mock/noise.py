"""Noise as resampled exposures leave it.

The survey brings each exposure to the coadd's grid by Lanczos-3 interpolation. White noise interpolated at an unknown phase has the
autocorrelation ``<sum_i L(t - i) L(t + s - i)>`` averaged over the phase ``t``, with the lag ``s`` in native pixels and the kernel's
weights normalized to a sum of one. Phases along x and y are independent, so that the plane's autocorrelation is a product. No number
is fitted; DECam (0.262 arcsec) and 90Prime (0.4533 arcsec) coadds show these correlations (docs/realism.md).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from galpipe.config import SURVEY_PIXSCALE

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

LANCZOS = 3
MOST_LAGS = 16


def lanczos(x: Floats) -> Floats:
    """The Lanczos-3 kernel."""
    return np.asarray(np.where(np.abs(x) < LANCZOS, np.sinc(x) * np.sinc(x / LANCZOS), 0.0))


def _weights(phase: Floats) -> Floats:
    """Normalized kernel weights of the native pixels around each phase, shape (len(phase), taps)."""
    weights = lanczos(phase[:, None] - np.arange(-MOST_LAGS - 4, MOST_LAGS + 5))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@cache
def autocovariance(native: float) -> tuple[float, ...]:
    """Autocovariance along one axis at lags of 0, 1, 2, ... coadd pixels, for native noise of unit variance.

    Parameters
    ----------
    native : float
        Native pixel, arcsec.
    """
    phase = (np.arange(256) + 0.5) / 256
    step = SURVEY_PIXSCALE / native
    here = _weights(phase)
    return tuple(float((here * _weights(phase + lag * step)).sum(axis=1).mean()) for lag in range(MOST_LAGS + 1))


@cache
def noise_taps(native: float) -> tuple[float, ...]:
    """Symmetric filter that gives white noise this autocovariance along one axis.

    Its sum is the native pixel over the coadd's: the exposures' inverse variances are looked up, not interpolated, so that sums over
    many coadd pixels of a camera with large pixels scatter by this factor (per axis) more than the coadd's inverse variance says.
    """
    lags = np.array(autocovariance(native))
    full = np.zeros(128)
    full[: len(lags)] = lags
    full[-len(lags) + 1 :] = lags[:0:-1]
    # the averaged spectrum is positive but for rounding
    taps = np.fft.fftshift(np.fft.ifft(np.sqrt(np.maximum(np.fft.fft(full).real, 0))).real)
    middle = taps[64 - MOST_LAGS : 64 + MOST_LAGS + 1]
    return tuple(float(tap) for tap in middle / np.sqrt((middle**2).sum() / lags[0]))


def coadd_noise(rng: np.random.Generator, shape: tuple[int, int], native: float) -> Image:
    """Noise of one coadd in units of the inverse variance the survey states for it.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    native : float
        Native pixel, arcsec.

    Returns
    -------
    ndarray of float32
        Standard deviation near 0.89: interpolation takes power out of the highest frequencies.
    """
    noise = rng.standard_normal(shape, np.float32)
    taps = np.array(noise_taps(native))
    for axis in (0, 1):
        noise = correlate1d(noise, taps, axis=axis, mode="wrap", output=np.float32)
    return np.asarray(noise, np.float32)


def resample(image: Image, shift: tuple[float, float]) -> Image:
    """An image moved by a fraction of a pixel with Lanczos-3, as the survey's cutout service interpolates its cutouts.

    Parameters
    ----------
    image : ndarray, shape (H, W)
    shift : tuple of float
        Pixels along x and y.
    """
    moved = image
    for axis, offset in ((1, shift[0]), (0, shift[1])):
        taps = lanczos(np.arange(-LANCZOS, LANCZOS + 1, dtype=np.float64) + offset)
        moved = correlate1d(moved, taps / taps.sum(), axis=axis, mode="nearest", output=np.float32)
    return np.asarray(moved, np.float32)


def flux_gain(native: float) -> float:
    """Variance of a flux summed over many pixels, over what the coadd's inverse variance says."""
    return float(sum(noise_taps(native)) ** 4)
