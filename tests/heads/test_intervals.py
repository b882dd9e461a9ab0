"""Calibration on synthetic answers whose stated uncertainties are wrong on purpose."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.heads import intervals, recalibrate
from galpipe.heads.bands import SETS
from galpipe.heads.base import StampContext, Truth
from galpipe.heads.intervals import Measured
from galpipe.heads.parameters import Parameters
from galpipe.heads.quantities import QUANTITIES, SIZE, encoded_truth, true_redshifts
from galpipe.heads.redshiftpdf import BINS, CENTERS, EDGES, HIGHEST, crps, cumulative, pit, probabilities, quantiles, soft_bins
from tests.lvm.toy import TINY, toy_pack

Values = npt.NDArray[np.float64]

FULL = SETS - 1


def facts_of(count: int, rng: np.random.Generator) -> Values:
    """Facts of galaxies of all magnitudes, sizes and depths."""
    rows = np.stack([np.ones(count), *rng.uniform(-2, 1.5, (intervals.FACTS - 2, count))], axis=1)
    rows[:, 2], rows[:, 4] = np.maximum(rows[:, 1], 0), np.maximum(rows[:, 3], 0)
    return rows


def wrong(count: int, seed: int, code: int = FULL) -> Measured:
    """Errors that are biased, skewed, and five times larger for faint than for bright galaxies, though one sigma is stated."""
    rng = np.random.default_rng(seed)
    facts = facts_of(count, rng)
    true = np.exp(0.8 * facts[:, 1])
    noise = rng.normal(size=count)
    sigma = np.full(count, 0.5)
    error = 0.3 * sigma + true * np.where(noise > 0, 2.0, 1.0) * noise
    return Measured(error, sigma, intervals.with_sigma(facts, sigma, 0.5), np.full(count, code))


def test_calibrated_intervals_hold_in_every_bin_of_what_they_depend_on() -> None:
    weights = intervals.fit(wrong(3000, 1))
    unseen = wrong(20000, 2)
    shift, half, low, high = intervals.apply(weights, unseen.sigma, unseen.facts, unseen.sets)
    rest = unseen.error + shift
    assert intervals.coverage(unseen.error, unseen.sigma) < 0.45
    assert abs(np.median(rest / half)) < 0.05
    for column in (1, 3, 5):
        edges = np.quantile(unseen.facts[:, column], [0, 0.25, 0.5, 0.75, 1])
        for first, last in pairwise(edges):
            own = (unseen.facts[:, column] >= first) & (unseen.facts[:, column] <= last)
            assert np.mean(np.abs(rest[own]) <= half[own]) == pytest.approx(0.68, abs=0.035)
            # truth = value + shift - rest
            assert np.mean((-low[own] <= -rest[own]) & (-rest[own] <= high[own])) == pytest.approx(0.95, abs=0.03)


def test_few_stamps_change_nothing_and_a_missing_set_learns_from_the_other_degraded_ones() -> None:
    few = intervals.fit(wrong(50, 3))
    assert np.array_equal(few, intervals.uncalibrated())
    weights = intervals.fit(wrong(500, 4, code=3))
    assert np.array_equal(weights[:, FULL], intervals.uncalibrated()[:, FULL])
    assert np.allclose(weights[:, 1], weights[:, 3])


@settings(deadline=None)
@given(st.lists(st.floats(0, HIGHEST - 0.05), min_size=1, max_size=8))
def test_soft_bins_keep_the_redshift(redshifts: list[float]) -> None:
    values = np.array(redshifts)
    weights = soft_bins(values)
    assert weights.sum(axis=1) == pytest.approx(1.0)
    mean = np.expm1(weights @ np.log1p(CENTERS))
    inside = (values > CENTERS[0]) & (values < CENTERS[-1])
    assert mean[inside] == pytest.approx(values[inside], abs=1e-9)
    assert np.abs(mean - values).max() < 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_quantiles_pit_and_cumulative_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pdf = probabilities(rng.normal(0, 3, (4, BINS)))
    levels = (0.025, 0.16, 0.5, 0.84, 0.975)
    places = quantiles(pdf, levels)
    assert (np.diff(places, axis=1) >= 0).all()
    for column, level in enumerate(levels):
        assert pit(pdf, places[:, column]) == pytest.approx(level, abs=1e-6)
    assert cumulative(pdf)[:, -1] == pytest.approx(1.0)
    assert ((pit(pdf, rng.uniform(0, HIGHEST, 4)) >= 0) & (pit(pdf, rng.uniform(0, HIGHEST, 4)) <= 1)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1.99))
def test_crps_is_its_integral(seed: int, redshift: float) -> None:
    pdf = probabilities(np.random.default_rng(seed).normal(0, 3, (1, BINS)))
    grid = np.linspace(0, HIGHEST, 200_001)
    steps = np.interp(grid, EDGES, cumulative(pdf)[0])
    direct = np.trapezoid((steps - (grid >= redshift)) ** 2, grid)
    assert crps(pdf, np.array([redshift]))[0] == pytest.approx(direct, abs=2e-5)


def test_crps_of_a_sure_and_right_answer_is_small_and_unknown_redshifts_have_none() -> None:
    pdf = np.zeros((2, BINS))
    pdf[:, 20] = 1.0
    values = crps(pdf, np.array([CENTERS[20], np.nan]))
    assert values[0] < 0.01
    assert np.isnan(values[1])
    assert np.isnan(pit(pdf, np.array([np.nan, 0.1]))[0])


def overconfident(count: int, seed: int) -> tuple[Values, Values, Values]:
    """Logits of PDFs a third as wide as they should be and off to one side, true redshifts, facts."""
    rng = np.random.default_rng(seed)
    facts = facts_of(count, rng)
    middle = rng.uniform(0.2, 0.6, count)
    spread = 0.04 * np.exp(0.4 * facts[:, 1])
    place = np.log1p(CENTERS)
    logits = -0.5 * ((place - middle[:, None]) / (spread[:, None] / 3 + 0.01)) ** 2
    return logits, np.expm1(middle + 0.3 * spread + spread * rng.normal(size=count)), facts


def test_a_recalibrated_pdf_has_uniform_pits_and_a_lower_crps() -> None:
    sets = np.full(4000, FULL)
    logits, true, facts = overconfident(4000, 1)
    fitted, told = recalibrate.fit(logits, true, facts, sets)
    assert told["coverage before"] < 0.5
    assert told["CRPS"] < told["CRPS before"]
    logits, true, facts = overconfident(4000, 2)
    places = pit(recalibrate.calibrated(logits, facts, sets, fitted), true)
    assert np.histogram(places, 10, (0, 1))[0] / len(places) == pytest.approx(0.1, abs=0.025)
    for faint in (facts[:, 1] < -1, facts[:, 1] > 0.5):
        assert np.mean(np.abs(places[faint] - 0.5) <= 0.34) == pytest.approx(0.68, abs=0.05)


def test_an_uncalibrated_pdf_is_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(3, BINS))
    plain = recalibrate.Fitted(np.zeros((8, intervals.FACTS)), 1.0, np.tile(recalibrate.LEVELS, (8, 1)))
    facts = np.ones((3, intervals.FACTS - 1))
    assert recalibrate.calibrated(logits, facts, np.full(3, 5), plain) == pytest.approx(probabilities(logits), abs=1e-12)


def answered(count: int, seed: int) -> tuple[dict[str, np.ndarray], Truth, StampContext]:
    """Raw outputs whose stated sigma is half of the scatter they have."""
    rng = np.random.default_rng(seed)
    table = toy_pack(count, seed).sources
    truth = np.nan_to_num(encoded_truth(table))
    raw = {"mean": (truth + 0.2 * rng.normal(size=truth.shape)).astype(np.float32)}
    raw["log_variance"] = np.full((count, SIZE), 2 * np.log(0.1), np.float32)
    middle = np.log1p(true_redshifts(table)) + 0.03 * rng.normal(size=count)
    raw["redshift"] = (-0.5 * ((np.log1p(CENTERS) - middle[:, None]) / 0.015) ** 2).astype(np.float32)
    pixels = np.zeros((count, 3, 16, 16), np.float32)
    blank = np.zeros((count, 0, 0))
    known = Truth(table, (), blank.astype(np.uint8), blank.astype(np.float32), blank.astype(bool))
    return raw, known, StampContext(table, 8, 4, 0.262, pixels, np.ones_like(pixels))


def test_the_head_calibrates_itself() -> None:
    head = Parameters.build(TINY)
    raw, truth, context = answered(400, 5)
    told = head.calibrate(head.calibration(raw, truth, context))
    assert told["lvm_mag_r: coverage before"] == pytest.approx(0.38, abs=0.08)
    assert told["z_mock: coverage before"] < 0.5
    # what is stored is float16
    head.load_state_dict({name: value.half().float() if value.is_floating_point() else value for name, value in head.state_dict().items()})
    raw, truth, context = answered(400, 6)
    columns = head.decode(raw, context)
    true = np.array([value.as_py() for value in truth.table["mag_r"]])
    assert np.mean(np.abs(np.asarray(columns["lvm_mag_r"]) - true) <= np.asarray(columns["lvm_mag_r_sigma"])) == pytest.approx(
        0.68, abs=0.1
    )
    redshift = true_redshifts(truth.table)
    inside = (np.asarray(columns["z_mock_lo"]) <= redshift) & (redshift <= np.asarray(columns["z_mock_hi"]))
    assert np.mean(inside) == pytest.approx(0.68, abs=0.1)


def test_bands_that_are_gone_have_their_own_calibration() -> None:
    head = Parameters.build(TINY)
    raw, truth, context = answered(300, 7)
    whole = head.calibration(raw, truth, context)
    without = context.valid.copy()
    without[:, 0] = 0
    worse = {**raw, "mean": (raw["mean"] + 0.4 * np.random.default_rng(8).normal(size=raw["mean"].shape)).astype(np.float32)}
    part = head.calibration(worse, truth, dataclasses.replace(context, valid=without))
    assert set(part["sets"]) == {6.0}
    head.calibrate({name: np.concatenate([whole[name], part[name]]) for name in whole})
    sigma = [
        np.median(np.asarray(head.decode(raw, item)["lvm_mag_r_sigma"])) for item in (context, dataclasses.replace(context, valid=without))
    ]
    assert sigma[1] > 1.7 * sigma[0]


def test_the_redshift_s_name_follows_from_what_trained_it() -> None:
    head = Parameters.build(TINY)
    assert {column.learned for column in head.columns()} == {"mock only"}
    head.spectroscopic.fill_(1)
    raw, _, context = answered(3, 9)
    columns = head.decode(raw, context)
    assert list(columns) == [column.name for column in head.columns()]
    assert not any(name.startswith("z_mock") for name in columns)
    assert {column.learned for column in head.columns() if column.name.startswith("z_lvm")} == {"real redshifts"}


def test_nothing_known_is_no_error() -> None:
    head = Parameters.build(TINY)
    raw, truth, context = answered(5, 10)
    stars = truth.table.set_column(truth.table.column_names.index("kind"), "kind", pa.array(["star"] * 5))
    told = head.calibrate(head.calibration(raw, dataclasses.replace(truth, table=stars), context))
    assert all(np.isfinite(list(told.values())))
    assert len(QUANTITIES) + 1 == head.interval_weights.shape[0]


def of_bricks(driven: float, peculiar: float, seed: int) -> Measured:
    """Six bricks of 500 stamps: scatter grows with their depth, and each brick has a factor of its own besides."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(6), 500)
    facts = facts_of(3000, rng)
    depth = np.array([-1.5, 1.2, -0.6, 0.9, 0.2, -1.0])
    facts[:, 5] = depth[number]
    facts[:, 6:8] = rng.normal(0, 0.05, (3000, 2))
    # factors that say nothing of depth
    basis, pattern = np.stack([np.ones(6), depth], axis=1), np.array([1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    own = pattern - basis @ np.linalg.lstsq(basis, pattern)[0]
    error = 0.1 * np.exp(driven * facts[:, 5] + peculiar * own[number]) * rng.normal(size=3000)
    sigma = np.full(3000, 0.1)
    return Measured(error, sigma, intervals.with_sigma(facts, sigma, 0.1), np.full(3000, FULL), number.astype(float))


def test_bricks_left_out_say_how_far_depth_is_to_be_believed() -> None:
    every = np.ones(3000, bool)
    real, chance = of_bricks(0.6, 0.0, 1), of_bricks(0.0, 0.5, 2)
    assert intervals.brick_penalty(real, every) < intervals.BRICK_PENALTY
    assert intervals.brick_penalty(chance, every) > intervals.brick_penalty(real, every)
    weights = intervals.fit(real)
    _, half, _, _ = intervals.apply(weights, real.sigma, real.facts, real.sets)
    assert real.bricks is not None
    for number in range(6):
        own = real.bricks == number
        assert np.mean(np.abs(real.error[own]) <= half[own]) == pytest.approx(0.68, abs=0.06)
    # two bricks, or bricks that are not told, choose nothing
    two = dataclasses.replace(real, bricks=np.minimum(real.bricks, 1.0))
    assert intervals.brick_penalty(two, every) == intervals.BRICK_PENALTY
    assert intervals.brick_penalty(dataclasses.replace(real, bricks=np.full(3000, np.nan)), every) == intervals.BRICK_PENALTY
