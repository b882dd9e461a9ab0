"""Classes, or a number, of a label file that a user brought: linear in the embedding, calibrated on galaxies that trained nothing.

A model has one such head per entry of ``ModelSettings.tasks``; `galpipe.lvm.labelled` trains it (``galpipe train --task``).
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from galpipe.columns import Column
from galpipe.errors import ConfigurationError
from galpipe.heads.bands import SETS, band_sets, fill_unmeasured
from galpipe.heads.base import Head, Outputs, RawOutputs, Score, StampContext, Truth, rebase_linear
from galpipe.lvm.encoder import Features, LabelTask, ModelSettings, full_precision

Floats = NDArray[np.float64]

INTERVAL = 0.90
"""Probability inside the interval of a number."""

NAME = re.compile(r"[a-z][a-z0-9_]*")

FEWEST = 10
"""Galaxies that a temperature is learned from; with fewer it stays 1."""

LOG_TEMPERATURE = 3.0


class Classes(Head):
    """A linear layer on the standardized embedding."""

    name = "classes"
    needs_pixels = False

    center: Tensor
    spread: Tensor
    careful: Tensor

    def __init__(self, task: LabelTask, embedding: int) -> None:
        super().__init__()
        if not NAME.fullmatch(task.name):
            raise ConfigurationError("a task named in lower case letters, digits and underscores", repr(task.name))
        self.name, self.classes, self.task = task.name, task.classes, task
        self.linear = nn.Linear(embedding, len(task.classes) or 1)
        self.register_buffer("center", torch.zeros(embedding))
        self.register_buffer("spread", torch.ones(embedding))
        # per set of bands: what logits are divided by, or half the width of a number's interval, in its unit
        self.register_buffer("careful", torch.ones(SETS))

    @classmethod
    def of(cls, task: LabelTask, settings: ModelSettings) -> Classes:
        """Make the head of a task.

        Raises
        ------
        ConfigurationError
            If its name cannot begin a column's name, or two of its classes would have one column.
        """
        head = cls(task, settings.embedding)
        names = [column.name for column in head.columns()]
        if len(set(names)) != len(names):
            raise ConfigurationError("classes whose columns have different names", f"{list(task.classes)}")
        return head

    @classmethod
    def build(cls, settings: ModelSettings) -> Classes:
        """Not made by its module's name: a task says what its classes are."""
        raise ConfigurationError("a task of a label file (galpipe train --task NAME --labels FILE)", "the head 'classes' itself")

    def columns(self) -> tuple[Column, ...]:
        """A probability per class, or the number with its interval."""
        if self.classes:
            return tuple(
                Column(
                    f"{self.name}_{column_part(one)}_probability",
                    pa.float32(),
                    "",
                    f"Probability that {self.name} is {one}",
                    1e-3,
                    "user labels",
                )
                for one in self.classes
            )
        texts = {"": "", "_lo": f"Lower end of the {INTERVAL:.0%} interval. ", "_hi": f"Upper end of the {INTERVAL:.0%} interval. "}
        return tuple(
            Column(f"{self.name}_value{end}", pa.float32(), "", f"{text}Predicted {self.name}, in its labels' unit", 1e-3, "user labels")
            for end, text in texts.items()
        )

    def forward(self, features: Features) -> Outputs:
        """``answer`` of shape (N, classes): logits, or (N, 1): a number less its zero, in its unit."""
        with full_precision(features.embedding):
            answer: Tensor = self.linear((features.embedding.float() - self.center) / self.spread)
        return {"answer": answer}

    def rebase(self, matrix: Tensor) -> None:
        """See `Head.rebase`."""
        with torch.no_grad():
            self.linear.weight /= self.spread
            self.center.copy_(self.center.double().cpu() @ matrix)
            self.spread.fill_(1.0)
        rebase_linear(self.linear, matrix)

    def targets(self, truth: Truth) -> Outputs:
        """Nothing: mock truth does not know the labels."""
        return {}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Zero, so that the other heads can be trained on beside it."""
        return outputs["answer"].sum() * 0

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Probabilities with the temperature of the bands that the stamp has; of a number, value and interval."""
        answer, careful = outputs["answer"].astype(np.float64), self.careful.cpu().numpy().astype(np.float64)[band_sets(context)]
        if self.classes:
            values = softmax(answer / careful[:, None], axis=1)
        else:
            values = self.task.zero + self.task.unit * (answer + careful[:, None] * np.array([0.0, -1.0, 1.0]))
        return {column.name: pa.array(values[:, k].astype(np.float32)) for k, column in enumerate(self.columns())}

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Nothing: see the figures of `galpipe.lvm.labelled` in the card."""
        return []

    def calibrate(self, gathered: dict[str, Floats]) -> dict[str, float]:
        """Set the temperature, or the interval's width, of each set of bands.

        Parameters
        ----------
        gathered : dict
            ``answer`` (N, classes or 1) raw, ``truth`` (N,) codes, or numbers less their zero in their unit, ``bands`` (N,).
            Nothing is done without them.
        """
        if "truth" not in gathered:
            return {}
        measured = np.unique(gathered["bands"]).astype(int)
        for bands in measured:
            here = gathered["bands"] == bands
            answer, truth = gathered["answer"][here], gathered["truth"][here]
            self.careful[bands] = temperature(answer, truth.astype(np.int64)) if self.classes else half_width(answer[:, 0], truth)
        fill_unmeasured(self.careful, measured, smallest=False)
        return {}


def column_part(name: str) -> str:
    """A class as a part of a column's name: lower case, anything but letters and digits as an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "class"


def temperature(logits: Floats, codes: NDArray[np.int64]) -> float:
    """What logits are divided by so that the answers are likeliest (Guo et al. 2017, arXiv:1706.04599); 1 with too few galaxies.

    Parameters
    ----------
    logits : ndarray, shape (N, C)
    codes : ndarray of int64, shape (N,)
    """
    if len(codes) < FEWEST:
        return 1.0
    rows = np.arange(len(codes))
    found = minimize_scalar(
        lambda log: -log_softmax(logits / np.exp(log), axis=1)[rows, codes].mean(),
        bounds=(-LOG_TEMPERATURE, LOG_TEMPERATURE),
        method="bounded",
    )
    return float(np.exp(found.x))


def half_width(values: Floats, truth: Floats) -> float:
    """Half the width of an interval that holds `INTERVAL` of galaxies like these (split conformal, Lei et al. 2018, JASA 113, 1094)."""
    rank = min(int(np.ceil((len(values) + 1) * INTERVAL)), len(values))
    return float(np.sort(np.abs(values - truth))[rank - 1])


def expected_calibration_error(chances: Floats, codes: NDArray[np.int64], bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over bins of equal numbers of galaxies.

    Parameters
    ----------
    chances : ndarray, shape (N, C)
    codes : ndarray of int64, shape (N,)
    bins : int
    """
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == codes
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts) / max(len(order), 1))
