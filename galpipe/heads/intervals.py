"""Intervals that hold: predicted sigmas rescaled by quantile regression on stamps that trained nothing.

Per set of bands and quantity, four numbers follow linearly from coarse facts of a stamp (`coarse_facts`): a shift of the value, the
half-width of the 68 % interval, and the two arms of the 95 % interval, each in units of the predicted sigma. They are fitted by quantile
regression (Koenker & Bassett 1978) to the errors over the predicted sigma, which makes the coverage right in every bin of those facts
(conformalized quantile regression without the split: Romano, Patterson & Candes 2019, arXiv:1905.03222).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galpipe.heads.bands import SETS, present
from galpipe.heads.base import StampContext
from galpipe.lvm.inputs import MODEL_BANDS, float_column

Values = npt.NDArray[np.float64]

FACTS = 9
"""Numbers of `coarse_facts`, the predicted sigma of the quantity included."""

LEAST_ROWS = 200
"""Stamps with a known value below which a set of bands keeps the predicted sigmas."""

PENALTY, BRICK_PENALTY = 0.01, 3.0
"""Ridge penalties of the regressions; the second is of depth and seeing, which a handful of bricks cannot tell from what else is theirs.
On six bricks, two of which calibrated, coverage in the others strayed by 0.045 (rms) at 1, 0.044 at 10, 0.078 with one penalty for all."""

BRICK_PENALTIES = (0.1, 0.5, BRICK_PENALTY, 20.0)
"""Those that `fit` chooses from by bricks left out in turn, where there are `LEAST_BRICKS`."""

LEAST_BRICKS = 4

OF_THE_BRICK = slice(5, 8)
"""Facts that are nearly the same for all stamps of a brick."""

STEPS = 60

SMALLEST = 1e-4
"""Errors over sigma below this one count as this: logarithms need a floor."""

USUAL_MAG, USUAL_SEEING, USUAL_LOG_DEPTH = 19.0, 1.25, 6.5
"""Where the facts are zero; what is not known counts as usual."""

SHIFT, HALF_68, LOW_95, HIGH_95 = range(4)
"""Rows of the fitted numbers; the last three are natural logarithms."""

FORMS = 4


@dataclass(frozen=True)
class Measured:
    """Errors of one quantity.

    Parameters
    ----------
    error : ndarray, shape (N,)
        Value minus truth; NaN where unknown.
    sigma : ndarray, shape (N,)
        Predicted, in the same unit.
    facts : ndarray, shape (N, 9)
        Of `with_sigma`.
    sets : ndarray of int64, shape (N,)
        Of `galpipe.heads.bands.band_sets`.
    bricks : ndarray, shape (N,), optional
        A number per brick.
    """

    error: Values
    sigma: Values
    facts: Values
    sets: npt.NDArray[np.int64]
    bricks: Values | None = None


def uncalibrated() -> Values:
    """Fitted numbers that change nothing, shape (4, 8, 9): no shift, one sigma, and 1.96 sigma to either side."""
    weights = np.zeros((FORMS, SETS, FACTS))
    weights[LOW_95:, :, 0] = np.log(1.96)
    return weights


def coarse_facts(mag: Values, radius: Values, context: StampContext) -> Values:
    """What calibration may depend on, shape (N, 8), each clipped and of order one.

    One, magnitude and its excess over 19, log size over seeing and its excess over 0, log depth, seeing, and their spread over bands.

    Parameters
    ----------
    mag, radius : ndarray, shape (N,)
        Predicted r magnitude and half-light radius (arcsec), before calibration.
    context : StampContext
    """
    rows = len(mag)
    seeing = _over_bands("psfsize", context)
    depth = _over_bands("psfdepth", context)
    usual = np.where(np.isfinite(seeing), seeing, USUAL_SEEING)
    faintness = np.clip((mag - USUAL_MAG) / 1.5, -2.0, 1.5)
    extent = np.clip(np.log10(np.maximum(radius, 1e-3) / (usual / 2.0)) / 0.3, -2.5, 3.0)
    deep = np.clip(np.log(np.where(np.isfinite(depth), depth, np.exp(USUAL_LOG_DEPTH))) - USUAL_LOG_DEPTH, -2.0, 2.0)
    sharp = np.clip((usual - USUAL_SEEING) / 0.3, -2.0, 2.0)
    bent = (np.maximum(faintness, 0.0), extent, np.maximum(extent, 0.0))
    return np.stack([np.ones(rows), faintness, *bent, deep, sharp, sharp * extent], axis=1)


def with_sigma(facts: Values, sigma: Values, usual: float) -> Values:
    """Facts and the log of a predicted sigma over its usual size, shape (N, 9)."""
    place = np.clip(np.log(np.maximum(sigma, 1e-9) / usual), -3.0, 3.0)
    return np.concatenate([facts, place[:, None]], axis=1)


def _over_bands(name: str, context: StampContext) -> Values:
    """Geometric mean over the bands that are there and known, shape (N,); NaN where none is."""
    rows = context.sources.num_rows
    columns = np.stack([float_column(context.sources, f"{name}_{band}", rows) for band in MODEL_BANDS], axis=1)
    good = np.isfinite(columns) & (columns > 0) & present(context)
    logs = np.where(good, np.log(np.where(good, columns, 1.0)), 0.0)
    count = good.sum(axis=1)
    return np.where(count > 0, np.exp(logs.sum(axis=1) / np.maximum(count, 1)), np.nan)


def fit(measured: Measured) -> Values:
    """Fit the four numbers of every set of bands, shape (4, 8, 9); see `apply`.

    A set with too few stamps takes the numbers of all sets that lack a band.
    """
    weights = uncalibrated()
    known = np.isfinite(measured.error) & (measured.sigma > 0)
    stiff = brick_penalty(measured, known & (measured.sets == SETS - 1))
    degraded = known & (measured.sets < SETS - 1)
    others = _numbers(measured, degraded, stiff) if degraded.sum() >= LEAST_ROWS else None
    for code in range(SETS):
        rows = known & (measured.sets == code)
        if rows.sum() >= LEAST_ROWS:
            weights[:, code] = _numbers(measured, rows, stiff)
        elif others is not None and code < SETS - 1:
            weights[:, code] = others
    return weights


def brick_penalty(measured: Measured, rows: npt.NDArray[np.bool_]) -> float:
    """The penalty on facts of the brick with which bricks left out are held best: least squared error of their coverages.

    Parameters
    ----------
    measured : Measured
    rows : ndarray of bool, shape (N,)
        Those to choose by.
    """
    if measured.bricks is None:
        return BRICK_PENALTY
    bricks = [number for number in np.unique(measured.bricks[rows]) if (rows & (measured.bricks == number)).sum() >= LEAST_ROWS]
    if len(bricks) < LEAST_BRICKS:
        return BRICK_PENALTY
    away = {stiff: sum(_strayed(measured, rows, measured.bricks == number, stiff) for number in bricks) for stiff in BRICK_PENALTIES}
    return min(away, key=lambda stiff: away[stiff])


def _strayed(measured: Measured, rows: npt.NDArray[np.bool_], left_out: npt.NDArray[np.bool_], stiff: float) -> float:
    """Squared error of the 68 % coverage in three parts by magnitude of what was left out."""
    shift, half = _middle(measured, rows & ~left_out, stiff)
    facts, unseen = measured.facts[rows & left_out], rows & left_out
    rest = np.abs(measured.error[unseen] / measured.sigma[unseen] + facts @ shift)
    held = rest <= np.exp(facts @ half)
    parts = np.array_split(held[np.argsort(facts[:, 1], kind="stable")], 3)
    return float(sum((part.mean() - 0.68) ** 2 for part in parts))


def _middle(measured: Measured, rows: npt.NDArray[np.bool_], stiff: float) -> tuple[Values, Values]:
    """Weights of the shift and of the log of the 68 % half-width."""
    facts = measured.facts[rows]
    ratio = -measured.error[rows] / measured.sigma[rows]
    shift = _quantile(facts, ratio, 0.5, stiff)
    return shift, _quantile(facts, np.log(np.maximum(np.abs(ratio - facts @ shift), SMALLEST)), 0.68, stiff)


def _numbers(measured: Measured, rows: npt.NDArray[np.bool_], stiff: float) -> Values:
    facts = measured.facts[rows]
    shift, half = _middle(measured, rows, stiff)
    rest = -measured.error[rows] / measured.sigma[rows] - facts @ shift
    arms = (_quantile(facts, np.log(np.maximum(side, SMALLEST)), 0.975, stiff) for side in (-rest, rest))
    return np.stack([shift, half, *arms])


def _quantile(facts: Values, values: Values, level: float, brick_stiff: float) -> Values:
    """Weights of the linear quantile, by majorization (Hunter & Lange 2000, J. Comp. Graph. Stat. 9, 60); exact over all rows."""
    weights = np.zeros(facts.shape[1])
    weights[0] = np.quantile(values, level)
    stiff = len(values) * np.diag(penalties(PENALTY, brick_stiff))
    for step in range(STEPS):
        near = 1.0 / (np.abs(values - facts @ weights) + max(0.1 * 0.9**step, 1e-3))
        weighted = facts * near[:, None]
        weights = np.linalg.solve(weighted.T @ facts + stiff, weighted.T @ values + (2 * level - 1) * facts.sum(axis=0))
    weights[0] += np.quantile(values - facts @ weights, level)
    return weights


def penalties(usual: float, of_the_brick: float) -> Values:
    """One penalty per fact, shape (9,): none for the constant, and a stiffer one for what belongs to a brick."""
    each = np.full(FACTS, usual)
    each[0], each[OF_THE_BRICK] = 0.0, of_the_brick
    return each


def apply(weights: Values, sigma: Values, facts: Values, sets: npt.NDArray[np.int64]) -> tuple[Values, Values, Values, Values]:
    """Shift of the value, half-width of its 68 % interval, and the two arms of its 95 % interval.

    Parameters
    ----------
    weights : ndarray, shape (4, 8, 9)
        From `fit` or `uncalibrated`.
    sigma : ndarray, shape (N,)
        Predicted; the results have its unit.
    facts : ndarray, shape (N, 9)
    sets : ndarray of int64, shape (N,)

    Returns
    -------
    tuple of ndarray, shape (N,) each
    """
    numbers = np.einsum("fnk,nk->fn", weights[:, sets], facts)
    half, low, high = np.exp(np.clip(numbers[HALF_68:], np.log(SMALLEST), 6.0)) * sigma
    return numbers[SHIFT] * sigma, half, low, high


def coverage(error: Values, half: Values) -> float:
    """Share of the known errors that are not larger than a half-width; NaN without any."""
    known = np.isfinite(error)
    return float(np.mean(np.abs(error[known]) <= half[known])) if known.any() else float("nan")
