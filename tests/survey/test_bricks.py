from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import (
    BRICKS,
    ROWS,
    all_centers,
    brick,
    brick_at,
    brick_by_id,
    brick_by_name,
    brick_wcs,
    brickids_of,
    geometry_of,
    ids_at,
    names_of,
    row_column,
)

ids = st.integers(1, BRICKS)


# the first example builds the index of all names
@settings(deadline=None)
@given(ids)
def test_id_name_and_position_lead_to_the_same_brick(brickid: int) -> None:
    found = brick_by_id(brickid)
    assert found.brickid == brickid
    assert brick_by_name(found.name) == found
    assert brick_at(found.ra, found.dec) == found
    assert brickids_of([found.name]).tolist() == [brickid]
    assert names_of([brickid]).tolist() == [found.name]
    assert ids_at(found.ra, found.dec) == brickid
    assert {key: float(value[0]) for key, value in geometry_of([brickid]).items()} == {
        key: getattr(found, key) for key in ("ra", "dec", "ra1", "ra2", "dec1", "dec2")
    }


@given(st.floats(-720, 720), st.floats(-90, 90))
def test_every_position_has_one_owner(ra: float, dec: float) -> None:
    owner = brick_at(ra, dec)
    assert owner.ra1 <= (ra % 360) % 360 < owner.ra2
    assert owner.dec1 <= dec <= owner.dec2


@given(ids)
def test_edges_are_half_open(brickid: int) -> None:
    owner = brick_by_id(brickid)
    assert brick_at(owner.ra1, owner.dec1).brickid == brickid
    if owner.row < ROWS - 1:
        assert brick_at(owner.ra, owner.dec2).row == owner.row + 1


def test_published_examples() -> None:
    published = {"0001m002": 328928, "0001p000": 330368, "1126p222": 455939, "2082p145": 413901, "0001p322": 506814, "3598p322": 508033}
    assert {name: brick_by_name(name).brickid for name in published} == published
    assert brick_by_name("0959p805").brickid == 657438
    assert brick_by_id(1).name == "1800m900"
    assert brick_by_id(BRICKS).name == "1800p900"


def test_all_names_are_distinct_and_known() -> None:
    brickid, ra, dec = all_centers()
    names = names_of(brickid)
    assert len(set(names.tolist())) == BRICKS
    assert np.array_equal(brickids_of(names), brickid)
    row, column = row_column(ra, dec)
    some = np.random.default_rng(3).choice(BRICKS, 500, replace=False)
    assert [brick(int(row[k]), int(column[k])).name for k in some] == names[some].tolist()


def test_unknown_names() -> None:
    assert brickids_of(["1126p223", "nonsense", ""]).tolist() == [0, 0, 0]
    for name in ("1126p223", "9999p000", "112p222", "1126x222", ""):
        with pytest.raises(ConfigurationError, match="brick name"):
            brick_by_name(name)


def test_neighbours_never_share_a_quadrant() -> None:
    here = brick_by_name("1126p222")
    east, north = brick(here.row, here.column + 1), brick_at(here.ra, here.dec + 0.25)
    assert len({here.quadrant, east.quadrant, north.quadrant}) == 3


def test_the_projection_is_centered_north_up() -> None:
    center = brick_by_name("1126p222")
    wcs = brick_wcs(center)
    ra, dec = wcs.all_pix2world([[1799.5, 1799.5], [0.0, 1799.5], [1799.5, 3599.0]], 0).T
    assert ra[0] == pytest.approx(center.ra, abs=1e-9)
    assert dec[0] == pytest.approx(center.dec, abs=1e-9)
    assert ra[1] > center.ra
    assert dec[2] > center.dec
