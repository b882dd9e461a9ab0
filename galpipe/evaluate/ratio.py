"""How many times fewer labels a method needs for the same score, with what the measured numbers of labels can and cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

RESAMPLES = 500
INTERVAL = (2.5, 97.5)
"""Percentiles of the stated interval."""

LEAST_DRAWS = 5
"""Seeds of a number of labels below which resampling them says nothing."""

Curve = Mapping[int, Sequence[float]]
"""Scores of each seed by number of labels."""


@dataclass(frozen=True)
class Between:
    """A positive number that is known (``low == high``), or only from below (``high`` infinite), from above (``low`` 0), or not at all."""

    low: float
    high: float

    def over(self, other: Between) -> Between:
        """The quotient with another."""
        return Between(_divided(self.low, other.high), _divided(self.high, other.low))

    def __str__(self) -> str:
        if self.low == 0 and math.isinf(self.high):
            return "?"
        if math.isinf(self.high):
            return f"> {self.low:.3g}"
        return f"< {self.high:.3g}" if self.low == 0 else f"{self.low:.3g}"

    def plain(self) -> dict[str, Any]:
        """``low`` and ``high``, None where there is no bound, and ``text``."""
        return {"low": self.low or None, "high": self.high if math.isfinite(self.high) else None, "text": str(self)}


def _divided(one: float, other: float) -> float:
    if one == 0 or math.isinf(other):
        return 0.0
    return math.inf if other == 0 or math.isinf(one) else one / other


def labels_needed(labels: Sequence[int], scores: Sequence[float], level: float) -> Between:
    """Labels at which a score is reached, interpolated linearly in the logarithm of the labels.

    Scores are first brought to the nearest curve that never falls (least squares, Barlow et al. 1972): more labels do not make a method
    worse, so that a fall is noise.

    Parameters
    ----------
    labels : sequence of int
        Ascending.
    scores : sequence of float
        Higher is better.
    level : float

    Returns
    -------
    Between
        Below the fewest labels where those suffice, above the most where those do not.
    """
    rising = np.asarray(isotonic_regression(np.asarray(scores, np.float64)), np.float64)
    if rising[0] > level:
        return Between(0.0, float(labels[0]))
    reached = np.flatnonzero(rising >= level)
    if not len(reached):
        return Between(float(labels[-1]), math.inf)
    after = int(reached[0])
    if after == 0:
        return Between(float(labels[0]), float(labels[0]))
    part = (level - rising[after - 1]) / (rising[after] - rising[after - 1])
    count = math.exp((1 - part) * math.log(labels[after - 1]) + part * math.log(labels[after]))
    return Between(count, count)


def label_ratios(curves: Mapping[str, Curve], level: float, ours: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Labels that each method needs for a score, and how many times more the others need than ours.

    Parameters
    ----------
    curves : mapping
        Of each method.
    level : float
    ours : sequence of str
        Methods that the others are divided by; those without a curve are passed over.
    seed : int
        Of the resampling.

    Returns
    -------
    dict
        ``at``, ``labels`` by method, and ``pairs`` with ``method``, ``other``, ``low``, ``high``, ``text`` (such as ``> 50``) and
        ``interval``: the 95 % interval from resampled seeds (each number of labels by itself; test galaxies stay), None where
        there is no bound on that side, or a number of labels has fewer than `LEAST_DRAWS` seeds.
    """
    curves = {name: curve for name, curve in curves.items() if curve}
    needed = {name: _of_means(curve, level, None) for name, curve in curves.items()}
    rng = np.random.default_rng([seed, 19])
    drawn = {name: [_of_means(curve, level, rng) for _ in range(RESAMPLES)] for name, curve in curves.items()}
    pairs = []
    for own in (name for name in ours if name in curves):
        for other in (name for name in curves if name not in ours):
            ratios = [one.over(two) for one, two in zip(drawn[other], drawn[own], strict=True)]
            ratio = needed[other].over(needed[own])
            enough = all(len(scores) >= LEAST_DRAWS for curve in (curves[own], curves[other]) for scores in curve.values())
            interval = list(_interval(ratios)) if enough else [None, None]
            pairs.append({"method": own, "other": other, **ratio.plain(), "interval": interval})
    return {"at": level, "labels": {name: item.plain() for name, item in needed.items()}, "pairs": pairs}


def _of_means(curve: Curve, level: float, rng: np.random.Generator | None) -> Between:
    labels = sorted(curve)
    rows = [np.asarray(curve[count], np.float64) for count in labels]
    means = [float(np.mean(row if rng is None else _again(row, rng))) for row in rows]
    return labels_needed(labels, means, level)


def _again(row: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return row[rng.integers(len(row), size=len(row))]


def _interval(ratios: Sequence[Between]) -> tuple[float | None, float | None]:
    # ranks, not interpolation: a share of the draws may have no bound
    low = float(np.percentile([item.low for item in ratios], INTERVAL[0], method="lower"))
    high = float(np.percentile([item.high for item in ratios], INTERVAL[1], method="higher"))
    return low or None, high if math.isfinite(high) else None
