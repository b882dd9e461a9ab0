"""Survey access on real files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from galpipe.config import FetchSettings, SelectionSettings
from galpipe.mock.server import MockServer
from galpipe.survey.bricks import brick_by_name, brickids_of, geometry_of, ids_at, names_of
from galpipe.survey.coadd import read_band
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import open_release
from galpipe.survey.remote import fetch_brick
from galpipe.survey.selection import select
from galpipe.survey.tractor import maskbit_names, read_tractor, subset_schema, tractor_subset
from galpipe.unit import Unit


def test_all_published_names_round_trip(shared_data: Path) -> None:
    with gzip.open(shared_data / "tables" / "dr10-bricknames.csv.gz", "rt") as lines:
        names = np.array(lines.read().split()[1:])
    assert len(names) == 319_078
    ids = brickids_of(names)
    assert ids.all()
    assert np.array_equal(names_of(ids), names)
    place = geometry_of(ids)
    assert np.array_equal(ids_at(place["ra"], place["dec"]), ids)
    assert np.array_equal(ids_at(place["ra1"], place["dec1"]), ids)
    for name in names[::100]:
        assert brick_by_name(str(name)).brickid == brickids_of([name])[0]


def test_published_ids(shared_data: Path) -> None:
    from astropy.table import Table

    table = Table.read(shared_data / "tables" / "dr9-south-patched-bricks.fits")
    names = np.char.strip(np.asarray(table["BRICKNAME"]).astype(str))
    assert np.array_equal(brickids_of(names), np.asarray(table["BRICKID"]))


@pytest.mark.parametrize("served", [False, True])
def test_a_real_brick_at_the_edge(shared_data: Path, tmp_path: Path, served: bool) -> None:
    with MockServer(shared_data / "release_dr6") as server:
        release = open_release(server.url if served else str(shared_data / "release_dr6"), "release_dr6")
        plan = make_plan(release, "cone:96,80.5,0.2")
        assert plan.units == (Unit("release_dr6", "all", "0959p805"),)
        assert (plan.files_estimate, plan.bytes_estimate) == (6, 4_014_720)
        files = fetch_brick(release, plan.units[0], FetchSettings(), tmp_path / "b")
    assert files.bands == ("g", "z")
    own = [item for item in files.records if "0959p805" in item.name]
    # so near the pole the stamps of one edge reach into two neighbours, which this release does not have
    assert {(item.status, item.product.partition("@")[0]) for item in files.records if item not in own} == {
        ("absent", product) for product in ("image", "invvar", "maskbits")
    }
    assert len(files.neighbours) == 2 and files.counts()["unverified"] == 6
    assert {item.name.removeprefix("legacysurvey-0959p805-").removesuffix(".fits.fz") for item in own if item.status == "absent"} == {
        "image-r",
        "invvar-r",
        "nexp-r",
        "maskbits",
        "tractor-0959p805.fits",
    }
    invvar, header = read_band(files, "invvar", "g")
    assert header["BRICKNAM" if "BRICKNAM" in header else "BRICK"] == "0959p805"
    assert (invvar > 0).mean() == pytest.approx(0.116, abs=0.001)
    assert int((read_band(files, "invvar", "z")[0] > 0).sum()) == 55
    assert read_band(files, "nexp", "g")[0].dtype == np.int16


def test_all_tractor_tables_read(shared_data: Path) -> None:
    rows = {}
    for path in sorted((shared_data / "tractor").glob("*.fits")):
        subset = tractor_subset(read_tractor(path))
        assert subset.schema.equals(subset_schema())
        assert np.isfinite(subset["ra"].to_numpy()).all()
        assert subset["flux_z"].null_count == 0
        assert maskbit_names(subset)["GALAXY"] == 12
        reasons = select(subset, SelectionSettings(), ("g", "r", "z"))
        rows[path.name] = (subset.num_rows, reasons.to_pylist().count(""))
    assert rows == {
        "sweep-310m005-320p000.fits": (6, 2),
        "sweep-320m005-330p000.fits": (6, 3),
        "targets.fits": (1001, 0),
        "tractor-1054p567.fits": (1, 0),
        "tractor-3301m002.fits": (6, 1),
        "tractor-3301m007.fits": (6, 0),
        "tractor-3303p000.fits": (6, 0),
    }


@pytest.mark.parametrize(("release", "brick"), [("dr9", "1054p567"), ("dr8", "3301m002"), ("dr8", "3301m007"), ("dr8", "3303p000")])
def test_tables_of_bricks_pass_as_such(shared_data: Path, release: str, brick: str) -> None:
    table = read_tractor(shared_data / "tractor" / f"tractor-{brick}.fits", Unit(release, "south", brick))
    subset = tractor_subset(table)
    assert set(subset["brickname"].to_pylist()) == {brick}
    for name in ("brick_primary", "bx", "by", "shape_r", "source_id"):
        assert subset[name].null_count == 0
    inside = (subset["bx"].to_numpy() > -1) & (subset["bx"].to_numpy() < 3600)
    assert inside.all()


def test_computed_pixels_agree_with_published_ones(shared_data: Path, tmp_path: Path) -> None:
    from astropy.io import fits
    from astropy.table import Table

    origin = shared_data / "tractor" / "tractor-1054p567.fits"
    unit = Unit("dr9", "north", "1054p567")
    given = read_tractor(origin, unit)
    table = Table.read(origin, hdu=1)
    table.remove_columns([name for name in table.colnames if name.lower() in ("bx", "by", "brick_primary")])
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table)]).writeto(tmp_path / "t.fits")
    computed = read_tractor(tmp_path / "t.fits", unit)
    for name in ("bx", "by"):
        assert computed[name].to_numpy() == pytest.approx(given[name].to_numpy(), abs=0.02)
    assert computed["brick_primary"].to_pylist() == given["brick_primary"].to_pylist()
