"""A redshift PDF made true: a temperature per stamp, then a monotone map of its cumulative probability.

The temperature (Guo et al. 2017, arXiv:1706.04599) follows from a stamp's coarse facts and minimizes the likelihood; the map is the
distribution of the remaining PITs (Kuleshov et al. 2018, arXiv:1807.00263), after which PITs are uniform. Both per set of bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from galpipe.heads.bands import SETS
from galpipe.heads.intervals import FACTS, LEAST_ROWS, penalties, with_sigma
from galpipe.heads.redshiftpdf import BINS, crps, cumulative, pit, probabilities, quantiles, soft_bins

Values = npt.NDArray[np.float64]

LEVELS: Values = np.linspace(0.0, 1.0, 33)
"""Cumulative probabilities at which the map is kept."""

STIFF, BRICK_STIFF = 0.01, 1.0
"""Penalties on the temperature's dependence on facts, and on those of the brick."""


@dataclass(frozen=True)
class Fitted:
    """What makes a PDF true.

    Parameters
    ----------
    temperatures : ndarray, shape (8, 9)
        Log temperature of a set of bands as a linear function of the facts.
    usual : float
        Usual half-width of the 68 % interval before calibration.
    pits : ndarray, shape (8, 33)
        Calibrated cumulative probability at `LEVELS`, ascending from 0 to 1.
    """

    temperatures: Values
    usual: float
    pits: Values


def width(logits: Values) -> Values:
    """Half-width of the 68 % interval before calibration, shape (N,)."""
    low, high = quantiles(probabilities(logits), (0.16, 0.84)).T
    return np.asarray((high - low) / 2)


def calibrated(logits: Values, facts: Values, sets: npt.NDArray[np.int64], fitted: Fitted) -> Values:
    """The PDF, shape (N, 64).

    Parameters
    ----------
    logits : ndarray, shape (N, 64)
    facts : ndarray, shape (N, 8)
    sets : ndarray of int64, shape (N,)
    fitted : Fitted
    """
    pdf = _heated(logits, with_sigma(facts, width(logits), fitted.usual), fitted.temperatures[sets])
    steps = np.array([np.interp(row, LEVELS, fitted.pits[code]) for row, code in zip(cumulative(pdf), sets, strict=True)])
    return np.maximum(np.diff(steps.reshape(len(pdf), BINS + 1), axis=1), 0.0)


def _heated(logits: Values, facts: Values, weights: Values) -> Values:
    heat = np.exp(np.clip((facts * weights).sum(axis=1), -3.0, 3.0))
    return probabilities(logits / heat[:, None])


def fit(logits: Values, redshift: Values, facts: Values, sets: npt.NDArray[np.int64]) -> tuple[Fitted, dict[str, float]]:
    """Fit temperatures and maps.

    Parameters
    ----------
    logits : ndarray, shape (N, 64)
    redshift : ndarray, shape (N,)
        NaN where unknown.
    facts : ndarray, shape (N, 8)
    sets : ndarray of int64, shape (N,)

    Returns
    -------
    Fitted
    dict
        Coverage of the 68 % interval and mean CRPS before and after.
    """
    usual = (float(np.float16(np.median(width(logits)))) if len(logits) else 0.0) or 1.0
    temperatures, pits = np.zeros((SETS, FACTS)), np.tile(LEVELS, (SETS, 1))
    known, own = np.isfinite(redshift) & (redshift >= 0), with_sigma(facts, width(logits), usual)
    for code in range(SETS):
        rows = known & (sets == code)
        if rows.sum() < LEAST_ROWS:
            # like the other sets that lack a band
            rows = known & (sets < SETS - 1) & (code < SETS - 1)
        if rows.sum() < LEAST_ROWS:
            continue
        temperatures[code] = _temperature(logits[rows], soft_bins(redshift[rows]), own[rows])
        heated = _heated(logits[rows], own[rows], np.tile(temperatures[code], (int(rows.sum()), 1)))
        pits[code] = _distribution(pit(heated, redshift[rows]))
    fitted = Fitted(temperatures, usual, pits)
    before, after = probabilities(logits[known]), calibrated(logits[known], facts[known], sets[known], fitted)
    told = {}
    for when, pdf in ((" before", before), ("", after)) if known.any() else ():
        told[f"coverage{when}"] = float(np.mean(np.abs(pit(pdf, redshift[known]) - 0.5) <= 0.34))
        told[f"CRPS{when}"] = float(np.mean(crps(pdf, redshift[known])))
    return fitted, told


def _temperature(logits: Values, wanted: Values, facts: Values) -> Values:
    """Weights of the log temperature that minimize the cross entropy."""
    stiff = penalties(STIFF, BRICK_STIFF)

    def objective(weights: Values) -> tuple[float, Values]:
        cold = np.exp(-np.clip(facts @ weights, -3.0, 3.0))[:, None]
        scaled = logits * cold
        pdf = probabilities(scaled)
        entropy = -(wanted * np.log(np.maximum(pdf, 1e-30))).sum(axis=1).mean()
        slope = ((wanted - pdf) * scaled).sum(axis=1)
        return float(entropy) + float(stiff @ weights**2), (slope[:, None] * facts).mean(axis=0) + 2 * stiff * weights

    return np.asarray(minimize(objective, np.zeros(FACTS), jac=True, method="L-BFGS-B").x, np.float64)


def _distribution(places: Values) -> Values:
    """Cumulative distribution of PITs at `LEVELS`, with the two ends that a PDF needs."""
    result = np.array([np.mean(places <= level) for level in LEVELS])
    result[0], result[-1] = 0.0, 1.0
    return result
