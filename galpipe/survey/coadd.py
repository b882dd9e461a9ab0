"""Read a brick's coadded images, whatever HDU and compression they come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.errors import BadData, NoWork
from galpipe.survey.bricks import BRICK_PIXELS
from galpipe.survey.files import BrickFiles

BRICK_SHAPE = (BRICK_PIXELS, BRICK_PIXELS)
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
    path: Path, shape: tuple[int, int] | None = BRICK_SHAPE, unit: str = ""
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

    Returns
    -------
    image : ndarray
        Shape (rows, columns), native byte order; float32 for floating images (nanomaggies for an image), the file's
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
                return _native(hdu.data, hdu.header.copy())
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


def read_band(files: BrickFiles, product: str, band: str = "") -> tuple[NDArray[np.float32] | NDArray[np.integer], fits.Header]:
    """Read one product of a fetched brick, whole.

    Raises
    ------
    NoWork
        If the brick does not have it.
    BadData
        As `read_image`.
    """
    path = files.path(product, band)
    if path is None:
        name = f"{product}-{band}" if band else product
        raise NoWork(f"a {name} file", "absent", unit=str(files.unit), file=name)
    return read_image(path, unit=str(files.unit))
