from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import Latitude, Longitude, SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st
from mocpy import MOC

from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import all_centers, brick_at, geometry_of, ids_at, names_of
from galpipe.survey.region import parse_region, select_bricks


def table_of(ids: np.ndarray) -> pa.Table:
    return pa.table({"brickname": names_of(ids).tolist(), "brickid": ids, **geometry_of(ids)})


@pytest.fixture(scope="module")
def sky() -> pa.Table:
    return table_of(all_centers()[0])


def chosen(text: str, sky: pa.Table) -> set[str]:
    return set(sky.filter(pa.array(select_bricks(parse_region(text), sky)))["brickname"].to_pylist())


def points_in_cone(ra: float, dec: float, radius: float, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    center = SkyCoord(ra * u.deg, dec * u.deg)
    spread = center.directional_offset_by(rng.uniform(0, 360, count) * u.deg, radius * np.sqrt(rng.uniform(0, 1, count)) * u.deg)
    return spread.ra.deg, spread.dec.deg


CONES = [(112.67, 22.25, 0.3), (0.02, -10.0, 0.5), (33.0, 89.7, 0.8), (200.0, -89.99, 0.5), (5, 75, 2.0)]


@pytest.mark.parametrize(("ra", "dec", "radius"), CONES)
def test_a_cone_takes_every_brick_it_touches_and_no_other(sky: pa.Table, ra: float, dec: float, radius: float) -> None:
    found = chosen(f"cone:{ra},{dec},{radius}", sky)
    assert set(names_of(np.unique(ids_at(*points_in_cone(ra, dec, radius)))).tolist()) <= found
    # every brick taken has a point of its box in the cone
    rows = sky.filter(pa.array(np.isin(sky["brickname"].to_pylist(), sorted(found))))
    step = np.linspace(0, 1, 60)
    for row in rows.to_pylist():
        grid_ra = row["ra1"] + (row["ra2"] - row["ra1"]) * step[None, :]
        grid_dec = row["dec1"] + (row["dec2"] - row["dec1"]) * step[:, None]
        apart = SkyCoord(grid_ra * u.deg, grid_dec * u.deg).separation(SkyCoord(ra * u.deg, dec * u.deg)).deg
        assert apart.min() <= radius + 0.01


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 359.9), st.floats(-89, 89))
def test_the_owner_of_a_cone_s_center_is_taken(ra: float, dec: float) -> None:
    owner = brick_at(ra, dec)
    assert select_bricks(parse_region(f"cone:{ra!r},{dec!r},0.001"), table_of(np.array([owner.brickid]))).all()


def test_a_box(sky: pa.Table) -> None:
    assert chosen("box:112.6,112.7,22.2,22.3", sky) == {"1126p222"}
    ra, dec = np.meshgrid(np.arange(10.001, 12, 0.05), np.arange(0.001, 1, 0.05))
    assert chosen("box:10,12,0,1", sky) == set(names_of(ids_at(ra.ravel(), dec.ravel())).tolist())


def test_a_box_over_ra_zero(sky: pa.Table) -> None:
    found = chosen("box:359.9,0.1,-0.05,0.05", sky)
    assert found == {"3598p000", "0001p000"}
    assert chosen("box:-0.1,0.1,-0.05,0.05", sky) == found


def test_a_box_around_a_pole(sky: pa.Table) -> None:
    found = chosen("box:0,360,89.7,90", sky)
    _, ra, dec = all_centers()
    assert found == set(names_of(ids_at(ra[dec > 89.5], dec[dec > 89.5])).tolist())
    assert "1800p900" in chosen("box:10,11,89.9,90", sky)


def test_bricks_by_name_and_everything(sky: pa.Table) -> None:
    assert chosen("bricks:1126p222, 0001m002,1126p222", sky) == {"1126p222", "0001m002"}
    assert parse_region("bricks:1126p222").named() == ("1126p222",)
    assert len(chosen("all", sky)) == sky.num_rows


@pytest.mark.parametrize("form", ["fits", "json"])
@pytest.mark.parametrize(("ra", "dec", "radius", "order"), [(0.05, 20.0, 0.4, 12), (120.0, 88.9, 0.6, 10), (300, -30, 1.0, 7)])
def test_a_moc(sky: pa.Table, tmp_path: Path, form: str, ra: float, dec: float, radius: float, order: int) -> None:
    moc = MOC.from_cone(Longitude(ra, u.deg), Latitude(dec, u.deg), radius=radius * u.deg, max_depth=order)
    path = tmp_path / f"map.{form}"
    moc.save(str(path), format=form)
    found = chosen(f"moc:{path}", sky)
    assert set(names_of(np.unique(ids_at(*points_in_cone(ra, dec, radius, 2000)))).tolist()) <= found
    # at most the bricks within a cell or two of the edge more
    cell = np.degrees(np.sqrt(np.pi / 3)) / 2 ** min(order, 9)
    assert found <= chosen(f"cone:{ra},{dec},{radius + 2.5 * cell}", sky)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cone:1,2",
        "cone:1,2,0",
        "cone:1,95,1",
        "cone:a,b,c",
        "cone:nan,1,1",
        "box:1,1,0,1",
        "box:1,2,1,0",
        "box:1,2,0,100",
        "bricks:",
        "bricks:1126p223",
        "moc:nowhere.fits",
        "circle:1,2,3",
        "everything",
    ],
)
def test_what_is_no_region(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        parse_region(text)


def test_a_file_that_is_no_moc(tmp_path: Path, sky: pa.Table) -> None:
    path = tmp_path / "no.fits"
    path.write_text("not a map")
    with pytest.raises(ConfigurationError, match="MOC"):
        chosen(f"moc:{path}", sky)
