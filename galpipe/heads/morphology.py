"""Morphology: the Galaxy Zoo DECaLS decision tree as distributions of vote fractions.

Each question's votes are Dirichlet-multinomial (Walmsley et al. 2022, MNRAS 509, 3966, equation 2, as for Galaxy Zoo DECaLS); the tree
is that of GZD-5 and GZ DESI: 10 questions, 34 answers.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from galpipe.columns import Column, Learned
from galpipe.galaxyzoo import ANSWERS, TREE, answers_leading_to, slices
from galpipe.heads.bands import band_sets, fill_unmeasured, name_of
from galpipe.heads.base import FloatArray, Head, Outputs, RawOutputs, Score, StampContext, Truth, rebase_linear
from galpipe.heads.votes import coverage, dirichlet_multinomial_loss, grouped, temperature, transform
from galpipe.labels.mapping import LABEL_SETS, MappedVotes, learned_tags, mapped_votes, mock_counts
from galpipe.lvm.encoder import Features, ModelSettings, full_precision
from galpipe.lvm.inputs import MODEL_BANDS, float_column

QUESTIONS = TREE
"""Questions and answers, named as Galaxy Zoo publishes them."""

ASKED_IF = {question: answers_leading_to(question) for question in QUESTIONS}
"""Answers that lead to a question; merging is asked unless the object is an artifact."""

INTERVAL = 0.90
"""Probability inside ``_fraction_lo`` to ``_fraction_hi``."""

LEAST, MOST = 0.7, 6.0
"""Bounds of the log of a question's total concentration: 2 to 400 effective votes."""

FLOOR = 0.02
"""Concentration added to every answer, so that no likelihood is degenerate."""


def votes(table: pa.Table) -> FloatArray:
    """Votes per answer of a truth table.

    Returns
    -------
    ndarray
        Float32, shape (N, 34); zero where the question was not asked or the truth is unknown.
    """
    return mock_counts(table).astype(np.float32)


