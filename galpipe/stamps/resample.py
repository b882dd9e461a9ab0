"""Bring an image of any pixel scale and orientation to the stamp's grid, flux conserved; estimate its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray
from reproject import reproject_exact

from galpipe.stamps.stampset import plain_wcs
from galpipe.stamps.windows import Windows

SAME_SCALE = 1e-3
"""Relative difference of pixel scales below which pixels are cropped, not resampled (0.08 px over half a stamp)."""

LAG = 3
"""Pixels between the differences that measure noise: Lanczos resampling correlates nearer ones."""

LEAST_SIGMA = 1e-4
"""The quantization step of the survey's coadds, nanomaggies: no noise is taken to be smaller."""

LEAST_COVER = 0.5
"""Share of an output pixel that good input pixels must cover."""


@dataclass(frozen=True)
class Grid:
    """The pixel grid of an input image.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    pixscale : float
        Arcsec per pixel.
    wcs : astropy.wcs.WCS or None
        Celestial projection; None means north up, east left.
    """

    shape: tuple[int, int]
    pixscale: float
    wcs: WCS | None = None

    @property
    def center(self) -> tuple[float, float]:
        """0-based x, y of the middle of the image."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    def north_up(self) -> bool:
        """True unless a projection says that the image is rotated or mirrored."""
        if self.wcs is None:
            return True
        matrix = self.wcs.pixel_scale_matrix * 3600 / self.pixscale
        return bool(np.allclose(matrix, [[-1, 0], [0, 1]], atol=SAME_SCALE))

    def matches(self, pixscale: float) -> bool:
        """True where pixels can be taken as they are."""
        return abs(self.pixscale / pixscale - 1) < SAME_SCALE and self.north_up()


def scale_of(wcs: WCS) -> float:
    """Pixel scale of a celestial projection, arcsec, the geometric mean of both axes."""
    return float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs.celestial)))) * 3600


@dataclass(frozen=True)
class Resampled:
    """An image on the stamp's grid.

    Parameters
    ----------
    flux : ndarray of float32, shape (B, S, S)
        Nanomaggies per output pixel, 0 where not good.
    good : ndarray of bool, shape (B, S, S)
        True where good input pixels cover at least `LEAST_COVER` of the pixel.
    variance : ndarray of float32, shape (B, S, S), or None
        Of the flux, as if input pixels were independent.
    outside : ndarray of bool, shape (S, S)
        True where the input image does not reach.
    offset : tuple of float
        x, y of the image's middle minus the center of pixel ``[S // 2, S // 2]``, pixels.
    """

    flux: NDArray[np.float32]
    good: NDArray[np.bool_]
    variance: NDArray[np.float32] | None
    outside: NDArray[np.bool_]
    offset: tuple[float, float]


@dataclass(frozen=True)
class Pixels:
    """Input pixels: flux (nanomaggies per input pixel), good, variance; shape (B, H, W) each."""

    flux: NDArray[np.float32]
    good: NDArray[np.bool_]
    variance: NDArray[np.float32] | None


def to_stamp(pixels: Pixels, grid: Grid, size: int, pixscale: float) -> Resampled:
    """Crop or resample an image to a square around its middle.

    Pixels of the same scale are cropped untouched. Others go through `reproject.reproject_exact`: each output pixel gets
    the share of every input pixel that lies on it, so total flux is conserved (to 1e-4 on the real examples).

    Parameters
    ----------
    pixels : Pixels
    grid : Grid
    size : int
        Output pixels on a side, S.
    pixscale : float
        Output arcsec per pixel.
    """
    return _crop(pixels, grid, size) if grid.matches(pixscale) else _resample(pixels, grid, size, pixscale)


def _crop(pixels: Pixels, grid: Grid, size: int) -> Resampled:
    x, y = grid.center
    window = Windows.around(np.array([x]), np.array([y]), size, grid.shape)
    outside = window.outside()[0]

    def cut(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([np.where(outside, 0, window.gather(plane)) for plane in planes]).astype(np.float32)

    good = np.concatenate([window.gather(plane) & ~outside for plane in pixels.good])
    flux = np.where(good, cut(pixels.flux), np.float32(0))
    variance = None if pixels.variance is None else cut(pixels.variance)
    half = size // 2
    return Resampled(flux, good, variance, outside, (x - float(window.x0[0]) - half, y - float(window.y0[0]) - half))


def _resample(pixels: Pixels, grid: Grid, size: int, pixscale: float) -> Resampled:
    half = size // 2
    source = grid.wcs.celestial if grid.wcs is not None else plain_wcs((0.0, 0.0), grid.center, grid.pixscale)
    ra, dec = (float(value) for value in source.all_pix2world(*grid.center, 0))
    target = plain_wcs((ra, dec), (half, half), pixscale)
    ratio = np.float32((pixscale / grid.pixscale) ** 2)

    def average(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        values, _ = reproject_exact((planes, source), target, shape_out=(*planes.shape[:-2], size, size), parallel=False)
        return np.nan_to_num(values).astype(np.float32)

    # reproject averages over what it finds: a plane of ones, padded with zeros, tells how much of a pixel is covered
    whole = np.pad(np.ones(grid.shape, np.float32), 2)
    padded = source.deepcopy()
    padded.wcs.crpix = padded.wcs.crpix + 2
    reach, _ = reproject_exact((whole, padded), target, shape_out=(size, size), parallel=False)
    outside = np.nan_to_num(reach) < LEAST_COVER
    cover = np.ones((len(pixels.flux), size, size), np.float32) if pixels.good.all() else average(pixels.good.astype(np.float32))
    good = (cover >= LEAST_COVER) & ~outside
    share = np.where(good, cover, np.float32(1))
    flux = np.where(good, average(np.where(pixels.good, pixels.flux, np.float32(0))) / share * ratio, np.float32(0))
    variance: NDArray[np.float32] | None = None
    if pixels.variance is not None:
        variance = (average(np.where(pixels.good, pixels.variance, np.float32(0))) / share * ratio).astype(np.float32)
    return Resampled(flux.astype(np.float32), good, variance, outside, (0.0, 0.0))


def estimate_sigma(flux: NDArray[np.float32], good: NDArray[np.bool_]) -> float:
    """Noise of an image from the median absolute second difference of pixels `LAG` apart, both ways.

    Second differences do not see the slopes of a galaxy. ``sigma = 1.4826 * median|f(x-3) - 2 f(x) + f(x+3)| / sqrt(6)``.

    Parameters
    ----------
    flux : ndarray, shape (S, S)
        Nanomaggies per pixel.
    good : ndarray of bool, shape (S, S)

    Returns
    -------
    float
        Nanomaggies per pixel, at least `LEAST_SIGMA`; that also where fewer than 100 differences are good.
    """
    found = []
    for values, usable in ((flux, good), (flux.T, good.T)):
        second = values[:, : -2 * LAG] - 2 * values[:, LAG:-LAG] + values[:, 2 * LAG :]
        found.append(second[usable[:, : -2 * LAG] & usable[:, LAG:-LAG] & usable[:, 2 * LAG :]])
    differences = np.concatenate(found)
    if len(differences) < 100:
        return LEAST_SIGMA
    return max(LEAST_SIGMA, 1.4826 * float(np.median(np.abs(differences))) / float(np.sqrt(6)))
