"""Mock bricks at awkward places: beside the poles, across RA 0, across the line between north and south."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from galpipe.errors import ConfigurationError
from galpipe.mock.pixels import conditions
from galpipe.mock.release import MARGIN, frame_sources, make_release
from galpipe.mock.sky import brick_sky
from galpipe.mock.spec import EDGE_REACH, MockSpec
from galpipe.survey.bricks import BRICK_PIXELS, brick, brick_at, brick_by_name, brick_wcs, columns_of_row
from galpipe.survey.neighbours import distance_to_edge
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import open_release

FEW = MockSpec(galaxies=8, faint=10, stars=5, seed=4)
TWO = replace(FEW, bricks=9, center=(359.8, 32.2), regions=("south", "north"))


@pytest.mark.parametrize("where", [(0.1, 89.99), (1.0, 89.75), (359.0, 89.5), (123.0, 89.25), (359.9, -85.0), (0.01, -89.75), (0.0, 32.3)])
def test_a_frame_shows_every_source_around_it(where: tuple[float, float]) -> None:
    """Against all bricks of the rows around, projected one by one."""
    area = brick_at(*where)
    catalog, x, y = frame_sources(FEW, area, set())
    found = {(int(source["brickid"]), int(source["number"])) for source in catalog}
    assert len(found) == len(catalog) > 20
    expected = set()
    near_pole = abs(area.dec) > 85
    for row in range(max(0, area.row - 3), min(720, area.row + 3) + 1):
        count = columns_of_row(row)
        start = brick_at(area.ra, brick(row, 0).dec).column
        columns = range(count) if near_pole else {(start + step) % count for step in range(-3, 4)}
        for column in columns:
            sky = brick_sky(FEW, brick(row, column))
            px, py = brick_wcs(area).all_world2pix(sky["ra"], sky["dec"], 0)
            inside = (px > -MARGIN) & (px < BRICK_PIXELS + MARGIN) & (py > -MARGIN) & (py < BRICK_PIXELS + MARGIN)
            expected |= {(int(source["brickid"]), int(source["number"])) for source in sky[inside]}
    assert found == expected
    ra, dec = brick_wcs(area).all_pix2world(x, y, 0)
    apart = np.hypot((ra - catalog["ra"] + 180) % 360 - 180, 0) * np.cos(np.radians(dec)) + np.abs(dec - catalog["dec"])
    assert apart.max() * 3600 < 1e-3


@pytest.mark.parametrize("center", [(10.0, 89.8), (10.0, -90.0), (359.9, -0.1)])
def test_a_block_has_each_brick_once(center: tuple[float, float]) -> None:
    bricks = replace(FEW, bricks=9, center=center).brick_list()
    assert len(set(bricks)) == 9
    assert bricks[0] == brick_at(*center)


def test_bricks_by_name() -> None:
    spec = replace(FEW, bricks=2, names=("0999p800", "1800p900"), center=(99.9, 80.0))
    assert [area.name for area in spec.brick_list()] == ["0999p800", "1800p900"]
    with pytest.raises(ConfigurationError, match="3 different brick names"):
        replace(spec, bricks=3)


def test_both_cameras_see_one_sky_each_in_its_own_night() -> None:
    south, north = TWO.parts()
    area = brick_by_name("0001p325")
    assert np.array_equal(brick_sky(south, area), brick_sky(north, area))
    assert conditions(south, area) != conditions(north, area)
    assert (south.release, north.release) == (9010, 9011)


def test_the_overlap_is_in_both_regions() -> None:
    rows = {part.region: {part.brick_list()[number].dec for number in part.numbers()} for part in TWO.parts()}
    assert rows == {"south": {32.25, 32.5}, "north": {32.25, 32.5, 32.75}}
    apart = {part.region: len(part.numbers()) for part in replace(TWO, overlap_rows=0).parts()}
    assert apart == {"south": 3, "north": 6}
    with pytest.raises(ConfigurationError, match="bricks that region north has"):
        replace(TWO, center=(10.0, 2.0)).parts()
    with pytest.raises(ConfigurationError, match="regions among"):
        replace(TWO, like="dr10")


def test_a_release_of_both_regions_is_resolved_to_each_brick_once(tmp_path: Path) -> None:
    two = make_release(tmp_path / "two", replace(TWO, bricks=1, names=("0001p325",), bands=("z",), workers=1))
    assert (two.region, two.bricks, two.galaxies) == ("south+north", ("0001p325",), 18)
    for region in ("south", "north"):
        table = Table.read(two.release / region / f"survey-bricks-dr9-{region}.fits.gz")
        assert list(table["brickname"]) == ["0001p325"]
        assert list(table["survey_primary"]) == [region == "north"]
        assert (two.truth / region / "0001p325-truth.parquet").exists()
    plan = make_plan(open_release(str(two.release)), "all")
    assert [str(unit) for unit in plan.units] == ["two/north/0001p325"]
    positions = [fits.getdata(two.release / region / "tractor" / "000" / "tractor-0001p325.fits")["ra"] for region in ("south", "north")]
    assert min(map(len, positions)) >= 10
    assert not np.array_equal(*positions)


def test_galaxies_on_the_edges() -> None:
    spec, area = replace(FEW, galaxies=40, edge_galaxies=20), brick_by_name("0001p322")
    sky, plain = brick_sky(spec, area), brick_sky(replace(spec, edge_galaxies=0), area)
    assert np.array_equal(sky["flux"], plain["flux"])
    assert np.array_equal(sky[20:], plain[20:])
    distance = distance_to_edge(area, sky["ra"], sky["dec"])
    assert ((distance[:20] > 0) & (distance[:20] < EDGE_REACH)).all()
