"""Second stamps of large galaxies: who gets one, what its pixels hold, and that nothing depends on how a brick was cut up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from galpipe.config import CutSettings, SelectionSettings
from galpipe.errors import BadData, ConfigurationError
from galpipe.lvm.inputs import stamp_inputs
from galpipe.stamps.coarse import binnings
from galpipe.stamps.cut import BrickCut, cut_brick
from galpipe.stamps.result import CutResult
from galpipe.stamps.stampset import FILLED
from galpipe.stamps.store import Store, content_hash, read_store, write_store
from galpipe.stamps.windows import Windows
from galpipe.survey.files import BrickFiles
from tests.stamps.conftest import INVVAR, NOT_A_NUMBER, SATURATED, TRANSMISSION, UNSEEN

SHAPE_R = (20.0, 8.0, 9.0, 0.0, 1.0, 1.0, 1.0, 12.0)
"""Half-light radii of the brick's rows: the first and the third (at the frame's edge) are too large, the last has no pixels."""


@pytest.fixture(scope="module")
def large_files(brick_files: BrickFiles) -> BrickFiles:
    """The small brick, two of its galaxies being large."""
    record = next(item for item in brick_files.records if item.product == "tractor")
    changed = brick_files.folder / "tractor-large.fits"
    with fits.open(brick_files.folder / record.name) as hdus:
        hdus[1].data["shape_r"] = SHAPE_R
        hdus.writeto(changed, overwrite=True)
    records = tuple(replace(item, name=changed.name) if item is record else item for item in brick_files.records)
    return BrickFiles(brick_files.unit, brick_files.folder, records)


@pytest.fixture(scope="module")
def result(large_files: BrickFiles) -> CutResult:
    return cut_brick(large_files, CutSettings(), SelectionSettings())


def test_who_gets_a_second_stamp_and_how_coarse() -> None:
    columns = {
        "shape_r": pa.array([8.0, 8.1, 15.9, 16.0, 60.0, 1.0, 1.0, None, None], pa.float32()),
        "maskbits": pa.array([0, 0, 0, 0, 0, 1 << 12, 0, 1 << 12, 0], pa.int32()),
        "ref_cat": pa.array(["GE", "", "", "", "", "", "L3", "", None]),
    }
    # 5 half-light radii against 76 pixels of 0.524, 1.048 and 2.096 arcsec
    assert binnings(pa.table(columns), 152, 0.262).tolist() == [0, 4, 4, 8, 8, 2, 2, 2, 0]
    assert binnings(pa.table({"source_id": [1]}), 152, 0.262).tolist() == [0]


@given(st.floats(-200, 400), st.sampled_from([1, 2, 4, 8]), st.sampled_from([5, 8]))
def test_the_source_lies_in_the_central_pixel(x: float, binning: int, size: int) -> None:
    windows = Windows.around(np.array([x]), np.array([0.0]), size, (100, 100), binning)
    assert abs(windows.centers()[0][0] - x) <= 0.5 + 1e-9


planes = arrays(np.float32, (1, 8, 8), elements=st.floats(-5, 50, width=32))


@given(planes, arrays(np.float32, (1, 8, 8), elements=st.floats(0, 1000, width=32)), st.sampled_from([1, 2, 4]))
@settings(deadline=None)
def test_binning_keeps_the_flux_and_its_error(flux: np.ndarray, weight: np.ndarray, binning: int) -> None:
    """Whatever is summed: the flux of all pixels stays, variances add, a missing pixel leaves no weight."""
    weight[weight < 1e-3] = 0
    windows = Windows(np.zeros(1, np.int64), np.zeros(1, np.int64), 8 // binning, (8, 8), binning)
    sums, weights = windows.fluxes(flux), windows.weights(weight)
    assert float(sums.sum(dtype=np.float64)) == pytest.approx(float(flux.sum(dtype=np.float64)), abs=1e-2)
    blocks = weight.reshape(8 // binning, binning, 8 // binning, binning).swapaxes(1, 2).reshape(8 // binning, 8 // binning, -1)
    for y in range(8 // binning):
        for x in range(8 // binning):
            own = blocks[y, x].astype(float)
            expected = 0.0 if (own == 0).any() else 1 / (1 / own).sum()
            assert weights[0, y, x] == pytest.approx(expected, rel=1e-4)
    assert np.array_equal(windows.any(weight == 0)[0], (blocks == 0).any(axis=2))


def test_only_covered_large_galaxies_have_one(result: CutResult) -> None:
    four, eight = result.coarse
    assert (four.pixscale, eight.pixscale) == (pytest.approx(4 * 0.262), pytest.approx(8 * 0.262))
    assert four.sources["objid"].to_pylist() == [2] and eight.sources["objid"].to_pylist() == [0]
    told = result.stamps.sources
    assert told["coarse_pixscale"].to_pylist() == [pytest.approx(2.096), None, pytest.approx(1.048)]
    assert told["coarse_valid_frac_r"].to_pylist() == [0.0, None, 0.0]
    share = told["coarse_valid_frac_g"].to_pylist()
    assert share[0] > 0.99 and share[1] is None and 0.2 < share[2] < 0.5
    # the first stamps are what they were
    assert told["pixscale"].to_pylist() == pytest.approx([0.262] * 3)


def test_coarse_pixels_are_sums(result: CutResult) -> None:
    coarse = result.coarse[1]
    flux, invvar = coarse.observed_flux(0), coarse.invvar()[0]
    # the source's own pixel holds 1, the others of its block nothing
    assert flux[2, 76, 76] == pytest.approx(1.0, rel=1e-3)
    assert flux[2, 70, 70] == pytest.approx(0.0, abs=1e-4)
    assert invvar[2, 70, 70] == pytest.approx(INVVAR["z"] * TRANSMISSION["z"] ** 2 / 64, rel=0.05)
    assert float(flux[2, 66:87, 66:87].sum()) == pytest.approx(1.0, rel=5e-3)


def test_one_bad_pixel_masks_its_coarse_pixel_in_its_band(result: CutResult) -> None:
    coarse = result.coarse[1]
    valid = coarse.valid()[0]
    x0, y0 = coarse.sources["stamp_x0"][0].as_py(), coarse.sources["stamp_y0"][0].as_py()
    bad = {band: np.zeros((152, 152), bool) for band in (0, 2)}
    for (x, y), band in ((SATURATED, 0), (NOT_A_NUMBER, 0), (UNSEEN, 2)):
        bad[band][(y - y0) // 8, (x - x0) // 8] = True
    for band, expected in bad.items():
        near = (slice(70, 90), slice(70, 90))
        assert np.array_equal(~valid[band][near], expected[near])


def test_pixels_that_reach_over_the_frame_are_filled(result: CutResult) -> None:
    coarse = result.coarse[0]
    x0, y0 = coarse.sources["stamp_x0"][0].as_py(), coarse.sources["stamp_y0"][0].as_py()
    columns, rows = x0 + 4 * np.arange(152), y0 + 4 * np.arange(152)
    expected = ((columns < 0) | (columns + 3 > 3599))[None, :] | ((rows < 0) | (rows + 3 > 3599))[:, None]
    assert expected.any() and not expected.all()
    assert np.array_equal((coarse.mask[0] & FILLED) != 0, expected)
    assert not coarse.valid()[0][:, expected].any()


def test_a_coarse_stamp_has_a_projection_of_its_own(result: CutResult) -> None:
    for coarse in result.coarse:
        table, wcs = coarse.sources, coarse.wcs(0)
        assert wcs is not None
        x, y = wcs.all_world2pix(table["ra"][0].as_py(), table["dec"][0].as_py(), 0)
        assert (x, y) == pytest.approx((76 + table["stamp_dx"][0].as_py(), 76 + table["stamp_dy"][0].as_py()), abs=1e-3)
        assert abs(wcs.wcs.cd[0, 0]) * 3600 == pytest.approx(coarse.pixscale)


def test_the_model_refuses_coarse_stamps(result: CutResult) -> None:
    """It was trained at one scale: what it would say of a coarse stamp is not worth writing down."""
    assert len(stamp_inputs(result.stamps)) == 3
    for coarse in result.coarse:
        with pytest.raises(ConfigurationError, match=r"softening 0\.004 in g"):
            stamp_inputs(coarse)


def test_a_store_keeps_both_scales_bit_by_bit(tmp_path: Path, result: CutResult) -> None:
    path = tmp_path / "b.zarr"
    written = write_store(path, result, "abc")
    back = read_store(path)
    assert content_hash(back) == written == content_hash(result)
    assert [part.pixscale for part in back.coarse] == [part.pixscale for part in result.coarse]
    for one, other in zip((back.stamps, *back.coarse), (result.stamps, *result.coarse), strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)
        assert one.sources.equals(other.sources) and one.attrs == other.attrs and one.softening == other.softening
    assert sorted(item.name for item in path.iterdir() if item.is_dir()) == ["coarse4", "coarse8", "image", "invvar_code", "mask"]
    assert Store(path).rows([0], 8).sources["objid"].to_pylist() == [0]


@pytest.mark.parametrize("block", [1, 3])
def test_a_brick_cut_in_blocks_gives_the_same_store(tmp_path: Path, large_files: BrickFiles, result: CutResult, block: int) -> None:
    cut = BrickCut(large_files, CutSettings(), SelectionSettings(), block)
    assert write_store(tmp_path / "b.zarr", cut, "abc") == content_hash(result)
    assert read_store(tmp_path / "b.zarr").outcomes["reason"].equals(result.outcomes["reason"])


def test_a_lost_coarse_shard_is_found(tmp_path: Path, result: CutResult) -> None:
    path = tmp_path / "b.zarr"
    write_store(path, CutResult(result.stamps, result.outcomes, result.coarse), "abc")
    next(item for item in (path / "coarse8" / "invvar_code").rglob("*") if item.is_file() and item.name == "0").unlink()
    with pytest.raises(BadData, match=r"b\.zarr: expected an undamaged stamp store"):
        read_store(path)
