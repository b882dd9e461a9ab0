"""A small brick on disk: three galaxies to cut, and one of each kind that is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.survey.bricks import BRICK_PIXELS, brick_by_name, brick_wcs
from galpipe.survey.files import BrickFiles, FileRecord
from galpipe.unit import Unit

UNIT = Unit("dr9", "south", "0001m002")
TRANSMISSION = {"g": 0.8, "r": 0.9, "i": 0.92, "z": 0.95}
INVVAR = {"g": 2.5e5, "z": 1.6e4}


@dataclass(frozen=True)
class Row:
    """One row of the Tractor table."""

    bx: float
    by: float
    type: str = "SER"
    flux: float = 50.0
    primary: bool = True
    bad_position: bool = False


ROWS = (
    Row(1000.3, 2000.7),
    Row(1800.5, 1799.5, "EXP"),
    Row(20.0, 3590.49, "DEV"),
    Row(500.0, 500.0, "PSF"),
    Row(600.0, 600.0, flux=1.0),
    Row(700.0, 700.0, primary=False),
    Row(800.0, 800.0, bad_position=True),
    Row(3400.0, 300.0, "REX"),
)
"""The last one lies where no band has coverage."""

SATURATED = (1010, 2005)
UNSEEN = (990, 1995)
NOT_A_NUMBER = (1000, 2010)
"""x, y of single bad pixels near the first source: SATUR_G, invvar 0 in z, NaN in g."""


def write_image(path: Path, plane: NDArray[Any]) -> None:
    """A lossless compressed coadd with the brick's projection."""
    header = brick_wcs(brick_by_name(UNIT.brick)).to_header()
    for key in ("CDELT1", "CDELT2", "PC1_1", "PC2_2"):
        header.remove(key, ignore_missing=True)
    header["CD1_1"], header["CD2_2"] = -0.262 / 3600, 0.262 / 3600
    kind = "GZIP_1" if plane.dtype.kind == "f" else "RICE_1"
    level = {"quantize_level": 0.0} if plane.dtype.kind == "f" else {}
    image = fits.CompImageHDU(plane, header, compression_type=kind, tile_shape=(100, 100), **level)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, overwrite=True)


def write_tractor(path: Path, rows: Sequence[Row] = ROWS, name: str = UNIT.brick) -> None:
    """A table with the needed columns only."""
    brick = brick_by_name(name)
    ra, dec = brick_wcs(brick).all_pix2world([row.bx for row in rows], [row.by for row in rows], 0)
    ra = np.where([row.bad_position for row in rows], np.nan, ra)
    count = len(rows)
    columns: dict[str, tuple[str, Any]] = {
        "release": ("I", np.full(count, 9010)),
        "brickid": ("J", np.full(count, brick.brickid)),
        "brickname": ("8A", np.full(count, brick.name)),
        "objid": ("J", np.arange(count)),
        "brick_primary": ("L", np.array([row.primary for row in rows])),
        "maskbits": ("I", np.zeros(count)),
        "type": ("3A", np.array([row.type for row in rows])),
        "ra": ("D", ra),
        "dec": ("D", dec),
        "bx": ("E", np.array([row.bx for row in rows])),
        "by": ("E", np.array([row.by for row in rows])),
        "ebv": ("E", np.full(count, 0.05)),
        **{name: ("E", np.zeros(count)) for name in ("shape_r", "shape_e1", "shape_e2", "sersic")},
    }
    for band in "grz":
        columns |= {
            f"flux_{band}": ("E", np.array([row.flux for row in rows])),
            f"flux_ivar_{band}": ("E", np.full(count, 100.0)),
            f"mw_transmission_{band}": ("E", np.full(count, TRANSMISSION[band])),
            f"nobs_{band}": ("I", np.full(count, 3)),
            f"psfsize_{band}": ("E", np.full(count, 1.3)),
            f"psfdepth_{band}": ("E", np.full(count, 1000.0)),
            f"galdepth_{band}": ("E", np.full(count, 900.0)),
        }
    table = fits.BinTableHDU.from_columns([fits.Column(name, form, array=values) for name, (form, values) in columns.items()])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)


def planes(band: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image (a single bright pixel at each source's nearest pixel) and invvar of a band."""
    image = np.zeros((BRICK_PIXELS, BRICK_PIXELS), np.float32)
    invvar = np.full(image.shape, INVVAR[band], np.float32)
    for index, row in enumerate(ROWS):
        image[int(np.floor(row.by + 0.5)), int(np.floor(row.bx + 0.5))] = 1.0 + index
    invvar[:500, 3200:] = 0.0
    if band == "z":
        invvar[UNSEEN[1], UNSEEN[0]] = 0.0
    else:
        image[NOT_A_NUMBER[1], NOT_A_NUMBER[0]] = np.nan
    return image, invvar


@pytest.fixture(scope="session")
def brick_files(tmp_path_factory: pytest.TempPathFactory) -> BrickFiles:
    """g and z with maskbits and nexp of g; r is absent."""
    folder = tmp_path_factory.mktemp("brick")
    stem = f"legacysurvey-{UNIT.brick}"
    records = [FileRecord(f"{stem}-image-r.fits.fz", "", "image", "r", "absent")]

    def add(product: str, band: str, plane: NDArray[Any]) -> None:
        name = f"{stem}-{product}{'-' + band if band else ''}.fits.fz"
        write_image(folder / name, plane)
        records.append(FileRecord(name, "", product, band, "verified", f"sha-{product}-{band}", 1))

    for band in "gz":
        image, invvar = planes(band)
        add("image", band, image)
        add("invvar", band, invvar)
    bits = np.zeros((BRICK_PIXELS, BRICK_PIXELS), np.int16)
    bits[SATURATED[1], SATURATED[0]] = 1 << 2
    add("maskbits", "", bits)
    nexp = np.full(bits.shape, 3, np.int16)
    nexp[:, 1500:] = 5
    add("nexp", "g", nexp)
    name = f"tractor-{UNIT.brick}.fits"
    write_tractor(folder / name)
    records.append(FileRecord(name, "", "tractor", "", "verified", "sha-tractor", 1))
    return BrickFiles(UNIT, folder, tuple(sorted(records, key=lambda item: item.name)))
