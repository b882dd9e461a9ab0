from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from galpipe.errors import BadData, NoWork
from galpipe.survey.bricks import brick_at
from galpipe.survey.coadd import NONFINITE_CARD, check_header, read_band, read_image
from galpipe.survey.files import BrickFiles, FileRecord
from galpipe.unit import Unit
from tests.survey.fake_release import UNIT, image_bytes


@pytest.mark.parametrize("kind", ["GZIP_1", "RICE_1"])
def test_compressed_images(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.fits.fz"
    path.write_bytes(image_bytes((120, 130), kind))
    image, header = read_image(path, (120, 130))
    assert image.dtype == np.float32
    assert image.dtype.isnative
    assert image.shape == (120, 130)
    assert float(image.std()) == pytest.approx(0.01, rel=0.1)
    assert header[NONFINITE_CARD] == 0


def test_integers_keep_their_type(tmp_path: Path) -> None:
    path = tmp_path / "nexp.fits.fz"
    counts = np.arange(10_000, dtype=np.int16).reshape(100, 100)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(counts, compression_type="HCOMPRESS_1")]).writeto(path)
    image, _ = read_image(path, None)
    assert image.dtype == np.int16
    assert np.array_equal(image, counts)


def test_an_uncompressed_image_under_a_compressed_name(tmp_path: Path) -> None:
    path = tmp_path / "blobmodel.fits.fz"
    data = np.ones((50, 60), np.float32)
    data[3, 4] = np.nan
    fits.PrimaryHDU(data).writeto(path)
    image, header = read_image(path, (50, 60))
    assert np.isnan(image[3, 4])
    assert header[NONFINITE_CARD] == 1


def test_the_first_image_of_several_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "maskbits.fits.fz"
    hdus = [fits.CompImageHDU(np.full((20, 20), k, np.int32), compression_type="GZIP_1", name=f"X{k}") for k in (5, 6)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    assert read_image(path, None)[0][0, 0] == 5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "readable FITS image"),
        (image_bytes((100, 100))[:-5000], "truncated"),
        (image_bytes((100, 100)), r"expected an image of shape \(3600, 3600\), got shape \(100, 100\)"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "image-g.fits.fz"
    path.write_bytes(content)
    with pytest.raises(BadData, match=f"b/c image-g.fits.fz: .*{what}"):
        read_image(path, unit="b/c")


def test_a_file_without_image(tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    with pytest.raises(BadData, match="two-dimensional image, got none"):
        read_image(path)


def test_products_of_a_brick(tmp_path: Path, brick_image: bytes) -> None:
    (tmp_path / "i-g").write_bytes(brick_image)
    records = (FileRecord("i-g", "p", "image", "g", "unverified"), FileRecord("i-r", "p", "image", "r", "absent"))
    files = BrickFiles(UNIT, tmp_path, records)
    assert read_band(files, "image", "g")[0].shape == (3600, 3600)
    for band in "rz":
        with pytest.raises(NoWork, match=f"image-{band}"):
            read_band(files, "image", band)


def test_records_round_trip(tmp_path: Path) -> None:
    record = FileRecord("n", "p/n", "image", "g", "verified", "ab" * 32, 7, '"e"', "Mon", "http://x/n")
    files = BrickFiles(Unit("dr9", "south", "0001m002"), tmp_path, (record,))
    assert BrickFiles.from_json(files.to_json(), tmp_path) == files
    with pytest.raises(BadData, match=r"fetch\.json"):
        BrickFiles.from_json("{}", tmp_path)


ZERO = brick_at(0.05, 22.25)


def cards(**changed: object) -> fits.Header:
    header = fits.Header([("BRICK", ZERO.name), ("BRICKID", ZERO.brickid), ("CRVAL1", ZERO.ra), ("CRVAL2", ZERO.dec)])
    header.extend([("CRPIX1", 1800.5), ("CRPIX2", 1800.5), ("CD1_1", -0.262 / 3600), ("CD1_2", 0.0), ("CD2_1", 0), ("CD2_2", 0.262 / 3600)])
    header.update(changed)
    return header


@pytest.mark.parametrize(
    "changed", [{}, {"CRVAL1": ZERO.ra + 360}, {"CRVAL1": ZERO.ra - 360}, {"CRVAL2": ZERO.dec + 1e-6}, {"BRICK": ZERO.name + "  "}]
)
def test_a_header_that_agrees_with_the_file_name(changed: dict[str, object]) -> None:
    check_header(cards(**changed), f"legacysurvey-{ZERO.name}-image-g.fits.fz")


def test_cards_that_are_not_there_are_not_asked_for() -> None:
    check_header(fits.Header(), f"legacysurvey-{ZERO.name}-image-g.fits.fz")
    check_header(cards(BRICK="1126p222"), "mine.fits")


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("BRICK", "1126p222"),
        ("BRICKNAM", "1126p222"),
        ("BRICKID", 1),
        ("CRVAL1", ZERO.ra + 1e-4),
        ("CRVAL2", "here"),
        ("CRPIX1", 1800.0),
        ("CRPIX2", 1e300),
        ("CD1_1", 0.262 / 3600),
        ("CD2_2", 0.27 / 3600),
        ("CD1_2", 1e-7),
    ],
)
def test_a_header_that_does_not(card: str, value: object) -> None:
    with pytest.raises(BadData, match=rf"u legacysurvey-{ZERO.name}-image-g.fits.fz: expected {card} "):
        check_header(cards(**{card: value}), f"legacysurvey-{ZERO.name}-image-g.fits.fz", "u")
