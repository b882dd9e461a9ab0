"""Images larger than a stamp, as detection by tiles takes them: a whole brick, or a FITS file of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS

from galpipe.config import SURVEY_PIXSCALE
from galpipe.errors import BadData
from galpipe.lvm.inputs import MODEL_BANDS, float_column
from galpipe.stamps.planes import Planes
from galpipe.stamps.readers import RawStamp, read_raw
from galpipe.stamps.stampset import plain_wcs
from galpipe.survey.bricks import brick_by_name, brick_wcs
from galpipe.survey.files import BrickFiles
from galpipe.survey.tractor import read_tractor, tractor_subset


@dataclass(frozen=True)
class SkyField:
    """One image of several bands, north up, east left, 0.262 arcsec per pixel.

    Parameters
    ----------
    name : str
        For messages.
    bands : tuple of str
        Among the model's.
    flux : ndarray
        Float32, shape (B, H, W), nanomaggies per pixel, dereddened where the dust is known.
    valid : ndarray
        Bool, shape (B, H, W): the pixel was measured and is no saturated or flagged one.
    wcs : astropy.wcs.WCS or None
        None where the file has no position.
    conditions : mapping
        ``psfsize_<band>`` (arcsec) and ``psfdepth_<band>`` (nanomaggies^-2) where known.
    """

    name: str
    bands: tuple[str, ...]
    flux: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    wcs: WCS | None = None
    conditions: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.flux.ndim != 3 or self.flux.shape != self.valid.shape or len(self.bands) != len(self.flux):
            raise BadData(f"fluxes and validity of {len(self.bands)} bands", f"{self.flux.shape} and {self.valid.shape}", unit=self.name)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.flux.shape[1]), int(self.flux.shape[2])


def brick_field(files: BrickFiles) -> SkyField:
    """A brick's coadds, with seeing, depth and dust as the medians of its Tractor table where it has one.

    Raises
    ------
    BadData
        If no band of the model is there, or a file is corrupt.
    """
    planes = Planes(files, MODEL_BANDS, keep=False)
    bands = tuple(band for band in MODEL_BANDS if planes.has(band))
    if not bands:
        raise BadData(f"images and inverse variances in a band among {', '.join(MODEL_BANDS)}", "none", unit=str(files.unit))
    conditions, transmission = _of_table(files, bands)
    flags = planes.flags()
    flux, valid = [], []
    for band in bands:
        image, _ = planes.read("image", band)
        weight, _ = planes.read("invvar", band)
        good = (weight > 0) & np.isfinite(image)
        if flags is not None:
            good &= (flags & np.uint8(1 << MODEL_BANDS.index(band))) == 0
        flux.append(np.where(good, image, 0).astype(np.float32) / np.float32(transmission[band]))
        valid.append(good)
    grid = brick_wcs(brick_by_name(files.unit.brick))
    return SkyField(files.unit.brick, bands, np.stack(flux), np.stack(valid), grid, conditions)


def _of_table(files: BrickFiles, bands: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    path = files.path("tractor")
    table = tractor_subset(read_tractor(path, files.unit)) if path is not None else pa.table({})

    def median(name: str) -> float:
        values = float_column(table, name, len(table))
        values = values[np.isfinite(values) & (values > 0)]
        return float(np.median(values)) if len(values) else float("nan")

    conditions = {f"{name}_{band}": median(f"{name}_{band}") for name in ("psfsize", "psfdepth") for band in bands}
    dust = {band: median(f"mw_transmission_{band}") for band in bands}
    return conditions, {band: value if np.isfinite(value) else 1.0 for band, value in dust.items()}


def file_field(path: Path) -> SkyField:
    """A FITS image of any size, bands as `galpipe stamps` knows them; seeing, depth and dust only where its header tells them.

    Raises
    ------
    BadData
        If it is not one image at 0.262 arcsec per pixel with a band of the model, north up.
    """
    found = list(read_raw(path))
    if len(found) != 1 or not isinstance(found[0], RawStamp):
        got = str(found[0]) if found and isinstance(found[0], BadData) else f"{len(found)}"
        raise BadData("one image", got, file=str(path))
    raw = found[0]
    bands = tuple(band for band in MODEL_BANDS if band in raw.bands)
    if not bands:
        raise BadData(f"a band among {', '.join(MODEL_BANDS)}", ", ".join(raw.bands), file=str(path))
    if not raw.grid.matches(SURVEY_PIXSCALE):
        raise BadData(f"{SURVEY_PIXSCALE} arcsec per pixel, north up", f"{raw.grid.pixscale:.3f}, or turned", file=str(path))
    order = [raw.bands.index(band) for band in bands]
    flux = raw.flux[order]
    # as `galpipe stamps`: without inverse variances a pixel of exactly 0 has no coverage
    valid = np.isfinite(flux) & ((flux != 0) if raw.invvar is None else raw.invvar[order] > 0)
    if raw.known is not None:
        valid &= raw.known[order]
    facts = {name: float(raw.facts.get(name, np.nan)) for band in bands for name in (f"psfsize_{band}", f"psfdepth_{band}")}
    dust = np.array([float(raw.facts.get(f"mw_transmission_{band}", np.nan)) for band in bands], dtype=np.float32)
    dust = np.where(np.isfinite(dust) & (dust > 0), dust, np.float32(1))
    wcs = raw.grid.wcs
    if wcs is None and raw.ra is not None and raw.dec is not None:
        wcs = plain_wcs((raw.ra, raw.dec), raw.grid.center, SURVEY_PIXSCALE)
    clean = np.where(valid, flux, 0).astype(np.float32) / dust[:, None, None]
    return SkyField(path.name, bands, clean, valid, None if wcs is None else wcs.celestial, facts)
