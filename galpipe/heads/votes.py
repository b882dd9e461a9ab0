"""Likelihood of votes whose answers may be grouped, and how well stated intervals hold them.

If (p_1, ..., p_k) is Dirichlet with parameters a, sums of p over groups are Dirichlet with the sums of a, and p among some answers only,
divided by their sum, is Dirichlet with those answers' a. So votes that tell fewer answers apart, or offer fewer, need no approximation.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaln, gammaln
from torch import Tensor

Floats = NDArray[np.float64]

LEAST_GALAXIES = 40
"""Galaxies with votes on a question that a temperature is learned from; with fewer it stays 1."""

LOG_TEMPERATURE = 3.0
"""Temperatures are sought from exp(-3) to exp(3)."""

WIDEST = 2.0
"""Of the log, by which a temperature may lie below the likeliest one."""

HALVINGS = 8


def grouped(concentration: Tensor, groups: Tensor) -> Tensor:
    """Concentrations summed over groups.

    Parameters
    ----------
    concentration : Tensor
        Shape (N, A), positive.
    groups : Tensor
        int64, shape (N, A): the answer that leads each answer's group, -1 for one that is not offered.

    Returns
    -------
    Tensor
        Shape (N, A): a group's sum at its leader, zero elsewhere.
    """
    offered = groups >= 0
    shares = torch.where(offered, concentration, torch.zeros_like(concentration))
    return torch.zeros_like(concentration).scatter_add(1, groups.clamp(min=0), shares)


def dirichlet_multinomial_loss(concentration: Tensor, counts: Tensor) -> Tensor:
    """Negative log likelihood of one question's votes, without the terms that do not depend on the model.

    Parameters
    ----------
    concentration, counts : Tensor
        Shape (N, answers), concentration positive; where it is zero (not a group's leader) the count is too, and nothing is added.

    Returns
    -------
    Tensor
        Shape (N,); zero where there are no votes.
    """
    total, asked = concentration.sum(dim=1), counts.sum(dim=1)
    there = concentration > 0
    # of an empty place the two terms cancel, whatever stands in it
    safe = torch.where(there, concentration, torch.ones_like(concentration))
    whole = torch.lgamma(total.clamp(min=1e-6)) - torch.lgamma(total.clamp(min=1e-6) + asked)
    parts = (torch.lgamma(safe + counts) - torch.lgamma(safe)).sum(dim=1)
    return -(whole + parts)


def log_likelihood(concentration: Floats, counts: Floats) -> float:
    """Sum over galaxies of `dirichlet_multinomial_loss`, negated, in float64; shapes (N, answers)."""
    total, asked = concentration.sum(axis=1), counts.sum(axis=1)
    safe = np.where(concentration > 0, concentration, 1.0)
    parts = (gammaln(safe + counts) - gammaln(safe)).sum(axis=1)
    return float((gammaln(total) - gammaln(total + asked) + parts).sum())


def temperature(concentration: Floats, counts: Floats, interval: float) -> float:
    """The factor on all concentrations under which votes are likeliest, or a smaller one if its intervals hold too few of them.

    The likelihood alone cannot make up for shares that are wrong: intervals are widened until they hold what they say.

    Parameters
    ----------
    concentration, counts : ndarray
        Shape (N, answers) of one question, groups summed.
    interval : float
        Probability that the central interval shall hold.

    Returns
    -------
    float
        1 where fewer than `LEAST_GALAXIES` have votes.
    """
    asked = counts.sum(axis=1) > 0
    if asked.sum() < LEAST_GALAXIES:
        return 1.0
    own, votes = concentration[asked], counts[asked]
    found = minimize_scalar(
        lambda log: -log_likelihood(own * np.exp(log), votes), bounds=(-LOG_TEMPERATURE, LOG_TEMPERATURE), method="bounded"
    )

    def missing(log: float) -> float:
        # the same draws for every temperature, so that the share only changes with it
        return interval - coverage(transform(own * np.exp(log), votes, np.random.default_rng(23)), interval)

    high, low = float(found.x), float(found.x) - WIDEST
    if not missing(high) > 0:
        return float(np.exp(high))
    for _ in range(HALVINGS):
        middle = (high + low) / 2
        high, low = (middle, low) if missing(middle) > 0 else (high, middle)
    return float(np.exp(low))


def beta_binomial_cdf(counts: Floats, people: Floats, one: Floats, other: Floats) -> Floats:
    """Chance of at most so many votes; arrays of one shape, whole numbers. As scipy's, but not element by element.

    Parameters
    ----------
    counts, people : ndarray
        Votes (-1 gives 0) and people asked.
    one, other : ndarray
        Parameters of the Beta distribution.
    """
    votes = np.arange(int(people.max(initial=0)) + 1)
    n, a, b = people[..., None], one[..., None], other[..., None]
    rest = np.maximum(n - votes, 0)
    log = gammaln(n + 1) - gammaln(votes + 1) - gammaln(rest + 1) + betaln(votes + a, rest + b) - betaln(a, b)
    chances = np.where((votes <= n) & (votes <= counts[..., None]), np.exp(log), 0.0)
    return np.asarray(np.minimum(chances.sum(axis=-1), 1.0))


def transform(concentration: Floats, counts: Floats, rng: np.random.Generator) -> Floats:
    """Randomised probability integral transform of each answer's votes, which are beta-binomial (Czado et al. 2009, Biometrics 65, 1254).

    Returns
    -------
    ndarray
        Shape (N, answers); uniform from 0 to 1 if the model is right. NaN where nobody was asked, or the place is no group's leader.
    """
    rounded = np.rint(counts)
    asked, total = rounded.sum(axis=1, keepdims=True), concentration.sum(axis=1, keepdims=True)
    there = (asked > 0) & (concentration > 0) & (total > concentration)
    one, other = np.where(there, concentration, 1.0), np.where(there, total - concentration, 1.0)
    people = np.broadcast_to(asked, rounded.shape)
    upper, lower = (beta_binomial_cdf(rounded - less, people, one, other) for less in (0, 1))
    draws = lower + rng.random(rounded.shape) * (upper - lower)
    return np.where(there, draws, np.nan)


def coverage(draws: Floats, interval: float) -> float:
    """Share of transforms inside the central interval; NaN where there are none."""
    known = draws[np.isfinite(draws)]
    tail = (1 - interval) / 2
    return float(np.mean((known >= tail) & (known <= 1 - tail))) if len(known) else float("nan")
