"""Real stamps: all of data/stamps, data/lens, data/deblend, and what data/stamps_bad must not pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from galpipe.config import CutSettings, SelectionSettings
from galpipe.errors import BadData
from galpipe.stamps.cut import cut_brick
from galpipe.stamps.external import ExternalSettings, read_stamps
from galpipe.stamps.resample import estimate_sigma
from galpipe.stamps.stampset import FILLED, StampSet
from galpipe.survey.bricks import brick_by_name
from galpipe.survey.files import BrickFiles, FileRecord
from galpipe.unit import Unit
from tests.stamps.conftest import Row, write_tractor


def read(folder: Path) -> tuple[list[StampSet], list[BadData]]:
    found = list(read_stamps(sorted(folder.iterdir())))
    return [item for item in found if isinstance(item, StampSet)], [item for item in found if isinstance(item, BadData)]


def test_all_stamps_are_read(shared_data: Path) -> None:
    stamps, errors = read(shared_data / "stamps")
    assert len(stamps) == 14 and not errors
    for item in stamps:
        row = item.sources.to_pylist()[0]
        assert min(row[f"valid_frac_{band}"] for band in "grz") > 0.99
        assert row["ra"] is not None and row["brickname"]
        # the galaxy is the middle: the brightest 5 x 5 box of the center beats the corners
        flux = item.flux(0)[1]
        assert flux[66:87, 66:87].mean() > 5 * abs(np.median(flux[:10]))


def test_lenses_are_read(shared_data: Path) -> None:
    stamps, errors = read(shared_data / "lens")
    assert len(stamps) == 4 and not errors
    small = next(item for item in stamps if "0001m040" in item.sources["file"][0].as_py())
    with np.load(shared_data / "lens" / "0001m040_4091.npz") as content:
        assert small.flux(0)[1, 76, 76] == pytest.approx(content["cutout"][50, 50, 1], rel=1e-3)
    assert small.sources["brickname"].to_pylist() == ["0001m040"]


def test_psf_is_refused_and_the_image_list_keeps_its_noise(shared_data: Path) -> None:
    (stamps,), (error,) = read(shared_data / "deblend")
    assert "copsf" in str(error) and "a PSF model" in str(error)
    with fits.open(shared_data / "deblend" / "cutout_59.1067_-30.4848.fits") as hdus:
        invvar = np.median(hdus[2].data[52:204, 52:204])
    assert np.median(stamps.invvar()[0, 0]) == pytest.approx(invvar, rel=0.05)


def test_estimated_noise_agrees_with_the_survey(shared_data: Path) -> None:
    """The estimate, from an image whose true invvar is known: within 25 % in sigma in every band."""
    with fits.open(shared_data / "deblend" / "cutout_59.1067_-30.4848.fits") as hdus:
        for band in range(3):
            image, invvar = hdus[1 + 2 * band].data.astype(np.float32), hdus[2 + 2 * band].data
            assert estimate_sigma(image, invvar > 0) == pytest.approx(1 / np.sqrt(np.median(invvar)), rel=0.25)


def test_bad_stamps_are_refused_by_name_and_reason(shared_data: Path) -> None:
    stamps, errors = read(shared_data / "stamps_bad")
    assert not stamps and len(errors) == 2
    assert "example_bad_pix.fits" in str(errors[0]) and "76% of the band without data" in str(errors[0])
    assert "example_incomplete.fits" in str(errors[1]) and "truncated" in str(errors[1])


def test_resampling_conserves_flux_of_real_galaxies(shared_data: Path) -> None:
    for path in sorted((shared_data / "stamps").glob("example_*.fits")):
        (found,) = read_stamps([path], ExternalSettings(pixel_values="own"))
        assert isinstance(found, StampSet)
        with fits.open(path) as hdus:
            cube, scale = hdus[0].data.astype(np.float64), hdus[0].header["CD2_2"] * 3600
        y, x = np.mgrid[: cube.shape[1], : cube.shape[2]]
        inside = np.hypot(x - (cube.shape[2] - 1) / 2, y - (cube.shape[1] - 1) / 2) * scale < 15
        v, u = np.mgrid[:152, :152]
        near = np.hypot(u - 76, v - 76) * 0.262 < 15
        for band in range(3):
            assert found.flux(0)[band][near].sum() == pytest.approx(cube[band][inside].sum(), rel=0.01)


def test_zoomed_cutouts_have_the_noise_of_survey_pixels(shared_data: Path) -> None:
    """Why `auto` takes viewer cutouts as nanomaggies per survey pixel: only then their noise is that of the survey."""
    for path in sorted((shared_data / "stamps").glob("example_*.fits")):
        (found,) = read_stamps([path])
        assert isinstance(found, StampSet)
        valid = found.valid()[0, 0]
        assert 0.001 < 1 / np.sqrt(np.median(found.invvar()[0, 0][valid])) < 0.006


def test_a_real_brick_is_cut(shared_data: Path, tmp_path: Path) -> None:
    """DR6 at the footprint's edge: no r, no maskbits, z with 55 valid pixels, g over 12 %."""
    brick, places = "0959p805", ((485.8, 855.7), (53.2, 1043.2), (534.9, 776.7), (3000.0, 3000.0))
    folder = shared_data / "release_dr6" / "coadd" / brick[:3] / brick
    write_tractor(tmp_path / "t.fits", [Row(x, y) for x, y in places], brick)
    (tmp_path / "ids").write_text("".join(f"9010 {brick_by_name(brick).brickid} {objid}\n" for objid in range(4)))
    records = [FileRecord(str(tmp_path / "t.fits"), "", "tractor", "", "unverified")]
    for path in sorted(folder.glob("*.fz")):
        product, band = path.name.removesuffix(".fits.fz").split("-")[2:]
        records.append(FileRecord(str(path), "", product, band, "unverified"))
    files = BrickFiles(Unit("dr6", "all", brick), tmp_path, tuple(records))
    result = cut_brick(files, CutSettings(), SelectionSettings(name=f"ids:{tmp_path / 'ids'}"))
    assert result.outcomes["reason"].to_pylist() == ["", "", "", "no_coverage"]
    stamps = result.stamps
    for row in range(3):
        flux = stamps.observed_flux(row)[0]
        y, x = np.unravel_index(np.argmax(np.where(stamps.valid()[row, 0], flux, 0)[70:83, 70:83]), (13, 13))
        assert abs(y - 6) <= 1 and abs(x - 6) <= 1
        assert stamps.sources["nexp_g"][row].as_py() >= 1
    assert (stamps.mask[1] & FILLED).any()
    assert not stamps.valid()[:, 1].any()
