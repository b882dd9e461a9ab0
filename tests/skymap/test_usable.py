"""Usable area from a brick's images: a known mask and a known hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from galpipe.errors import BadData
from galpipe.skymap.usable import usable_points
from galpipe.survey.bits import MASKBITS
from galpipe.survey.bricks import brick_at
from galpipe.survey.files import BrickFiles, FileRecord
from galpipe.unit import Unit

UNIT = Unit("dr9", "south", "1126p222")


def brick_files(folder: Path, **images: np.ndarray) -> BrickFiles:
    records = []
    for key, data in images.items():
        product, _, band = key.partition("_")
        name = f"{product}-{band}.fits"
        fits.PrimaryHDU(data).writeto(folder / name)
        records.append(FileRecord(name, name, product, band, "unverified"))
    return BrickFiles(UNIT, folder, tuple(records))


def test_masks_and_missing_exposures_are_not_usable(tmp_path: Path) -> None:
    mask = np.zeros((3600, 3600), np.int16)
    mask[:900] = 1 << MASKBITS["BRIGHT"]
    mask[900:1800] = 1 << MASKBITS["MEDIUM"]
    seen = np.ones((3600, 3600), np.uint8)
    seen[:, :900] = 0
    tiny = np.zeros((1, 1), np.float32)
    index, usable = usable_points(brick_files(tmp_path, maskbits=mask, nexp_z=seen, image_z=tiny))
    # margins of the image belong to other bricks, so that a quarter of it is less of the brick itself
    own = 0.25 * 3600 / 0.262
    assert 0 < len(index) < 90_000 and len(np.unique(index)) == len(index)
    edge = (3600 - own) / 2
    left = (own - (900 - edge)) / own
    assert usable.mean() == pytest.approx(left**2, abs=0.01)
    assert len(index) * 12**2 * 0.262**2 == pytest.approx(brick_area(), rel=0.02)


def brick_area() -> float:
    brick = brick_at(112.6, 22.25)
    return (brick.ra2 - brick.ra1) * np.cos(np.radians(brick.dec)) * 0.25 * 3600**2


def test_without_a_mask_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="maskbits"):
        usable_points(brick_files(tmp_path, image_z=np.zeros((1, 1), np.float32)))
