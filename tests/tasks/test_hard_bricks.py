"""Bricks that are not as most are, from fetch to report: a missing band, no galaxy, large galaxies, a bright star, a covered corner."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from catalogs.outcomes import read_outcomes
from catalogs.query import open_catalog
from catalogs.report.page import write_report
from catalogs.shard import read_shard
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, InferSettings, Settings
from galpipe.heads.sep_baseline import sep_columns
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.fpack import compressed_image, save_images
from galpipe.mock.spec import MockSummary
from galpipe.mock.truth import read_truth
from galpipe.stamps.store import Store
from galpipe.survey.bits import FORCED_PSF_MASKS, MASKBITS, mask_value
from galpipe.survey.coadd import read_image
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import Unit
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tests.hard_sky import DISK, ELLIPTICAL, IN_ELLIPSE, IN_HALO, build_hard

CORNER = 1800
"""Pixels on a side of the covered corner."""


@pytest.fixture(scope="module")
def hard_release(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    return build_hard(tmp_path_factory)


@pytest.fixture(scope="module")
def partial_tree(tmp_path_factory: pytest.TempPathFactory, mock_release: MockSummary) -> Path:
    """The shared release's first brick, of which only a corner was observed; half of the lost sources still have a flux."""
    root, brick = tmp_path_factory.mktemp("partial") / "tree", mock_release.bricks[0]
    shutil.copytree(mock_release.release, root, ignore=shutil.ignore_patterns("*psfsize*", "*.sha256sum", mock_release.bricks[1]))
    for path in sorted((root / "south" / "coadd" / brick[:3] / brick).glob("*-[gz].fits.fz")):
        product = path.name.split("-")[2]
        plane, header = read_image(path)
        plane[CORNER:], plane[:, CORNER:] = 0, 0
        save_images(path, [compressed_image(plane, header, product)])
    table = root / "south" / "tractor" / brick[:3] / f"tractor-{brick}.fits"
    with fits.open(table, mode="update") as hdus:
        rows = hdus[1].data
        lost = ((rows["bx"] > CORNER) | (rows["by"] > CORNER)) & (rows["objid"] % 2 == 1)
        for band in "grz":
            for name in (f"flux_{band}", f"flux_ivar_{band}", f"nobs_{band}"):
                rows[name][lost] = 0
    # r was never observed: of two bands only the corner is there
    for path in (root / "south" / "coadd" / brick[:3] / brick).glob("*-r.fits.fz"):
        path.unlink()
    return root


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    folder = shipped_folder()
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")), infer=InferSettings(batch=8))
    return RunContext(tmp_path_factory.mktemp("root"), "main", "run", settings, folder, model_hash(folder), code_version())


@pytest.fixture(scope="module")
def units(context: RunContext, mock_release: MockSummary, hard_release: MockSummary, partial_tree: Path) -> dict[str, Unit]:
    """The bricks by what is hard about them, each of them predicted."""
    sources = {
        "missing": (mock_release.release, mock_release.bricks[1]),
        "large": (hard_release.release, hard_release.bricks[0]),
        "empty": (hard_release.release, hard_release.bricks[1]),
        "partial": (partial_tree, mock_release.bricks[0]),
    }
    done = {}
    for kind, (tree, brick) in sources.items():
        unit = done[kind] = Unit("mock", "south", brick)
        fetched = fetch_unit(context, open_release(str(tree), "mock"), unit, Limiter(2))
        for receipt in (fetched, cut_unit(context, unit), predict_unit(context, unit)):
            assert receipt.status == "done", receipt.reason
    return done


def rows_of(context: RunContext, unit: Unit) -> pa.Table:
    return read_shard(context.layout.shard(unit, "main"))[0]


def reasons(context: RunContext, unit: Unit) -> dict[str, int]:
    found = read_outcomes(context.layout.outcomes(unit, "main"))["reason"].to_pylist()
    return {reason: found.count(reason) for reason in found}


def tractor(context: RunContext, unit: Unit) -> fits.FITS_rec:
    return fits.getdata(context.layout.brick_folder(unit) / f"tractor-{unit.brick}.fits", 1)


