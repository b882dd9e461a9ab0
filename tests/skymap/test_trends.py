"""The null test: a planted trend is found, a flat sky is flat, clustered cells are not called a trend."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.stats import binom_conf_interval

from galpipe.skymap.trends import BINS, trend, wilson


def sky(cells: int, fraction: np.ndarray | float, seed: int = 0, per_cell: int = 40) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    tries = random.poisson(per_cell, cells).astype(float)
    return random.binomial(tries.astype(int), fraction).astype(float), tries


def test_a_planted_trend_is_found_with_its_size() -> None:
    condition = np.random.default_rng(1).uniform(22, 24, 400)
    hits, tries = sky(400, 0.3 + 0.1 * (condition - 23))
    found = trend(condition, hits, tries)
    assert found is not None and found.errors == "bootstrap" and len(found.at) == BINS
    change, error = found.change
    assert change == pytest.approx(0.1 * (found.at[-1] - found.at[0]), abs=3 * error)
    assert found.p_value < 1e-6 and np.all(np.diff(found.at) > 0)
    assert found.galaxies.sum() == tries.sum() and found.overall == pytest.approx(hits.sum() / tries.sum())


def test_a_flat_sky_gives_p_values_that_are_even() -> None:
    condition = np.random.default_rng(2).normal(size=240)
    values = [trend(condition, *sky(240, 0.2, seed)) for seed in range(30)]
    p = np.array([item.p_value for item in values if item is not None])
    assert len(p) == 30 and 0.3 < np.median(p) < 0.8 and (p < 0.01).sum() <= 2


def test_clustering_widens_the_test_and_the_error_bars() -> None:
    random = np.random.default_rng(3)
    condition = random.normal(size=240)
    p = []
    for seed in range(15):
        hits, tries = sky(240, np.clip(random.normal(0.3, 0.15, 240), 0.01, 0.99), seed)
        found = trend(condition, hits, tries)
        assert found is not None and found.dispersion > 2
        assert np.median(found.sigma) > 1.3 * np.median(np.sqrt(found.fraction * (1 - found.fraction) / found.galaxies))
        p.append(found.p_value)
    assert (np.array(p) < 0.01).sum() <= 2


def test_a_bin_without_the_class_is_no_discovery() -> None:
    tries = np.full(24, 4.0)
    hits = np.array([0.0] * 3 + [1.0] * 21)
    found = trend(np.arange(24.0), hits, tries)
    assert found is not None and found.errors == "binomial" and found.fraction[0] == 0 and found.high[0] > 0
    assert found.p_value > 0.01


def test_the_same_seed_gives_the_same_bars() -> None:
    hits, tries = sky(200, 0.4)
    one, two, other = (trend(np.arange(200.0), hits, tries, seed) for seed in (5, 5, 6))
    assert one is not None and two is not None and other is not None
    assert np.array_equal(one.low, two.low) and not np.array_equal(one.low, other.low)


@pytest.mark.parametrize("condition", [np.full(50, 1.0), np.full(50, np.nan), np.arange(50.0)[:3].repeat(1)])
def test_what_does_not_vary_has_no_trend(condition: np.ndarray) -> None:
    hits, tries = sky(len(condition), 0.5)
    assert trend(condition, hits, tries) is None


def test_cells_of_one_value_stay_in_one_bin() -> None:
    hits, tries = sky(60, 0.5)
    found = trend(np.repeat([1.0, 2.0], 30), hits, tries)
    assert found is not None and found.at.tolist() == [1.0, 2.0]


def test_wilson_is_astropys() -> None:
    hits, tries = np.array([0.0, 3.0, 10.0]), np.array([5.0, 9.0, 10.0])
    assert np.allclose(np.stack(wilson(hits, tries)), binom_conf_interval(hits, tries, interval="wilson"), atol=1e-6)
