"""Files of other people: every kind is read, resampled with its flux, or refused by name and reason."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from galpipe.errors import BadData
from galpipe.stamps.external import ExternalSettings, read_stamps
from galpipe.stamps.readers import position_in_name
from galpipe.stamps.render import to_rgb
from galpipe.stamps.resample import estimate_sigma
from galpipe.stamps.stampset import FILLED, StampSet
from galpipe.survey.bricks import brick_at, brick_by_id
from galpipe.survey.tractor import subset_schema

SIGMA = 0.004


def galaxy(size: int, pixscale: float, total: float = 20.0, noise: bool = True) -> np.ndarray:
    """Round Gaussian of 1.5 arcsec sigma in three bands, in the middle of the array; nanomaggies per pixel."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    sigma = 1.5 / pixscale
    profile = total * np.exp(-(x**2 + y**2) / 2 / sigma**2) / (2 * np.pi * sigma**2)
    sky = np.random.default_rng(1).normal(0, SIGMA if noise else 0, (3, size, size))
    return (profile * np.array([0.5, 0.8, 1.0])[:, None, None] + sky + (0 if noise else 1e-9)).astype(np.float32)


def header(size: int, pixscale: float, viewer: bool = False, angle: float = 0.0) -> fits.Header:
    turn, scale = np.radians(angle), pixscale / 3600
    cards = {
        "BANDS": "grz",
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.0,
        "CRVAL2": 2.0,
        "CRPIX1": (size + 1) / 2,
        "CRPIX2": (size + 1) / 2,
        "CD1_1": -scale * np.cos(turn),
        "CD1_2": scale * np.sin(turn),
        "CD2_1": scale * np.sin(turn),
        "CD2_2": scale * np.cos(turn),
    }
    return fits.Header(cards | ({"SURVEY": "DECaLS", "VERSION": "DR9", "IMAGETYP": "image"} if viewer else {}))


def write(path: Path, cube: np.ndarray, cards: fits.Header | None = None) -> Path:
    fits.PrimaryHDU(cube, cards).writeto(path, overwrite=True)
    return path


def one(path: Path, settings: ExternalSettings | None = None) -> StampSet:
    (found,) = read_stamps([path], settings)
    assert isinstance(found, StampSet), found
    return found


def refused(path: Path) -> str:
    (found,) = read_stamps([path])
    assert isinstance(found, BadData)
    assert str(path) in str(found)
    return str(found)


@pytest.mark.parametrize(("size", "pixscale", "angle"), [(424, 0.1, 0.0), (424, 0.18, 0.0), (100, 0.5, 0.0), (300, 0.2, 30.0)])
def test_resampling_conserves_flux_and_place(tmp_path: Path, size: int, pixscale: float, angle: float) -> None:
    cube = galaxy(size, pixscale, noise=False)
    stamps = one(write(tmp_path / "a.fits", cube, header(size, pixscale, angle=angle)))
    flux = stamps.flux(0)
    assert flux.sum(axis=(1, 2)) == pytest.approx(cube.sum(axis=(1, 2)), rel=0.005)
    y, x = np.mgrid[:152, :152]
    assert [float((flux[1] * axis).sum() / flux[1].sum()) for axis in (x, y)] == pytest.approx([76, 76], abs=0.05)
    row = stamps.sources.to_pylist()[0]
    assert (row["ra"], row["dec"]) == pytest.approx((150.0, 2.0), abs=1e-6)
    assert row["resampled"] is True and row["pixscale_input"] == pytest.approx(pixscale, rel=1e-4)


