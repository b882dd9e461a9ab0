"""Morphology: the Galaxy Zoo DECaLS decision tree as distributions of vote fractions.

Each question's votes are Dirichlet-multinomial (Walmsley et al. 2022, MNRAS 509, 3966, equation 2, as for Galaxy Zoo DECaLS); the tree
is that of GZD-5 and GZ DESI: 10 questions, 34 answers.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from galpipe.columns import Column
from galpipe.galaxyzoo import TREE, answers_leading_to
from galpipe.heads.base import FloatArray, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.lvm.encoder import Features, ModelSettings, full_precision
from galpipe.lvm.inputs import float_column

QUESTIONS = TREE
"""Questions and answers, named as Galaxy Zoo publishes them."""

ASKED_IF = {question: answers_leading_to(question) for question in QUESTIONS}
"""Answers that lead to a question; merging is asked unless the object is an artifact."""

ANSWERS = tuple(f"{question}_{answer}" for question, answers in QUESTIONS.items() for answer in answers)
"""The 34 answers in the order of the head's outputs."""

INTERVAL = 0.90
"""Probability inside ``_fraction_lo`` to ``_fraction_hi``."""

LEAST, MOST = 0.7, 6.0
"""Bounds of the log of a question's total concentration: 2 to 400 effective votes."""

FLOOR = 0.02
"""Concentration added to every answer, so that no likelihood is degenerate."""


def slices() -> dict[str, slice]:
    """Where each question's answers lie among the 34."""
    result, start = {}, 0
    for question, answers in QUESTIONS.items():
        result[question] = slice(start, start + len(answers))
        start += len(answers)
    return result


def votes(table: pa.Table) -> FloatArray:
    """Votes per answer of a truth table.

    Returns
    -------
    ndarray
        Float32, shape (N, 34); zero where the question was not asked or the truth is unknown.
    """
    rows = table.num_rows
    columns = []
    for question, answers in QUESTIONS.items():
        total = float_column(table, f"{question}_total", rows)
        for answer in answers:
            columns.append(np.nan_to_num(float_column(table, f"{question}_{answer}_fraction", rows) * total, nan=0.0))
    return np.stack(columns, axis=1).astype(np.float32)


def dirichlet_multinomial_loss(concentration: Tensor, counts: Tensor) -> Tensor:
    """Negative log likelihood of one question's votes, without the terms that do not depend on the model.

    Parameters
    ----------
    concentration, counts : Tensor
        Shape (N, answers), concentration positive.

    Returns
    -------
    Tensor
        Shape (N,); zero where there are no votes.
    """
    total, asked = concentration.sum(dim=1), counts.sum(dim=1)
    whole = torch.lgamma(total) - torch.lgamma(total + asked)
    parts = (torch.lgamma(concentration + counts) - torch.lgamma(concentration)).sum(dim=1)
    return -(whole + parts)


