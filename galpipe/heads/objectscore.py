"""The score of a detection: the chance that it is a true object whose box it gives, from a handful of things the maps say of it.

A logistic model whose coefficients, and the threshold where F1 is best, come from stamps that trained nothing
(`galpipe.heads.detection.Detection.calibrate`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FEATURES = ("constant", "heat", "quality", "size", "pull", "inside", "foreground", "missing")
"""Of a candidate: 1; logits of the heat and of the box's quality; ln of the box's side over 10 px; by how many of the object's own
half sides the pointer at its center points elsewhere (2 at most); share of its box that a stronger candidate's box covers; logit of the
foreground at its center over 4; bands without data at its center."""

RIDGE = 1e-3
"""Per candidate, what a squared coefficient costs in the fit: keeps it finite where a feature says nothing."""


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored and which are kept.

    Parameters
    ----------
    coefficients : ndarray
        Shape (F,), in the order of `FEATURES`.
    threshold : float
        Score from which on a candidate is a detection.
    """

    coefficients: Doubles
    threshold: float

    def scores(self, features: Doubles) -> FloatArray:
        """Scores, shape (K,), of features of shape (K, F)."""
        return sigmoid(features @ self.coefficients)


def uncalibrated(threshold: float) -> Scoring:
    """The heat as it is."""
    return Scoring(np.array([float(name == "heat") for name in FEATURES]), threshold)


def sigmoid(values: npt.NDArray[np.floating]) -> FloatArray:
    """The logistic function without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -30, 30))), dtype=np.float32)


def covered_shares(boxes: FloatArray) -> Doubles:
    """Largest share of each box that an earlier one covers, shape (K,); boxes x0 y0 x1 y1 with inclusive ends, strongest first."""
    if not len(boxes):
        return np.zeros(0)
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    area = np.clip(boxes[:, 2:] - boxes[:, :2] + 1, 1, None).prod(axis=1)
    return np.asarray(np.tril(shared / area[:, None], -1).max(axis=1), dtype=np.float64)


def fit_scoring(features: Doubles, right: Doubles, true: float, chosen: npt.NDArray[np.bool_]) -> Scoring:
    """Coefficients by maximum likelihood, and the threshold of the best F1.

    Parameters
    ----------
    features : ndarray
        Shape (K, F).
    right : ndarray
        Shape (K,): 1 where the candidate is a true object, else 0.
    true : float
        True objects in the stamps of the chosen candidates.
    chosen : ndarray
        Bool, shape (K,): candidates that the threshold is chosen on.
    """
    coefficients = np.zeros(features.shape[1])
    for _ in range(30):
        chance = sigmoid(features @ coefficients).astype(np.float64)
        slope = features.T @ (right - chance) - RIDGE * len(right) * coefficients
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + RIDGE * len(right) * np.eye(len(coefficients))
        step = np.linalg.solve(curvature, slope)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-6:
            break
    # as the weights file will hold them, so that the threshold is right for what is loaded
    coefficients = coefficients.astype(np.float16).astype(np.float64)
    scores = sigmoid(features[chosen] @ coefficients)
    threshold, _ = best_threshold(scores, right[chosen], true)
    return Scoring(coefficients, threshold)


def best_threshold(scores: FloatArray, right: Doubles, true: float) -> tuple[float, float]:
    """The score from which on F1 is best, and that F1."""
    if not len(scores):
        return 0.5, 0.0
    order = np.argsort(-scores, kind="stable")
    matched = np.cumsum(right[order])
    f1 = 2 * matched / (np.arange(1, len(order) + 1) + max(true, 1.0))
    best = int(f1.argmax())
    after = scores[order[best + 1]] if best + 1 < len(order) else 0.0
    return float(scores[order[best]] + after) / 2, float(f1[best])


def expected_error(scores: FloatArray, right: Doubles, bins: int = 10) -> float:
    """Mean distance of scores from the share that is right, in equal bins of score (expected calibration error)."""
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return float(sum(abs(float(scores[place == k].sum() - right[place == k].sum())) for k in range(bins)) / max(len(scores), 1))
