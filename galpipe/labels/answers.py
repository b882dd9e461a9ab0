"""What people said of the galaxies in the label sets that may train (never those that only measure): soft answers with weights.

`sdss_efigi_attributes`: expert attributes from 0 to 1 (Baillard et al. 2011, A&A 532, A74), negative where undetermined, and the Hubble
stage T. `sdss_gz2_votes`: weighted vote fractions of eleven questions (Willett et al. 2013, MNRAS 435, 2835), each weighted by the share
of volunteers who were asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from galpipe.errors import BadData

FloatArray = NDArray[np.float32]

MEASURED = ("legacy_rings", "legacy_galaxy10", "sdss_gz1_classes", "sdss_spirals", "sdss_metallicity")
"""Sets whose labels only measure: nothing that ships has seen them."""

TRAINING = ("sdss_efigi_attributes", "sdss_gz2_votes")
"""Sets whose labels may train."""

ATTRIBUTES = (
    "Bulge_to_Total",
    "Arm_Strength",
    "Arm_Curvature",
    "Bar_Length",
    "Inner_Ring",
    "Outer_Ring",
    "Pseudo_Ring",
    "Perturbation",
    "Visible_Dust",
    "Dust_Dispersion",
    "Flocculence",
    "Hot_Spots",
    "Inclination",
    "Contamination",
    "Multiplicity",
)
STAGE = "T"
STAGE_LOW, STAGE_HIGH = -6.0, 11.0
"""Hubble stages from elliptical to irregular."""

GZ2_QUESTIONS = {
    "t01_smooth_or_features": 3,
    "t02_edgeon": 2,
    "t03_bar": 2,
    "t04_spiral": 2,
    "t05_bulge_prominence": 4,
    "t06_odd": 2,
    "t07_rounded": 3,
    "t08_odd_feature": 7,
    "t09_bulge_shape": 3,
    "t10_arms_winding": 3,
    "t11_arms_number": 6,
}
"""Questions of Galaxy Zoo 2 and their numbers of answers."""

ATTRIBUTE_WEIGHT = 0.25
"""Sixteen attributes that all hold at once weigh as much as the four or so questions that a volunteer answers."""

BINARY = len(ATTRIBUTES) + 1
SIZE = BINARY + sum(GZ2_QUESTIONS.values())
QUESTIONS = BINARY + len(GZ2_QUESTIONS)


@dataclass(frozen=True)
class HumanAnswers:
    """Soft answers of N galaxies.

    Parameters
    ----------
    values : ndarray of float32, shape (N, `SIZE`)
        Attributes from 0 to 1, then vote fractions question by question.
    weights : ndarray of float32, shape (N, `QUESTIONS`)
        0 where nobody said.
    """

    values: FloatArray
    weights: FloatArray

    def take(self, rows: NDArray[np.int64]) -> HumanAnswers:
        """Some galaxies."""
        return HumanAnswers(self.values[rows], self.weights[rows])


def places() -> list[slice]:
    """Where the answers of each question of Galaxy Zoo 2 lie."""
    ends = BINARY + np.cumsum(list(GZ2_QUESTIONS.values()))
    return [slice(int(end - count), int(end)) for end, count in zip(ends, GZ2_QUESTIONS.values(), strict=True)]


def nothing(rows: int) -> HumanAnswers:
    """Galaxies of which nobody said anything."""
    return HumanAnswers(np.zeros((rows, SIZE), np.float32), np.zeros((rows, QUESTIONS), np.float32))


def human_answers(name: str, table: pa.Table, file: str = "") -> HumanAnswers:
    """Answers of a label set; none where the set only measures or is not known.

    Parameters
    ----------
    name : str
        Of the set, the beginning of its file's name.
    table : pyarrow.Table
        Its labels.
    file : str
        For messages.

    Raises
    ------
    BadData
        If a column is not there.
    """
    result = nothing(table.num_rows)
    if name == "sdss_efigi_attributes":
        _efigi(table, result, file)
    elif name == "sdss_gz2_votes":
        _gz2(table, result, file)
    return result


def _column(table: pa.Table, name: str, file: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        raise BadData(f"a label column {name}", f"{table.num_columns} others", file=file)
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _efigi(table: pa.Table, into: HumanAnswers, file: str) -> None:
    for index, name in enumerate(ATTRIBUTES):
        values = _column(table, name, file)
        known = (values >= 0) & (values <= 1)
        into.values[known, index], into.weights[known, index] = values[known], 1.0
    stage = _column(table, STAGE, file)
    known = np.isfinite(stage)
    into.values[known, BINARY - 1] = np.clip((stage[known] - STAGE_LOW) / (STAGE_HIGH - STAGE_LOW), 0, 1)
    into.weights[known, BINARY - 1] = 1.0


def _gz2(table: pa.Table, into: HumanAnswers, file: str) -> None:
    for (question, count), place in zip(GZ2_QUESTIONS.items(), places(), strict=True):
        names = sorted(name for name in table.column_names if name.startswith(f"{question}_a") and name.endswith("_weighted_fraction"))
        if len(names) != count:
            raise BadData(f"{count} weighted fractions of {question}", f"{names}", file=file)
        fractions = np.nan_to_num(np.stack([_column(table, name, file) for name in names], axis=1))
        total = fractions.sum(axis=1, keepdims=True)
        into.values[:, place] = fractions / np.maximum(total, 1e-6)
        into.weights[:, BINARY + list(GZ2_QUESTIONS).index(question)] = total[:, 0] > 0.5
    into.weights[:, BINARY:] *= asked(into.values)


def asked(values: FloatArray) -> FloatArray:
    """Share of volunteers who come to each question of Galaxy Zoo 2, shape (N, 11), from the answers to the questions before."""
    place = dict(zip(GZ2_QUESTIONS, places(), strict=True))

    def share(question: str, answer: int) -> FloatArray:
        return values[:, place[question].start + answer]

    featured, edge_on, spiral = share("t01_smooth_or_features", 1), share("t02_edgeon", 0), share("t04_spiral", 0)
    always, face_on = np.ones(len(values), np.float32), featured * (1 - edge_on)
    arms = face_on * spiral
    smooth, odd = share("t01_smooth_or_features", 0), share("t06_odd", 0)
    each = [always, featured, face_on, face_on, face_on, always, smooth, odd, featured * edge_on, arms, arms]
    return np.stack(each, axis=1).astype(np.float32)


def answer_loss(logits: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of soft answers, averaged over the galaxies that have any: a sum per galaxy over attributes and questions.

    Parameters
    ----------
    logits, values : Tensor, shape (N, `SIZE`)
    weights : Tensor, shape (N, `QUESTIONS`)
    """
    binary = functional.binary_cross_entropy_with_logits(logits[:, :BINARY], values[:, :BINARY], reduction="none")
    total = (binary * weights[:, :BINARY]).sum() * ATTRIBUTE_WEIGHT
    for index, place in enumerate(places()):
        chosen = (values[:, place] * functional.log_softmax(logits[:, place], dim=1)).sum(dim=1)
        total = total - (chosen * weights[:, BINARY + index]).sum()
    return total / (weights.sum(dim=1) > 0).sum().clamp(min=1)


def soft_answers(logits: Tensor) -> HumanAnswers:
    """A network's own answers as targets for another."""
    values = torch.cat([torch.sigmoid(logits[:, :BINARY]), *(functional.softmax(logits[:, place], dim=1) for place in places())], dim=1)
    array = values.float().numpy()
    return HumanAnswers(array, np.concatenate([np.ones((len(array), BINARY), np.float32), asked(array)], axis=1))


def spread_weights(weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """Weights of questions, shape (N, `QUESTIONS`), as weights of their answers, shape (N, `SIZE`)."""
    parts = [weights[:, :BINARY]]
    parts += [
        np.repeat(weights[:, BINARY + index : BINARY + index + 1], place.stop - place.start, axis=1) for index, place in enumerate(places())
    ]
    return np.concatenate(parts, axis=1)
