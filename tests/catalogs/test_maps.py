"""Maps of a catalog: galaxies, stars and area are those of the rows and outcomes, in the whole and in a region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table

from catalogs import outcomes
from catalogs.extent import Extent
from catalogs.hats import publish
from catalogs.maps import SkyMaps, answers, take_maps
from catalogs.outcomes import OutcomesMeta, write_outcomes
from catalogs.report.mapfile import as_fits
from catalogs.report.skydraw import Ground, Panel, frame_around, sky_maps
from catalogs.report.trenddraw import class_trends, draw_trends
from catalogs.shard import ShardMeta, write_shard
from galpipe.layout import Layout
from galpipe.survey.bricks import brick_by_name
from galpipe.survey.region import parse_region
from galpipe.unit import Unit
from tests.catalogs.sky import UNITS, make_shard

ROWS, STARS, HIDDEN = 120, 300, 60


def write_sky(layout: Layout, units: tuple[Unit, ...] = UNITS[:2], rows: int = ROWS) -> None:
    """Bricks with galaxies, point sources and sources inside masks, evenly spread; one brick that failed."""
    for unit in units:
        brick, shard = brick_by_name(unit.brick), make_shard(unit, rows)
        write_shard(layout.shard(unit, "main"), shard, ShardMeta(unit, "f", 4242, "mini", {"predicted": rows}))
        random = np.random.default_rng(brick.brickid)
        extra = STARS + HIDDEN
        cut = pa.table(
            {
                "source_id": pa.chunked_array([shard["source_id"].combine_chunks(), pa.array(np.arange(extra) + (1 << 60))]),
                "ra": np.concatenate([shard["ra"].to_numpy(), random.uniform(brick.ra1, brick.ra2, extra)]),
                "dec": np.concatenate([shard["dec"].to_numpy(), random.uniform(brick.dec1, brick.dec2, extra)]),
                "status": ["selected"] * rows + ["filtered"] * extra,
                "reason": [""] * rows + ["type_psf"] * STARS + ["forced_psf_in_mask"] * HIDDEN,
            }
        )
        done = outcomes.finish(cut, set(shard["source_id"].to_pylist()), unit=unit)
        write_outcomes(layout.outcomes(unit, "main"), done, OutcomesMeta(unit, fingerprint="f"))
    write_outcomes(layout.outcomes(UNITS[2], "main"), outcomes.empty(), OutcomesMeta(UNITS[2], "bad_data", "tractor", "truncated"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    made = Layout(tmp_path_factory.mktemp("sky"))
    write_sky(made)
    publish(made, "main")
    return made


def maps_of(layout: Layout, version: int | None, region: str = "all") -> SkyMaps:
    extent = Extent(layout, "main", version, parse_region(region))
    return take_maps(extent, extent.stock(), 0)


def values(maps: SkyMaps, name: str) -> np.ndarray:
    return next(values for item, values in maps.conditions.items() if item.name == name)


@pytest.mark.parametrize("version", [1, None])
def test_rows_stars_and_area_are_counted_once(layout: Layout, version: int | None) -> None:
    maps = maps_of(layout, version)
    assert maps.galaxies.sum() == 2 * ROWS
    assert maps.area == pytest.approx(2 * 0.25 * 0.25, rel=0.01)
    assert maps.usable_area / maps.area == pytest.approx((ROWS + STARS) / (ROWS + STARS + HIDDEN), rel=0.05)
    assert maps.usable_from.startswith("estimated from the survey's own sources")
    area = maps.covered * 3600 * 41252.96 / (12 * 4**maps.order) * values(maps, "usable")
    stars = np.nansum(values(maps, "stars") * area)
    assert stars == pytest.approx(2 * STARS, rel=0.06)  # cells that hold little area have no density


def test_depth_and_seeing_are_the_rows(layout: Layout) -> None:
    maps = maps_of(layout, 1)
    rows = pa.concat_tables([make_shard(unit, ROWS) for unit in UNITS[:2]])
    depth = 22.5 - 2.5 * np.log10(5 / np.sqrt(rows["psfdepth_z"].to_numpy()))
    told = values(maps, "depth_z")
    assert np.nansum(told * maps.galaxies) / maps.galaxies.sum() == pytest.approx(depth.mean(), rel=1e-5)
    assert np.nansum(values(maps, "seeing_r") * maps.galaxies) == pytest.approx(rows["psfsize_r"].to_numpy().sum(), rel=1e-5)
    assert "depth_i" not in {item.name for item in maps.conditions}  # no band i


def test_each_galaxy_is_of_its_most_voted_class(layout: Layout) -> None:
    maps = maps_of(layout, 1)
    rows = pa.concat_tables([make_shard(unit, ROWS) for unit in UNITS[:2]])
    votes = np.column_stack([rows[item.column].to_numpy() for item in answers(rows.column_names)])
    expected = np.bincount(votes.argmax(axis=1), minlength=3)
    assert [float(hits.sum()) for hits, _ in maps.classes.values()] == expected.tolist()
    assert all(tries.sum() == 2 * ROWS for _, tries in maps.classes.values())


def test_a_region_has_its_own_rows_and_area(layout: Layout) -> None:
    rows = pa.concat_tables([make_shard(unit, ROWS) for unit in UNITS[:2]])
    inside = (rows["ra"].to_numpy() < 0.2) & (rows["dec"].to_numpy() >= -0.3)
    for version in (1, None):
        maps = maps_of(layout, version, "box:0,0.2,-0.3,1")
        assert maps.galaxies.sum() == inside.sum() > 0
        assert maps.area == pytest.approx(0.2 * 0.175, rel=0.02)
    assert not len(maps_of(layout, 1, "cone:180,40,1").cells)


def test_the_same_catalog_draws_the_same_maps(layout: Layout) -> None:
    drawn = []
    for _ in range(2):
        maps = maps_of(layout, 1)
        panels = [Panel("stars", "arcmin-2", values(maps, "stars"))]
        drawn.append((sky_maps(Ground(maps.cells, maps.order, maps.processed), panels), draw_trends(maps, class_trends(maps))))
    assert drawn[0] == drawn[1] and all((item or b"").startswith(b"\x89PNG") for item in drawn[0])


def test_frames_hold_a_region_over_ra_0_a_pole_and_the_whole_sky(layout: Layout) -> None:
    maps = maps_of(layout, 1)
    small = frame_around(Ground(maps.cells, maps.order, maps.processed))
    x, y = small.wcs.world_to_pixel_values([0.0, 0.5], [-0.375, -0.125])
    assert not small.whole and x[0] > x[1] and min(*x, *y) > 0 and max(x) < small.width and max(y) < small.height

    def anywhere(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        return np.ones(len(ra), bool)

    pole = frame_around(Ground(np.array([0 * 1024 + 1023, 1024 + 1023, 2 * 1024 + 1023, 3 * 1024 + 1023]), 5, anywhere))
    assert pole.wcs.wcs.crval[1] == pytest.approx(90, abs=0.2) and not pole.whole
    whole = Ground(np.arange(12 * 16), 2, anywhere)
    assert frame_around(whole).whole
    assert (sky_maps(whole, [Panel("x", "", np.arange(192.0))]) or b"").startswith(b"\x89PNG")


def test_the_maps_as_fits_have_every_cell_and_its_counts(layout: Layout, tmp_path: Path) -> None:
    maps = maps_of(layout, 1)
    (tmp_path / "maps.fits").write_bytes(as_fits(maps))
    table = Table.read(tmp_path / "maps.fits")
    assert table.meta["NSIDE"] == 2**maps.order and table.meta["ORDERING"] == "NESTED"
    assert np.array_equal(table["PIXEL"], maps.cells) and table["GALAXIES"].sum() == 2 * ROWS
    assert str(table["DEPTH_Z"].unit) == "mag" and table["N_smooth-or-featured_smooth"].sum() > 0
