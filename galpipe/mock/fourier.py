"""Draw many sources at once: profiles are multiplied in Fourier space, a batch of stamps of one size per transform.

A source is bulge plus disk (or a pattern, or a lensed arc) times the PSF at its place. Nothing is approximated but what the grid
itself cannot hold: light beyond a stamp wraps around, so that stamps end where it falls below 3 % of the sky's noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.cameras import Camera
from galpipe.mock.psf import core_profile, core_transform
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import ALL_BANDS

Floats = NDArray[np.float64]
Spectra = NDArray[np.complex64]

SIZES = (24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 400, 512, 640, 768, 900)
"""Sides of stamps, pixels."""

FAINTEST = 0.03
"""Stamps end where a source falls below this share of the sky's noise in a pixel."""

BATCH = 1 << 19
"""Complex numbers in one transform."""


@dataclass(frozen=True)
class View:
    """Through what a frame is seen."""

    cameras: dict[str, Camera]
    sigma: dict[str, float]
    """Sky noise per band."""
    fwhm: dict[str, Floats]
    """FWHM of the PSF's core at each source, arcsec, shape (N,)."""
    shift: dict[str, tuple[float, float]]
    """Where a band's image lies against the true positions, pixels along x and y."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands drawn."""
        return tuple(self.fwhm)


@dataclass(frozen=True)
class Batch:
    """Stamps of one size: the frequencies and where the sources lie."""

    size: int
    rows: NDArray[np.int64]
    """Indices into the catalog."""
    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    """The stamps' corners in the frame."""
    phase: Spectra
    """Moves each source to its place, shape (n, size, size // 2 + 1)."""

    def part(self, which: NDArray[np.int64]) -> Batch:
        """Some of its sources, by their place in the batch."""
        return Batch(self.size, self.rows[which], self.x0[which], self.y0[which], self.phase[which])

    def grid(self) -> tuple[Floats, Floats]:
        """Angular frequencies along x and y, radians per arcsec, shapes (1, 1, size // 2 + 1) and (1, size, 1)."""
        scale = 2 * np.pi / SURVEY_PIXSCALE
        return scale * fft.rfftfreq(self.size)[None, None, :], scale * fft.fftfreq(self.size)[None, :, None]


@cache
def _sersic_table(n: float) -> tuple[Floats, Floats]:
    """Frequency times half-light radius, and the transform of a round Sersic profile of unit flux."""
    profile = galsim.Sersic(n=n, half_light_radius=1.0)
    k = np.concatenate([[0.0], np.geomspace(1e-3, 400, 700)])
    return k, np.array([profile.kValue(float(value), 0.0).real for value in k])


def half_sizes(catalog: Catalog, view: View) -> Floats:
    """Pixels from each source's center to where its light falls below `FAINTEST` of the sky's noise, shape (N,)."""
    radii = np.geomspace(0.3, SIZES[-1] / 2 * SURVEY_PIXSCALE, 48)[None, :]
    reach = np.full(len(catalog), 2.0)
    for band, fwhm in view.fwhm.items():
        flux, share = catalog["flux"][:, ALL_BANDS.index(band)], catalog["bulge"][:, ALL_BANDS.index(band)]
        limit = FAINTEST * view.sigma[band] / SURVEY_PIXSCALE**2
        light = flux[:, None] * core_profile(radii, float(np.median(fwhm)), view.cameras[band])
        galaxy = catalog["kind"] != "star"
        n, width = np.maximum(catalog["bulge_n"], 0.5)[:, None], np.hypot(catalog["bulge_re"], fwhm / 2)[:, None]
        bulge = (share * flux)[:, None] * 0.1 / width**2 * np.exp(-(2 * n - 1 / 3) * ((radii / width) ** (1 / n) - 1))
        width = np.hypot(catalog["disk_re"], fwhm / 2)[:, None]
        disk = ((1 - share) * flux / np.maximum(catalog["disk_q"], 0.05))[:, None] * 0.25 / width**2 * np.exp(-1.68 * (radii / width - 1))
        light = np.maximum(light, np.where(galaxy[:, None], np.maximum(bulge, disk), 0))
        last = np.where(light > limit, radii, 0).max(axis=1)
        reach = np.maximum(reach, last)
    reach = np.where(catalog["tail"] > 0, np.maximum(reach, 6 * catalog["disk_re"]), reach)
    reach = np.where(catalog["einstein"] > 0, np.maximum(reach, 3 * catalog["einstein"] + 2), reach)
    return np.asarray(np.ceil(reach / SURVEY_PIXSCALE))


