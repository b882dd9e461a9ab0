"""The tree: what a program that reads published releases expects to find."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from galpipe.errors import BadData, ConfigurationError
from galpipe.mock.frame import Frame
from galpipe.mock.release import BrickJob, make_frame, make_release, write_frame
from galpipe.mock.spec import STYLES, MockSpec, MockSummary
from galpipe.mock.tractor_columns import tractor_columns
from galpipe.mock.truth import clean_image, read_truth, truth_objects
from galpipe.survey.bricks import all_centers, brick_by_name, brick_wcs
from tests.mock_fixtures import TINY


@pytest.fixture(scope="module")
def frame() -> Frame:
    """The shared release's first brick, drawn again."""
    return make_frame(TINY, 0)


def coadd(release: MockSummary, brick: str, product: str) -> Path:
    return release.release / "south" / "coadd" / brick[:3] / brick / f"legacysurvey-{brick}-{product}.fits.fz"


def tractor(release: MockSummary, brick: str) -> fits.FITS_rec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fits.getdata(release.release / "south" / "tractor" / brick[:3] / f"tractor-{brick}.fits", 1)


def test_files_are_named_as_published(mock_release: MockSummary) -> None:
    first, second = mock_release.bricks
    names = {path.name for path in coadd(mock_release, first, "image-r").parent.iterdir()}
    products = {f"legacysurvey-{first}-{p}-{b}.fits.fz" for p in ("image", "invvar", "nexp", "psfsize") for b in "grz"}
    lists = {f"legacysurvey_dr9_south_coadd_{first[:3]}_{first}.sha256sum", f"legacysurvey-{first}-maskbits.fits.fz"}
    assert names == products | lists
    assert not coadd(mock_release, second, "image-g").exists()


def test_every_published_sum_is_right(mock_release: MockSummary) -> None:
    lists = sorted(mock_release.release.rglob("*.sha256sum"))
    assert len(lists) == 2 + 2 + len({brick[:3] for brick in mock_release.bricks})
    for path in lists:
        for line in path.read_text().splitlines():
            value, name = line.split(None, 1)
            assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == value
    summed = {line.split()[1] for path in lists for line in path.read_text().splitlines()}
    assert summed == {path.name for path in mock_release.release.rglob("*.fits*")}


@pytest.mark.parametrize(
    ("product", "algorithm", "bitpix", "dither"),
    [
        ("image-r", "RICE_1", -32, "SUBTRACTIVE_DITHER_2"),
        ("invvar-r", "RICE_1", -32, "NO_DITHER"),
        ("psfsize-r", "GZIP_1", -32, None),
        ("nexp-r", "HCOMPRESS_1", 16, None),
        ("maskbits", "HCOMPRESS_1", 16, None),
    ],
)
def test_files_are_compressed_as_published(
    mock_release: MockSummary, product: str, algorithm: str, bitpix: int, dither: str | None
) -> None:
    path = coadd(mock_release, mock_release.bricks[0], product)
    with fits.open(path, disable_image_compression=True) as raw:
        header = raw[1].header
        assert raw[0].header["NAXIS"] == 0
        assert (header["ZCMPTYPE"], header["ZBITPIX"], header["ZTILE1"], header["ZTILE2"]) == (algorithm, bitpix, 100, 100)
        assert header["NAXIS2"] == 1296
        assert dither is None or header.get("ZQUANTIZ", "NO_DITHER") == dither
    with fits.open(path) as hdus:
        assert hdus[1].data.shape == (3600, 3600)
        assert len(hdus) == (4 if product == "maskbits" else 2)
        if product == "maskbits":
            assert [hdu.name for hdu in hdus[1:]] == ["MASKBITS", "WISEM1", "WISEM2"]
            assert hdus[1].header["MBIT_3"] == "SATUR_R"
        else:
            assert "EXTNAME" not in raw[1].header or raw[1].header["EXTNAME"] == "COMPRESSED_IMAGE"


def test_headers_have_the_published_cards(mock_release: MockSummary) -> None:
    brick = brick_by_name(mock_release.bricks[0])
    header = fits.getheader(coadd(mock_release, brick.name, "image-r"), 1)
    assert header["BRICK"] == brick.name and header["BRICKID"] == brick.brickid
    assert (header["CRPIX1"], header["CRPIX2"], header["CTYPE1"]) == (1800.5, 1800.5, "RA---TAN")
    assert header["CD1_1"] == pytest.approx(-0.262 / 3600) and header["CRVAL1"] == brick.ra
    assert header["LSDR"] == "DR9" and header["DRVERSIO"] == 9010
    assert header["MAGZERO"] == 22.5 and header["BUNIT"] == "nanomaggy" and header["FILTERX"] == "r"


