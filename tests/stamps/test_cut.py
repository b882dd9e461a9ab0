"""Cutting a brick: where the pixels come from, what is masked, what becomes of every source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from galpipe.config import CutSettings, SelectionSettings
from galpipe.errors import BadData, ConfigurationError, NoWork
from galpipe.stamps.cut import cut_brick
from galpipe.stamps.result import CutResult
from galpipe.stamps.stampset import FILLED
from galpipe.stamps.windows import Windows
from galpipe.survey.bricks import brick_by_name
from galpipe.survey.files import BrickFiles, FileRecord
from tests.stamps.conftest import INVVAR, NOT_A_NUMBER, ROWS, SATURATED, TRANSMISSION, UNIT, UNSEEN


@pytest.fixture(scope="module")
def result(brick_files: BrickFiles) -> CutResult:
    return cut_brick(brick_files, CutSettings(), SelectionSettings())


def local(pixel: tuple[int, int], result: CutResult, row: int = 0) -> tuple[int, int]:
    """y, x inside a stamp of a brick pixel x, y."""
    table = result.stamps.sources
    return pixel[1] - table["stamp_y0"][row].as_py(), pixel[0] - table["stamp_x0"][row].as_py()


def without(files: BrickFiles, *products: str) -> BrickFiles:
    records = tuple(replace(item, status="absent") if item.product in products else item for item in files.records)
    return BrickFiles(files.unit, files.folder, records)


def test_every_source_has_one_outcome(result: CutResult) -> None:
    reasons = result.outcomes["reason"].to_pylist()
    assert reasons == ["", "", "", "type_psf", "faint", "not_primary", "bad_position", "no_coverage"]
    status = result.outcomes["status"].to_pylist()
    assert status == ["selected"] * 3 + ["filtered"] * 3 + ["failed", "filtered"]
    assert result.counts() == {"sources": 8, "selected": 3, "filtered": 4, "failed": 1}
    assert result.stamps.sources["objid"].to_pylist() == [0, 1, 2]


def test_nearest_pixel_is_the_center_and_the_offset_is_kept(result: CutResult) -> None:
    stamps = result.stamps
    for row in range(3):
        flux = stamps.observed_flux(row)
        assert flux[0, 76, 76] == pytest.approx(1.0 + row, rel=2e-4)
        assert np.count_nonzero(np.nan_to_num(flux[0]) > 0.5) == 1
        center = stamps.sources["stamp_x0"][row].as_py() + 76, stamps.sources["stamp_y0"][row].as_py() + 76
        offset = stamps.sources["stamp_dx"][row].as_py(), stamps.sources["stamp_dy"][row].as_py()
        assert np.add(center, offset) == pytest.approx((ROWS[row].bx, ROWS[row].by), abs=1e-3)
        assert min(offset) >= -0.5 and max(offset) < 0.5


def test_the_stamp_projection_gives_the_source_position(result: CutResult) -> None:
    stamps = result.stamps
    for row in range(3):
        wcs = stamps.wcs(row)
        assert wcs is not None
        x, y = 76 + stamps.sources["stamp_dx"][row].as_py(), 76 + stamps.sources["stamp_dy"][row].as_py()
        ra, dec = wcs.all_pix2world(x, y, 0)
        assert (ra, dec) == pytest.approx((stamps.sources["ra"][row].as_py(), stamps.sources["dec"][row].as_py()), abs=1e-6)


def test_flux_and_invvar_are_dereddened(result: CutResult) -> None:
    stamps = result.stamps
    assert stamps.flux(0)[2, 76, 76] == pytest.approx(1 / TRANSMISSION["z"], rel=2e-4)
    assert stamps.invvar()[0, 2, 10, 10] == pytest.approx(INVVAR["z"] * TRANSMISSION["z"] ** 2, rel=0.05)
    assert stamps.attrs["dereddened"] is True
    assert stamps.sources["dereddened"].to_pylist() == [True] * 3


def test_bad_pixels_are_masked_in_their_band_only(result: CutResult) -> None:
    valid = result.stamps.valid()[0]
    for pixel, band in ((SATURATED, 0), (NOT_A_NUMBER, 0), (UNSEEN, 2)):
        y, x = local(pixel, result)
        assert not valid[band, y, x]
        assert valid[2 - band, y, x]
    y, x = local(NOT_A_NUMBER, result)
    assert result.stamps.flux(0)[0, y, x] == pytest.approx(0.0, abs=1e-6)


def test_an_absent_band_is_masked_not_filled(result: CutResult) -> None:
    stamps = result.stamps
    assert not stamps.valid()[:, 1].any()
    assert stamps.sources["valid_frac_r"].to_pylist() == [0.0] * 3
    assert not (stamps.mask[0] & FILLED).any()
    assert np.abs(stamps.normalized()[:, 1]).max() < 2e-4
    assert stamps.attrs["bands_present"] == ["g", "z"]


def test_pixels_outside_the_frame_are_filled(result: CutResult) -> None:
    stamps = result.stamps
    filled = (stamps.mask[2] & FILLED) != 0
    x0, y0 = stamps.sources["stamp_x0"][2].as_py(), stamps.sources["stamp_y0"][2].as_py()
    assert (x0, y0) == (20 - 76, 3590 - 76)
    expected = np.zeros((152, 152), bool)
    expected[:, :56] = True
    expected[3600 - y0 :, :] = True
    assert np.array_equal(filled, expected)
    assert not stamps.valid()[2][:, expected].any()
    assert not stamps.invvar_code[2][:, expected].any()
    assert stamps.sources["valid_frac_g"][2].as_py() == pytest.approx(1 - expected.mean(), abs=1e-3)


def test_counts_of_exposures_where_the_product_exists(result: CutResult) -> None:
    assert result.stamps.sources["nexp_g"].to_pylist() == [3, 5, 3]
    assert result.stamps.sources["nexp_z"].to_pylist() == [None] * 3
    assert result.stamps.sources["psfsize_g"].to_pylist() == pytest.approx([1.3] * 3)


def test_without_maskbits_only_invvar_masks(brick_files: BrickFiles) -> None:
    result = cut_brick(without(brick_files, "maskbits"), CutSettings(), SelectionSettings())
    y, x = local(SATURATED, result)
    assert result.stamps.valid()[0, 0, y, x]


def test_no_images_at_all_is_no_coverage(brick_files: BrickFiles) -> None:
    result = cut_brick(without(brick_files, "image", "invvar"), CutSettings(), SelectionSettings(name=_ids(brick_files)))
    assert len(result.stamps) == 0
    assert set(result.outcomes["reason"].to_pylist()) == {"no_coverage", "not_in_list", "bad_position"}
    assert result.counts()["failed"] == 1


def _ids(files: BrickFiles) -> str:
    path = files.folder / "wanted.txt"
    path.write_text(f"9010 {brick_by_name(UNIT.brick).brickid} 1\n")
    return f"ids:{path}"


def test_nothing_selected_still_has_outcomes(brick_files: BrickFiles) -> None:
    path = brick_files.folder / "nobody.txt"
    path.write_text("# nobody\n")
    result = cut_brick(brick_files, CutSettings(), SelectionSettings(name=f"ids:{path}"))
    assert len(result.stamps) == 0 and result.stamps.image.shape == (0, 3, 152, 152)
    assert result.counts() == {"sources": 8, "selected": 0, "filtered": 7, "failed": 1}


def test_no_tractor_table_is_no_work(brick_files: BrickFiles) -> None:
    with pytest.raises(NoWork, match=r"0001m002.*Tractor table"):
        cut_brick(without(brick_files, "tractor"), CutSettings(), SelectionSettings())


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_a_corrupt_image_names_brick_and_file(brick_files: BrickFiles) -> None:
    broken = brick_files.folder / "broken.fits.fz"
    broken.write_bytes((brick_files.folder / f"legacysurvey-{UNIT.brick}-image-g.fits.fz").read_bytes()[:9000])
    records = tuple(
        FileRecord(broken.name, "", "image", "g", "unverified") if (item.product, item.band) == ("image", "g") else item
        for item in brick_files.records
    )
    with pytest.raises(BadData, match=r"0001m002 broken.fits.fz"):
        cut_brick(BrickFiles(UNIT, brick_files.folder, records), CutSettings(), SelectionSettings())


def test_another_scale_is_refused(brick_files: BrickFiles) -> None:
    with pytest.raises(ConfigurationError, match=r"cut.pixscale 0.262.*got 0.5"):
        cut_brick(brick_files, CutSettings(pixscale=0.5), SelectionSettings())


def test_a_window_of_absurd_position_is_all_outside() -> None:
    windows = Windows.around(np.array([1e30, -1e30]), np.array([5.0, 5.0]), 8, (20, 20))
    assert windows.outside().all()