def batches(x: Floats, y: Floats, half: Floats) -> list[Batch]:
    """Group sources by stamp size.

    Parameters
    ----------
    x, y : ndarray, shape (N,)
        Positions in the frame, pixels.
    half : ndarray, shape (N,)
        Wanted half sizes, pixels.
    """
    kind = np.minimum(np.searchsorted(np.array(SIZES), 2 * half), len(SIZES) - 1)
    found: list[Batch] = []
    for number, size in enumerate(SIZES):
        rows = np.flatnonzero(kind == number)
        count = max(1, BATCH // (size * (size // 2 + 1)))
        found += [_batch(size, rows[start : start + count], x, y) for start in range(0, len(rows), count)]
    return found


def _batch(size: int, rows: NDArray[np.int64], x: Floats, y: Floats) -> Batch:
    nearest = np.floor(x[rows] + 0.5).astype(np.int64), np.floor(y[rows] + 0.5).astype(np.int64)
    at_x, at_y = x[rows] - nearest[0] + size // 2, y[rows] - nearest[1] + size // 2
    along = np.exp(-2j * np.pi * at_x[:, None] * fft.rfftfreq(size)[None, :]).astype(np.complex64)
    across = np.exp(-2j * np.pi * at_y[:, None] * fft.fftfreq(size)[None, :]).astype(np.complex64)
    return Batch(size, rows, nearest[0] - size // 2, nearest[1] - size // 2, across[:, :, None] * along[:, None, :])


def sersic_spectra(catalog: Catalog, batch: Batch, part: str) -> NDArray[np.float32]:
    """Transforms of the ``bulge`` or ``disk`` of each source of a batch, centered, unit flux, shape (n, size, size // 2 + 1)."""
    source = catalog[batch.rows]
    kx, ky = batch.grid()
    angle = np.radians(source["pa"])[:, None, None]
    along = (-np.sin(angle) * kx + np.cos(angle) * ky) * source[f"{part}_re"][:, None, None]
    across = (-np.cos(angle) * kx - np.sin(angle) * ky) * (source[f"{part}_re"] * source[f"{part}_q"])[:, None, None]
    k = np.hypot(along, across)
    if part == "disk":
        # an exponential: scale length = half-light radius / 1.678
        return np.asarray((1 + (k / 1.6783469900166605) ** 2) ** -1.5, np.float32)
    out = np.ones(k.shape, np.float32)
    for n in np.unique(source["bulge_n"]):
        rows = source["bulge_n"] == n
        out[rows] = np.interp(k[rows], *_sersic_table(float(n)))
    return out


def psf_spectra(batch: Batch, view: View, band: str) -> Spectra:
    """Transforms of the PSF's core at each source of a batch, moved by the band's shift, shape (n, size, size // 2 + 1)."""
    kx, ky = batch.grid()
    k = np.hypot(kx, ky)
    move = np.exp(-1j * SURVEY_PIXSCALE * (kx * view.shift[band][0] + ky * view.shift[band][1]))
    steps = np.round(view.fwhm[band][batch.rows], 2)
    out = np.empty((len(steps), batch.size, batch.size // 2 + 1), np.complex64)
    for width in np.unique(steps):
        out[steps == width] = core_transform(k, float(width), view.cameras[band]) * move
    return out


def draw_batch(catalog: Catalog, batch: Batch, view: View) -> dict[str, NDArray[np.float32]]:
    """Galaxies of bulge and smooth disk, per band, shape (n, size, size), nanomaggies per pixel."""
    source = catalog[batch.rows]
    bulge = sersic_spectra(catalog, batch, "bulge") if (source["bulge"].max(axis=1) > 0).any() else np.float32(0)
    disk = sersic_spectra(catalog, batch, "disk") if (source["bulge"].min(axis=1) < 1).any() else np.float32(0)
    images = {}
    for band in view.bands:
        k = ALL_BANDS.index(band)
        share = source["bulge"][:, k].astype(np.float32)[:, None, None]
        spectrum = batch.phase * ((share * bulge + (1 - share) * disk) * psf_spectra(batch, view, band))
        spectrum *= source["flux"][:, k].astype(np.float32)[:, None, None]
        images[band] = np.asarray(fft.irfft2(spectrum, s=(batch.size, batch.size)), np.float32)
    return images


def draw_stars(catalog: Catalog, at: tuple[Floats, Floats], batch: Batch, view: View) -> dict[str, NDArray[np.float32]]:
    """Stars, per band, shape (n, size, size): the PSF looked up at each pixel's center, which does not ring where stars are bright.

    Parameters
    ----------
    catalog : structured array, shape (N,)
    at : pair of ndarray, shape (N,)
        Positions x, y in the frame, pixels.
    batch : Batch
        Of n stars.
    view : View
    """
    line = np.arange(batch.size)
    images = {}
    for band in view.bands:
        dx = line[None, :] + batch.x0[:, None] - at[0][batch.rows, None] - view.shift[band][0]
        dy = line[None, :] + batch.y0[:, None] - at[1][batch.rows, None] - view.shift[band][1]
        radius = SURVEY_PIXSCALE * np.hypot(dy[:, :, None], dx[:, None, :])
        profile = core_profile(radius, view.fwhm[band][batch.rows, None, None], view.cameras[band])
        flux = catalog["flux"][batch.rows, ALL_BANDS.index(band)][:, None, None]
        images[band] = np.asarray(SURVEY_PIXSCALE**2 * flux * profile, np.float32)
    return images