class Morphology(Head):
    """Dirichlet concentrations of the 34 answers, from the embedding."""

    name = "morphology"
    needs_pixels = False

    prior: Tensor

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(embedding, 128), nn.GELU(), nn.Linear(128, len(ANSWERS) + len(QUESTIONS)))
        self.register_buffer("prior", torch.zeros(len(ANSWERS)))

    @classmethod
    def build(cls, settings: ModelSettings) -> Morphology:
        """Make the head."""
        return cls(settings.embedding)

    def prepare(self, table: pa.Table) -> None:
        """Start from the training set's mean vote fractions."""
        counts = votes(table).sum(axis=0) + 1.0
        for place in slices().values():
            counts[place] /= counts[place].sum()
        self.prior.copy_(torch.from_numpy(np.log(counts)))

    def forward(self, features: Features) -> Outputs:
        """``concentration`` of shape (N, 34)."""
        with full_precision(features.embedding):
            raw = self.hidden(features.embedding)
        parts = []
        for index, place in enumerate(slices().values()):
            shares = functional.softmax(raw[:, place] + self.prior[place], dim=1)
            strength = LEAST + (MOST - LEAST) * torch.sigmoid(raw[:, len(ANSWERS) + index])
            parts.append(shares * torch.exp(strength)[:, None] + FLOOR)
        return {"concentration": torch.cat(parts, dim=1)}

    def targets(self, truth: Truth) -> Outputs:
        """``votes`` of shape (N, 34)."""
        return {"votes": torch.from_numpy(votes(truth.table))}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Mean over the galaxies of the questions' negative log likelihoods, as one sum per galaxy."""
        counts = targets["votes"]
        total = counts.new_zeros(counts.shape[0])
        for place in slices().values():
            total = total + dirichlet_multinomial_loss(outputs["concentration"][:, place], counts[:, place])
        asked = (counts.sum(dim=1) > 0).sum().clamp(min=1)
        return total.sum() / asked / len(QUESTIONS)

    def columns(self) -> tuple[Column, ...]:
        """Per question its proportion asked, per answer the fraction and its interval."""
        result: list[Column] = []
        for question, answers in QUESTIONS.items():
            asked = f"Predicted share of volunteers who are asked {question}"
            result.append(Column(f"{question}_proportion_asked", pa.float32(), "", asked, 1e-3, "mock only"))
            for answer in answers:
                name, text = f"{question}_{answer}_fraction", f"Predicted vote fraction of {answer} among those asked {question}"
                result.append(Column(name, pa.float32(), "", text, 1e-3, "mock only"))
                result.append(
                    Column(f"{name}_lo", pa.float32(), "", f"Lower end of the {INTERVAL:.0%} interval. {text}", 1e-3, "mock only")
                )
                result.append(
                    Column(f"{name}_hi", pa.float32(), "", f"Upper end of the {INTERVAL:.0%} interval. {text}", 1e-3, "mock only")
                )
        return tuple(result)

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Means and Beta quantiles of the Dirichlet's marginals."""
        concentration = outputs["concentration"].astype(np.float64)
        fraction = {}
        result: dict[str, pa.Array] = {}
        for question, place in slices().items():
            own = concentration[:, place]
            total = own.sum(axis=1, keepdims=True)
            fraction[question] = own / total
            tail = (1 - INTERVAL) / 2
            low, high = (np.asarray(stats.beta.ppf(share, own, total - own)) for share in (tail, 1 - tail))
            for index, answer in enumerate(QUESTIONS[question]):
                name = f"{question}_{answer}_fraction"
                mean = fraction[question][:, index]
                result[name] = pa.array(mean.astype(np.float32))
                result[f"{name}_lo"] = pa.array(np.minimum(low[:, index], mean).astype(np.float32))
                result[f"{name}_hi"] = pa.array(np.maximum(high[:, index], mean).astype(np.float32))
        for question in QUESTIONS:
            result[f"{question}_proportion_asked"] = pa.array(_proportion_asked(question, fraction).astype(np.float32))
        return {column.name: result[column.name] for column in self.columns()}

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Mean absolute error of vote fractions where the question was asked, beside the training mean fractions."""
        scores = []
        truth_votes, mean_votes = votes(truth.table), votes(training).sum(axis=0)
        for question, place in slices().items():
            counts = truth_votes[:, place]
            asked = counts.sum(axis=1) >= 3
            if not asked.any():
                continue
            true = counts[asked] / counts[asked].sum(axis=1, keepdims=True)
            names = [f"{question}_{answer}_fraction" for answer in QUESTIONS[question]]
            model = np.stack([float_column(predicted, name, predicted.num_rows)[asked] for name in names], axis=1)
            constant = mean_votes[place] / max(float(mean_votes[place].sum()), 1.0)
            error, worst = float(np.abs(model - true).mean()), float(np.abs(constant[None] - true).mean())
            scores.append(
                Score(f"{question}: error of the fraction", "", error, worst, False, int(asked.sum()), "mean training vote fractions")
            )
        return scores


def _proportion_asked(question: str, fraction: dict[str, FloatArray]) -> FloatArray:
    first = fraction["smooth-or-featured"]
    if question == "merging":
        return np.asarray(1.0 - first[:, QUESTIONS["smooth-or-featured"].index("artifact")])
    asked = np.ones(len(first))
    for parent, answer in ASKED_IF[question]:
        asked = asked * fraction[parent][:, QUESTIONS[parent].index(answer)]
    return np.asarray(asked)
