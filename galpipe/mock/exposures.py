"""From noiseless images to coadds as dirty as the survey's: exposures with seams, artefacts, sky errors, correlated noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock import artefacts
from galpipe.mock.cameras import Camera
from galpipe.mock.noise import coadd_noise
from galpipe.mock.pixels import PATCHED, SATURATION, BandPixels, Conditions
from galpipe.mock.psf import size_over_fwhm
from galpipe.mock.render import Image
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import ALL_BANDS, SKY_LEVEL

Floats = NDArray[np.float64]

SATELLITES = 0.12
"""Satellite trails per exposure and brick (guess)."""

REJECTED = 0.85
"""Share of trails that outlier rejection masks where three or more exposures overlap (guess)."""

COSMICS = 60
"""Cosmic-ray streaks per exposure in a whole brick (guess)."""

CCD_SKY = 0.06
"""Scatter of the sky level from CCD to CCD, in units of the pixel noise (guess)."""


SKY_WAVES = {"decam": 0.10, "90prime": 0.20, "mosaic3": 0.10}
"""Amplitude of the smooth sky structure left over, in units of the pixel noise: what real sky correlates by at six pixels."""


@dataclass(frozen=True)
class Coverage:
    """What the exposures of one band leave, each of shape (H, W)."""

    nexp: NDArray[np.int16]
    ivar: Image
    """Inverse variance of the sky's noise alone."""
    psfsize: Image
    """As the survey defines it, arcsec; 0 without exposure."""
    sky: Image
    """Error of the sky level, nanomaggies per pixel."""


@dataclass(frozen=True)
class Stars:
    """Bright sources of light for one band."""

    x: Floats
    y: Floats
    flux: Floats

    @classmethod
    def of(cls, catalog: Catalog, at: tuple[Floats, Floats], band: str) -> Stars:
        """Stars bright enough for visible wings."""
        flux = catalog["flux"][:, ALL_BANDS.index(band)]
        rows = np.flatnonzero((catalog["kind"] == "star") & (flux > 10 ** (0.4 * (22.5 - artefacts.HALO_LIMIT))))
        return cls(at[0][rows], at[1][rows], flux[rows])


def coverage(rng: np.random.Generator, state: Conditions, band: str, camera: Camera, shape: tuple[int, int]) -> Coverage:
    """Lay out a band's exposures: dithered CCDs with gaps between them, some exposures covering only part of the brick.

    Parameters
    ----------
    rng : numpy.random.Generator
    state : Conditions
    band : str
    camera : Camera
    shape : tuple of int
        Height and width, pixels.
    """
    count = state.exposures[band]
    nexp, ivar = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
    width, sky = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for _ in range(count):
        weight = float(rng.uniform(0.5, 1.5)) / (count * state.sigma[band] ** 2)
        fwhm = state.seeing[band] * float(np.exp(0.09 * rng.standard_normal()))
        lines = [_panels(rng, camera.ccd[axis], shape[1 - axis]) for axis in (0, 1)]
        if rng.random() < 0.25:
            axis = int(rng.integers(0, 2))
            lines[axis][_beyond_edge(rng, shape[1 - axis])] = -1
        level = CCD_SKY * state.sigma[band] * rng.standard_normal((lines[1].max() + 2, lines[0].max() + 2))
        for row in np.unique(lines[1][lines[1] >= 0]):
            for column in np.unique(lines[0][lines[0] >= 0]):
                # a CCD is a rectangle of consecutive rows and columns
                part = np.ix_(lines[1] == row, lines[0] == column)
                where = (_run(part[0].ravel()), _run(part[1].ravel()))
                nexp[where] += 1
                ivar[where] += np.float32(weight)
                width[where] += np.float32(weight * fwhm)
                sky[where] += np.float32(weight * level[row, column])
    safe = np.maximum(ivar, np.float32(1e-20))
    return Coverage(nexp, ivar, np.asarray(width / safe, np.float32), np.asarray(sky / safe, np.float32))


def _run(rows: NDArray[np.int64]) -> slice:
    return slice(int(rows[0]), int(rows[-1]) + 1)


