"""The survey-like sky's table: errors as stated, types by S/N, rows that do not pair with the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from galpipe.mock.components import SPURIOUS, shreds
from galpipe.mock.fitter import survey_fit
from galpipe.mock.frame import Frame, in_gaia, signal_to_noise
from galpipe.mock.pixels import is_large
from galpipe.mock.release import BrickJob, make_frame, write_frame
from galpipe.mock.spec import MockSpec
from galpipe.mock.tractor import Fit
from galpipe.mock.truth import read_truth, write_truth
from tests.mock.test_render import one_source

SPEC = MockSpec(bricks=1, seed=5, galaxies=300, faint=1500, faint_limit=23.0, stars=400, bands=("r",), sky="survey", workers=1)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return make_frame(SPEC, 0)


@pytest.fixture(scope="module")
def fitted(frame: Frame) -> Fit:
    return survey_fit(frame, np.random.default_rng(3))


def alone(fitted: Fit) -> np.ndarray:
    """Rows that hold one true source's light and all of it."""
    shared = np.isin(fitted.columns["objid"], fitted.matches["objid"][fitted.matches["role"] != "main"])
    return np.flatnonzero((fitted.source >= 0) & ~shared)


def test_fluxes_scatter_as_stated_with_outliers(frame: Frame, fitted: Fit) -> None:
    rows = alone(fitted)
    source = frame.catalog[fitted.source[rows]]
    right = (fitted.columns["type"][rows] != "PSF") | (source["kind"] == "star")
    ivar = fitted.columns["flux_ivar_r"][rows]
    pull = (fitted.columns["flux_r"][rows] - source["flux"][:, 1]) * np.sqrt(ivar)
    kept = pull[right & (ivar > 0) & (source["flux"][:, 1] * np.sqrt(ivar) < 40)]
    assert len(kept) > 400
    assert abs(np.median(kept)) < 0.25
    assert 1.4826 * np.median(np.abs(kept - np.median(kept))) == pytest.approx(1.05, abs=0.15)
    assert 0.002 < (np.abs(kept) > 5).mean() < 0.04


def test_shapes_and_centers_scatter_as_stated(frame: Frame, fitted: Fit) -> None:
    rows = alone(fitted)
    source = frame.catalog[fitted.source[rows]]
    own = np.isin(fitted.columns["type"][rows], ["EXP", "DEV", "SER"]) & (fitted.columns["shape_r"][rows] < 25)
    pull = (fitted.columns["shape_r"][rows] - source["half_light_radius"]) * np.sqrt(fitted.columns["shape_r_ivar"][rows])
    moderate = own & (fitted.columns["shape_r_ivar"][rows] * fitted.columns["shape_r"][rows] ** 2 < 300)
    assert moderate.sum() > 30
    assert 1.4826 * np.median(np.abs(pull[moderate])) == pytest.approx(1.1, abs=0.35)
    apart = np.hypot(fitted.columns["bx"][rows] - frame.x[fitted.source[rows]], fitted.columns["by"][rows] - frame.y[fitted.source[rows]])
    assert np.median(apart) < 0.4
    stated = 3600 / np.sqrt(fitted.columns["ra_ivar"][rows]) / 0.262
    # a Rayleigh distribution of two coordinates has its median at 1.177 sigma
    assert np.median(apart / stated) == pytest.approx(1.177, rel=0.1)


def test_types_follow_signal_to_noise(frame: Frame, fitted: Fit) -> None:
    rows = alone(fitted)
    source = frame.catalog[fitted.source[rows]]
    types, mag = fitted.columns["type"][rows], 22.5 - 2.5 * np.log10(source["flux"][:, 1])
    galaxy = (source["kind"] != "star") & (fitted.columns["maskbits"][rows] & ((1 << 1) | (1 << 12)) == 0)

    def share(kind: str, low: float, high: float) -> float:
        return float((types[galaxy & (mag > low) & (mag < high)] == kind).mean())

    assert share("PSF", 16, 21) < 0.05 < share("PSF", 23.3, 26)
    assert share("SER", 22.5, 26) < 0.02 < share("SER", 16, 20)
    assert share("REX", 22, 23.5) > 2 * share("REX", 16, 20.5)
    stars = source["kind"] == "star"
    assert (types[stars] == "PSF").mean() > 0.97
    # a worse night confuses more
    compact = galaxy & (mag > 21) & (mag < 23)
    assert set(types[compact]) >= {"REX", "EXP", "DEV"}


def test_rows_pair_with_the_truth_many_to_one(frame: Frame, fitted: Fit, tmp_path: Path) -> None:
    roles = fitted.matches["role"]
    merged = roles == "merged"
    assert merged.sum() >= 3 and (roles == "main").sum() == (fitted.source >= 0).sum()
    hosts = fitted.source[fitted.matches["objid"][merged]]
    lost = fitted.matches["source"][merged]
    assert (hosts >= 0).all() and not np.isin(lost, fitted.source).any()
    apart = np.hypot(frame.x[hosts] - frame.x[lost], frame.y[hosts] - frame.y[lost])
    assert (apart < 5).all()
    # the blend holds the light of both
    flux, ivar = fitted.columns["flux_r"][fitted.matches["objid"][merged]], fitted.columns["flux_ivar_r"][fitted.matches["objid"][merged]]
    good = ivar > 0
    both = (frame.catalog["flux"][hosts, 1] + frame.catalog["flux"][lost, 1])[good]
    assert np.median(flux[good] / both) == pytest.approx(1.0, abs=0.2)
    truth = write_truth(tmp_path, frame, fitted, np.random.default_rng(1))
    objid = np.array(truth["objid"].to_pylist())
    shared = [k for k, n in zip(*np.unique(objid[objid >= 0], return_counts=True), strict=True) if n > 1]
    assert shared and set(shared) <= set(fitted.matches["objid"][merged].tolist())
    assert read_truth(tmp_path, frame.area.name).num_rows == truth.num_rows
    stored = pq.read_table(next(tmp_path.glob("*-matches.parquet")))
    assert stored.column_names == ["objid", "label", "role", "primary"] and stored.num_rows == len(roles)


