"""Corners of stamps without their pixels are those that the stamps' own projections give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord

from galpipe.stamps.footprint import corners
from galpipe.stamps.stampset import StampSet
from galpipe.survey.bricks import brick_at, brick_wcs

SIZE = 16


def stamps_at(positions: list[tuple[float, float] | None], *, in_brick: bool) -> StampSet:
    """Stamps whose sources lie off their middle pixel, cut from one brick or each with a projection of its own."""
    count = len(positions)
    ra, dec = ([None if place is None else place[axis] for place in positions] for axis in (0, 1))
    facts = {"ra": pa.array(ra, pa.float64()), "dec": pa.array(dec, pa.float64())}
    facts |= {name: pa.array([0.3] * count, pa.float32()) for name in ("stamp_dx", "stamp_dy")}
    attrs = {"wcs": None}
    pixels = [None] * count, [None] * count
    if in_brick:
        wcs = brick_wcs(brick_at(*positions[0]))
        x, y = wcs.all_world2pix(np.array(ra), np.array(dec), 0)
        pixels = (np.floor(x).astype(int) - 8).tolist(), (np.floor(y).astype(int) - 8).tolist()
        cards = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")
        scale = {"CD1_1": -0.262 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.262 / 3600}
        attrs = {"wcs": {name: wcs.to_header()[name] for name in cards} | scale}
    facts |= {name: pa.array(values, pa.int32()) for name, values in zip(("stamp_x0", "stamp_y0"), pixels, strict=True)}
    shape = (count, 1, SIZE, SIZE)
    empty = np.zeros(shape, np.int16), np.zeros(shape, np.uint8), np.zeros((count, SIZE, SIZE), np.uint8)
    return StampSet(*empty, pa.table(facts), ("r",), 0.262, (0.006,), attrs)


@pytest.mark.parametrize("in_brick", [True, False])
@pytest.mark.parametrize("place", [(150.1, 2.2), (0.0001, -0.05), (359.9999, 0.03), (77.0, 89.97), (200.0, -89.99)])
def test_corners_are_those_of_the_projection(place: tuple[float, float], in_brick: bool) -> None:
    stamps = stamps_at([place, (place[0], place[1] + 0.001)], in_brick=in_brick)
    found = corners(stamps.sources, stamps.attrs, SIZE, 0.262)
    assert found.shape == (2, 4, 2) and (found[..., 0] >= 0).all() and (found[..., 0] < 360).all()
    for row in range(2):
        wcs = stamps.wcs(row)
        assert wcs is not None
        expected = wcs.pixel_to_world([-0.5, SIZE - 0.5, SIZE - 0.5, -0.5], [-0.5, -0.5, SIZE - 0.5, SIZE - 0.5])
        assert SkyCoord(found[row], unit="deg").separation(expected).arcsec.max() < 1e-6


def test_a_stamp_without_a_position_has_no_corners() -> None:
    stamps = stamps_at([(10.0, 10.0), None], in_brick=False)
    found = corners(stamps.sources, stamps.attrs, SIZE, 0.262)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