def _panels(rng: np.random.Generator, length: int, extent: int) -> NDArray[np.int64]:
    """Number of the CCD along one axis for each pixel, -1 in the gaps between."""
    gap = int(rng.integers(60, 200))
    position = np.arange(extent) + int(rng.integers(0, length + gap))
    return np.asarray(np.where(position % (length + gap) < length, position // (length + gap), -1))


def _beyond_edge(rng: np.random.Generator, extent: int) -> slice:
    """Pixels beyond an exposure's edge, on either side."""
    edge = int(rng.integers(0, extent))
    return slice(edge, None) if rng.random() < 0.5 else slice(0, edge)


def core_fwhm(cover: Coverage, camera: Camera, x: Floats, y: Floats, usual: float) -> Floats:
    """FWHM (arcsec) of the PSF's core at each position: the coadd's PSF steps at the seams."""
    column = np.clip(np.round(x), 0, cover.nexp.shape[1] - 1).astype(np.int64)
    row = np.clip(np.round(y), 0, cover.nexp.shape[0] - 1).astype(np.int64)
    size = cover.psfsize[row, column].astype(np.float64)
    return np.where(size > 0, size, usual) / size_over_fwhm(camera)


def expose_survey(clean: Image, cover: Coverage, stars: Stars, scene: tuple[str, Camera, float], rng: np.random.Generator) -> BandPixels:
    """Turn a noiseless band into coadd products.

    Parameters
    ----------
    clean : ndarray, shape (H, W)
        Nanomaggies per pixel.
    cover : Coverage
    stars : Stars
    scene : tuple
        Band, camera and usual sky noise.
    rng : numpy.random.Generator
    """
    band, camera, sigma = scene
    light = clean.copy()
    _add_stars(light, stars, camera, sigma, rng)
    image = light - artefacts.oversubtraction(light, sigma) + cover.sky + np.float32(rng.normal(0, 0.05 * sigma))
    image += artefacts.sky_waves((clean.shape[0], clean.shape[1]), rng, SKY_WAVES[camera.name] * sigma)
    nexp, ivar = cover.nexp.copy(), cover.ivar.copy()
    add_transients(image, nexp, ivar, sigma, rng, float(np.median(cover.psfsize)) / SURVEY_PIXSCALE)
    core = clean > SATURATION[band]
    rim, trail = artefacts.bleed(core, camera.bleed_axis)
    lost = core | rim | trail
    covered = nexp > 0
    invvar = ivar / (1 + np.maximum(light, 0) / np.float32(SKY_LEVEL[band]))
    noise = coadd_noise(rng, (clean.shape[0], clean.shape[1]), camera.pixscale)
    noise /= np.sqrt(np.maximum(invvar, np.float32(1e-2 / sigma**2)))
    image = image + noise
    # what no exposure has seen well is patched: saturated pixels with 10 nanomaggies, rims and bleeds with what lies around
    image[core] = PATCHED
    image[rim | trail] = light[rim | trail]
    touched = cover.nexp > 0
    image[~touched] = 0
    invvar[lost | ~covered] = 0
    nexp[lost] = 0
    return BandPixels(image.astype(np.float32), invvar.astype(np.float32), nexp, cover.psfsize, lost & touched)


def _add_stars(light: Image, stars: Stars, camera: Camera, sigma: float, rng: np.random.Generator) -> None:
    """Outer wings, spikes and ghosts of bright stars, in place."""
    subtracted = 10 ** (0.4 * (22.5 - artefacts.SUBTRACTED_LIMIT))
    for x, y, flux in zip(stars.x, stars.y, stars.flux, strict=True):
        leftover = rng.normal(0.0, 0.12)
        share = leftover if camera.name == "decam" and flux > subtracted else 1.0
        artefacts.add_halo(light, (x, y), float(flux * share), camera, 0.02 * sigma)
        artefacts.add_spikes(light, (x, y), float(flux), camera, 0.3 * sigma)
        if flux > 10 ** (0.4 * (22.5 - 10.5)):
            artefacts.add_ghost(light, (x, y), float(flux), rng)


def add_transients(image: Image, nexp: NDArray[np.int16], ivar: Image, sigma: float, rng: np.random.Generator, fwhm: float) -> None:
    """Satellites and cosmic rays, in place: masked in their exposure, or (some satellites) left in the coadd."""
    most = max(int(nexp.max()), 1)
    share = image.size / 3600**2
    for _ in range(rng.poisson(SATELLITES * most * share**0.5)):
        rows, columns, profile = artefacts.trail((image.shape[0], image.shape[1]), rng, fwhm)
        strength = float(sigma * 10 ** rng.uniform(0.0, 1.2))
        if most >= 3 and rng.random() < REJECTED:
            _mask_one(nexp, ivar, (rows, columns))
        else:
            image[rows, columns] += (strength * profile).astype(np.float32)
    hit = artefacts.streaks((image.shape[0], image.shape[1]), rng, int(COSMICS * most * share))
    _mask_one(nexp, ivar, np.nonzero(hit))


def _mask_one(nexp: NDArray[np.int16], ivar: Image, where: tuple[NDArray[np.int64], ...]) -> None:
    """Take one exposure out at some pixels."""
    count = nexp[where].astype(np.float32)
    ivar[where] *= np.maximum(count - 1, 0) / np.maximum(count, 1)
    nexp[where] = np.maximum(count - 1, 0).astype(np.int16)
