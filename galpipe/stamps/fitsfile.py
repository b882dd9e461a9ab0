"""A stamp as a FITS file: pixels in the survey's units, inverse variances and mask, and where all of it came from."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.io import fits

from galpipe.code_version import VERSION
from galpipe.stamps.stampset import StampSet

Fact = str | int | float | bool


@dataclass(frozen=True)
class Window:
    """A rectangle of a stamp's pixels: columns ``x0`` to ``x1`` and rows ``y0`` to ``y1``, the ends left out."""

    x0: int
    x1: int
    y0: int
    y1: int


def stamp_fits(
    stamps: StampSet, index: int, cards: Mapping[str, tuple[Fact, str]], comments: Sequence[str] = (), window: Window | None = None
) -> bytes:
    """One stamp as a FITS file that `galpipe.stamps.external` reads back.

    Parameters
    ----------
    stamps : StampSet
    index : int
        Row of the stamp.
    cards : mapping
        Further header cards: value and comment by keyword.
    comments : sequence of str
    window : Window, optional
        The part to write; all of it by default.

    Returns
    -------
    bytes
        Primary HDU: flux as the survey's coadd has it (not corrected for dust), float32, shape (B, H, W), nanomaggies per pixel;
        ``INVVAR``: its inverse variance, float32, the same shape, 0 = no data; ``MASK``: uint8, shape (H, W), bit b = band b of
        ``BANDS`` is masked, bit 7 = outside of the images. Each with the sky's projection.
    """
    part = window or Window(0, stamps.size, 0, stamps.size)
    rows, columns = slice(part.y0, part.y1), slice(part.x0, part.x1)
    transmission = np.array([stamps.transmission(band)[index] for band in stamps.bands], np.float32)
    one = stamps.take([index])
    # the weight of flux times t is that of flux over t squared
    invvar = one.invvar()[0] / (transmission**2)[:, None, None]
    grid = _grid(stamps, index, part)
    facts = _facts(stamps, index, cards, comments)
    hdus = [
        fits.PrimaryHDU(stamps.observed_flux(index)[:, rows, columns], header=grid + facts),
        fits.ImageHDU(invvar[:, rows, columns], header=grid.copy(), name="INVVAR"),
        fits.ImageHDU(stamps.mask[index][rows, columns], header=grid.copy(), name="MASK"),
    ]
    hdus[0].header["EXTNAME"] = "IMAGE"
    hdus[0].header["BUNIT"] = ("nanomaggy", "per pixel; AB magnitude 22.5 is 1")
    hdus[1].header["BUNIT"] = ("nanomaggy-2", "per pixel; 0 = no data")
    for hdu in hdus[:2]:
        hdu.header["BANDS"] = ("".join(stamps.bands), "bands of the planes, in their order")
    for bit, band in enumerate(stamps.bands):
        hdus[2].header[f"MBIT_{bit}"] = (band, f"bit {bit}: band {band} is masked here")
    hdus[2].header["MBIT_7"] = ("FILLED", "bit 7: outside of the images")
    file, buffer = fits.HDUList(hdus), io.BytesIO()
    file.update_extend()
    for hdu in hdus:
        # with a fixed comment instead of the time: the same stamp is the same file
        hdu.add_checksum(when="")
    file.writeto(buffer)
    return buffer.getvalue()


def _grid(stamps: StampSet, index: int, part: Window) -> fits.Header:
    """Projection of the part, one for all bands; empty for a stamp without a position."""
    wcs = stamps.wcs(index)
    if wcs is None:
        return fits.Header()
    wcs.wcs.crpix = wcs.wcs.crpix - [part.x0, part.y0]
    return wcs.to_header()


def _facts(stamps: StampSet, index: int, cards: Mapping[str, tuple[Fact, str]], comments: Sequence[str]) -> fits.Header:
    header = fits.Header()
    header["CREATOR"] = f"galpipe {VERSION}"
    header["PIXSCALE"] = (stamps.pixscale, "arcsec per pixel")
    header["DEREDDEN"] = (False, "pixels are as observed; divide by MWT_<band>")
    names = stamps.sources.column_names
    for band in stamps.bands:
        header[f"MWT_{band.upper()}"] = (float(stamps.transmission(band)[index]), "Galactic transmission")
        seeing = stamps.sources[f"psfsize_{band}"][index].as_py() if f"psfsize_{band}" in names else None
        if seeing is not None and np.isfinite(seeing):
            header[f"PSFSZ_{band.upper()}"] = (float(seeing), "arcsec, FWHM of the PSF")
    for keyword, card in cards.items():
        header[keyword] = card
    for comment in comments:
        header["COMMENT"] = comment
    return header
