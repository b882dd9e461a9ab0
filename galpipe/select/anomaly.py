"""How unusual a galaxy is within its catalog: the distance to its nearest neighbours among the embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from galpipe.select.neighbours import Found

NEIGHBOURS = 10
"""Neighbours whose mean distance is the score: one pair of twins or a duplicate must not make a rare object common."""

Values = npt.NDArray[np.float64]


def outlier_score(found: Found, own: npt.NDArray[np.int64]) -> Values:
    """Mean distance of the `NEIGHBOURS` nearest others.

    Parameters
    ----------
    found : Found
        At least ``NEIGHBOURS + 1`` neighbours of N vectors, themselves among them.
    own : ndarray
        int64, shape (N,): the vectors' ids.

    Returns
    -------
    ndarray
        Shape (N,); NaN for a vector without others.
    """
    other = (found.ids != own[:, None]) & np.isfinite(found.distance)
    # of the others in order, the first ten
    counted = other & (np.cumsum(other, axis=1) <= NEIGHBOURS)
    number = counted.sum(axis=1)
    # the chord, not its square: a few far neighbours must not decide
    chord = np.sqrt(2 * np.where(counted, found.distance, 0.0).astype(np.float64))
    return np.where(number > 0, chord.sum(axis=1) / np.maximum(number, 1), np.nan)


def percentiles(scores: Values) -> Values:
    """Share of a catalog's rows with a lower score, 0 to 1, ties at their middle; NaN stays NaN."""
    known = np.isfinite(scores)
    ordered = np.sort(scores[known])
    result = np.full(len(scores), np.nan)
    low, high = np.searchsorted(ordered, scores[known], "left"), np.searchsorted(ordered, scores[known], "right")
    result[known] = (low + high - 1) / 2 / max(len(ordered) - 1, 1)
    return result


def found_within(score: Values, rare: npt.NDArray[np.bool_], looks: int) -> tuple[float, float]:
    """Recall and purity of the ``looks`` highest scores.

    Parameters
    ----------
    score : ndarray
        Shape (N,), over an ordinary sample with the rare ones at their prevalence.
    rare : ndarray of bool
        Shape (N,).
    looks : int
        How many are looked at.
    """
    first = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")[:looks]
    hits = int(rare[first].sum())
    return hits / max(int(rare.sum()), 1), hits / max(len(first), 1)
