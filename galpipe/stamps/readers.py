"""Read stamps of other people: FITS cubes and image lists, npz, Stein-layout HDF5, pictures; each into one common form."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray
from PIL import Image

from galpipe.config import SURVEY_PIXSCALE
from galpipe.errors import BadData
from galpipe.stamps.resample import Grid, scale_of
from galpipe.stamps.stein import SteinFile
from galpipe.stamps.stretch import DR2_RGB, channels_inside
from galpipe.survey.coadd import check_complete

PICTURES = (".jpg", ".jpeg", ".png")
HDF5 = (".h5", ".hdf5")
FITS = (".fits", ".fit", ".fz", ".gz")

_POSITION = re.compile(r"(?<![\d.])(\d{1,3}\.\d+)_([+-]?\d{1,2}\.\d+)")
_USUAL_BANDS = {1: "r", 3: "grz", 4: "griz"}
_VIEWER_CARDS = ("SURVEY", "VERSION", "IMAGETYP", "BANDS")


@dataclass(frozen=True)
class RawStamp:
    """One stamp as its file has it.

    Parameters
    ----------
    file : str
        For messages and the ``file`` column; rows of a list carry ``[row]``.
    bands : tuple of str
    flux : ndarray of float32, shape (B, H, W)
        Nanomaggies per pixel (see ``per_survey_pixel``), row 0 at the south.
    grid : Grid
    invvar : ndarray of float32, shape (B, H, W), or None
        1/nanomaggies^2.
    known : ndarray of bool, shape (B, H, W), or None
        False where the file itself gives no true value (a clipped JPEG channel).
    ra, dec : float or None
        Position of the middle, degrees.
    facts : mapping
        Further columns of the sources table.
    per_survey_pixel : bool
        Pixel values are nanomaggies per 0.262 arcsec pixel whatever the scale: what the viewer's cutout service gives.
    jpeg_route : bool
        Fluxes were reconstructed from a color picture.
    scale_assumed : bool
        The file does not tell its pixel scale.
    """

    file: str
    bands: tuple[str, ...]
    flux: NDArray[np.float32]
    grid: Grid
    invvar: NDArray[np.float32] | None = None
    known: NDArray[np.bool_] | None = None
    ra: float | None = None
    dec: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    per_survey_pixel: bool = False
    jpeg_route: bool = False
    scale_assumed: bool = False


def read_raw(path: Path, picture_pixscale: float | None = None) -> Iterator[RawStamp | BadData]:
    """Read every stamp of a file.

    Parameters
    ----------
    path : Path
    picture_pixscale : float or None
        Arcsec per pixel of JPEG and PNG pictures, which do not tell theirs. None takes the picture to span a standard stamp (39.8 arcsec).

    Yields
    ------
    RawStamp or BadData
        A bad row of a list comes as the error, the others follow.

    Raises
    ------
    BadData
        If the file cannot be read or is no stamp.
    """
    suffix = path.suffix.lower()
    try:
        if path.stat().st_size == 0:
            raise BadData("a stamp", "an empty file", file=str(path))
        if suffix in FITS:
            yield _read_fits(path)
        elif suffix == ".npz":
            yield _read_npz(path)
        elif suffix in PICTURES:
            yield _read_picture(path, picture_pixscale)
        elif suffix in HDF5:
            yield from _read_stein(path)
        else:
            raise BadData("a FITS, npz, HDF5, JPEG or PNG file", f"the name {path.name!r}", file=str(path))
    except BadData as error:
        raise BadData(error.expected, error.got, file=str(path)) from error
    # damaged files make decoders raise almost anything
    except Exception as error:
        raise BadData("a readable stamp", f"{type(error).__name__}: {error}", file=str(path)) from error


def position_in_name(name: str) -> tuple[float, float] | None:
    """RA and Dec (deg) in a file name such as ``cutout_59.1067_-30.4848.fits``."""
    found = _POSITION.search(name)
    if not found:
        return None
    ra, dec = float(found.group(1)), float(found.group(2).removesuffix("."))
    return (ra, dec) if ra < 360 and abs(dec) <= 90 else None


def _read_fits(path: Path) -> RawStamp:
    planes: dict[str, dict[str, NDArray[np.float32]]] = {"image": {}, "invvar": {}}
    header = fits.Header()
    with warnings.catch_warnings():
        # a truncated file is refused below, not warned about
        warnings.simplefilter("ignore", AstropyUserWarning)
        hdus = fits.open(path, memmap=False)
    with hdus:
        check_complete(hdus, path)
        primary = hdus[0].header
        for hdu in hdus:
            if not getattr(hdu, "is_image", False) or hdu.data is None or hdu.data.ndim not in (2, 3):
                continue
            kind = _kind(hdu.header)
            if kind not in planes:
                continue
            header = header or hdu.header
            cube = np.atleast_3d(hdu.data) if hdu.data.ndim == 3 else hdu.data[None]
            planes[kind].update(zip(_bands(hdu.header, primary, len(cube), path), cube.astype(np.float32), strict=True))
    if not planes["image"]:
        raise BadData("an HDU with a two- or three-dimensional image", "none", file=str(path))
    bands = tuple(planes["image"])
    shapes = {plane.shape for kind in planes.values() for plane in kind.values()}
    if len(shapes) != 1:
        raise BadData("one shape for all bands", repr(sorted(shapes)), file=str(path))
    flux = np.stack([planes["image"][band] for band in bands])
    wcs = _celestial(header)
    _refuse_psf(flux, wcs, path)
    return _located(path, bands, flux, (wcs, primary), _invvar(planes["invvar"], bands))


def _kind(header: fits.Header) -> str:
    said = f"{header.get('IMAGETYP', '')} {header.get('EXTNAME', '')}".lower()
    if "invvar" in said or "ivar" in said:
        return "invvar"
    return "other" if "mask" in said or "psf" in said else "image"


def _bands(header: fits.Header, primary: fits.Header, count: int, path: Path) -> list[str]:
    if count == 1 and str(header.get("BAND", header.get("FILTERX", ""))).strip():
        return [str(header.get("BAND", header.get("FILTERX"))).strip()]
    text = str(header.get("BANDS", primary.get("BANDS", ""))).strip() or _USUAL_BANDS.get(count, "")
    if len(text) != count:
        raise BadData("a card BANDS with one letter per plane", f"{text!r} for {count} planes", file=str(path))
    return list(text)


def _invvar(planes: Mapping[str, NDArray[np.float32]], bands: tuple[str, ...]) -> NDArray[np.float32] | None:
    return np.stack([planes[band] for band in bands]) if set(bands) <= set(planes) else None


def _celestial(header: fits.Header) -> WCS | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header, naxis=2) if "CTYPE1" in header else None
    return wcs if wcs is not None and wcs.has_celestial else None


def _refuse_psf(flux: NDArray[np.float32], wcs: WCS | None, path: Path) -> None:
    """A point-spread function has no place on the sky, sums to one in each band and peaks in the middle."""
    if wcs is not None:
        return
    sums = flux.sum(axis=(1, 2), dtype=np.float64)
    middle = np.array(flux.shape[1:]) // 2
    peaks = np.array([np.unravel_index(int(np.nanargmax(np.nan_to_num(plane))), plane.shape) for plane in flux])
    if np.all(np.abs(sums - 1) < 0.1) and np.all(np.abs(peaks - middle) <= 1):
        got = f"a PSF model (no sky position, planes of {flux.shape[1]} x {flux.shape[2]} px that sum to {np.round(sums, 3).tolist()})"
        raise BadData("a stamp of the sky", got, file=str(path))


def _located(
    path: Path, bands: tuple[str, ...], flux: NDArray[np.float32], where: tuple[WCS | None, fits.Header], invvar: NDArray[np.float32] | None
) -> RawStamp:
    wcs, primary = where
    shape = (flux.shape[1], flux.shape[2])
    if wcs is None:
        place = position_in_name(path.name) or _header_position(primary)
        ra, dec = place if place else (None, None)
        return RawStamp(str(path), bands, flux, Grid(shape, SURVEY_PIXSCALE), invvar, ra=ra, dec=dec, scale_assumed=True)
    grid = Grid(shape, scale_of(wcs), wcs)
    ra, dec = (float(value) for value in wcs.all_pix2world(*grid.center, 0))
    viewer = all(card in primary for card in _VIEWER_CARDS)
    return RawStamp(str(path), bands, flux, grid, invvar, ra=ra % 360, dec=dec, per_survey_pixel=viewer)


def _header_position(header: fits.Header) -> tuple[float, float] | None:
    try:
        ra, dec = float(header["RA"]), float(header["DEC"])
    except (KeyError, TypeError, ValueError):
        return None
    return (ra % 360, dec) if abs(dec) <= 90 else None


def _read_npz(path: Path) -> RawStamp:
    with np.load(path, allow_pickle=False) as content:
        values = {name: content[name] for name in content.files}
    named = [name for name in ("cutout", "image", "images") if name in values and values[name].ndim == 3]
    names = named or [name for name, array in values.items() if array.ndim == 3 and array.dtype.kind == "f"]
    if not names:
        raise BadData("a three-dimensional array of pixels", f"arrays {sorted(values)}", file=str(path))
    cube = np.asarray(values[names[0]], np.float32)
    flux = np.moveaxis(cube, -1, 0) if cube.shape[-1] <= 5 < cube.shape[0] else cube
    bands = str(_scalar(values, "bands_requested") or _scalar(values, "bands") or _USUAL_BANDS.get(len(flux), ""))
    if len(bands) != len(flux):
        raise BadData("one band letter per plane", f"{bands!r} for {len(flux)} planes", file=str(path))
    pixscale, ra, dec = (_number(values, name) for name in ("pixel_scale", "ra", "dec"))
    shape = (flux.shape[1], flux.shape[2])
    viewer = "legacysurvey.org" in str(_scalar(values, "cutout_url") or "")
    return RawStamp(
        str(path),
        tuple(bands),
        np.ascontiguousarray(flux),
        Grid(shape, pixscale or SURVEY_PIXSCALE),
        ra=ra,
        dec=dec,
        per_survey_pixel=viewer,
        scale_assumed=pixscale is None,
    )


def _scalar(values: Mapping[str, NDArray[Any]], name: str) -> Any:
    for key in (f"meta_{name}", name):
        if key in values and values[key].ndim == 0:
            return values[key].item()
    return None


def _number(values: Mapping[str, NDArray[Any]], name: str) -> float | None:
    found = _scalar(values, name)
    return float(found) if isinstance(found, int | float) and np.isfinite(found) else None


def _read_picture(path: Path, pixscale: float | None) -> RawStamp:
    with Image.open(path) as picture:
        if len(picture.getbands()) < 3:
            raise BadData("a color picture", f"mode {picture.mode}", file=str(path))
        rgb = np.asarray(picture.convert("RGB"), np.uint8)
    flux, _ = DR2_RGB.flux(rgb)
    # a core that is white in one band is a limit in the others, but better than a hole in all
    known = channels_inside(rgb)
    shape = (rgb.shape[0], rgb.shape[1])
    scale = pixscale or 152 * SURVEY_PIXSCALE / max(shape)
    place = position_in_name(path.name)
    ra, dec = place if place else (None, None)
    # the viewer's stretch sees surface brightness: a zoomed picture has the same values per survey pixel
    return RawStamp(
        str(path),
        ("g", "r", "z"),
        flux,
        Grid(shape, scale),
        known=known,
        ra=ra,
        dec=dec,
        per_survey_pixel=True,
        jpeg_route=True,
        scale_assumed=pixscale is None,
    )


def _read_stein(path: Path) -> Iterator[RawStamp | BadData]:
    with SteinFile(path) as file:
        for row in range(len(file)):
            try:
                yield stein_stamp(file, row)
            except BadData as error:
                yield error


def stein_stamp(file: SteinFile, row: int) -> RawStamp:
    """One row of a Stein-layout file.

    Raises
    ------
    BadData
        If the row cannot be read.
    """
    flux = file.flux(row)
    ra, dec = file.number("ra", row), file.number("dec", row)
    grid = Grid((flux.shape[1], flux.shape[2]), SURVEY_PIXSCALE)
    return RawStamp(f"{file.path}[{row}]", file.bands, flux, grid, ra=ra, dec=dec, facts=file.facts(row))