def test_a_zoomed_viewer_cutout_counts_per_survey_pixel(tmp_path: Path) -> None:
    """The cutout service repeats survey pixels: each keeps the value of the whole pixel, not its share."""
    native = galaxy(150, 0.262)
    zoomed = native.repeat(2, axis=1).repeat(2, axis=2)
    path = write(tmp_path / "a.fits", zoomed, header(300, 0.131, viewer=True))
    stamps = one(path)
    assert stamps.flux(0)[:, 70:82, 70:82].sum() == pytest.approx(native[:, 69:81, 69:81].sum(), rel=0.02)
    sigma = 1 / np.sqrt(np.median(stamps.invvar()[0, 0][stamps.valid()[0, 0]]))
    # the half-pixel shift between the grids averages four survey pixels
    assert 0.4 * SIGMA < sigma < 1.1 * SIGMA
    own = one(path, ExternalSettings(pixel_values="own")).flux(0)[:, 70:82, 70:82].sum()
    assert own == pytest.approx(4 * stamps.flux(0)[:, 70:82, 70:82].sum(), rel=0.01)


def test_a_file_without_transmission_is_not_dereddened(tmp_path: Path) -> None:
    stamps = one(write(tmp_path / "a.fits", galaxy(160, 0.262), header(160, 0.262)))
    assert stamps.sources["dereddened"].to_pylist() == [False]


def test_same_scale_is_cropped_untouched_and_centered(tmp_path: Path) -> None:
    cube = galaxy(256, 0.262)
    stamps = one(write(tmp_path / "a.fits", cube, header(256, 0.262)))
    assert np.abs(stamps.flux(0) - cube[:, 52:204, 52:204]).max() < 2e-4
    row = stamps.sources.to_pylist()[0]
    assert (row["stamp_dx"], row["stamp_dy"]) == (-0.5, -0.5)
    wcs = stamps.wcs(0)
    assert wcs is not None
    assert [float(value) for value in wcs.all_pix2world(75.5, 75.5, 0)] == pytest.approx([150.0, 2.0], abs=1e-7)


def test_a_small_image_is_filled_around(tmp_path: Path) -> None:
    cube = galaxy(101, 0.262)
    path = tmp_path / "small.npz"
    np.savez(path, cutout=np.moveaxis(cube, 0, -1), meta_pixel_scale=0.262, meta_ra=10.0, meta_dec=-5.0, meta_bands_requested="grz")
    stamps = one(path)
    assert stamps.flux(0)[2, 76, 76] == pytest.approx(cube[2, 50, 50], rel=1e-3)
    assert ((stamps.mask[0] & FILLED) == 0).sum() == 101 * 101
    row = stamps.sources.to_pylist()[0]
    assert (row["ra"], row["dec"], row["brickname"]) == (10.0, -5.0, brick_at(10.0, -5.0).name)
    assert row["valid_frac_g"] == pytest.approx(101**2 / 152**2, abs=1e-4)


def test_image_lists_bring_their_inverse_variance(tmp_path: Path) -> None:
    cube, hdus = galaxy(256, 0.262), fits.HDUList([fits.PrimaryHDU()])
    for band, plane in zip("grz", cube, strict=True):
        for kind, data in (("image", plane), ("invvar", np.full_like(plane, 4e4))):
            cards = header(256, 0.262) + fits.Header({"BAND": band, "IMAGETYP": kind})
            cards.remove("BANDS")
            hdus.append(fits.ImageHDU(data, cards))
    hdus[2].data[100:110, 100:110] = 0.0
    hdus.writeto(tmp_path / "list.fits")
    stamps = one(tmp_path / "list.fits")
    assert stamps.invvar()[0, 1, 76, 76] == pytest.approx(4e4, rel=0.05)
    assert not stamps.valid()[0, 0, 48:58, 48:58].any()
    assert stamps.valid()[0, 1].all()
    assert stamps.sources["invvar_estimated"].to_pylist() == [False]


