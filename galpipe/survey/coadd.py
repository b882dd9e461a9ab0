"""Read a brick's coadded images, whatever HDU and compression they come in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.errors import BadData, NoWork
from galpipe.survey.bricks import BRICK_PIXELS, brick_by_name
from galpipe.survey.files import BrickFiles

BRICK_SHAPE = (BRICK_PIXELS, BRICK_PIXELS)
Box = tuple[slice, slice]
"""Rows and columns of a part of an image."""

_NAMED = re.compile(r"legacysurvey-(\d{4}[pm]\d{3})-")
NONFINITE_CARD = "NONFINIT"
"""Header card that `read_image` adds: how many pixels were NaN or infinite."""


def check_complete(hdus: fits.HDUList, path: Path, unit: str = "") -> None:
    """Refuse a file that ends before its last HDU does; astropy itself would only warn.

    Raises
    ------
    BadData
        If bytes are missing at the end.
    """
    size = path.stat().st_size
    for hdu in hdus:
        info = hdu.fileinfo()
        end = info["datLoc"] + info["datSpan"] if info and info["datLoc"] is not None else 0
        if end > size:
            raise BadData(f"a FITS file of {end} bytes", f"{size} bytes (truncated)", unit=unit, file=path.name)


def read_image(
    path: Path, shape: tuple[int, int] | None = BRICK_SHAPE, unit: str = "", box: Box | None = None
) -> tuple[NDArray[np.float32] | NDArray[np.integer], fits.Header]:
    """Decode the first HDU with two-dimensional data.

    That is HDU 1 of a compressed file (with or without EXTNAME) and HDU 0 of one that is ``.fz`` by name only.

    Parameters
    ----------
    path : Path
    shape : tuple or None
        Shape required (rows, columns); None accepts any.
    unit : str
        For messages.
    box : pair of slice, optional
        Rows and columns to decode; all by default.

    Returns
    -------
    image : ndarray
        Shape (rows, columns) or that of the box, native byte order; float32 for floating images (nanomaggies for an image), the file's
        integer type otherwise. Non-finite pixels are left as they are and counted in card `NONFINITE_CARD`.
    header : astropy.io.fits.Header

    Raises
    ------
    BadData
        If the file is not FITS, is truncated, does not decode, holds no image or one of another shape.
    """
    if path.stat().st_size == 0:
        raise BadData("a FITS image", "an empty file", unit=unit, file=path.name)
    try:
        with fits.open(path, memmap=False) as hdus:
            check_complete(hdus, path, unit)
            for hdu in hdus:
                if len(getattr(hdu, "shape", ())) != 2 or not getattr(hdu, "is_image", False):
                    continue
                if shape is not None and tuple(hdu.shape) != tuple(shape):
                    raise BadData(f"an image of shape {tuple(shape)}", f"shape {tuple(hdu.shape)}", unit=unit, file=path.name)
                return _native(hdu.data if box is None else hdu.section[box], hdu.header.copy())
    except BadData:
        raise
    # decoders raise almost anything on damaged input: OSError, ValueError, KeyError, zlib.error, cfitsio's own
    except Exception as error:
        raise BadData("a readable FITS image", f"{type(error).__name__}: {error}", unit=unit, file=path.name) from error
    raise BadData("an HDU with a two-dimensional image", "none", unit=unit, file=path.name)


def _native(
    data: NDArray[np.float32] | NDArray[np.integer], header: fits.Header
) -> tuple[NDArray[np.float32] | NDArray[np.integer], fits.Header]:
    image: NDArray[np.float32] | NDArray[np.integer]
    if data.dtype.kind == "f":
        image = np.ascontiguousarray(data, np.float32)
        header[NONFINITE_CARD] = (int(image.size - np.count_nonzero(np.isfinite(image))), "pixels that are not finite")
    else:
        image = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
        header[NONFINITE_CARD] = (0, "pixels that are not finite")
    return image, header


def check_header(header: fits.Header, file: str, unit: str = "") -> None:
    """Refuse an image that is of another brick than its file name says, or not on that brick's pixel grid.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Cards that are not there are not compared.
    file : str
        ``legacysurvey-<brick>-...``; any other name is not checked.
    unit : str
        For messages.

    Raises
    ------
    BadData
        Naming the card.
    """
    named = _NAMED.match(file)
    if named is None:
        return
    area = brick_by_name(named.group(1))
    cards: dict[str, object] = {"BRICK": area.name, "BRICKNAM": area.name, "BRICKID": area.brickid}
    for card, expected in cards.items():
        if card in header and str(header[card]).strip() != str(expected):
            raise BadData(f"{card} {expected}, of the file's name", f"{header[card]!r}", unit=unit, file=file)
    scale = SURVEY_PIXSCALE / 3600
    middle = BRICK_PIXELS / 2 + 0.5
    # how far the image may lie off, in degrees or pixels: a twentieth of a pixel, over the whole frame for the matrix
    grid = {"CRVAL1": (area.ra, scale / 20), "CRVAL2": (area.dec, scale / 20), "CRPIX1": (middle, 0.05), "CRPIX2": (middle, 0.05)}
    matrix = {"CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale}
    for card, (value, tolerance) in (grid | {card: (value, scale / 20 / middle) for card, value in matrix.items()}).items():
        if card in header and not _near(header[card], value, tolerance, card == "CRVAL1"):
            raise BadData(f"{card} {value:.10g}, of brick {area.name}", f"{header[card]!r}", unit=unit, file=file)


def _near(given: object, value: float, tolerance: float, turns: bool) -> bool:
    if isinstance(given, bool) or not isinstance(given, int | float):
        return False
    step = (given - value + 180) % 360 - 180 if turns else given - value
    return abs(step) <= tolerance


def read_band(
    files: BrickFiles, product: str, band: str = "", box: Box | None = None
) -> tuple[NDArray[np.float32] | NDArray[np.integer], fits.Header]:
    """Read one product of a fetched brick, whole or a part of it.

    Raises
    ------
    NoWork
        If the brick does not have it.
    BadData
        As `read_image` and `check_header`.
    """
    path = files.path(product, band)
    if path is None:
        name = f"{product}-{band}" if band else product
        raise NoWork(f"a {name} file", "absent", unit=str(files.unit), file=name)
    image, header = read_image(path, unit=str(files.unit), box=box)
    check_header(header, path.name, str(files.unit))
    return image, header
