"""From noiseless images to coadds: exposures, correlated noise, saturation, masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, maximum_filter

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.render import Image
from galpipe.mock.shapes import plane
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import ALL_BANDS, SEEING, SKY_LEVEL, SKY_SIGMA, MockSpec
from galpipe.survey.bricks import BRICK_PIXELS, Brick, brick_wcs

SATURATION = {"g": 8.0, "r": 12.0, "i": 16.0, "z": 24.0}
"""Peak of a coadd pixel, nanomaggies, above which every exposure is saturated."""

PATCHED = 10.0
"""What the survey's coadds hold in saturated pixels."""

SATUR_BIT = {"g": 2, "r": 3, "z": 4, "i": 14}
ALLMASK_BIT = {"g": 5, "r": 6, "z": 7, "i": 15}

CCD = (2046, 4094)
"""Pixels of a DECam CCD along x and y."""


@dataclass(frozen=True)
class BandPixels:
    """A band's coadd products, each of shape (3600, 3600)."""

    image: Image
    """Nanomaggies per pixel; 0 without exposure, 10 where saturated."""
    invvar: Image
    """1/nanomaggies^2; 0 = no good data."""
    nexp: NDArray[np.int16]
    psfsize: Image
    """FWHM, arcsec; 0 without exposure."""
    saturated: NDArray[np.bool_]
    """Pixels saturated in every exposure."""


@dataclass(frozen=True)
class Conditions:
    """Seeing and depth of one brick."""

    seeing: dict[str, float]
    """Coadd FWHM per band, arcsec."""
    sigma: dict[str, float]
    """Sky noise per band at the usual number of exposures, nanomaggies per pixel."""
    exposures: dict[str, int]
    ebv: float


def conditions(spec: MockSpec, area: Brick) -> Conditions:
    """Draw a brick's seeing, depth and reddening from ``(seed, brickid)`` and, where it is named, the region."""
    rng = np.random.default_rng(spec.entropy(area.brickid, 1))
    bands = {band: k for k, band in enumerate(ALL_BANDS)}
    shift = 0.08 * rng.standard_normal() + 0.04 * rng.standard_normal(4)
    depth = 0.10 * rng.standard_normal(4)
    counts = rng.integers(3, 6, 4)
    base = SEEING[spec.region]
    return Conditions(
        {band: float(base[band] * np.exp(shift[k])) for band, k in bands.items()},
        {band: float(SKY_SIGMA[band] * np.exp(depth[k])) for band, k in bands.items()},
        {band: int(counts[k]) for band, k in bands.items()},
        float(0.03 * np.exp(0.5 * rng.standard_normal())),
    )


def expose(clean: Image, band: str, state: Conditions, rng: np.random.Generator) -> BandPixels:
    """Turn a noiseless band into its coadd products.

    Parameters
    ----------
    clean : ndarray, shape (3600, 3600)
        Nanomaggies per pixel.
    band : str
    state : Conditions
    rng : numpy.random.Generator
    """
    nexp, sky_ivar, psfsize = _coverage(band, state, rng)
    saturated = _bleed(clean > SATURATION[band])
    covered = nexp > 0
    # source noise in units of the sky's: the gain follows from sky level and sky noise
    invvar = sky_ivar / (1 + np.maximum(clean, 0) / np.float32(SKY_LEVEL[band]))
    noise = correlated_noise(rng, clean.shape)
    noise /= np.sqrt(np.maximum(invvar, np.float32(1e-6)))
    image = clean + noise
    image[saturated] = PATCHED
    image[~covered] = 0
    invvar[saturated | ~covered] = 0
    cosmic = _cosmics(rng, clean.shape)
    invvar[cosmic] = 0
    nexp[saturated | cosmic] = 0
    return BandPixels(image.astype(np.float32), invvar.astype(np.float32), nexp, psfsize, saturated & covered)


def correlated_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Image:
    """Noise as resampled exposures leave it: neighbours correlate by 0.1, a pixel's scatter is 0.83.

    Sums over many pixels scatter as white noise of unit variance would: inverse variances hold for fluxes, not for single pixels.
    """
    white = rng.standard_normal(shape, np.float32)
    taps = np.array([0.05, 1.0, 0.05])
    taps /= taps.sum()
    for axis in (0, 1):
        white = correlate1d(white, taps, axis=axis, mode="wrap", output=np.float32)
    return np.asarray(white, np.float32)


def _coverage(band: str, state: Conditions, rng: np.random.Generator) -> tuple[NDArray[np.int16], Image, Image]:
    """Number of exposures, sky inverse variance and PSF size, with the seams of the cameras' CCDs."""
    count = state.exposures[band]
    shape = (BRICK_PIXELS, BRICK_PIXELS)
    nexp, ivar, width = np.zeros(shape, np.int16), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for _ in range(count):
        weight = np.float32(rng.uniform(0.7, 1.3) / (count * state.sigma[band] ** 2))
        fwhm = np.float32(state.seeing[band] * rng.uniform(0.93, 1.07))
        gap_x, gap_y = _gaps(rng, CCD[0], 60), _gaps(rng, CCD[1], 90)
        inside = ~(gap_y[:, None] | gap_x[None, :])
        nexp += inside
        ivar += weight * inside
        width += (weight * fwhm) * inside
    width = np.divide(width, ivar, out=np.zeros_like(width), where=ivar > 0)
    return nexp, ivar, width


def _gaps(rng: np.random.Generator, length: int, gap: int) -> NDArray[np.bool_]:
    position = (np.arange(BRICK_PIXELS) + rng.integers(0, length + gap)) % (length + gap)
    return np.asarray(position >= length)