def test_compression_keeps_its_bounds(mock_release: MockSummary, frame: Frame) -> None:
    brick = mock_release.bricks[0]
    image = fits.getdata(coadd(mock_release, brick, "image-r"), 1)
    products = frame.pixels["r"]
    assert np.abs(image - products.image).max() < 5.1e-5
    assert (image[products.image == 0] == 0).all()
    invvar = fits.getdata(coadd(mock_release, brick, "invvar-r"), 1)
    assert (invvar >= 0).all()
    assert ((invvar > 0) == (products.invvar > 0)).mean() > 0.9999
    assert (fits.getdata(coadd(mock_release, brick, "psfsize-r"), 1) == products.psfsize).all()
    assert (fits.getdata(coadd(mock_release, brick, "nexp-r"), 1) == products.nexp).all()
    assert (fits.getdata(coadd(mock_release, brick, "maskbits"), 1) == frame.mask).all()


def test_tractor_rows_fit_the_pixels(mock_release: MockSummary) -> None:
    brick = brick_by_name(mock_release.bricks[0])
    table = tractor(mock_release, brick.name)
    mask = fits.getdata(coadd(mock_release, brick.name, "maskbits"), 1)
    x, y = brick_wcs(brick).all_world2pix(table["ra"], table["dec"], 0)
    np.testing.assert_allclose(x, table["bx"], atol=2e-3)
    np.testing.assert_allclose(y, table["by"], atol=2e-3)
    column, row = (np.clip(np.round(table[name]), 0, 3599).astype(int) for name in ("bx", "by"))
    assert (mask[row, column] == table["maskbits"]).all()
    assert (table["brick_primary"] == ((mask[row, column] & 1) == 0)).mean() > 0.99
    assert (table["objid"] == np.arange(len(table))).all()
    assert set(np.char.strip(table["type"])) <= {"PSF", "REX", "EXP", "DEV", "SER"}
    assert (table["shape_r"][np.char.strip(table["type"]) == "PSF"] == 0).all()


def test_a_band_without_coverage_is_zero_in_the_table(mock_release: MockSummary) -> None:
    table = tractor(mock_release, mock_release.bricks[1])
    for name in ("flux_g", "flux_ivar_g", "nobs_g", "psfsize_g", "psfdepth_g"):
        assert (table[name] == 0).all()
    assert (table["mw_transmission_g"] > 0.5).all() and (table["flux_ivar_r"] > 0).any()


def test_a_source_on_the_border_is_in_both_tables_and_primary_in_one(mock_release: MockSummary) -> None:
    left, right = (tractor(mock_release, brick) for brick in mock_release.bricks)
    apart = 3600 * np.hypot((left["ra"][:, None] - right["ra"]) * np.cos(np.radians(2.2)), left["dec"][:, None] - right["dec"])
    one, two = np.nonzero(apart < 0.5)
    assert len(one) >= 5
    assert (left["brick_primary"][one] != right["brick_primary"][two]).mean() > 0.8


@pytest.mark.parametrize(("like", "count"), [("dr9", 181), ("dr10", 207)])
def test_column_counts(like: str, count: int) -> None:
    style = STYLES[like]
    columns = tractor_columns(style, style.bands_south)
    assert len({column.name for column in columns}) == len(columns) == count


def test_columns_in_the_file_are_those_of_the_list(mock_release: MockSummary) -> None:
    columns = tractor(mock_release, mock_release.bricks[0]).columns
    expected = tractor_columns(STYLES["dr9"], ("g", "r", "z"))
    assert [(name, form) for name, form in zip(columns.names, columns.formats, strict=True)] == [(c.name, c.form) for c in expected]
    assert columns["flux_r"].unit == "nanomaggies" and columns["ra"].unit == "deg"


def test_brick_tables(mock_release: MockSummary) -> None:
    grid = fits.getdata(mock_release.release / "survey-bricks.fits.gz", 1)
    brickid, ra, _ = all_centers()
    assert len(grid) == 662_174 and len(grid.columns) == 11
    assert (grid["BRICKID"] == brickid).all() and np.allclose(grid["RA"], ra)
    for k in (0, 328_927, 500_000, 662_173):
        assert brick_by_name(str(grid["BRICKNAME"][k])).brickid == brickid[k]
    summary = fits.getdata(mock_release.release / "south" / "survey-bricks-dr9-south.fits.gz", 1)
    assert len(summary.columns) == 51 and list(summary["brickname"]) == list(mock_release.bricks)
    assert (summary["nexp_g"] > 0).tolist() == [True, False] and (summary["nexphist_r"].sum(axis=1) > 1e7).all()
    assert summary["survey_primary"].all() and summary["nobjs"][0] == tractor(mock_release, mock_release.bricks[0])["brick_primary"].sum()