def test_some_rows_are_spurious_and_some_sources_missed(frame: Frame, fitted: Fit) -> None:
    fragments = int((fitted.matches["role"] == "shred").sum())
    nothing = int((fitted.source < 0).sum()) - fragments
    assert SPURIOUS / 3 < nothing / len(fitted.source) < 5 * SPURIOUS
    assert ((fitted.columns["fitbits"] >> 13) & 1).sum() == nothing + fragments
    snr = signal_to_noise(frame)[0][:, 0]
    easy = (snr > 9) & (np.minimum(frame.x, frame.y) > 0) & (np.maximum(frame.x, frame.y) < 3599)
    held = np.isin(np.flatnonzero(easy), fitted.matches["source"])
    assert 0.8 < held.mean() < 1.0


def test_large_galaxies_fall_apart() -> None:
    galaxy = one_source("disk_spiral", flux=500.0, half_light_radius=8.0, disk_re=8.0, arms=2, clumps=0.2, bulge=0.1)
    counts = []
    for seed in range(20):
        pieces, x, y, parent = shreds(galaxy, np.array([1000.0]), np.array([1000.0]), np.array([0]), np.random.default_rng(seed))
        counts.append(len(pieces))
        assert (parent == 0).all() and (pieces["flux"][:, 1] < 0.07 * 500).all()
        assert (np.hypot(x - 1000, y - 1000) * 0.262 < 2.3 * 8).all()
    assert np.mean(counts) > 4
    small = one_source("disk_spiral", half_light_radius=1.5, arms=2, bulge=0.1)
    assert len(shreds(small, np.array([1000.0]), np.array([1000.0]), np.array([0]), np.random.default_rng(0))[0]) == 0


def test_sources_in_masks_are_forced_to_points(frame: Frame, fitted: Fit) -> None:
    bits = fitted.columns["maskbits"].astype(np.int64)
    row, column = (np.clip(np.round(fitted.columns[name]), 0, 3599).astype(int) for name in ("by", "bx"))
    assert (bits == frame.mask[row, column]).all()
    inside = ((bits >> 1) & 1 | (bits >> 12) & 1 | (bits >> 13) & 1) > 0
    large = ((fitted.columns["fitbits"] >> 9) & 1) > 0
    assert inside.sum() > 10 and (fitted.columns["type"][inside & ~large] == "PSF").all()
    assert (fitted.columns["type"][large] == "SER").all()
    own = fitted.source >= 0
    assert (is_large(frame.catalog)[fitted.source[own]] == large[own]).all()
    forced = (fitted.columns["fitbits"] & 1) > 0
    assert (inside[forced]).all()
    gaia = in_gaia(frame.catalog)[np.maximum(fitted.source, 0)] & own
    assert (((fitted.columns["fitbits"] >> 7) & 1).astype(bool) == gaia).all()


def test_depths_follow_the_psf_at_each_place(frame: Frame, fitted: Fit) -> None:
    depth, size = fitted.columns["psfdepth_r"], fitted.columns["psfsize_r"]
    good = (depth > 0) & (fitted.columns["maskbits"] == 0)
    ivar = np.median(frame.pixels["r"].invvar[frame.pixels["r"].invvar > 0])
    expected = ivar / (4 * np.pi * (np.median(size[good]) / 2.3548 / 0.262) ** 2)
    assert np.median(depth[good]) == pytest.approx(expected, rel=0.25)
    assert (fitted.columns["galdepth_r"][good] < depth[good]).all()


def test_the_same_seed_gives_the_same_table(frame: Frame, fitted: Fit) -> None:
    again = survey_fit(frame, np.random.default_rng(3))
    assert (again.source == fitted.source).all()
    assert all(np.array_equal(again.columns[name], fitted.columns[name]) for name in fitted.columns)


def test_the_frame_is_written_as_a_release_is(frame: Frame, tmp_path: Path) -> None:
    write_frame(BrickJob(SPEC, 0, tmp_path / "south", tmp_path / "truth"), frame)
    name = frame.area.name
    with fits.open(tmp_path / "south" / "tractor" / name[:3] / f"tractor-{name}.fits") as hdus:
        table = hdus[1].data
        assert len(table) > 1500 and (table["objid"] == np.arange(len(table))).all()
        assert set(np.char.strip(table["type"])) == {"PSF", "REX", "EXP", "DEV", "SER"}
    coadd = tmp_path / "south" / "coadd" / name[:3] / name / f"legacysurvey-{name}-image-r.fits.fz"
    with fits.open(coadd) as hdus:
        assert np.abs(hdus[1].data - frame.pixels["r"].image).max() < 1e-4
    assert {path.name.split("-")[1] for path in (tmp_path / "truth").iterdir()} == {
        "truth.parquet",
        "objects.parquet",
        "matches.parquet",
        "segmentation.npz",
    }
