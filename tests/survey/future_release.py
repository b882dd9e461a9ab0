"""A release that nobody has seen: a mock brick of today's under another region, with another band, other names and wider masks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from galpipe.mock.spec import MockSummary
from tests.survey.fake_release import write, write_list

RELEASE, REGION, LABEL = 12000, "east", "dr12"
STRANGE_BIT = 33


def future_release(made: MockSummary, root: Path) -> str:
    """Write the tree at ``root``; returns the brick's name.

    Parameters
    ----------
    made : MockSummary
        Of a mock like DR10 with the bands r, i, z.
    root : Path
    """
    brick, old = made.bricks[0], made.release / made.region
    coadd, tractor = f"{REGION}/coadd/{brick[:3]}/{brick}", f"{REGION}/tractor/{brick[:3]}"
    (root / coadd).mkdir(parents=True)
    for path in sorted((old / "coadd" / brick[:3] / brick).glob("legacysurvey-*-[rzi].fits.fz")):
        _renamed(path, root / coadd / path.name)
        if path.name.endswith("-i.fits.fz"):
            _renamed(path, root / coadd / path.name.replace("-i.fits", "-Y.fits"))
    _masks(old / "coadd" / brick[:3] / brick / f"legacysurvey-{brick}-maskbits.fits.fz", root / coadd)
    write(root, f"{tractor}/tractor-{brick}.fits", b"")
    _sources(old / "tractor" / brick[:3] / f"tractor-{brick}.fits", root / tractor / f"tractor-{brick}.fits")
    _summary(next(old.glob("survey-bricks-*.fits.gz")), root / REGION / f"survey-bricks-{LABEL}-{REGION}.fits.gz")
    write_list(root, coadd, f"legacysurvey_{LABEL}_{REGION}_coadd_{brick[:3]}_{brick}.sha256sum")
    write_list(root, tractor, f"legacysurvey_{LABEL}_{REGION}_tractor_{brick[:3]}.sha256sum")
    return brick


def _renamed(path: Path, target: Path) -> None:
    """A coadd whose HDU has another name."""
    shutil.copy(path, target)
    band = target.name.split("-")[-1].removesuffix(".fits.fz")
    with fits.open(target, mode="update", disable_image_compression=True) as hdus:
        hdus[1].header["EXTNAME"] = f"STACK_{band}"
        hdus[1].header["FILTERX"] = band


def _masks(path: Path, folder: Path) -> None:
    """The mask image as int64, with a bit that has no name."""
    with fits.open(path) as hdus:
        bits, header = hdus[1].data.astype(np.int64), hdus[1].header.copy()
    bits[::2] |= 1 << STRANGE_BIT
    del header["EXTNAME"]
    wide = fits.CompImageHDU(bits, header, compression_type="GZIP_1", tile_shape=(100, 3600), name="MASKBITS64")
    fits.HDUList([fits.PrimaryHDU(), wide]).writeto(folder / path.name)


def _sources(path: Path, target: Path) -> None:
    table, primary = Table.read(path, hdu=1), fits.getheader(path, 0)
    table["release"] = np.full(len(table), RELEASE, np.int16)
    table["maskbits"] = np.asarray(table["maskbits"], np.int64) | np.int64(1 << STRANGE_BIT)
    for name in [name for name in table.colnames if name.endswith("_i")]:
        table[f"{name[:-2]}_Y"] = table[name]
    table["ring_probability"] = np.zeros(len(table), np.float64)
    kinds = np.asarray(table["type"]).astype("S5")
    kinds[np.flatnonzero(kinds == b"PSF")[0]] = b"RING"
    table["type"] = kinds
    fits.HDUList([fits.PrimaryHDU(header=primary), fits.BinTableHDU(table, name="CATALOG")]).writeto(target, overwrite=True)


def _summary(path: Path, target: Path) -> None:
    table = Table.read(path, hdu=1)
    table["nexp_Y"] = table["nexp_i"]
    table["quality_grade"] = ["A"] * len(table)
    table.write(target, format="fits")