class Morphology(Head):
    """Dirichlet concentrations of the 34 answers, from the embedding."""

    name = "morphology"
    version = 2
    needs_pixels = False

    prior: Tensor
    votes_seen: Tensor
    temperature: Tensor

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(embedding, 128), nn.GELU(), nn.Linear(128, len(ANSWERS) + len(QUESTIONS)))
        self.register_buffer("prior", torch.zeros(len(ANSWERS)))
        # whole numbers: votes of each label set that trained each answer, kept exactly with the weights
        self.register_buffer("votes_seen", torch.zeros(len(LABEL_SETS), len(ANSWERS), dtype=torch.int64))
        self.register_buffer("temperature", torch.ones(2 ** len(MODEL_BANDS), len(QUESTIONS)))

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
        self.learned_from(mapped_votes("mock", table))

    def learned_from(self, mapped: MappedVotes) -> None:
        """Record the votes that train this head; the columns' tags follow from it. A set that is recorded again replaces itself."""
        votes_seen = torch.from_numpy(np.rint(mapped.per_answer()).astype(np.int64))
        self.votes_seen[LABEL_SETS.index(mapped.name)] = votes_seen.to(self.votes_seen.device)

    def rebase(self, matrix: Tensor) -> None:
        """See `Head.rebase`."""
        rebase_linear(cast(nn.Linear, self.hidden[0]), matrix)

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
        """Mean over the galaxies of the questions' negative log likelihoods, as one sum per galaxy.

        Parameters
        ----------
        outputs : dict
            Of `forward`.
        targets : dict
            ``votes`` (N, 34); with ``groups`` (N, 34) as `galpipe.labels.mapping.MappedVotes.targets` gives them where answers are not
            told apart.
        """
        counts, concentration = targets["votes"], outputs["concentration"]
        if "groups" in targets:
            concentration = grouped(concentration, targets["groups"])
        total = counts.new_zeros(counts.shape[0])
        for place in slices().values():
            total = total + dirichlet_multinomial_loss(concentration[:, place], counts[:, place])
        asked = (counts.sum(dim=1) > 0).sum().clamp(min=1)
        return total.sum() / asked / len(QUESTIONS)

    def columns(self) -> tuple[Column, ...]:
        """Per question its proportion asked, per answer the fraction and its interval; tagged by the votes that trained them."""
        tags = dict(zip(ANSWERS, learned_tags(self.votes_seen.cpu().numpy().astype(np.float64)), strict=True))
        result: list[Column] = []
        for question, answers in QUESTIONS.items():
            asked = f"Predicted share of volunteers who are asked {question}"
            result.append(Column(f"{question}_proportion_asked", pa.float32(), "", asked, 1e-3, _weakest(question, tags)))
            for answer in answers:
                name, text = f"{question}_{answer}_fraction", f"Predicted vote fraction of {answer} among those asked {question}"
                tag = tags[f"{question}_{answer}"]
                result.append(Column(name, pa.float32(), "", text, 1e-3, tag))
                result.append(Column(f"{name}_lo", pa.float32(), "", f"Lower end of the {INTERVAL:.0%} interval. {text}", 1e-3, tag))
                result.append(Column(f"{name}_hi", pa.float32(), "", f"Upper end of the {INTERVAL:.0%} interval. {text}", 1e-3, tag))
        return tuple(result)

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Means and Beta quantiles of the Dirichlet's marginals, with the temperature of the bands that the stamp has."""
        factors = self.temperature.cpu().numpy().astype(np.float64)[band_sets(context)]
        concentration = outputs["concentration"].astype(np.float64)
        fraction = {}
        result: dict[str, pa.Array] = {}
        for number, (question, place) in enumerate(slices().items()):
            own = concentration[:, place] * factors[:, number : number + 1]
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

    def calibration(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """Concentrations and votes (groups summed; none here) with the set of bands, for `calibrate`."""
        return self.vote_calibration(outputs, mapped_votes("mock", truth.table), context)

    def vote_calibration(self, outputs: RawOutputs, mapped: MappedVotes, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """The same from the votes of any label set, one row of ``mapped`` per stamp."""
        raw = torch.from_numpy(outputs["concentration"])
        own = grouped(raw, mapped.targets()["groups"]).numpy().astype(np.float64)
        return {"concentration": own, "votes": mapped.counts.astype(np.float64), "bands": band_sets(context).astype(np.float64)}

    def calibrate(self, gathered: dict[str, npt.NDArray[np.float64]]) -> dict[str, float]:
        """One temperature per question and set of bands, from votes that trained nothing; see `galpipe.heads.votes.temperature`.

        The figures are coverages of the interval by those votes (randomised transform). The temperature behind them was learned from
        every second galaxy, and the others are counted; the temperature that is kept is learned from all.
        """
        figures: dict[str, float] = {}
        for bands in np.unique(gathered["bands"]).astype(int):
            here = gathered["bands"] == bands
            name = name_of(int(bands))
            for number, (question, place) in enumerate(slices().items()):
                own, counts = gathered["concentration"][here][:, place], gathered["votes"][here][:, place]
                own, counts = own[counts.sum(axis=1) > 0], counts[counts.sum(axis=1) > 0]
                half = temperature(own[::2], counts[::2], INTERVAL)
                for when, factor in (("before", 1.0), ("after", half)):
                    draws = transform(own[1::2] * factor, counts[1::2], np.random.default_rng([19, int(bands), number]))
                    if np.isfinite(draws).any():
                        figures[f"{name}: {question}: coverage of {INTERVAL:.0%} {when}"] = coverage(draws, INTERVAL)
                self.temperature[bands, number] = temperature(own, counts, INTERVAL)
                figures[f"{name}: {question}: temperature"] = float(self.temperature[bands, number])
                figures[f"{name}: {question}: galaxies"] = float(len(own))
        fill_unmeasured(self.temperature, np.unique(gathered["bands"]).astype(int), smallest=True)
        return figures

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


def _weakest(question: str, tags: dict[str, Learned]) -> Learned:
    """The tag of a proportion asked: that of the least well learned answer on the way to the question, or of its own answers."""
    if question == "merging":
        way = ["smooth-or-featured_artifact"]
    else:
        way = [f"{parent}_{answer}" for parent, answer in ASKED_IF[question]] or [f"{question}_{answer}" for answer in QUESTIONS[question]]
    order: tuple[Learned, ...] = ("mock only", "mapped", "real votes")
    return order[min(order.index(tags[answer]) for answer in way)]