def test_no_source_is_lost_or_doubled(context: RunContext, units: dict[str, Unit]) -> None:
    """Rows of all Tractor tables against outcomes and shards of all hard bricks."""
    sources, ended, predicted = [], [], []
    for unit in units.values():
        table, outcomes = tractor(context, unit), read_outcomes(context.layout.outcomes(unit, "main"))
        sources += list(zip(table["release"].tolist(), table["brickid"].tolist(), table["objid"].tolist(), strict=True))
        ended += list(zip(*(outcomes[name].to_pylist() for name in ("release", "brickid", "objid")), strict=True))
        assert set(outcomes["status"].to_pylist()) <= {"predicted", "filtered", "failed"}
        chosen = outcomes.filter(pa.compute.equal(outcomes["status"], "predicted"))
        assert rows_of(context, unit)["source_id"].to_pylist() == chosen["source_id"].to_pylist()
        predicted += chosen["source_id"].to_pylist()
    assert len(sources) == len(set(sources)) > 200
    assert sorted(sources) == sorted(ended)
    assert len(predicted) == len(set(predicted)) > 40


def test_a_brick_without_a_band_is_predicted_from_the_others(context: RunContext, units: dict[str, Unit]) -> None:
    rows = rows_of(context, units["missing"])
    assert set(rows["bands_used"].to_pylist()) == {"rz"} and set(rows["degraded"].to_pylist()) == {True}
    assert set(rows["valid_frac_g"].to_pylist()) == {0.0}


def test_a_brick_of_stars_ends_without_rows(context: RunContext, units: dict[str, Unit]) -> None:
    unit = units["empty"]
    assert rows_of(context, unit).num_rows == 0
    assert set(reasons(context, unit)) <= {"type_psf", "type_dup", "not_primary"}
    assert Store(context.layout.stamps(unit, "grz152")).coarse == ()


def test_the_coarse_stamp_holds_what_the_first_cuts_off(context: RunContext, units: dict[str, Unit], hard_release: MockSummary) -> None:
    rows = {row["objid"]: row for row in rows_of(context, units["large"]).to_pylist()}
    truth = {row["objid"]: row for row in read_truth(hard_release.truth, units["large"].brick).to_pylist()}
    large = {objid: row for objid, row in rows.items() if row["stamp_truncated"]}
    radii = sorted(truth[objid]["half_light_radius"] for objid in large)
    assert radii == pytest.approx([ELLIPTICAL, DISK])
    store = Store(context.layout.stamps(units["large"], "grz152"))
    ids = store.sources()["objid"].to_pylist()
    for objid, row in large.items():
        true = truth[objid]["flux_r"] / row["mw_transmission_r"]
        # the same instrument on the first stamp, which the catalog does not publish
        first = sep_columns(store.rows([ids.index(objid)]))["sep_flux"][0].as_py()
        assert row["coarse_sep_band"] == "r"
        assert abs(row["coarse_sep_flux"] / true - 1) < 0.15 < 0.3 < 1 - first / true
        assert row["coarse_pixscale"] == pytest.approx(1.048) and row["coarse_valid_frac_r"] > 0.99
        assert row["sga_id"] is not None and row["in_sga_ellipse"] and not row["is_probable_shred"]
        # the shape is the whole galaxy's: axis ratio below one, along the true angle (north)
        assert row["coarse_sep_b"] < row["coarse_sep_a"]
        assert min(row["coarse_sep_position_angle"], 180 - row["coarse_sep_position_angle"]) < 10
    small = [row for row in rows.values() if row["coarse_pixscale"] is None]
    assert small and all(row["coarse_sep_flux"] is None and row["coarse_valid_frac_r"] is None for row in small)


def test_sizes_fluxes_and_angles_of_truncated_stamps_are_null(context: RunContext, units: dict[str, Unit]) -> None:
    table = rows_of(context, units["large"])
    measured = [
        item.name
        for item in table.schema
        if item.name.startswith(("lvm_", "sep_")) and (item.metadata or {}).get(b"unit", b"") in (b"mag", b"arcsec", b"deg", b"nanomaggy")
    ]
    assert {"lvm_mag_r", "lvm_half_light_radius", "lvm_position_angle_sigma", "sep_flux", "sep_a", "sep_theta"} <= set(measured)
    cut_off = table.filter(table["stamp_truncated"])
    assert cut_off.num_rows == 2 and all(cut_off[name].null_count == 2 for name in measured)
    whole = table.filter(pa.compute.invert(table["stamp_truncated"]))
    assert whole["lvm_mag_r"].null_count == 0


