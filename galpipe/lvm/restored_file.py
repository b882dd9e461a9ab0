"""A restored stamp as a FITS file: image, uncertainty and filled pixels, with what a reader must know in the header."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits

from galpipe.code_version import VERSION
from galpipe.lvm.inputs import MODEL_BANDS, SEEING_UNIT, SHARPENING, float_column
from galpipe.lvm.predict import Predictor, Restored
from galpipe.stamps.stampset import StampSet

EYE_ONLY = "for the eye only"


def restored_fits(predictor: Predictor, stamps: StampSet, batch: int = 1) -> list[bytes]:
    """FITS files of stamps, one each.

    Parameters
    ----------
    predictor : Predictor
    stamps : StampSet
        N stamps.
    batch : int
        Stamps per pass.

    Returns
    -------
    list of bytes
        Each: an empty primary HDU with the facts; ``RESTORED`` and ``SIGMA``, float32, shape (B, S, S), nanomaggies per pixel, of the
        bands that the stamp has; ``FILLED``, uint8, the same shape, 1 where there was no data.
    """
    restored = predictor.restored(stamps, range(len(stamps)), batch)
    return [_file(predictor.model_hash, stamps, restored, index) for index in range(len(stamps))]


def _file(model_hash: str, stamps: StampSet, restored: Restored, index: int) -> bytes:
    # a band without any pixel would be the model's invention
    planes = [place for place in range(len(MODEL_BANDS)) if not restored.filled[index, place].all()]
    header = _facts(model_hash, stamps, index, [MODEL_BANDS[place] for place in planes])
    wcs = stamps.wcs(index)
    grid = fits.Header() if wcs is None else wcs.to_header()
    parts = {
        "RESTORED": restored.image[index, planes],
        "SIGMA": restored.sigma[index, planes],
        "FILLED": restored.filled[index, planes].astype(np.uint8),
    }
    hdus = [fits.PrimaryHDU(header=header)]
    for name, values in parts.items():
        hdu = fits.ImageHDU(values, header=grid.copy(), name=name)
        hdu.header["BANDS"] = (header["BANDS"], "bands of the planes")
        hdu.header["PURPOSE"] = EYE_ONLY
        if name != "FILLED":
            hdu.header["BUNIT"] = ("nanomaggy", "per pixel")
        hdus.append(hdu)
    hdus[2].header["COMMENT"] = "Half width of the interval that holds 68 % of the true values, per pixel."
    hdus[3].header["COMMENT"] = "1 where the stamp had no data and the model filled the pixel."
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def _facts(model_hash: str, stamps: StampSet, index: int, bands: list[str]) -> fits.Header:
    header = fits.Header()
    header["PURPOSE"] = (EYE_ONLY, "no flux, shape or vote is measured on it")
    header["MODEL"] = (model_hash, "hash of the galpipe model")
    header["CREATOR"] = f"galpipe {VERSION}"
    header["BANDS"] = ("".join(bands), "bands of the planes")
    header["PIXSCALE"] = (stamps.pixscale, "arcsec per pixel")
    header["SHARPEN"] = (SHARPENING, "FWHM of the restored PSF over the stamp's")
    header["DEREDDEN"] = (bool(_value(stamps, "dereddened", index)), "divided by the Galactic transmission")
    for band in bands:
        given = float_column(stamps.sources, f"psfsize_{band}", len(stamps))[index]
        known = bool(np.isfinite(given) and given > 0)
        seeing = float(given) if known else SEEING_UNIT
        header[f"PSFIN_{band.upper()}"] = (round(seeing, 4), f"arcsec FWHM of the stamp{'' if known else ': assumed'}")
        header[f"PSFOUT_{band.upper()}"] = (round(seeing * SHARPENING, 4), "arcsec FWHM that the image is restored to")
        header[f"PSFKN_{band.upper()}"] = (known, "whether the file says what its seeing is")
    if "file" in stamps.sources.column_names:
        header["ORIGIN"] = Path(str(_value(stamps, "file", index))).name[:60]
    return header


def _value(stamps: StampSet, name: str, index: int) -> object:
    return stamps.sources[name][index].as_py() if name in stamps.sources.column_names else None
