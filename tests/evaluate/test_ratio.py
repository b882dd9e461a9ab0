from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.evaluate.ratio import Between, label_ratios, labels_needed

COUNTS = (20, 50, 100, 400, 1171)
INFINITE = math.inf


@settings(deadline=None, max_examples=40)
@given(st.floats(1.5, 6.9), st.floats(0.01, 0.3))
def test_a_line_in_log_labels_is_read_off_exactly(log_needed: float, slope: float) -> None:
    scores = [0.9 + slope * (math.log(count) - log_needed) for count in COUNTS]
    needed = labels_needed(COUNTS, scores, 0.9)
    if log_needed < math.log(COUNTS[0]):
        assert needed == Between(0, COUNTS[0])
    else:
        assert needed.low == needed.high == pytest.approx(math.exp(log_needed))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0.01, 0.99))
def test_labels_lie_within_what_was_measured_or_are_a_bound(scores: list[float], level: float) -> None:
    counts = COUNTS[: len(scores)]
    needed = labels_needed(counts, scores, level)
    if needed.low == needed.high:
        assert counts[0] <= needed.low <= counts[-1] * (1 + 1e-12)
    else:
        assert needed in (Between(0, counts[0]), Between(counts[-1], INFINITE))


def test_what_is_never_reached_is_more_than_the_most_labels() -> None:
    assert str(labels_needed(COUNTS, [0.5, 0.6, 0.7, 0.8, 0.89], 0.9)) == "> 1.17e+03"
    assert str(labels_needed(COUNTS, [0.91, 0.92, 0.93, 0.94, 0.95], 0.9)) == "< 20"


def test_a_fall_is_noise() -> None:
    # 0.92 at 50 and 0.86 at 100 are 0.89 and 0.89 of a curve that never falls: the level is reached behind them
    needed = labels_needed(COUNTS, [0.8, 0.92, 0.86, 0.91, 0.95], 0.9)
    assert needed.low == needed.high == pytest.approx(200)


@pytest.mark.parametrize(
    ("other", "own", "ratio", "text"),
    [
        (Between(500, 500), Between(10, 10), Between(50, 50), "50"),
        (Between(1171, INFINITE), Between(10, 10), Between(117.1, INFINITE), "> 117"),
        (Between(500, 500), Between(0, 20), Between(25, INFINITE), "> 25"),
        (Between(1171, INFINITE), Between(0, 20), Between(58.55, INFINITE), "> 58.5"),
        (Between(0, 20), Between(40, 40), Between(0, 0.5), "< 0.5"),
        (Between(20, 20), Between(1171, INFINITE), Between(0, 20 / 1171), "< 0.0171"),
        (Between(1171, INFINITE), Between(1171, INFINITE), Between(0, INFINITE), "?"),
        (Between(0, 20), Between(0, 20), Between(0, INFINITE), "?"),
    ],
)
def test_bounds_go_through_the_division(other: Between, own: Between, ratio: Between, text: str) -> None:
    found = other.over(own)
    assert found.low == pytest.approx(ratio.low) and found.high == pytest.approx(ratio.high)
    assert str(found) == text


class TestRatios:
    def curve(self, log_needed: float, spread: float, seed: int) -> dict[int, list[float]]:
        rng = np.random.default_rng(seed)
        return {count: (0.9 + 0.05 * (math.log(count) - log_needed) + rng.normal(0, spread, 6)).tolist() for count in COUNTS}

    def test_the_interval_holds_the_truth(self) -> None:
        curves = {"lvm": self.curve(math.log(30), 0.01, 1), "resnet18": self.curve(math.log(300), 0.01, 2)}
        found = label_ratios(curves, 0.9, ["lvm"])
        (pair,) = found["pairs"]
        low, high = pair["interval"]
        assert low < 10 < high and low < pair["low"] == pair["high"] < high
        assert found == label_ratios(curves, 0.9, ["lvm"])

    def test_without_an_end_where_some_draws_never_get_there(self) -> None:
        curves = {"lvm": self.curve(math.log(30), 0, 1), "resnet18": self.curve(math.log(1300), 0.02, 2), "imagenet": {}}
        found = label_ratios(curves, 0.9, ["lvm", "lvm-finetuned"])
        (pair,) = found["pairs"]
        assert pair["other"] == "resnet18" and pair["interval"][1] is None and pair["interval"][0] > 1
        assert set(found["labels"]) == {"lvm", "resnet18"}

    def test_few_draws_give_no_interval(self) -> None:
        curves = {"lvm": self.curve(math.log(30), 0.01, 1), "resnet18": {20: [0.8], 500: [0.95]}}
        (pair,) = label_ratios(curves, 0.9, ["lvm"])["pairs"]
        assert pair["interval"] == [None, None] and pair["low"] == pair["high"] > 1

    def test_nothing_to_divide_by(self) -> None:
        assert label_ratios({"resnet18": {20: [0.8], 50: [0.95]}}, 0.9, [])["pairs"] == []
