from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude
from astropy.units import deg
from cdshealpix.nested import lonlat_to_healpix
from hypothesis import given, settings
from hypothesis import strategies as st
from mocpy import MOC

from catalogs.area import Area, Box, Cone, Coverage, Polygon, parse_area, ranges_of_bricks
from catalogs.ranges import WHOLE_SKY, coarser, contains, merged
from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import BRICKS, brick_by_id

RA = st.one_of(st.sampled_from([0.0, 360.0, 359.9999, 1e-7, 90.0, 45.0]), st.floats(-10, 370))
DEC = st.one_of(st.sampled_from([90.0, -90.0, 89.99, -89.9, 0.0, 41.81031489577862]), st.floats(-90, 90))
RADIUS = st.floats(-3.5, 1.7).map(lambda power: 10**power)


def vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


def sky_around(ra: float, dec: float, radius: float, count: int = 600, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random positions within twice a radius of one, RA from 0 to 360."""
    random = np.random.default_rng(seed)
    middle = vectors(np.float64(ra), np.float64(dec))
    east = np.cross([0.3, 0.5, 0.8], middle)
    east /= np.linalg.norm(east)
    north = np.cross(middle, east)
    turn, far = random.uniform(0, 2 * np.pi, (count, 1)), np.radians(min(2 * radius, 180.0)) * np.sqrt(random.uniform(0, 1, (count, 1)))
    found = np.cos(far) * middle + np.sin(far) * (np.cos(turn) * east + np.sin(turn) * north)
    lon = np.degrees(np.arctan2(found[:, 1], found[:, 0])) % 360
    return np.where(lon >= 360, 0.0, lon), np.degrees(np.arctan2(found[:, 2], np.hypot(found[:, 0], found[:, 1])))


def pixels(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return lonlat_to_healpix(Longitude(ra, deg), Latitude(dec, deg), 29).astype(np.int64)


def check(area: Area, ra: np.ndarray, dec: np.ndarray, expected: np.ndarray, unsure: np.ndarray) -> None:
    """Exact where brute force is sure, and nothing inside lies outside the covering, however coarse."""
    inside = area.inside(ra, dec)
    assert (inside == expected)[~unsure].all()
    ranges = area.ranges()
    assert (np.diff(ranges.ravel()) > 0).all()
    for covering in (ranges, coarser(ranges, 5), coarser(ranges, 1)):
        assert contains(covering, pixels(ra, dec)[inside]).all()


@given(RA, DEC, RADIUS)
@settings(max_examples=80, deadline=None)
def test_cone(ra: float, dec: float, radius: float) -> None:
    east, north = sky_around(ra, dec, radius)
    chord = np.linalg.norm(vectors(east, north) - vectors(np.float64(ra), np.float64(dec)), axis=1)
    angle = np.degrees(2 * np.arcsin(np.minimum(1, chord / 2)))
    check(Cone(ra, dec, radius), east, north, angle <= radius, abs(angle - radius) < 1e-9)


@given(RA, DEC, RADIUS, st.floats(0.02, 50))
@settings(max_examples=80, deadline=None)
def test_box(ra: float, dec: float, height: float, shape: float) -> None:
    low, high = max(-90.0, dec - height / 2), min(90.0, dec + height / 2)
    width = min(height * shape, 360.0)
    east, north = sky_around(ra, dec, height)
    random = np.random.default_rng(2)
    # the edges themselves too
    more = (ra + width * np.concatenate([[0.0], random.uniform(-0.2, 1.2, 300)])) % 360
    east, north = np.concatenate([east, more]), np.concatenate([north, random.uniform(low, high, 301)])
    step = (east - ra) % 360
    expected = (step < width) & (north >= low) & ((north < high) | (high == 90))
    check(Box(ra, ra + width, low, high), east, north, expected, np.minimum(abs(step - width), np.minimum(step, 360 - step)) < 1e-9)


def winding(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Turns that a polygon of unit vectors makes about each point: another form than the one under test."""
    total = np.zeros(len(points))
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        one, other = np.cross(points, start), np.cross(points, end)
        total += np.arctan2(np.einsum("ij,ij->i", np.cross(one, other), points), np.einsum("ij,ij->i", one, other))
    return np.rint(total / (2 * np.pi))


@given(RA, DEC, st.floats(-3, 1.5).map(lambda power: 10**power), st.integers(3, 9), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_polygon(ra: float, dec: float, radius: float, corners: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    middle = vectors(np.float64(ra), np.float64(dec))
    east = np.cross([0.3, 0.5, 0.8], middle)
    east /= np.linalg.norm(east)
    north = np.cross(middle, east)
    # a star seen from its middle: concave, but it does not cross itself
    turn = (np.arange(corners) + random.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    far = np.radians(radius) * random.uniform(0.3, 1, corners)
    star = np.cos(far)[:, None] * middle + np.sin(far)[:, None] * (np.cos(turn)[:, None] * east + np.sin(turn)[:, None] * north)
    lon = np.degrees(np.arctan2(star[:, 1], star[:, 0]))
    lat = np.degrees(np.arctan2(star[:, 2], np.hypot(star[:, 0], star[:, 1])))
    points_ra, points_dec = sky_around(ra, dec, radius)
    points = vectors(points_ra, points_dec)
    expected = (winding(star, points) != 0) & (points @ middle > 0)
    sides = [np.cross(a, b) / np.linalg.norm(np.cross(a, b)) for a, b in zip(star, np.roll(star, -1, axis=0), strict=True)]
    unsure = np.min([abs(points @ side) for side in sides], axis=0) < 1e-10
    check(Polygon(tuple(zip(lon.tolist(), lat.tolist(), strict=True))), points_ra, points_dec, expected, unsure)


@given(RA, DEC, st.floats(-1, 1.5).map(lambda power: 10**power), st.integers(3, 12))
@settings(max_examples=40, deadline=None)
def test_moc(ra: float, dec: float, radius: float, order: int) -> None:
    moc = MOC.from_cone(Longitude(ra, deg), Latitude(dec, deg), radius=radius * deg, max_depth=min(order, 9))
    east, north = sky_around(ra, dec, radius)
    check(Coverage(moc), east, north, moc.contains_lonlat(Longitude(east, deg), Latitude(north, deg)), np.zeros(len(east), bool))


def test_a_polygon_that_crosses_itself_loses_nothing() -> None:
    corners = (
        (28.0978, -74.0738),
        (178.9737, -69.3637),
        (324.1254, -67.9542),
        (96.6996, -72.1272),
        (146.4727, -67.3562),
        (244.7025, -69.1647),
    )
    area = Polygon(corners)
    random = np.random.default_rng(5)
    east, north = random.uniform(0, 360, 40_000), np.degrees(np.arcsin(random.uniform(-1, -0.9, 40_000)))
    inside = area.inside(east, north)
    assert inside.sum() > 1000
    assert contains(area.ranges(), pixels(east, north)[inside]).all()
    # one that does not is still covered closely
    square = Polygon(((10.0, 0.0), (12.0, 0.0), (12.0, 2.0), (10.0, 2.0)))
    assert not square._crosses_itself and np.diff(square.ranges(), axis=1).sum() / WHOLE_SKY[0, 1] < 2 * 4 / 41253


def test_a_moc_is_read_from_a_file_or_from_text(tmp_path: Path) -> None:
    moc = MOC.from_string("5/100-103 7/12")
    moc.save(str(tmp_path / "x.fits"), format="fits")
    moc.save(str(tmp_path / "x.json"), format="json")
    for text in ("5/100-103 7/12", '{"5": [100, 101, 102, 103], "7": [12]}', str(tmp_path / "x.fits"), str(tmp_path / "x.json")):
        assert np.array_equal(Coverage.read(text).ranges(), moc.to_depth29_ranges)
    for text in ("no such thing", "5/999999", '{"5": ["x"]}'):
        with pytest.raises(ConfigurationError, match="a MOC: a file, or text"):
            Coverage.read(text)


@given(st.one_of(st.sampled_from([1, 2, BRICKS, BRICKS - 1]), st.integers(1, BRICKS)))
@settings(max_examples=60, deadline=None)
def test_the_ranges_of_a_brick_hold_its_image(brickid: int) -> None:
    brick = brick_by_id(brickid)
    east, north = sky_around(brick.ra, brick.dec, 0.131 / 2, 200)
    assert contains(ranges_of_bricks([brickid, 0, BRICKS + 1]), pixels(east, north)).all()


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), max_size=30), st.integers(1, 6))
def test_ranges_are_joined_and_made_coarser_without_losing_a_pixel(parts: list[tuple[int, int]], most: int) -> None:
    low = np.array([start for start, _ in parts], np.int64)
    ranges = merged(low, low + np.array([count for _, count in parts], np.int64))
    held = {pixel for start, count in parts for pixel in range(start, start + count)}
    everything = np.arange(-5, 1100)
    assert set(everything[contains(ranges, everything)].tolist()) == held
    fewer = coarser(ranges, most)
    assert len(fewer) <= max(most, 0) or len(fewer) == len(ranges)
    assert held <= set(everything[contains(fewer, everything)].tolist())


@pytest.mark.parametrize(
    ("given_text", "message"),
    [
        ({"cone": "1,2"}, "--cone RA,DEC,DEG with 3 numbers"),
        ({"cone": "1,95,1"}, "RA, Dec within 90 deg"),
        ({"cone": "nan,5,1"}, "RA, Dec within 90 deg"),
        ({"box": "1,1,0,1"}, "some width"),
        ({"box": "1,2,5,4"}, "some width"),
        ({"polygon": "1,2,3,4"}, "at least six numbers"),
        ({"polygon": "1,2,3,4,1,2"}, "at least three different"),
        ({"polygon": "0,0,10,0,20,0"}, "some area"),
        ({"polygon": "0,0,120,0,240,0"}, "within 90 deg of their middle"),
        ({"cone": "1,2,3", "moc": "5/1"}, "one piece of sky"),
    ],
)
def test_senseless_areas_are_refused(given_text: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_area(**given_text)


def test_areas_from_text() -> None:
    assert parse_area() is None
    assert parse_area(cone="10,-5,0.5") == Cone(10, -5, 0.5)
    assert parse_area(box="350,10,-1,1") == Box(350, 10, -1, 1)
    assert parse_area(polygon="0,0,1,0,0,1") == Polygon(((0, 0), (1, 0), (0, 1)))
    assert np.array_equal(Cone(0, 0, 180).ranges(), WHOLE_SKY)
