"""A redshift as a probability per bin: the grid, encoding and decoding, and the figures of a whole PDF.

The bins are even in ln(1 + z), as errors of photometric redshifts grow with 1 + z; within a bin the probability is spread evenly in z.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

BINS = 64
HIGHEST = 2.0
"""Redshift at the end of the last bin; what lies beyond counts there."""

EDGES: Values = np.expm1(np.linspace(0.0, np.log1p(HIGHEST), BINS + 1))
"""Edges of the bins in z: ``exp(k ln(3) / 64) - 1`` for k = 0 to 64."""

CENTERS: Values = np.expm1((np.arange(BINS) + 0.5) * np.log1p(HIGHEST) / BINS)

GRID_TEXT = f"bin k of {BINS} spans z from {1 + HIGHEST:.0f}^(k/{BINS}) - 1 to {1 + HIGHEST:.0f}^((k+1)/{BINS}) - 1"
"""The grid in words, for column descriptions."""


def soft_bins(redshift: Values) -> Values:
    """Redshifts as weights of the two nearest bins, whose mean in ln(1 + z) is the redshift's.

    Parameters
    ----------
    redshift : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N, 64)
        Rows add up to 1; NaN where the redshift is not finite or negative.
    """
    known = np.isfinite(redshift) & (redshift >= 0)
    place = np.log1p(np.where(known, redshift, 0.0)) / np.log1p(HIGHEST) * BINS - 0.5
    place = np.clip(place, 0.0, BINS - 1.0)
    low = np.minimum(place.astype(np.int64), BINS - 2)
    share = place - low
    weights = np.zeros((len(redshift), BINS))
    rows = np.arange(len(redshift))
    weights[rows, low], weights[rows, low + 1] = 1.0 - share, share
    weights[~known] = np.nan
    return weights


def probabilities(logits: Values) -> Values:
    """Softmax, shape (N, 64)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def cumulative(pdf: Values) -> Values:
    """Cumulative probability at `EDGES`, shape (N, 65), from 0 to 1."""
    sums = np.cumsum(pdf, axis=1)
    return np.concatenate([np.zeros((len(pdf), 1)), sums / np.maximum(sums[:, -1:], 1e-12)], axis=1)


def quantiles(pdf: Values, levels: tuple[float, ...]) -> Values:
    """Redshifts below which the PDF has given shares of its probability.

    Parameters
    ----------
    pdf : ndarray, shape (N, 64)
    levels : tuple of float
        L shares, 0 to 1.

    Returns
    -------
    ndarray, shape (N, L)
    """
    # a hair of slope keeps every inverse unique where bins are empty
    steps = cumulative(pdf) * (1 - 1e-9) + np.linspace(0, 1e-9, BINS + 1)
    return np.array([np.interp(levels, row, EDGES) for row in steps]).reshape(len(pdf), len(levels))


def pit(pdf: Values, redshift: Values) -> Values:
    """Probability integral transform: the PDF's cumulative probability at the true redshift (Dawid 1984), uniform if it is calibrated.

    Parameters
    ----------
    pdf : ndarray, shape (N, 64)
    redshift : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N,)
        NaN where the redshift is not finite.
    """
    steps = cumulative(pdf)
    inside = np.clip(redshift, 0.0, HIGHEST)
    return np.array([np.interp(z, EDGES, row) if np.isfinite(z) else np.nan for z, row in zip(inside, steps, strict=True)])


def crps(pdf: Values, redshift: Values) -> Values:
    """Continuous ranked probability score, the integral of (F(z) - [z >= z_true])^2 over z (Hersbach 2000, eq. 1); 0 is best.

    Parameters
    ----------
    pdf : ndarray, shape (N, 64)
    redshift : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N,)
        In units of z; NaN where the redshift is not finite.
    """
    steps, at = cumulative(pdf), pit(pdf, redshift)[:, None]
    true = np.clip(redshift, 0.0, HIGHEST)[:, None]
    below, above = np.minimum(EDGES, true), np.maximum(EDGES, true)
    before = _square_integral(below, np.where(true > EDGES, steps, at))
    after = _square_integral(above, 1.0 - np.where(true < EDGES, steps, at))
    return np.asarray(before + after + np.maximum(redshift - HIGHEST, 0.0))


def _square_integral(place: Values, height: Values) -> Values:
    """Integral of the square of a broken line, row by row."""
    one, two = height[:, :-1], height[:, 1:]
    return np.asarray((np.diff(place, axis=1) * (one**2 + one * two + two**2) / 3.0).sum(axis=1))
