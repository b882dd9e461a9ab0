"""A crowded brick: as many table rows as asked for, over noise and light that compress as badly as a survey's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.mock.fpack import compressed_image, save_images
from galpipe.mock.spec import SKY_SIGMA, STYLES, MockSpec
from galpipe.mock.tractor_columns import tractor_columns
from galpipe.survey.bricks import BRICK_PIXELS, Brick, brick_by_name, brick_wcs
from galpipe.survey.files import FETCH_FILE, BrickFiles, FileRecord
from galpipe.unit import Unit

Floats = NDArray[np.float64]
At = tuple[Floats, Floats]

BANDS = ("g", "r", "z")
LIGHT = 61
"""Pixels on a side of what is painted for each source."""

FRACTIONS = {"PSF": 0.44, "REX": 0.43, "EXP": 0.08, "DEV": 0.03, "SER": 0.02}
"""Tractor types of DR9 (reference section 8)."""


def write_crowded(folder: Path, unit: Unit, sources: int, selected: float, bands: tuple[str, ...] = BANDS) -> BrickFiles:
    """Write a brick's files as fetched ones: images with inverse variances, masks and a table of all of DR9's columns.

    Parameters
    ----------
    folder : Path
        See `galpipe.layout.Layout.brick_folder`.
    unit : Unit
    sources : int
        Rows of the table, all in the brick's own area.
    selected : float
        Share of rows that are galaxies with z < 20; the others are of every type, and fainter.
    bands : tuple of str
        Bands to write images of.
    """
    folder.mkdir(parents=True)
    area, rng = brick_by_name(unit.brick), np.random.default_rng(1)
    x, y = rng.uniform(100, BRICK_PIXELS - 100, (2, sources))
    flux = np.where(np.arange(sources) < round(selected * sources), rng.uniform(11, 60, sources), rng.uniform(0.3, 9, sources))
    stem, header = f"legacysurvey-{unit.brick}", brick_wcs(area).to_header()
    for band in bands:
        planes = {"image": _image(band, (x, y), flux, rng), "invvar": _invvar(band, rng)}
        for product, plane in planes.items():
            save_images(folder / f"{stem}-{product}-{band}.fits.fz", [compressed_image(plane, header, product)])
    blank = np.zeros((BRICK_PIXELS, BRICK_PIXELS), np.int16)
    save_images(folder / f"{stem}-maskbits.fits.fz", [compressed_image(blank, header, "maskbits")])
    _write_table(folder / f"tractor-{unit.brick}.fits", area, (x, y), flux)
    return _recorded(unit, folder)


def _image(band: str, at: At, flux: Floats, rng: np.random.Generator) -> NDArray[np.float32]:
    image = (SKY_SIGMA[band] * rng.standard_normal((BRICK_PIXELS, BRICK_PIXELS), np.float32)).astype(np.float32)
    line = np.arange(LIGHT) - LIGHT // 2
    profile = np.exp(-np.hypot(line[:, None], line[None, :]) / 4)
    profile = (profile / profile.sum()).astype(np.float32)
    for px, py, total in zip(at[0].astype(int), at[1].astype(int), flux, strict=True):
        image[py - LIGHT // 2 : py + LIGHT // 2 + 1, px - LIGHT // 2 : px + LIGHT // 2 + 1] += np.float32(total) * profile
    return image


def _invvar(band: str, rng: np.random.Generator) -> NDArray[np.float32]:
    spread = rng.uniform(0.9, 1.1, (BRICK_PIXELS, BRICK_PIXELS)).astype(np.float32)
    return np.asarray(spread / SKY_SIGMA[band] ** 2, np.float32)


def _write_table(path: Path, area: Brick, at: At, flux: Floats) -> None:
    count, rng = len(flux), np.random.default_rng(2)
    kinds = rng.choice(list(FRACTIONS), count, p=list(FRACTIONS.values()))
    known: dict[str, NDArray[np.generic]] = {
        "release": np.full(count, 9010),
        "brickid": np.full(count, area.brickid),
        "brickname": np.full(count, area.name),
        "objid": np.arange(count),
        "brick_primary": np.ones(count, bool),
        "type": np.where((flux > 10) & (kinds == "PSF"), "REX", kinds),
        "bx": at[0],
        "by": at[1],
        "ebv": np.full(count, 0.05),
        "shape_r": np.where(kinds == "PSF", 0, rng.uniform(0.3, 3, count)),
    }
    known["ra"], known["dec"] = brick_wcs(area).all_pix2world(*at, 0)
    for band in BANDS:
        known |= {f"flux_{band}": flux, f"flux_ivar_{band}": np.full(count, 100.0), f"nobs_{band}": np.full(count, 3)}
        known |= {f"mw_transmission_{band}": np.full(count, 0.9), f"psfsize_{band}": np.full(count, 1.2)}
        known |= {f"psfdepth_{band}": np.full(count, 1000.0), f"galdepth_{band}": np.full(count, 900.0)}
    columns = []
    for column in tractor_columns(STYLES["dr9"], MockSpec().band_list):
        length = int(column.form[:-1] or 1) if not column.form.endswith("A") else 1
        values = known.get(column.name)
        array = values if values is not None else np.zeros((count, length) if length > 1 else count)
        columns.append(fits.Column(column.name, column.form, array=array))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)


def _recorded(unit: Unit, folder: Path) -> BrickFiles:
    records = []
    for path in sorted(folder.glob("*.fits*")):
        product, _, band = path.name.removesuffix(".fz").removesuffix(".fits").removeprefix(f"legacysurvey-{unit.brick}-").partition("-")
        known = (product, band) if path.name.startswith("legacysurvey-") else ("tractor", "")
        records.append(FileRecord(path.name, "", *known, "unverified", f"made here: {path.name}", path.stat().st_size))
    files = BrickFiles(unit, folder, tuple(records))
    (folder / FETCH_FILE).write_text(files.to_json())
    return files