def test_truth_lies_beside_and_belongs_to_the_rows(mock_release: MockSummary) -> None:
    assert mock_release.truth == mock_release.release.parent / "dr9-truth"
    assert not [path for path in mock_release.release.rglob("*") if "truth" in path.name or path.suffix in {".parquet", ".npz"}]
    brick = mock_release.bricks[0]
    truth, table = read_truth(mock_release.truth, brick), tractor(mock_release, brick)
    assert truth.num_rows == TINY.galaxies + TINY.faint + TINY.stars
    objid = np.asarray(truth["objid"])
    fitted = objid >= 0
    assert fitted.mean() > 0.7
    apart = np.hypot(
        np.asarray(truth["bx"])[fitted] - table["bx"][objid[fitted]], np.asarray(truth["by"])[fitted] - table["by"][objid[fitted]]
    )
    assert np.median(apart) < 0.3
    bright = fitted & (np.asarray(truth["mag_r"]) < 20) & (np.asarray(truth["mag_r"]) > 16.5)
    ratio = table["flux_r"][objid[bright]] / np.asarray(truth["flux_r"])[bright]
    assert abs(np.median(ratio) - 1) < 0.03


def test_detection_truth_has_a_box_around_each_label(mock_release: MockSummary) -> None:
    truth = truth_objects(mock_release.truth, mock_release.bricks[0])
    rows = truth.table.to_pylist()
    assert truth.segmentation.shape == (3600, 3600)
    assert {row["label"] for row in rows} == set(np.unique(truth.segmentation)) - {0}
    for row in rows[:20]:
        own = truth.segmentation == row["label"]
        inside = own[row["y0"] : row["y1"], row["x0"] : row["x1"]]
        assert own.sum() == inside.sum() == row["area"] and row["class"] in {"galaxy", "star"}
    with pytest.raises(BadData, match="truth of this brick"):
        read_truth(mock_release.truth, "0001p000")


def test_a_second_run_writes_the_same_bytes(mock_release: MockSummary, frame: Frame, tmp_path: Path) -> None:
    write_frame(BrickJob(TINY, 0, tmp_path / "south", tmp_path / "truth"), frame)
    brick = mock_release.bricks[0]
    for old, new in ((mock_release.release / "south", tmp_path / "south"), (mock_release.truth, tmp_path / "truth")):
        files = [path for path in new.rglob("*") if path.is_file() and brick in path.name]
        assert files
        for path in files:
            assert path.read_bytes() == (old / path.relative_to(new)).read_bytes(), path.name


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigurationError, match="empty or new folder"):
        make_release(tmp_path / "out", MockSpec(bricks=1))


@pytest.mark.parametrize("like", ["dr10", "dr11"])
def test_later_releases(tmp_path: Path, like: str) -> None:
    spec = MockSpec(bricks=1, like=like, galaxies=5, faint=5, stars=5, empty_bricks=(0,), bands=("i", "z"), store_truth_images=True)
    release = make_release(tmp_path / like, spec)
    brick = release.bricks[0]
    with fits.open(coadd(release, brick, "maskbits")) as hdus:
        assert hdus[1].data.dtype == np.int32 and hdus[1].header["MBIT_14"] == "SATUR_I"
    with fits.open(coadd(release, brick, "image-i")) as hdus:
        assert (hdus[1].name == "IMAGE_i") == (like == "dr11") or hdus[1].name.upper() == "IMAGE_I"
    table = tractor(release, brick)
    assert ("ls_id_dr11" in table.columns.names) == (like == "dr11") and "ngood_i" in table.columns.names
    assert table["lc_flux_w1"].shape[1] == STYLES[like].lightcurve
    truth = read_truth(release.truth, brick)
    assert set(truth["kind"].to_pylist()) == {"star"} and release.galaxies == 0
    clean = clean_image(release.truth, brick, "z")
    assert clean.shape == (3600, 3600) and clean.max() > 0
    with pytest.raises(BadData, match="truth of this brick"):
        clean_image(release.truth, brick, "g")
