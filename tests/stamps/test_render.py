"""Pictures follow the published mapping."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from galpipe.stamps.render import draw_boxes, enlarge, label, mosaic, png, to_rgb


def pixel(g: float, r: float, z: float) -> np.ndarray:
    return np.array([g, r, z], np.float32).reshape(3, 1, 1)


def test_published_values() -> None:
    """dr2_rgb of g=.01, r=.015, z=.02 is (0.2566, 0.2809, 0.3121), plane 2 being g; nothing is 0.1272 grey."""
    assert to_rgb(pixel(0.01, 0.015, 0.02))[0, 0].tolist() == [round(255 * value) for value in (0.2566, 0.2809, 0.3121)]
    assert to_rgb(pixel(0, 0, 0))[0, 0].tolist() == [32, 32, 32]


def test_north_is_up() -> None:
    flux = np.zeros((3, 4, 4), np.float32)
    flux[:, 3, 0] = 1.0
    assert to_rgb(flux)[0, 0].sum() > 600
    assert to_rgb(flux)[3, 0].sum() < 120


def test_absent_band_is_black_and_i_replaces_z() -> None:
    two = to_rgb(pixel(0.1, 0.1, 0.1)[:2], ("g", "r"))[0, 0]
    assert two[0] == 0 and two[1] > 0 and two[2] > 0
    assert to_rgb(pixel(0.1, 0.1, 0.1), ("g", "r", "i"))[0, 0, 0] > 0


def test_mosaic_places_pictures_row_by_row() -> None:
    pictures = [np.full((4, 5, 3), value, np.uint8) for value in (10, 20, 30)]
    out = mosaic(pictures, 2, gap=1)
    assert out.shape == (9, 11, 3)
    assert (out[0, 0, 0], out[0, 6, 0], out[5, 0, 0], out[8, 10, 0], out[4, 0, 0]) == (10, 20, 30, 255, 255)
    with pytest.raises(ValueError, match="pictures of one shape"):
        mosaic([], 2)


def test_boxes_use_stamp_coordinates() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    out = draw_boxes(picture, np.array([[2, 3, 8, 9]]), ["a"], (255, 0, 0))
    assert out[19 - 3, 5, 0] == 255 and out[19 - 9, 5, 0] == 255 and out[19 - 6, 2, 0] == 255
    assert picture.max() == 0


def test_png_reads_back() -> None:
    picture = label(enlarge(to_rgb(pixel(0.01, 0.02, 0.03)), 30), "x")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
