"""Pictures become stamps as their set's kind says; what is no picture is refused."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from galpipe.errors import BadData, ConfigurationError
from galpipe.stamps.pictures import (
    KINDS,
    UNKNOWN,
    PictureKind,
    decode,
    encode_jpeg,
    framed,
    kind_named,
    kind_of,
    picture_flux,
    picture_stamps,
)
from galpipe.stamps.stampset import FILLED


def spot(size: int, sigma: float, total: float = 3.0) -> np.ndarray:
    """A round galaxy whose middle is pixel ``size // 2``, g, r, z."""
    y, x = np.mgrid[:size, :size] - size // 2
    profile = total * np.exp(-(x**2 + y**2) / 2 / sigma**2) / (2 * np.pi * sigma**2)
    return np.stack([0.4 * profile, 0.8 * profile, profile]).astype(np.float32)


def test_the_file_name_tells_the_kind() -> None:
    assert kind_of("legacy_rings") == (KINDS["legacy_rings"], False)
    assert kind_of("sdss_gz2_votes_test") == (KINDS["sdss_gz2_votes"], False)
    assert kind_of("mine") == (UNKNOWN, True)
    with pytest.raises(ConfigurationError, match="'mine'"):
        kind_named("mine")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_coding_keeps_a_galaxy(kind: PictureKind) -> None:
    flux = spot(152, 12.0)
    picture = framed(kind.stretch.picture(flux), kind)
    back, known, inside = picture_flux(decode(encode_jpeg(picture, kind)), kind)
    assert inside.all() and known[1, 66:87, 66:87].all()
    # a galaxy in the middle half of a picture is coded in a quarter of the pixels
    assert back[1, 60:93, 60:93].sum() == pytest.approx(flux[1, 60:93, 60:93].sum(), rel=0.05 if kind.span == 1 else 0.08)


def test_pictures_of_known_scale_are_cropped_not_resized() -> None:
    kind = KINDS["legacy_galaxy10"]
    flux = spot(256, 2.0)
    back, _, _ = picture_flux(kind.stretch.picture(flux), kind)
    assert np.unravel_index(back[1].argmax(), (152, 152)) == (76, 76)
    assert back[1, 70:83, 70:83] == pytest.approx(flux[1, 122:135, 122:135], abs=0.01)


def test_small_pictures_are_filled_around() -> None:
    kind = KINDS["legacy_galaxy10"]
    stamps = picture_stamps([kind.stretch.picture(spot(100, 3.0))], kind)
    inside = (stamps.mask[0] & FILLED) == 0
    assert inside.sum() == 100 * 100 and inside[76, 76] and stamps.image[0, 1].argmax() == 76 * 152 + 76


def test_rows_say_jpeg_route() -> None:
    stamps = picture_stamps([np.full((424, 424, 3), 20, np.uint8)] * 2, KINDS["legacy_rings"], {"id": ["a", "b"]})
    assert stamps.sources["jpeg_route"].to_pylist() == [True, True]
    assert stamps.sources["scale_assumed"].to_pylist() == [True, True]
    assert stamps.sources["id"].to_pylist() == ["a", "b"] and stamps.attrs["route"] == "JPEG route"
    assert len(picture_stamps([], KINDS["legacy_rings"])) == 0


def test_what_is_no_color_picture_is_refused() -> None:
    grey = io.BytesIO()
    Image.new("L", (8, 8)).save(grey, "PNG")
    whole = encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8), KINDS["legacy_rings"])
    for content, text in (
        (b"", "can be decoded"),
        (b"\xff\xd8nothing", "can be decoded"),
        (whole[:900], "truncated"),
        (grey.getvalue(), "mode L"),
    ):
        with pytest.raises(BadData, match=text):
            decode(content, "x")


def test_coding_is_the_set_s() -> None:
    """Quality and chroma subsampling as measured from the published files' headers."""
    picture = np.zeros((64, 64, 3), np.uint8)
    found = {}
    for name, kind in KINDS.items():
        with Image.open(io.BytesIO(encode_jpeg(picture, kind))) as image:
            found[name] = (tuple(sum(table) for table in image.quantization.values()), image.layer[0][1:3])
    assert found["legacy_rings"] == ((736, 1110), (1, 1))
    assert found["legacy_galaxy10"] == found["sdss_gz1_classes"] == ((1858, 2780), (2, 2))
    assert replace(KINDS["legacy_rings"], quality=75) != KINDS["legacy_rings"]
