"""Scores of predictions, with error bars over test galaxies and seeds (science.md section 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.generic], Floats], float]

RESAMPLES = 500
INTERVAL = (2.5, 97.5)
"""Percentiles of the stated interval."""


def auc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Area under the ROC curve: the chance that a positive one scores above a negative one, ties half (Mann & Whitney 1947).

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    score : ndarray, shape (N,)

    Returns
    -------
    float
        NaN where only one kind is there.
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def macro_auc(codes: NDArray[np.generic], scores: Floats) -> float:
    """Mean one-against-rest `auc` over the classes; of two classes, the second one's.

    Parameters
    ----------
    codes : ndarray of int, shape (N,)
    scores : ndarray, shape (N, C)
    """
    count = scores.shape[1]
    if count == 2:
        return auc(codes == 1, scores[:, 1])
    each = np.array([auc(codes == code, scores[:, code]) for code in range(count)])
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def r2(values: NDArray[np.generic], predicted: Floats) -> float:
    """One minus the squared errors over those of the mean."""
    truth = np.asarray(values, np.float64)
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((truth - predicted) ** 2).sum()) / spread if spread else float("nan")


def rmse(values: NDArray[np.generic], predicted: Floats) -> float:
    """Root of the mean squared error, in the unit of the values."""
    return float(np.sqrt(np.mean((np.asarray(values, np.float64) - predicted) ** 2)))


def coverage(values: NDArray[np.generic], predicted: Floats) -> float:
    """Share of the values within a half-width of the prediction; ``predicted`` has the shape (N, 2), prediction and half-width."""
    return float(np.mean(np.abs(np.asarray(values, np.float64) - predicted[:, 0]) <= predicted[:, 1]))


METRICS: dict[str, Metric] = {"auc": macro_auc, "r2": r2, "rmse": rmse}


@dataclass(frozen=True)
class Score:
    """A metric over seeds.

    Parameters
    ----------
    mean, std : float
        Over seeds, of the whole test set.
    low, high : float
        95 % interval over seeds and test galaxies, resampled together.
    """

    mean: float
    std: float
    low: float
    high: float


def over_seeds(metric: Metric, truth: NDArray[np.generic], predictions: list[Floats], seed: int = 0) -> Score:
    """Score the predictions of several seeds on one test set.

    Parameters
    ----------
    metric : callable
    truth : ndarray, shape (N,)
    predictions : list of ndarray, shape (N, ...)
        One per seed.
    seed : int
        Of the resampling.
    """
    whole = np.array([metric(truth, predicted) for predicted in predictions])
    rng = np.random.default_rng([seed, 11])
    drawn = np.full(RESAMPLES, np.nan)
    for number in range(RESAMPLES):
        rows, predicted = rng.integers(len(truth), size=len(truth)), predictions[rng.integers(len(predictions))]
        drawn[number] = metric(truth[rows], predicted[rows])
    low, high = np.nanpercentile(drawn, INTERVAL) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return Score(float(whole.mean()), float(whole.std()), float(low), float(high))
