"""Every release as published, from its tree to the catalog, by stages in this process; and one that nobody has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.io import fits

from catalogs.shard import read_shard
from catalogs.verify import verify
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, Settings
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.release import make_release
from galpipe.mock.spec import MockSpec, MockSummary
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter, fetch_brick
from galpipe.survey.tractor import maskbit_names, read_tractor, tractor_subset, unpack_id
from galpipe.unit import Receipt, Unit
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tests.survey.future_release import RELEASE, STRANGE_BIT, future_release

FETCH = FetchSettings(bands=("g", "r", "z"), products=("image", "invvar"))


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    folder = shipped_folder()
    return RunContext(tmp_path / "root", "main", "run", Settings(fetch=FETCH), folder, model_hash(folder), code_version())


def mock(folder: Path, like: str, bands: tuple[str, ...], dec: float = 2.2) -> MockSummary:
    spec = MockSpec(bricks=1, seed=5, like=like, galaxies=14, faint=6, stars=6, center=(150.1, dec), bands=bands, workers=1)
    return make_release(folder / like, spec)


@pytest.fixture(scope="module")
def south(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    return mock(tmp_path_factory.mktemp("south"), "dr10", ("r", "i", "z"))


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    return mock(tmp_path_factory.mktemp("north"), "dr11", ("r", "z"), dec=40.2)


@pytest.fixture(scope="module")
def future(south: MockSummary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("future") / "dr12"
    future_release(south, root)
    return root


def run(context: RunContext, spec: str) -> list[list[Receipt]]:
    """Fetch, cut and predict every brick of a release; the receipts of each."""
    release, done = open_release(spec), []
    for unit in make_plan(release, "all", FETCH).units:
        done.append([fetch_unit(context, release, unit, Limiter(2)), cut_unit(context, unit), predict_unit(context, unit)])
        assert [receipt.status for receipt in done[-1]] == ["done"] * 3, done[-1][-1].reason
    return done


def test_dr8(tmp_path: Path, context: RunContext) -> None:
    made = mock(tmp_path, "dr8", ("r", "z"))
    ((_, cut, done),) = run(context, str(made.release))
    unit = done.unit
    assert (str(unit), cut.reason) == (f"dr8/south/{made.bricks[0]}", "")
    table = read_tractor(made.release / "south" / "tractor" / unit.brick[:3] / f"tractor-{unit.brick}.fits", unit)
    assert maskbit_names(table)["CLUSTER"] == 13
    assert {"fracdev", "shapeexp_r", "shapedev_e1_ivar", "brightblob", "gaia_pointsource"} <= set(table.column_names)
    assert not {"shape_r", "sersic", "fitbits", "nea_r", "wise_x", "apflux_w1", "lc_epoch_index_w1"} & set(table.column_names)
    assert table["lc_flux_w1"].type.list_size == 11
    invvar = fits.getdata(made.release / "south/coadd" / unit.brick[:3] / unit.brick / f"legacysurvey-{unit.brick}-invvar-r.fits.fz", 1)
    assert invvar.min() <= 0
    rows, _ = read_shard(context.layout.shard(unit, "main"))
    by_id = {row["source_id"]: row for row in tractor_subset(table).to_pylist()}
    composite = [row for row in rows.to_pylist() if row["type"] == "COMP"]
    assert composite
    for row in composite:
        assert row["shape_r"] == by_id[row["source_id"]]["shape_r"] > 0
        assert (row["sersic"], row["release"]) == (None, 8000)


def test_a_union_of_dr10_s_south_and_dr11_s_north(south: MockSummary, north: MockSummary, context: RunContext) -> None:
    spec = f"south={south.release},north={north.release}"
    plan = make_plan(open_release(spec), "all", FETCH)
    assert plan.bands == {"north": ("r", "z"), "south": ("r", "z")}
    assert plan.notes == ("south: bands that are not asked for: i",)
    in_north, in_south = run(context, spec)
    assert [str(item[0].unit) for item in (in_north, in_south)] == [f"dr11/north/{north.bricks[0]}", f"dr10/south/{south.bricks[0]}"]
    assert in_north[1].reason == in_south[1].reason == ""
    rows, _ = read_shard(context.layout.shard(in_south[0].unit, "main"))
    assert rows["flux_i"].null_count == rows["mag_i"].null_count == 0
    assert set(rows["release"].to_pylist()) == {10000}
    assert verify(context.layout, "main") == []


def test_what_dr11_has_that_earlier_releases_have_not(north: MockSummary) -> None:
    brick = north.bricks[0]
    folder = north.release / "north/coadd" / brick[:3] / brick
    assert fits.getheader(folder / f"legacysurvey-{brick}-image-r.fits.fz", 1)["EXTNAME"] == "IMAGE_r"
    unit = Unit("dr11", "north", brick)
    table = read_tractor(north.release / "north/tractor" / brick[:3] / f"tractor-{brick}.fits", unit)
    assert {name: bit for name, bit in maskbit_names(table).items() if bit > 16} == {"RESOLVED": 17, "MCLOUDS": 18, "WISE_GAIA": 19}
    assert tractor_subset(table)["source_id"].equals(table["ls_id_dr11"])
    assert {"flux_nuv", "flux_ivar_fuv", "nearest_neighbor"} <= set(table.column_names)
    assert table["lc_mjd_w2"].type.list_size == 25


def test_a_release_that_nobody_has_seen(future: Path, context: RunContext) -> None:
    release = open_release(str(future))
    assert (release.name, release.regions(), release.label("east")) == ("dr12", ("east",), "dr12")
    assert release.bands("east") == ("r", "i", "z", "Y")
    assert make_plan(release, "all", FETCH).notes == ("east: bands that are not asked for: Y, i",)
    ((fetched, cut, done),) = run(context, str(future))
    assert (done.unit.release, done.unit.region) == ("dr12", "east")
    assert fetched.counts["verified"] == 6
    assert cut.reason == f"unknown to this version, left aside: bands Y; columns ring_probability; types RING; maskbits {STRANGE_BIT}"
    rows, _ = read_shard(context.layout.shard(done.unit, "main"))
    assert rows.num_rows == done.rows > 0
    assert {unpack_id(value)[0] for value in rows["source_id"].to_pylist()} == {RELEASE}
    assert all(bits >> STRANGE_BIT & 1 for bits in rows["maskbits"].to_pylist())
    assert set(rows["region"].to_pylist()) == {"east"}
    assert set(rows["bands_used"].to_pylist()) == {"rz"}
    assert verify(context.layout, "main") == []


def test_the_new_band_is_fetched_when_it_is_asked_for(future: Path, context: RunContext) -> None:
    release, settings = open_release(str(future)), FetchSettings(bands=("Y",), products=("image",))
    plan = make_plan(release, "all", settings)
    assert plan.bands == {"east": ("Y",)}
    files = fetch_brick(release, plan.units[0], settings, context.layout.brick_folder(plan.units[0]))
    assert (files.bands, files.absent) == (("Y",), ())