def test_estimated_noise_is_recorded_and_right(tmp_path: Path) -> None:
    cube = galaxy(256, 0.262)
    stamps = one(write(tmp_path / "a.fits", cube, header(256, 0.262)))
    assert stamps.sources["invvar_estimated"].to_pylist() == [True]
    assert 1 / np.sqrt(stamps.invvar()[0, 0, 10, 10]) == pytest.approx(SIGMA, rel=0.06)
    slope = np.add.outer(np.arange(100.0), np.arange(100.0)).astype(np.float32)
    noise = np.random.default_rng(2).normal(0, 0.01, slope.shape).astype(np.float32)
    assert estimate_sigma(slope + noise, np.ones(slope.shape, bool)) == pytest.approx(0.01, rel=0.1)


def test_stein_layout(tmp_path: Path) -> None:
    cube = np.stack([galaxy(152, 0.262, total) for total in (5.0, 10.0, 20.0)])
    cube[1] = 0.0
    with h5py.File(tmp_path / "images_npix152_000000000_000000003.h5", "w") as file:
        file["images"] = cube
        file["ra"], file["dec"], file["ebv"] = [1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [0.01, 0.02, 0.03]
        file["transmission"] = np.full((3, 3), 0.5)
        file["z_spec"] = [-99.0, 0.1, 0.2]
    found = list(read_stamps([tmp_path / "images_npix152_000000000_000000003.h5"]))
    error, stamps = found
    assert isinstance(error, BadData) and "h5[1]" in str(error)
    assert isinstance(stamps, StampSet) and len(stamps) == 2
    assert stamps.sources["ra"].to_pylist() == [1.0, 3.0]
    assert stamps.sources["z_spec"].to_pylist() == [None, pytest.approx(0.2)]
    assert stamps.flux(1)[2, 76, 76] == pytest.approx(2 * cube[2, 2, 76, 76], rel=1e-3)
    assert stamps.observed_flux(1)[2, 76, 76] == pytest.approx(cube[2, 2, 76, 76], rel=1e-3)
    assert stamps.sources["dereddened"].to_pylist() == [True, True]


def test_stein_fields_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "images.h5"
    brick = brick_at(180.0, 10.0)
    with h5py.File(path, "w") as file:
        file["images"] = galaxy(152, 0.262)[None]
        file["ra"], file["dec"], file["inds"] = [180.0], [10.0], [7]
        file["release"], file["brickid"], file["objid"] = [9010], [brick.brickid], [1234]
        file["source_type"] = np.array([b"SER "])
        file["psfdepth"], file["psfsize"], file["flux"] = [[900.0, 400.0, np.nan]], [[1.3, 1.2, 1.1]], [[1.0, 2.0, 3.0]]
    row = one(path).sources.to_pylist()[0]
    assert (row["release"], row["brickid"], row["objid"], row["type"]) == (9010, brick.brickid, 1234, "SER")
    assert (row["psfsize_z"], row["psfdepth_g"], row["psfdepth_z"], row["flux_r"]) == (pytest.approx(1.1), 900.0, None, 2.0)


def test_the_brick_that_a_file_names_stands_where_it_can_be(tmp_path: Path) -> None:
    """A source at an edge may be a neighbour's; an id from elsewhere on the sky is wrong, and the position decides."""
    here = brick_at(180.0, 10.0)
    for brickid, expected in ((here.brickid + 1, here.brickid + 1), (5, here.brickid), (0, here.brickid)):
        path = tmp_path / f"{brickid}.h5"
        with h5py.File(path, "w") as file:
            file["images"], file["ra"], file["dec"], file["brickid"] = galaxy(152, 0.262)[None], [180.0], [10.0], [brickid]
        row = one(path).sources.to_pylist()[0]
        assert (row["brickid"], row["brickname"]) == (expected, brick_by_id(expected).name)


def test_jpeg_route_is_flagged_and_near_the_truth(tmp_path: Path) -> None:
    cube = galaxy(152, 0.262, total=5.0)
    Image.fromarray(to_rgb(cube)).save(tmp_path / "12.5_-3.25.png")
    stamps = one(tmp_path / "12.5_-3.25.png", ExternalSettings(picture_pixscale=0.262))
    row = stamps.sources.to_pylist()[0]
    assert row["jpeg_route"] is True and (row["ra"], row["dec"]) == (12.5, -3.25)
    good = stamps.valid()[0]
    assert np.abs(stamps.flux(0) - cube)[good].max() < 0.02


def test_a_picture_of_unknown_scale_spans_the_stamp(tmp_path: Path) -> None:
    Image.fromarray(to_rgb(galaxy(304, 0.262, total=5.0))).save(tmp_path / "a.jpg", quality=95)
    stamps = one(tmp_path / "a.jpg")
    assert stamps.sources["scale_assumed"].to_pylist() == [True]
    assert stamps.sources["ra"].to_pylist() == [None]
    assert ((stamps.mask[0] & FILLED) == 0).mean() > 0.98


def test_identity_is_the_content(tmp_path: Path) -> None:
    cube = galaxy(160, 0.262)
    ids = [
        one(write(tmp_path / name, cube * factor, header(160, 0.262))).sources["source_id"][0].as_py()
        for name, factor in (("a.fits", 1), ("b.fits", 1), ("c.fits", 1.5))
    ]
    assert ids[0] == ids[1] != ids[2]
    assert all(0 <= value < 2**63 for value in ids)


def test_rows_have_the_columns_of_bricks(tmp_path: Path) -> None:
    table = one(write(tmp_path / "a.fits", galaxy(160, 0.262), header(160, 0.262))).sources
    expected = subset_schema()
    assert table.schema.names[: len(expected)] == expected.names
    assert all(table.schema.field(item.name).type == item.type for item in expected)


def test_a_missing_band_is_masked(tmp_path: Path) -> None:
    cards = header(160, 0.262)
    cards["BANDS"] = "gr"
    stamps = one(write(tmp_path / "a.fits", galaxy(160, 0.262)[:2], cards))
    assert stamps.sources["valid_frac_z"].to_pylist() == [0.0]
    assert stamps.valid()[0, 0].all() and not stamps.valid()[0, 2].any()


def test_a_psf_is_refused(tmp_path: Path) -> None:
    psf = galaxy(63, 0.262, noise=False)
    psf /= psf.sum(axis=(1, 2), keepdims=True)
    assert "a PSF model" in refused(write(tmp_path / "anything.fits", psf))


def test_a_destroyed_band_is_refused(tmp_path: Path) -> None:
    cube = galaxy(160, 0.262)
    cube[1, 40:] = 0.0
    text = refused(write(tmp_path / "a.fits", cube, header(160, 0.262)))
    assert "pixels at the galaxy in band r" in text and "75%" in text
    cube[1] = np.nan
    assert isinstance(one(write(tmp_path / "b.fits", cube, header(160, 0.262))), StampSet)


def test_damaged_files_are_refused_and_stop_nothing(tmp_path: Path) -> None:
    good = write(tmp_path / "good.fits", galaxy(160, 0.262), header(160, 0.262))
    raw = good.read_bytes()
    bad = {
        "cut.fits": raw[:100_000],
        "empty.fits": b"",
        "page.fits": b"<html>no</html>",
        "a.npz": b"PK",
        "a.jpg": b"x",
        "a.h5": b"y",
        "a.txt": b"z",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    found = list(read_stamps([*(tmp_path / name for name in bad), good, tmp_path / "nowhere.fits"]))
    assert [type(item) for item in found] == [BadData] * len(bad) + [StampSet, BadData]
    for name, error in zip(bad, found, strict=False):
        assert name in str(error)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cutout_59.1067_-30.4848.fits", (59.1067, -30.4848)),
        ("cutout_1.86_0.70.fits", (1.86, 0.70)),
        ("example_a.fits", None),
        ("400.5_10.1.fits", None),
    ],
)
def test_position_in_name(name: str, expected: tuple[float, float] | None) -> None:
    assert position_in_name(name) == expected
