"""A classifier that tries to tell real from mock, and how well it can: cross-validated by field, with an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata
from torch import nn

Floats = NDArray[np.float64]
Fit = Callable[[Floats, NDArray[np.bool_], Floats], Floats]
"""Trains on (samples, whether real) and scores other samples."""

FOLDS = 6
RESAMPLES = 500


@dataclass(frozen=True)
class Verdict:
    """How well real and mock can be told apart."""

    auc: float
    """Area under the ROC curve of held-out scores; 0.5 = not at all."""
    low: float
    high: float
    """95 % interval, by resampling whole fields."""
    real: int
    mock: int
    """Samples."""
    scores: Floats
    """Held-out score of each sample; larger = looks more real."""


def auc(scores: Floats, real: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a real sample scores higher than a mock one."""
    ranks = rankdata(scores)
    positives, negatives = int(real.sum()), int((~real).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks[real].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def cross_validate(samples: Floats, real: NDArray[np.bool_], groups: NDArray[np.str_], fit: Fit, seed: int = 0) -> Verdict:
    """Score every sample by a classifier that has seen nothing of its field.

    Parameters
    ----------
    samples : ndarray, shape (N, ...)
    real : ndarray of bool, shape (N,)
    groups : ndarray of str, shape (N,)
        Field of each sample; a field never lies on both sides.
    fit : callable
        ``fit(training samples, training labels, held-out samples)`` gives held-out scores; labels are whether real.
    seed : int
    """
    rng = np.random.default_rng(seed)
    fold = _folds(real, groups, rng)
    scores = np.zeros(len(samples))
    for k in range(FOLDS):
        held = fold == k
        if held.any():
            part = fit(samples[~held], real[~held], samples[held])
            # ranks within the fold: classifiers of different folds need not share a scale
            scores[held] = (rankdata(part) - 0.5) / len(part)
    values = [_resampled(scores, real, groups, rng) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Verdict(auc(scores, real), float(low), float(high), int(real.sum()), int((~real).sum()), scores)


def _folds(real: NDArray[np.bool_], groups: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold of each sample: fields dealt out, real and mock ones apart, the largest first."""
    fold = np.zeros(len(groups), np.int64)
    for kind in (True, False):
        names, counts = np.unique(groups[real == kind], return_counts=True)
        filled = np.zeros(FOLDS)
        for name in names[np.lexsort((rng.random(len(names)), -counts))]:
            target = int(np.argmin(filled))
            fold[groups == name] = target
            filled[target] += (groups == name).sum()
    return fold


def _resampled(scores: Floats, real: NDArray[np.bool_], groups: NDArray[np.str_], rng: np.random.Generator) -> float:
    rows = []
    for kind in (True, False):
        names = np.unique(groups[real == kind])
        rows += [np.flatnonzero(groups == name) for name in rng.choice(names, len(names))]
    chosen = np.concatenate(rows)
    return auc(scores[chosen], real[chosen])


def logistic(penalty: float = 1.0) -> Fit:
    """Logistic regression on standardized features and their squares, L2 penalty, classes weighted equally."""

    def fit(samples: Floats, real: NDArray[np.bool_], held: Floats) -> Floats:
        weights = _logistic_weights(samples, real, penalty)
        return np.asarray(_expand(held, samples) @ weights)

    return fit


def telling_features(samples: Floats, real: NDArray[np.bool_], names: tuple[str, ...], count: int = 5) -> list[tuple[str, float]]:
    """The features that part real and mock the most on their own: name and AUC (above 0.5: larger in real)."""
    alone = [auc(samples[:, k], real) for k in range(samples.shape[1])]
    order = np.argsort([-abs(value - 0.5) for value in alone])
    return [(names[k], alone[k]) for k in order[:count]]


def _expand(samples: Floats, reference: Floats) -> Floats:
    """Standardized features, clipped at 4, their squares, and a constant."""
    middle = np.nanmedian(reference, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(reference - middle), axis=0) + 1e-9
    scaled = np.clip(np.nan_to_num((samples - middle) / spread), -4, 4)
    return np.concatenate([scaled, scaled**2 / 4, np.ones((len(samples), 1))], axis=1)


def _logistic_weights(samples: Floats, real: NDArray[np.bool_], penalty: float) -> Floats:
    x, sign = _expand(samples, samples), np.where(real, 1.0, -1.0)
    share = np.where(real, 0.5 / real.sum(), 0.5 / (~real).sum()) * len(real)

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ weights)
        value = float((share * np.logaddexp(0, -margin)).sum() + penalty * (weights[:-1] ** 2).sum() / 2)
        slope = -(share * sign / (1 + np.exp(np.clip(margin, -50, 50)))) @ x
        slope[:-1] += penalty * weights[:-1]
        return value, np.asarray(slope)

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(found.x)


def network(epochs: int = 8, seed: int = 0) -> Fit:
    """A small convolutional network on the pixels, trained with flips and turns, classes drawn equally often."""

    def fit(samples: Floats, real: NDArray[np.bool_], held: Floats) -> Floats:
        # one thread: small layers only wait for each other
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _small_network(samples.shape[1])
            _train(model, torch.from_numpy(np.asarray(samples, np.float32)), torch.from_numpy(real.astype(np.float32)), epochs)
            model.eval()
            with torch.no_grad():
                scores = model(torch.from_numpy(np.asarray(held, np.float32))).numpy().ravel()
        torch.set_num_threads(threads)
        return np.asarray(scores, np.float64)

    return fit


def _small_network(channels: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (12, 16, 24):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, 1))


def _train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int) -> None:
    steps = min(max(len(x) // 64, 8), 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps)
    chance = torch.where(y > 0, 0.5 / y.sum(), 0.5 / (1 - y).sum())
    for _ in range(epochs * steps):
        rows = torch.multinomial(chance, 64, replacement=True)
        batch = x[rows]
        if torch.rand(()) < 0.5:
            batch = batch.flip(3)
        batch = torch.rot90(batch, int(torch.randint(0, 4, ())), (2, 3))
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch)[:, 0], y[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