def _bleed(saturated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grow saturated cores by two pixels, and bleed the large ones along the columns."""
    if not saturated.any():
        return saturated
    grown = maximum_filter(saturated, size=5)
    tall = saturated.sum(axis=0)
    for column in np.flatnonzero(tall > 12):
        rows = np.flatnonzero(saturated[:, column])
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if len(run) > 12:
                grown[max(run[0] - 3 * len(run), 0) : run[-1] + 3 * len(run), column] = True
    return np.asarray(grown)


def _cosmics(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A few hundred short streaks without good data."""
    mask = np.zeros(shape, bool)
    x, y = rng.integers(2, BRICK_PIXELS - 12, (2, 120))
    angle, length = rng.uniform(0, np.pi / 2, 120), rng.integers(2, 9, 120)
    for k in range(120):
        steps = np.arange(length[k])
        mask[(y[k] + steps * np.sin(angle[k])).astype(int), (x[k] + steps * np.cos(angle[k])).astype(int)] = True
    return mask


def mask_image(
    area: Brick, catalog: Catalog, at: tuple[NDArray[np.float64], NDArray[np.float64]], pixels: dict[str, BandPixels]
) -> NDArray[np.int32]:
    """The MASKBITS image: outside the brick, saturated, all-masked, near bright stars.

    Parameters
    ----------
    area : Brick
    catalog : structured array, shape (N,)
        Sources of the frame.
    at : pair of ndarray, shape (N,)
        Their pixel positions x, y.
    pixels : dict
        Coadd products per band.

    Returns
    -------
    ndarray of int32, shape (3600, 3600)
    """
    mask = outside(area).astype(np.int32)
    for band, products in pixels.items():
        mask[products.saturated] |= 1 << SATUR_BIT[band]
        mask[(products.invvar <= 0) & (products.psfsize > 0)] |= 1 << ALLMASK_BIT[band]
    for k in np.flatnonzero(catalog["kind"] == "star"):
        mag = star_magnitude(catalog[k])
        if mag < 16:
            # about the survey's: radius in arcsec = 1630 x 1.396^-mag, half of it for BRIGHT
            radius = 1630 * 1.396**-mag / SURVEY_PIXSCALE
            _circle(mask, (at[0][k], at[1][k], radius), 11)
            if mag < 13:
                _circle(mask, (at[0][k], at[1][k], radius / 2), 1)
    for k in np.flatnonzero(is_large(catalog)):
        _ellipse(mask, (float(at[0][k]), float(at[1][k])), catalog[k])
    return mask


def is_large(catalog: Catalog) -> NDArray[np.bool_]:
    """Galaxies that the survey's atlas of large galaxies would hold."""
    return np.asarray((catalog["kind"] != "star") & (catalog["half_light_radius"] > 5))


def _ellipse(mask: NDArray[np.int32], center: tuple[float, float], source: np.void) -> None:
    """Set the GALAXY bit out to three half-light radii."""
    radius = 3 * float(source["half_light_radius"]) / SURVEY_PIXSCALE
    line = np.arange(BRICK_PIXELS, dtype=np.float64)
    gx, gy = line[None, :] - center[0], line[:, None] - center[1]
    rows, columns = np.abs(gy[:, 0]) <= radius, np.abs(gx[0]) <= radius
    if not rows.any() or not columns.any():
        return
    u, v = plane(gx[:, columns], gy[rows], float(source["pa"]), max(float(source["disk_q"]), 0.2))
    mask[np.ix_(rows, columns)] |= (u**2 + v**2 <= radius**2).astype(np.int32) << 12


def star_magnitude(source: np.void) -> float:
    """Gaia's G of a star, taken as the r magnitude."""
    return float(22.5 - 2.5 * np.log10(source["flux"][1]))


def _circle(mask: NDArray[np.int32], where: tuple[float, float, float], bit: int) -> None:
    x, y, radius = where
    x0, x1 = max(int(x - radius), 0), min(int(x + radius) + 2, BRICK_PIXELS)
    y0, y1 = max(int(y - radius), 0), min(int(y + radius) + 2, BRICK_PIXELS)
    if x0 >= x1 or y0 >= y1:
        return
    inside = (np.arange(x0, x1)[None, :] - x) ** 2 + (np.arange(y0, y1)[:, None] - y) ** 2 <= radius**2
    mask[y0:y1, x0:x1] |= inside.astype(np.int32) << bit


def outside(area: Brick) -> NDArray[np.bool_]:
    """Pixels of the frame whose centers lie outside the brick's own area, shape (3600, 3600)."""
    wcs = brick_wcs(area)
    coarse = np.linspace(0, BRICK_PIXELS - 1, 61)
    gx, gy = np.meshgrid(coarse, coarse)
    ra, dec = wcs.all_pix2world(gx, gy, 0)
    dra = (ra - area.ra + 180) % 360 - 180
    fine = np.arange(BRICK_PIXELS)
    ra_all, dec_all = _refine(dra, coarse, fine), _refine(dec, coarse, fine)
    half = (area.ra2 - area.ra1) / 2
    return np.asarray((ra_all < -half) | (ra_all >= half) | (dec_all < area.dec1) | (dec_all >= area.dec2))


def _refine(values: NDArray[np.float64], coarse: NDArray[np.float64], fine: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bilinear interpolation of a smooth grid onto every pixel (error far below a pixel at 60 px steps)."""
    weights = np.stack([np.interp(fine, coarse, unit) for unit in np.eye(len(coarse))], axis=1)
    return np.asarray(weights @ values @ weights.T)
