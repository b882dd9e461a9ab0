"""The embedding's metric: axes along which people tell galaxies apart are long, the others short.

A linear model on few labels, and a search for look-alikes, both take distances between embeddings at their word. What people said of the
galaxies whose labels may train gives the distances a meaning: one ridge regression per answer, and the covariance of the regressions'
weights as the prior of any new task's weights (the idea of learning a shared prior from related tasks: Baxter 2000, J. Artif. Intell.
Res. 12, 149). A prior N(0, C) is the plain one after the embedding is multiplied by a root of C.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from galpipe.commit import replace_folder
from galpipe.labels.answers import HumanAnswers, spread_weights
from galpipe.lvm.inputs import Inputs, stamp_inputs, turned_inputs
from galpipe.lvm.loop import Progress
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.realset import RealSet
from galpipe.stamps.stampset import StampSet

Floats = NDArray[np.float64]

RIDGE = 0.35
"""Penalty of an answer's regression, in units of the number of galaxies with an answer."""

KEPT = 0.1
"""Share of the metric that all axes have alike: what no answer asked for is not lost."""

LEAST_ANSWERED = 50
"""Galaxies below which an answer says nothing about the metric."""

TOGETHER = 32

KEEP = "metric"


def set_metric(model: GalaxyModel, real: RealSet, folder: Path, progress: Progress | None = None) -> dict[str, float]:
    """Multiply the model's embedding by the metric that people's answers give it; heads on the embedding answer as before.

    Parameters
    ----------
    model : GalaxyModel
    real : RealSet
        Its own galaxies and answers; without any answer nothing changes.
    folder : Path
        Keeps the metric in ``metric/``, so that an interrupted training need not look at every galaxy again; another encoder's is replaced.
    progress : callable, optional

    Returns
    -------
    dict
        For the card: answers that had a say, galaxies, and the effective number of axes.
    """
    known = np.flatnonzero(real.answers.weights.sum(axis=1) > 0)
    if not len(known):
        return {}
    place, encoder = folder / KEEP, _digest(model.encoder)
    if not place.exists() or json.loads((place / "told.json").read_text())["encoder"] != encoder:
        embeddings = embedded(model, real.pack.stamps().take(known), progress)
        matrix, told = answers_metric(embeddings, real.answers.take(known))
        with replace_folder(place) as aside:
            np.save(aside / "matrix.npy", matrix, allow_pickle=False)
            facts = {"answers": told, "galaxies": len(embeddings), "axes": _axes(embeddings @ matrix)}
            (aside / "told.json").write_text(json.dumps({"encoder": encoder, "facts": facts}))
    given = torch.from_numpy(np.load(place / "matrix.npy", allow_pickle=False))
    model.encoder.metric.copy_((model.encoder.metric.double().cpu() @ given).to(model.encoder.metric.device))
    for head in model.head_list():
        head.rebase(given)
    kept: dict[str, float] = json.loads((place / "told.json").read_text())["facts"]
    return kept


def _digest(encoder: nn.Module) -> str:
    """sha256 of the weights that a metric belongs to."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _axes(embeddings: Floats) -> float:
    """Effective number of axes along which embeddings scatter (participation ratio of their variances)."""
    variance = np.linalg.eigvalsh(np.cov(embeddings.T))
    return float(variance.sum() ** 2 / (variance**2).sum())


def embedded(model: GalaxyModel, stamps: StampSet, progress: Progress | None = None) -> Floats:
    """Embeddings of galaxies, averaged over the four ways up, shape (N, E)."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for first in range(0, len(stamps), TOGETHER):
        inputs = stamp_inputs(stamps.take(np.arange(first, min(first + TOGETHER, len(stamps))))).to(device)
        parts.append(ways_up(model, inputs))
        if progress is not None:
            progress("metric", min(first + TOGETHER, len(stamps)), len(stamps))
    return np.concatenate(parts)


def ways_up(model: GalaxyModel, inputs: Inputs) -> Floats:
    """Embeddings of a batch, averaged over its four quarter turns, shape (N, E)."""
    with torch.inference_mode():
        ways = [model.encoder(turned_inputs(inputs, quarters)).embedding.float() for quarters in range(4)]
    return np.asarray(torch.stack(ways).mean(dim=0).cpu().numpy(), np.float64)


def answers_metric(embeddings: Floats, answers: HumanAnswers) -> tuple[Floats, int]:
    """The matrix that embeddings (as rows) are multiplied by, and how many answers shaped it.

    Parameters
    ----------
    embeddings : ndarray, shape (N, E)
    answers : HumanAnswers
        Of the same galaxies; weight 0 where nobody said.

    Returns
    -------
    matrix : ndarray, shape (E, E)
        Scaled so that the mean variance of the new axes is 1; invertible.
    count : int
    """
    spread = np.maximum(embeddings.std(axis=0), 1e-6)
    standard = (embeddings - embeddings.mean(axis=0)) / spread
    weights = spread_weights(answers.weights)
    slopes = [_slope(standard, answers.values[:, k].astype(np.float64), weights[:, k].astype(np.float64)) for k in range(weights.shape[1])]
    told = [slope for slope in slopes if slope is not None]
    size = embeddings.shape[1]
    shared = np.eye(size)
    if told:
        prior = np.stack(told).T @ np.stack(told)
        shared = (1 - KEPT) * prior * (size / np.trace(prior)) + KEPT * shared
    length, axes = np.linalg.eigh(shared)
    matrix = (axes * np.sqrt(length)) / spread[:, None]
    return matrix / np.sqrt(np.mean(np.var(embeddings @ matrix, axis=0))), len(told)


def _slope(standard: Floats, values: Floats, weights: Floats) -> Floats | None:
    """Ridge regression of one answer of unit spread; None where too few galaxies have one, or all the same."""
    known = weights > 0
    count = int(known.sum())
    if count < LEAST_ANSWERED:
        return None
    x, w = standard[known], weights[known] / weights[known].mean()
    x, y = x - np.average(x, axis=0, weights=w), values[known] - np.average(values[known], weights=w)
    size = float(np.sqrt(np.average(y**2, weights=w)))
    if size < 1e-6:
        return None
    return np.asarray(np.linalg.solve((x * w[:, None]).T @ x + RIDGE * count * np.eye(x.shape[1]), (x * w[:, None]).T @ (y / size)))
