"""Draw the true sky into a brick's frame: noiseless images as the telescope's optics and air blur them."""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock import shapes
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import ALL_BANDS, SKY_SIGMA
from galpipe.survey.bricks import BRICK_PIXELS

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

ISOPHOTE = 25.0
"""Detection truth: r-band surface brightness (mag per square arcsec) within which a pixel belongs to a source."""

ISOPHOTE_FLUX = 10 ** (0.4 * (22.5 - ISOPHOTE)) * SURVEY_PIXSCALE**2
"""The same in nanomaggies per pixel."""

MOFFAT_BETA = {"g": 3.4, "r": 3.2, "i": 3.0, "z": 2.8}
"""Wings of the PSF differ per band."""

_FAST = galsim.GSParams(folding_threshold=0.02, maxk_threshold=5e-3, kvalue_accuracy=1e-4, maximum_fft_size=8192)
_BEST = galsim.GSParams(folding_threshold=0.01, maxk_threshold=2e-3, maximum_fft_size=16384)
_LARGEST = 420


@dataclass
class Drawn:
    """Noiseless images of a frame and what was measured while drawing."""

    clean: dict[str, Image]
    """Per band, shape (3600, 3600), nanomaggies per pixel."""
    owner: NDArray[np.int32]
    """Shape (3600, 3600): 1 + index of the source that owns the pixel (brightest above the isophote in r), 0 = none."""
    nea: Floats
    """Noise-equivalent area of each PSF-convolved source per band, square pixels, shape (N, bands)."""
    central: Floats
    """Peak surface brightness per band, nanomaggies per pixel, shape (N, bands)."""


def moffat(fwhm: float, band: str, flux: float = 1.0, params: galsim.GSParams = _BEST) -> galsim.GSObject:
    """A band's PSF, pixel response included (arcsec)."""
    return galsim.Moffat(beta=MOFFAT_BETA[band], fwhm=fwhm, flux=flux, gsparams=params)


@dataclass
class _Stamp:
    """Where a source's stamp lies; all arrays share its (height, width)."""

    x0: int
    y0: int
    size: int
    offset: tuple[float, float]
    """Center of the source less the stamp's center pixel, in pixels."""

    def grid(self) -> tuple[Floats, Floats]:
        """Arcsec from the source's center."""
        line = np.arange(self.size) - self.size // 2
        dx, dy = np.meshgrid(line - self.offset[0], line - self.offset[1])
        return dx * SURVEY_PIXSCALE, dy * SURVEY_PIXSCALE

    def windows(self) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """The part inside the frame: slices of the frame and of the stamp."""
        low_x, low_y = max(self.x0, 0), max(self.y0, 0)
        high_x, high_y = min(self.x0 + self.size, BRICK_PIXELS), min(self.y0 + self.size, BRICK_PIXELS)
        if low_x >= high_x or low_y >= high_y:
            return None
        frame = (slice(low_y, high_y), slice(low_x, high_x))
        own = (slice(low_y - self.y0, high_y - self.y0), slice(low_x - self.x0, high_x - self.x0))
        return frame, own


def draw_frame(catalog: Catalog, x: Floats, y: Floats, seeing: dict[str, float]) -> Drawn:
    """Draw every source of a frame.

    Parameters
    ----------
    catalog : structured array of `galpipe.mock.sky.SOURCE`, shape (N,)
    x, y : ndarray, shape (N,)
        0-based pixel positions in the frame.
    seeing : dict
        FWHM (arcsec) per band; its keys are the bands drawn, r among them or not.
    """
    bands = tuple(seeing)
    shape = (BRICK_PIXELS, BRICK_PIXELS)
    drawn = Drawn(
        {band: np.zeros(shape, np.float32) for band in bands},
        np.zeros(shape, np.int32),
        np.zeros((len(catalog), len(bands))),
        np.zeros((len(catalog), len(bands))),
    )
    best = np.full(shape, ISOPHOTE_FLUX, np.float32)
    label_band = "r" if "r" in bands else bands[-1]
    for index, source in enumerate(catalog):
        stamp = _place(source, float(x[index]), float(y[index]), seeing)
        windows = stamp.windows()
        if windows is None:
            continue
        frame, own = windows
        for k, (band, image) in enumerate(_draw(source, stamp, seeing).items()):
            drawn.clean[band][frame] += image[own]
            total = float(image.sum())
            drawn.nea[index, k] = total**2 / max(float((image.astype(np.float64) ** 2).sum()), 1e-30)
            drawn.central[index, k] = float(image.max())
            if band == label_band:
                ahead = image[own] > best[frame]
                best[frame][ahead] = image[own][ahead]
                drawn.owner[frame][ahead] = index + 1
    return drawn


def _place(source: np.void, x: float, y: float, seeing: dict[str, float]) -> _Stamp:
    half = _half_size(source, seeing)
    nearest = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    return _Stamp(nearest[0] - half, nearest[1] - half, 2 * half, (x - nearest[0], y - nearest[1]))


