"""What restoration is compared with: Richardson-Lucy and wavelet denoising (scikit-image), done as well as they can be.

Both get what the model gets (pixels, masks, seeing) and restore to the same PSF. Their parameters were chosen per bin of S/N on the
benchmark's training bricks by the figure they are compared in (PSNR in asinh units): ``galpipe evaluate restoration --tune``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from galpipe.errors import ConfigurationError

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIGMA_PER_FWHM = 1 / 2.3548

SNR_EDGES = (0.0, 10.0, 30.0, 100.0, 300.0, np.inf)
"""Edges of the bins of the central galaxy's S/N."""

OFFSET = 10.0
"""Sky sigmas added before Richardson-Lucy, which needs positive pixels, and subtracted afterwards."""

EDGE = 16
"""Pixels by which planes are continued (mirrored), so that no filter darkens the edge."""

WAVELET = "sym4"


@dataclass(frozen=True)
class Degraded:
    """One band of one stamp, to be restored.

    Parameters
    ----------
    flux : ndarray
        Float32, shape (S, S), nanomaggies per pixel.
    valid : ndarray
        Bool, shape (S, S).
    fwhm, wanted : float
        Of the stamp's PSF and of the wanted one, pixels.
    noise : float
        Sky noise per pixel.
    """

    flux: Plane
    valid: Mask
    fwhm: float
    wanted: float
    noise: float

    @property
    def ratio_sigma(self) -> float:
        """Sigma (px) of the Gaussian that takes the wanted PSF to the stamp's."""
        return float(np.sqrt(max(self.fwhm**2 - self.wanted**2, 0.0))) * SIGMA_PER_FWHM


@dataclass(frozen=True)
class Lucy:
    """Richardson-Lucy (Richardson 1972, Lucy 1974), from the whole PSF to a delta and back to the wanted one, or between the two PSFs."""

    iterations: int
    whole: bool

    def __call__(self, stamp: Degraded) -> Plane:
        """The restored plane."""
        plane = fill(stamp.flux, stamp.valid)
        if not self.whole:
            return lucy(plane, stamp.ratio_sigma, self.iterations, stamp.noise)
        deconvolved = lucy(plane, stamp.fwhm * SIGMA_PER_FWHM, self.iterations, stamp.noise)
        return _smooth(deconvolved, stamp.wanted * SIGMA_PER_FWHM)


@dataclass(frozen=True)
class Wavelet:
    """Wavelet shrinkage (Donoho & Johnstone 1994; Chang et al. 2000), shifts averaged, then Richardson-Lucy to the wanted PSF.

    Parameters
    ----------
    method : str
        ``BayesShrink`` or ``VisuShrink``.
    factor : float
        Assumed noise over the pixels' own: coadds' noise is correlated, so that its coarser scales have more than white noise would.
    iterations : int
        Of Richardson-Lucy on the denoised plane.
    """

    method: str
    factor: float
    iterations: int

    def __call__(self, stamp: Degraded) -> Plane:
        """The restored plane."""
        plane = fill(stamp.flux, stamp.valid)
        if not stamp.noise > 0:
            return plane
        # in asinh units bright cores do not ring over the sky around them
        quiet = np.sinh(_shrink(np.arcsinh(plane / stamp.noise), self.method, self.factor)) * stamp.noise
        return lucy(quiet.astype(np.float32), stamp.ratio_sigma, self.iterations, stamp.noise)


Restorer = Lucy | Wavelet

GRID: dict[str, tuple[Restorer, ...]] = {
    "richardson-lucy": (*(Lucy(count, True) for count in (1, 2, 3, 4, 6, 12, 24)), *(Lucy(count, False) for count in (2, 5, 10))),
    "wavelet": tuple(
        Wavelet(method, factor, count)
        for method, factors in (("BayesShrink", (0.7, 1.0, 1.5, 2.0)), ("VisuShrink", (0.3, 0.5, 1.0)))
        for factor in factors
        for count in (0, 2, 3, 5)
    ),
}
"""The parameters that are tried."""


def fill(flux: Plane, valid: Mask) -> Plane:
    """Gaps filled by the Gaussian-weighted mean of their surroundings, near where that reaches, else far."""
    if valid.all():
        return flux
    known = np.where(valid, flux, 0).astype(np.float32)
    result = flux.astype(np.float32)
    missing = ~valid
    for sigma in (1.5, 4.0, 12.0, 40.0):
        weight = gaussian_filter(valid.astype(np.float32), sigma)
        reached = missing & (weight > 0.05)
        result[reached] = (gaussian_filter(known, sigma) / np.maximum(weight, 1e-6))[reached]
        missing = missing & ~reached
    result[missing] = 0
    return result


def lucy(plane: Plane, sigma: float, iterations: int, noise: float) -> Plane:
    """Richardson-Lucy with a Gaussian kernel; 0 iterations change nothing.

    Raises
    ------
    ConfigurationError
        If scikit-image is not installed.
    """
    if not iterations or sigma <= 0:
        return plane
    offset = OFFSET * noise + max(0.0, -float(plane.min()))
    reach = int(np.ceil(4 * sigma))
    grid = np.arange(-reach, reach + 1)
    kernel = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / (2 * sigma**2))
    padded = np.pad(plane, EDGE, mode="reflect") + np.float32(offset)
    found = _skimage().richardson_lucy(padded, (kernel / kernel.sum()).astype(np.float32), num_iter=iterations, clip=False)
    return np.asarray(found[EDGE:-EDGE, EDGE:-EDGE] - offset, dtype=np.float32)


def _shrink(plane: NDArray[np.float32], method: str, factor: float) -> NDArray[np.float64]:
    skimage = _skimage()
    padded = np.pad(plane, EDGE, mode="reflect").astype(np.float64)
    # asinh of flux over noise: the sky's scatter is 1
    arguments = {"wavelet": WAVELET, "method": method, "sigma": factor, "rescale_sigma": False}
    found = skimage.cycle_spin(padded, func=skimage.denoise_wavelet, max_shifts=1, func_kw=arguments, workers=1)
    return np.asarray(found[EDGE:-EDGE, EDGE:-EDGE], dtype=np.float64)


def _skimage() -> Any:
    try:
        from skimage import restoration
    except ImportError as error:
        raise ConfigurationError("scikit-image and PyWavelets (pip install 'galpipe[evaluate]')", str(error)) from error
    return restoration


def _smooth(plane: Plane, sigma: float) -> Plane:
    return np.asarray(gaussian_filter(plane, sigma, mode="reflect"), dtype=np.float32)


def bin_of(snr: float, edges: Sequence[float] = SNR_EDGES) -> int:
    """Number of the bin of S/N."""
    return int(np.clip(np.searchsorted(edges, snr, side="right") - 1, 0, len(edges) - 2))
