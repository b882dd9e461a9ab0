"""Whatever bands a brick has: each of the fifteen sets goes from fetch to shard, and says what it was made from."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from catalogs.outcomes import read_outcomes
from catalogs.shard import read_shard
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, InferSettings, SelectionSettings, Settings
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.survey.bricks import BRICK_PIXELS, brick_by_name, brick_wcs
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tests.survey.fake_release import BRICK, UNIT, coadd_name, make_tree, table_bytes, tractor_bytes, tractor_columns, write

GRIZ = "griz"
SUBSETS = ["".join(some) for size in range(1, 5) for some in combinations(GRIZ, size)]
SIGMA = {"g": 0.003, "r": 0.006, "i": 0.010, "z": 0.015}
AT = ((900, 1000), (1800, 1900), (2500, 700), (3000, 3000))
FLUX = {"r": (50.0, 5.0, 50.0, 50.0), "z": (50.0, 50.0, 5.0, 50.0)}
"""Nanomaggies of a galaxy that is bright in both bands, in z only, in r only, and of a star."""


def coadd(band: str, product: str) -> bytes:
    """A lossless coadd of round blobs, which decodes fast."""
    plane = np.zeros((BRICK_PIXELS, BRICK_PIXELS), np.float32)
    if product == "invvar":
        plane[:] = SIGMA[band] ** -2
    else:
        line = np.arange(-76, 76)
        noise = SIGMA[band] * np.random.default_rng(ord(band)).standard_normal((152, 152))
        blob = np.exp(-0.5 * (line[:, None] ** 2 + line**2) / 5.0**2)
        for (x, y), flux in zip(AT, FLUX.get(band, FLUX["r"]), strict=True):
            plane[y - 76 : y + 76, x - 76 : x + 76] = flux * blob / blob.sum() + noise
    buffer = io.BytesIO()
    image = fits.CompImageHDU(plane, compression_type="GZIP_1", tile_shape=(600, BRICK_PIXELS), quantize_level=0.0)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(buffer)
    return buffer.getvalue()


def table(bands: str) -> bytes:
    """Four sources; a band without exposures has neither flux nor inverse variance, as in the survey's tables."""
    columns = tractor_columns(len(AT), bands=GRIZ)
    x, y = (np.array(values, np.float64) for values in zip(*AT, strict=True))
    columns |= {"bx": x.astype(np.float32), "by": y.astype(np.float32), "type": np.array(["EXP", "EXP", "REX", "PSF"], "S3")}
    columns["ra"], columns["dec"] = brick_wcs(brick_by_name(BRICK)).all_pix2world(x, y, 0)
    for band in GRIZ:
        seen = band in bands
        columns[f"flux_{band}"] = np.array(FLUX.get(band, FLUX["r"]), np.float32) * seen
        columns[f"flux_ivar_{band}"] = np.full(len(AT), 100.0 * seen, np.float32)
        columns[f"nobs_{band}"] = np.full(len(AT), 3 * seen, np.int16)
    return tractor_bytes(columns)


@pytest.fixture(scope="module")
def coadds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all bands, to be linked into trees."""
    folder = tmp_path_factory.mktemp("coadds")
    for band in GRIZ:
        for product in ("image", "invvar"):
            (folder / coadd_name(product, band)).write_bytes(coadd(band, product))
    return folder


def context_of(root: Path, selection: str = "galaxies-z20") -> RunContext:
    settings = Settings(
        fetch=FetchSettings(products=("image", "invvar")), infer=InferSettings(batch=4), selection=SelectionSettings(selection)
    )
    folder = shipped_folder()
    return RunContext(root, "main", "run", settings, folder, model_hash(folder), code_version())


def tree(root: Path, bands: str, coadds: Path) -> Path:
    """A release whose one brick has these bands, and whose other bricks have all four."""
    folder = root / f"south/coadd/{BRICK[:3]}/{BRICK}"
    folder.mkdir(parents=True)
    for band in bands:
        for product in ("image", "invvar"):
            (folder / coadd_name(product, band)).hardlink_to(coadds / coadd_name(product, band))
    make_tree(root, {f"south/tractor/{BRICK[:3]}/tractor-{BRICK}.fits": table(bands)})
    write(root, "south/survey-bricks-dr9-south.fits.gz", table_bytes([BRICK], bands=GRIZ))
    return root


def reasons_of(bands: str) -> list[str]:
    """What the selection must say of the four sources: in z, in r where z was not observed, else not at all."""
    if "z" in bands:
        return ["", "", "faint", "type_psf"]
    return ["", "faint", "", "type_psf"] if "r" in bands else ["no_ivar", "no_ivar", "no_ivar", "type_psf"]


@pytest.mark.parametrize("bands", SUBSETS)
def test_a_brick_of_any_bands_goes_from_fetch_to_shard(tmp_path: Path, coadds: Path, bands: str) -> None:
    context = context_of(tmp_path / "root")
    unit = replace(UNIT, release="fake")
    release = open_release(str(tree(tmp_path / "tree", bands, coadds)), "fake")
    fetched = fetch_unit(context, release, unit, Limiter(2))
    for receipt in (fetched, cut_unit(context, unit), predict_unit(context, unit)):
        assert receipt.status == "done", receipt.reason
    # what the release does not have is recorded as absent, band by band
    assert fetched.counts["verified"] == 2 * len(bands) + 1
    assert fetched.counts["absent"] == 2 * (4 - len(bands)) + 1
    outcomes = read_outcomes(context.layout.outcomes(unit, "main"))
    rows, _ = read_shard(context.layout.shard(unit, "main"))
    expected = reasons_of(bands)
    assert outcomes["reason"].to_pylist() == expected
    assert outcomes["status"].to_pylist() == ["filtered" if reason else "predicted" for reason in expected]
    assert rows["objid"].to_pylist() == [k for k, reason in enumerate(expected) if not reason]
    used = "".join(band for band in "grz" if band in bands)
    assert set(rows["bands_used"].to_pylist()) <= {used}
    assert set(rows["degraded"].to_pylist()) <= {used != "grz"}
    for band in "grz":
        assert set(rows[f"valid_frac_{band}"].to_pylist()) <= {1.0 if band in bands else 0.0}
        assert (rows[f"mag_{band}"].null_count == 0) == (band in bands) or not rows.num_rows
    # the model does not know i: its stamps have none, whether the brick does or not
    assert rows["valid_frac_i"].null_count == rows.num_rows
    shutil.rmtree(tmp_path)


def test_what_only_the_unknown_band_shows_has_no_coverage(tmp_path: Path, coadds: Path) -> None:
    """Asked for by id, so that no rule of brightness settles it first."""
    wanted = tmp_path / "ids.txt"
    wanted.write_text("".join(f"9010 {brick_by_name(BRICK).brickid} {objid}\n" for objid in range(3)))
    context, unit = context_of(tmp_path / "root", f"ids:{wanted}"), replace(UNIT, release="fake")
    release = open_release(str(tree(tmp_path / "tree", "i", coadds)), "fake")
    for receipt in (fetch_unit(context, release, unit, Limiter(2)), cut_unit(context, unit), predict_unit(context, unit)):
        assert receipt.status == "done", receipt.reason
    outcomes = pq.read_table(context.layout.outcomes(unit, "main"))
    assert outcomes["reason"].to_pylist() == ["no_coverage"] * 3 + ["not_in_list"]
    assert read_shard(context.layout.shard(unit, "main"))[0].num_rows == 0