def test_galaxies_forced_to_points_in_masks_are_counted(context: RunContext, units: dict[str, Unit], hard_release: MockSummary) -> None:
    unit = units["large"]
    table = tractor(context, unit)
    masked = (table["maskbits"] & mask_value(MASKBITS, FORCED_PSF_MASKS)) != 0
    forced = masked & (table["type"] == "PSF") & table["brick_primary"]
    assert reasons(context, unit)["forced_psf_in_mask"] == int(forced.sum())
    kind = {row["objid"]: row["kind"] for row in read_truth(hard_release.truth, unit.brick).to_pylist()}
    galaxies = [objid for objid in table["objid"][forced].tolist() if kind[objid] != "star"]
    # a hole in the sample that a cut on the type alone would punch unseen
    assert IN_HALO + IN_ELLIPSE - 1 <= len(galaxies) <= int(forced.sum())
    bits = table["maskbits"][np.isin(table["objid"], galaxies)]
    assert (bits & 1 << MASKBITS["BRIGHT"]).any() and (bits & 1 << MASKBITS["GALAXY"]).any()


def test_the_clean_view_leaves_out_what_lies_in_masks(context: RunContext, units: dict[str, Unit]) -> None:
    with open_catalog(context.layout, "main", live=True) as catalog:
        rows = catalog.sql("SELECT objid, brickname, maskbits, flag_bright_star, flag_medium, flag_galaxy_mask FROM galaxies").to_pylist()
        clean = catalog.sql("SELECT objid, brickname, maskbits, sga_id FROM galaxies_clean").to_pylist()
        halo = catalog.sql("SELECT reason, count(*) AS n FROM outcomes WHERE reason = 'forced_psf_in_mask' GROUP BY 1").to_pylist()
    for flag, name in (("flag_bright_star", "BRIGHT"), ("flag_medium", "MEDIUM"), ("flag_galaxy_mask", "GALAXY")):
        assert all(row[flag] == bool(row["maskbits"] & 1 << MASKBITS[name]) for row in rows)
    assert any(row["flag_galaxy_mask"] for row in rows) and any(row["flag_medium"] for row in rows)
    unsafe = mask_value(MASKBITS, ("BRIGHT", "CLUSTER"))
    assert clean and not any(row["maskbits"] & unsafe for row in clean)
    # what a large galaxy's mask covers is left out, but for the galaxy itself
    covered = [row for row in clean if row["maskbits"] & 1 << MASKBITS["GALAXY"]]
    assert covered and all(row["sga_id"] is not None for row in covered)
    assert halo[0]["n"] == sum(reasons(context, unit).get("forced_psf_in_mask", 0) for unit in units.values())


def test_of_a_covered_corner_only_its_galaxies_are_predicted(context: RunContext, units: dict[str, Unit]) -> None:
    unit = units["partial"]
    table, found = rows_of(context, unit), reasons(context, unit)
    assert found["no_ivar"] > 0 and found["no_coverage"] > 0
    assert table.num_rows > 3 and max(table["bx"].to_pylist() + table["by"].to_pylist()) < CORNER + 76
    share = np.array(table["valid_frac_z"].to_pylist())
    assert share.min() >= 0.3 and share.max() > 0.99
    assert set(table["bands_used"].to_pylist()) == {"gz"}


def test_the_report_shows_large_galaxies_and_counts_forced_ones(context: RunContext, units: dict[str, Unit]) -> None:
    path = write_report(context.layout, "main", {"run_id": "20260101T000000-abcdef"}, None)
    text = path.read_text()
    forced = sum(reasons(context, unit).get("forced_psf_in_mask", 0) for unit in units.values())
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert f"forced to a point source inside a mask {forced} " in plain
    assert plain.count("coarse stamp, 159 arcsec wide") == 2
    assert "mag r, coarse stamp" in plain
