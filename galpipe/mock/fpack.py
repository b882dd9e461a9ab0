"""Compressed images as the survey's fpack leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

COMPRESSION: dict[str, dict[str, object]] = {
    "image": {"compression_type": "RICE_1", "quantize_level": -1e-4, "quantize_method": 2, "dither_seed": 1},
    "invvar": {"compression_type": "RICE_1", "quantize_level": 16.0, "quantize_method": -1},
    "invvar-dr8": {"compression_type": "RICE_1", "quantize_level": 16.0, "quantize_method": 2, "dither_seed": 1},
    "psfsize": {"compression_type": "GZIP_1", "quantize_level": 0.0},
    "nexp": {"compression_type": "HCOMPRESS_1"},
    "maskbits": {"compression_type": "HCOMPRESS_1"},
    "clean": {"compression_type": "RICE_1", "quantize_level": -2e-5, "quantize_method": -1},
}
"""The survey's fpack settings per product (reference section 2.2), and those of the truth's noiseless images."""


def compressed_image(data: NDArray[np.generic], header: fits.Header, product: str, label: str = "") -> fits.CompImageHDU:
    """One compressed image.

    Parameters
    ----------
    data : ndarray, shape (H, W)
    header : astropy.io.fits.Header
    product : str
        Names the settings: a key of `COMPRESSION`.
    label : str
        EXTNAME; empty writes none.
    """
    hdu = fits.CompImageHDU(data, header, tile_shape=(100, 100), **COMPRESSION[product])
    if label:
        hdu.header["EXTNAME"] = label
    return hdu


def save_images(path: Path, hdus: list[fits.CompImageHDU]) -> None:
    """Write images after an empty primary; the same images give the same bytes."""
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    data = bytearray(path.read_bytes())
    with fits.open(path, disable_image_compression=True) as raw:
        for hdu in raw[1:]:
            _drop_times(data, hdu)
    path.write_bytes(data)


def _drop_times(data: bytearray, hdu: fits.BinTableHDU) -> None:
    """Zero the time stamps that astropy leaves in gzipped tiles."""
    header, start = hdu.header, int(hdu.fileinfo()["datLoc"])
    width, rows = header["NAXIS1"], header["NAXIS2"]
    table = np.frombuffer(bytes(data[start : start + width * rows]), np.uint8).reshape(rows, width)
    heap = start + header.get("THEAP", width * rows)
    for n, form in enumerate(hdu.columns.formats):
        word = {"P": ">i4", "Q": ">i8"}.get(form.lstrip("01")[:1])
        if word is None:
            continue
        first = sum(hdu.columns.dtype[k].itemsize for k in range(n))
        pairs = np.ascontiguousarray(table[:, first : first + 2 * int(word[2])]).view(word)
        for offset in pairs[pairs[:, 0] > 10, 1]:
            if data[heap + offset : heap + offset + 3] == b"\x1f\x8b\x08":
                data[heap + offset + 4 : heap + offset + 8] = bytes(4)
