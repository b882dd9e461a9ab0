"""What a frozen embedding is worth on real galaxies, asked quickly and often: few labels, one linear model, one way up.

Unlike `galpipe evaluate few-shot`, which averages each embedding over four ways up, each galaxy is embedded once, and of the training side
only the galaxies that some draw uses. Draws and split are the same. Without a metric of its own (`galpipe.lvm.metric`) the embedding
is brought to unit spread, number by number, before the linear model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.fewshot import sides
from galpipe.evaluate.linear import Floats, class_scores
from galpipe.evaluate.scores import METRICS, over_seeds
from galpipe.evaluate.trainings import draw
from galpipe.labels.labelset import BATCH, open_labels
from galpipe.labels.target import TargetSpec
from galpipe.lvm.inputs import stamp_inputs
from galpipe.stamps.stampset import StampSet, concatenate


@dataclass(frozen=True)
class Question:
    """A few-label task.

    Parameters
    ----------
    name : str
        For tables.
    file : str
        Name of the label file.
    target : TargetSpec
        Classes.
    shots : int
        Labels to learn from.
    """

    name: str
    file: str
    target: TargetSpec
    shots: int


QUESTIONS = (
    Question(
        "three classes, 50 labels",
        "sdss_gz1_classes.parquet",
        TargetSpec.parse("label", "elliptical,edge_on,spiral=spiral_clockwise+spiral_anticlockwise"),
        50,
    ),
    Question("rings, 100 labels", "legacy_rings.parquet", TargetSpec.parse("ring", at_least=0.5), 100),
)
"""Sets whose labels train nothing (`galpipe.labels.answers.MEASURED`)."""


@dataclass(frozen=True)
class Probe:
    """A question with its galaxies in memory.

    Parameters
    ----------
    stamps : StampSet
        K galaxies: the test rows, and what the draws take of the others.
    draws : tuple of (ndarray of int64, ndarray of int64)
        Per seed the places in ``stamps`` that are learned from, and their codes.
    asked, truth : ndarray of int64
        Places of the test galaxies, and their codes.
    classes : int
    facts : dict
        For the result: name, set, labels, seeds, rows, route.
    """

    stamps: StampSet
    draws: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    asked: NDArray[np.int64]
    truth: NDArray[np.int64]
    classes: int
    facts: dict[str, Any]

    def score(self, encoder: nn.Module) -> dict[str, float]:
        """AUC (one against the rest, mean over classes): mean and std over draws, error of that mean, and the 95 % interval over draws and
        test galaxies.
        """
        vectors = embedded(encoder, self.stamps)
        predictions = [
            class_scores(vectors[rows], codes, vectors[self.asked], self.classes, seed) for seed, (rows, codes) in enumerate(self.draws)
        ]
        score = over_seeds(METRICS["auc"], self.truth, predictions)
        return asdict(score) | {"error": score.std / max(len(predictions) - 1, 1) ** 0.5}


def embedded(encoder: nn.Module, stamps: StampSet) -> Floats:
    """Embeddings of stamps as they lie, shape (N, E)."""
    device = next(encoder.parameters()).device
    parts = []
    with torch.inference_mode():
        for first in range(0, len(stamps), BATCH):
            inputs = stamp_inputs(stamps.take(np.arange(first, min(first + BATCH, len(stamps)))))
            parts.append(encoder(inputs.to(device)).embedding.float().cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def prepare(folder: Path, question: Question, seeds: int) -> Probe:
    """Read what a question needs.

    Parameters
    ----------
    folder : Path
        Holds the label file.
    question : Question
    seeds : int
        Draws of the labels.

    Raises
    ------
    ConfigurationError
        If the target has no classes.
    BadData
        If nothing is left to score on.
    """
    labels = open_labels(folder / question.file)
    learn, asked, facts = sides(labels, None, question.target)
    if not facts["classes"]:
        raise ConfigurationError("a target with classes", question.target.column, file=str(labels.path))
    count = len(facts["classes"])
    drawn = [draw(learn.answers, question.shots, count, seed) for seed in range(seeds)]
    wanted = np.unique(np.concatenate([asked.rows, *(learn.rows[rows] for rows in drawn)]))
    batches = [batch for batch in labels.batches(BATCH, wanted) if batch.stamps is not None]
    if not batches:
        raise BadData("at least one galaxy that can be read", "none", file=str(labels.path))
    found = np.concatenate([batch.rows for batch in batches])
    places = _placed(asked.rows, asked.answers, found), tuple(_placed(learn.rows[rows], learn.answers[rows], found) for rows in drawn)
    told = {"name": question.name, "set": labels.name, "labels": question.shots, "seeds": seeds, "route": facts["route"]}
    told |= {"rows": {"training": len(learn.rows), "test": len(places[0][0])}, "unreadable": len(wanted) - len(found)}
    stamps = concatenate([batch.stamps for batch in batches if batch.stamps is not None])
    return Probe(stamps, places[1], *places[0], count, told)


def _placed(rows: NDArray[np.int64], answers: NDArray[np.generic], found: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places among the rows that could be read, and answers, of those of ``rows`` that could."""
    here = np.isin(rows, found)
    return np.searchsorted(found, rows[here]), answers[here].astype(np.int64)