def _half_size(source: np.void, seeing: dict[str, float]) -> int:
    """Pixels from the center to where the light falls below 3 % of the sky's noise in every band."""
    radii = np.geomspace(0.3, _LARGEST * SURVEY_PIXSCALE, 60)
    reach = 3.0
    for band, fwhm in seeing.items():
        k = ALL_BANDS.index(band)
        flux, limit = float(source["flux"][k]), 0.03 * SKY_SIGMA[band] / SURVEY_PIXSCALE**2
        beta = MOFFAT_BETA[band]
        core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        light = flux * (beta - 1) / (np.pi * core**2) * (1 + (radii / core) ** 2) ** -beta
        if source["kind"] != "star":
            b, n, re = 2 * source["bulge_n"] - 1 / 3, source["bulge_n"], np.hypot(source["bulge_re"], fwhm / 2)
            share = float(source["bulge"][k])
            light = np.maximum(light, share * flux * 0.1 / re**2 * np.exp(-b * ((radii / re) ** (1 / n) - 1)))
            re = np.hypot(source["disk_re"], fwhm / 2)
            light = np.maximum(light, (1 - share) * flux * 0.25 / re**2 / source["disk_q"] * np.exp(-1.68 * (radii / re - 1)))
        above = np.flatnonzero(light > limit)
        reach = max(reach, float(radii[above[-1]]) if len(above) else 0.0)
    if source["tail"] > 0:
        reach = max(reach, 5.0 * float(source["disk_re"]))
    if source["einstein"] > 0:
        reach = max(reach, 3.0 * float(source["einstein"]) + 2)
    half = int(np.clip(np.ceil(reach / SURVEY_PIXSCALE), 12, _LARGEST))
    return int(fft.next_fast_len(2 * half, real=True) + 1) // 2


def _draw(source: np.void, stamp: _Stamp, seeing: dict[str, float]) -> dict[str, Image]:
    """The source alone in each band, shape (size, size)."""
    params = _FAST if source["faint"] else _BEST
    structured = not source["faint"] and source["kind"] not in ("star", "smooth_elliptical")
    pattern = fft.rfft2(_pattern(source, stamp)) if structured and float(source["bulge"][1]) < 1 else None
    lensed = fft.rfft2(shapes.arcs(source, *stamp.grid())) if source["einstein"] > 0 else None
    images: dict[str, Image] = {}
    for band, fwhm in seeing.items():
        k = ALL_BANDS.index(band)
        flux, share = float(source["flux"][k]), float(source["bulge"][k])
        arc = _arc_share(source, k)
        psf = moffat(fwhm, band, params=params)
        image = _smooth(source, stamp, psf, (flux * (1 - arc), share, pattern is None))
        if pattern is not None:
            image = image + _blur(pattern, psf, stamp.size) * (flux * (1 - share))
        if lensed is not None:
            image = image + _blur(lensed, psf, stamp.size) * (flux * arc)
        images[band] = image.astype(np.float32)
    return images


def _arc_share(source: np.void, band: int) -> float:
    """Share of the flux in lensed arcs, which are bluer than the deflector."""
    return min(float(source["arc"]) * (2.2, 1.0, 0.75, 0.6)[band], 0.6)


def _pattern(source: np.void, stamp: _Stamp) -> Floats:
    return shapes.disk(source, *stamp.grid())


def _blur(spectrum: NDArray[np.complex128], psf: galsim.GSObject, size: int) -> Floats:
    kernel = psf.drawImage(nx=size, ny=size, scale=SURVEY_PIXSCALE, method="no_pixel", offset=(0.5, 0.5), dtype=float).array
    turned = fft.rfft2(np.fft.ifftshift(kernel / kernel.sum()))
    return np.asarray(fft.irfft2(spectrum * turned, s=(size, size)))


def _smooth(source: np.void, stamp: _Stamp, psf: galsim.GSObject, light: tuple[float, float, bool]) -> Floats:
    """Star, bulge and (where it has no structure) disk, drawn by GalSim.

    ``light`` is (flux, share of the bulge, whether the disk is drawn here too).
    """
    flux, share, with_disk = light
    parts: list[galsim.GSObject] = []
    turn = (float(source["pa"]) + 90) * galsim.degrees
    if source["kind"] == "star":
        parts.append(psf.withFlux(flux))
    else:
        if share > 0:
            bulge = galsim.Sersic(
                n=float(source["bulge_n"]), half_light_radius=_circular(source, "bulge"), flux=flux * share, gsparams=psf.gsparams
            )
            parts.append(galsim.Convolve(bulge.shear(q=float(source["bulge_q"]), beta=turn), psf))
        if with_disk and share < 1:
            disk = galsim.Exponential(half_light_radius=_circular(source, "disk"), flux=flux * (1 - share), gsparams=psf.gsparams)
            parts.append(galsim.Convolve(disk.shear(q=float(source["disk_q"]), beta=turn), psf))
    total = np.zeros((stamp.size, stamp.size))
    for part in parts:
        # an even-sized GalSim image has its center between pixels; ours is the pixel size // 2
        offset = galsim.PositionD(stamp.offset[0] + 0.5, stamp.offset[1] + 0.5)
        drawn = part.drawImage(nx=stamp.size, ny=stamp.size, scale=SURVEY_PIXSCALE, method="no_pixel", offset=offset, dtype=float)
        total += drawn.array
    return total


def _circular(source: np.void, part: str) -> float:
    """Half-light radius of the round profile that the shear turns into one with the wanted major axis."""
    return float(source[f"{part}_re"]) * float(source[f"{part}_q"]) ** 0.5
