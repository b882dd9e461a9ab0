"""How the fraction of a class changes with an observing condition: the null test of a catalog's systematics.

Cells of the sky are put in order of the condition and into bins of about equal numbers of galaxies. A class whose fraction is that
of the sky gives a flat line within its error bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

Floats = NDArray[np.float64]

BINS = 8
CELLS_PER_BIN = 3
"""At least so many cells make a bin."""
BOOTSTRAP_CELLS = 10
"""From so many cells in each bin on, errors come from resampling the cells, which the clustering of galaxies widens; below, they are
binomial."""
DRAWS = 200
ONE_SIGMA = 0.6826894921370859


@dataclass(frozen=True)
class Trend:
    """A class's fraction in bins of a condition.

    Parameters
    ----------
    at : ndarray, shape (B,)
        Mean of the condition in each bin, weighted by galaxies.
    fraction, low, high : ndarray, shape (B,)
        Fraction and the ends of its 68 % interval.
    galaxies : ndarray, shape (B,)
        Galaxies of which the fraction is one.
    overall : float
        Fraction in all bins together.
    errors : str
        How the intervals were made: ``bootstrap`` (over cells) or ``binomial`` (Wilson).
    dispersion : float
        Variance of the cells around their bin's fraction over the binomial one, at least 1: what clustering adds.
    """

    at: Floats
    fraction: Floats
    low: Floats
    high: Floats
    galaxies: Floats
    overall: float
    errors: Literal["bootstrap", "binomial"]
    dispersion: float = 1.0

    @property
    def sigma(self) -> Floats:
        """Half of each interval's width."""
        return (self.high - self.low) / 2

    @property
    def chi2(self) -> float:
        """Pearson's chi squared against one fraction for all bins, over the dispersion.

        The variance is that of the common fraction: an interval around a bin without any galaxy of the class says nothing of it.
        """
        variance = self.overall * (1 - self.overall) / self.galaxies * self.dispersion
        return float(((self.fraction - self.overall) ** 2 / variance).sum()) if 0 < self.overall < 1 else 0.0

    @property
    def dof(self) -> int:
        """Degrees of freedom of `chi2`."""
        return len(self.at) - 1

    @property
    def p_value(self) -> float:
        """Chance of a larger chi squared, were the fraction the same everywhere."""
        return float(chdtrc(self.dof, self.chi2))

    @property
    def change(self) -> tuple[float, float]:
        """Fraction of the last bin minus that of the first, and its standard error."""
        return float(self.fraction[-1] - self.fraction[0]), float(np.hypot(self.sigma[-1], self.sigma[0]))


def trend(condition: Floats, hits: Floats, tries: Floats, seed: int = 0) -> Trend | None:
    """Bin a class's fraction by a condition.

    Parameters
    ----------
    condition : ndarray, shape (N,)
        The condition in each cell of the sky; cells where it is NaN are left out.
    hits, tries : ndarray, shape (N,)
        Galaxies of the class, and all galaxies that could be of it, per cell.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Trend or None
        None where the condition does not vary or there are too few cells for two bins.
    """
    good = np.isfinite(condition) & (tries > 0)
    order = np.flatnonzero(good)[np.argsort(condition[good], kind="stable")]
    value, hits, tries = condition[order], hits[order], tries[order]
    bins = min(BINS, len(value) // CELLS_PER_BIN)
    if bins < 2 or value[0] == value[-1]:
        return None
    parts = _bins(value, tries, bins)
    if len(parts) < 2:
        return None
    total = np.array([tries[part].sum() for part in parts])
    share = np.array([hits[part].sum() for part in parts]) / total
    enough = min(part.stop - part.start for part in parts) >= BOOTSTRAP_CELLS
    if enough:
        random = np.random.default_rng(seed)
        ends = np.array([_resampled(hits[part], tries[part], random) for part in parts])
        low, high = ends[:, 0], ends[:, 1]
    else:
        low, high = wilson(share * total, total)
    at = np.array([float((value[part] * tries[part]).sum()) for part in parts]) / total
    how: Literal["bootstrap", "binomial"] = "bootstrap" if enough else "binomial"
    return Trend(at, share, low, high, total, float(hits.sum() / tries.sum()), how, _dispersion(hits, tries, parts, share))


def _dispersion(hits: Floats, tries: Floats, parts: list[slice], share: Floats) -> float:
    """Variance of the cells' counts around their bin's fraction over the binomial one; 1 where it is less."""
    scatter = sum(float(((hits[part] - tries[part] * of) ** 2).sum()) for part, of in zip(parts, share, strict=True))
    binomial = sum(float(tries[part].sum() * of * (1 - of)) for part, of in zip(parts, share, strict=True))
    free = len(hits) - len(parts)
    return max(1.0, scatter / binomial * len(hits) / free) if binomial > 0 and free > 0 else 1.0


def _bins(value: Floats, tries: Floats, bins: int) -> list[slice]:
    """Runs of cells in order of the condition, of about equal galaxies; cells of one value stay together."""
    cumulative = np.cumsum(tries)
    edges = np.searchsorted(cumulative, cumulative[-1] * np.arange(1, bins) / bins) + 1
    edges = np.unique([np.searchsorted(value, value[min(edge, len(value) - 1)]) for edge in edges])
    bounds = [0, *(int(edge) for edge in edges if edge > 0), len(value)]
    wide = [bounds[0]]
    for edge in bounds[1:-1]:
        if edge - wide[-1] >= CELLS_PER_BIN and len(value) - edge >= CELLS_PER_BIN:
            wide.append(edge)
    return [slice(start, stop) for start, stop in zip(wide, [*wide[1:], len(value)], strict=True)]


def _resampled(hits: Floats, tries: Floats, random: np.random.Generator) -> tuple[float, float]:
    """Ends of the 68 % interval of ``hits.sum() / tries.sum()`` over cells drawn with replacement."""
    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        chosen = random.integers(0, len(hits), len(hits))
        drawn[draw] = hits[chosen].sum() / tries[chosen].sum()
    low, high = np.quantile(drawn, [(1 - ONE_SIGMA) / 2, (1 + ONE_SIGMA) / 2])
    if high > low:
        return float(low), float(high)
    # no galaxy of the class, or none of another, in any cell: nothing varies, and the binomial still says how little is known
    ends = wilson(np.array([hits.sum()]), np.array([tries.sum()]))
    return float(ends[0][0]), float(ends[1][0])


def wilson(hits: Floats, tries: Floats) -> tuple[Floats, Floats]:
    """Wilson score interval of a fraction at one sigma (68 %).

    Parameters
    ----------
    hits, tries : ndarray
        ``tries`` above 0.

    Returns
    -------
    low, high : ndarray
        E. B. Wilson 1927, JASA 22, 209, with z = 1.
    """
    share = hits / tries
    middle = (share + 0.5 / tries) / (1 + 1 / tries)
    half = np.sqrt(share * (1 - share) / tries + 0.25 / tries**2) / (1 + 1 / tries)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
