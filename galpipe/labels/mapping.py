"""Votes of other trees and of experts, brought into the ten questions of the Galaxy Zoo DECaLS tree by tables (docs/morphology.md).

Use in training::

    mapped = mapped_votes("sdss_gz2_votes", labels.table)           # one row per row of the label set
    head.learned_from(mapped.take(rows))                            # once, with the rows that train: recorded with the weights
    loss = head.loss(answers.heads["morphology"], mapped.targets(batch_rows))

A source that tells fewer answers apart gives votes to *groups* of answers; `galpipe.heads.votes` sums the Dirichlet parameters of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from galpipe.columns import Learned
from galpipe.errors import ConfigurationError
from galpipe.galaxyzoo import ANSWERS, TREE, place, slices
from galpipe.labels.efigi import efigi_counts, efigi_groups
from galpipe.labels.gz2 import GZ2_EXACT, gz2_counts, gz2_groups

LABEL_SETS = ("mock", "sdss_gz2_votes", "sdss_efigi_attributes")
"""Sets that votes may come from, in the order of the head's record of what trained it."""

LEAST_VOTES = 50.0
"""Votes of the training rows from which an answer (or its group) counts as learned from a set."""


@dataclass(frozen=True)
class MappedVotes:
    """Votes in the tree of Galaxy Zoo DECaLS.

    Parameters
    ----------
    name : str
        Label set, of `LABEL_SETS`.
    counts : ndarray
        Float32, shape (N, 34): votes, a group's at its first answer; zero where nobody was asked.
    leaders : ndarray
        int64, shape (34,): for each answer the first of its group (itself if it is told apart), -1 where the source does not offer it.
    exact : ndarray
        Bool, shape (34,): volunteers were asked this question and offered this answer.
    """

    name: str
    counts: NDArray[np.float32]
    leaders: NDArray[np.int64]
    exact: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: NDArray[np.int64]) -> MappedVotes:
        """Votes of some rows."""
        return MappedVotes(self.name, self.counts[rows], self.leaders, self.exact)

    def targets(self, rows: NDArray[np.int64] | None = None) -> dict[str, Tensor]:
        """What `galpipe.heads.morphology.Morphology.loss` wants: ``votes`` (K, 34) float32 and ``groups`` (K, 34) int64."""
        counts = self.counts if rows is None else self.counts[rows]
        groups = np.broadcast_to(self.leaders, counts.shape)
        return {"votes": torch.from_numpy(np.ascontiguousarray(counts)), "groups": torch.from_numpy(np.ascontiguousarray(groups))}

    def per_answer(self) -> NDArray[np.float64]:
        """Votes behind each answer, shape (34,): a group's votes count for each of its answers."""
        total = self.counts.sum(axis=0, dtype=np.float64)
        return np.where(self.leaders >= 0, total[np.maximum(self.leaders, 0)], 0.0)


def mapped_votes(name: str, table: pa.Table) -> MappedVotes:
    """The votes of a label set's rows.

    Parameters
    ----------
    name : str
        ``sdss_gz2_votes``, ``sdss_efigi_attributes`` or ``mock``.
    table : pyarrow.Table
        N rows with the set's columns.

    Raises
    ------
    ConfigurationError
        If there is no table for such a set, or a column is missing.
    """
    if name not in MAPPINGS:
        raise ConfigurationError(f"a label set with a mapping, {', '.join(MAPPINGS)}", repr(name))
    count, groups, exact = MAPPINGS[name]
    leaders = leaders_of(groups)
    return MappedVotes(name, folded(count(table), leaders), leaders, np.array([answer in exact for answer in ANSWERS]))


def mock_counts(table: pa.Table) -> NDArray[np.float64]:
    """Votes of a truth table with GZ DESI's columns, shape (N, 34); zero where the question was not asked or the truth is unknown."""
    columns = []
    for question, answers in TREE.items():
        total = _numbers(table, f"{question}_total")
        columns += [np.nan_to_num(_numbers(table, f"{question}_{answer}_fraction") * total, nan=0.0) for answer in answers]
    return np.stack(columns, axis=1)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.array(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def leaders_of(groups: Mapping[str, tuple[tuple[str, ...], ...]]) -> NDArray[np.int64]:
    """Groups as an index per answer, shape (34,); a question that is not listed is told apart in full, one with no groups is not offered.

    Raises
    ------
    ValueError
        If a question's answer is in two groups.
    """
    leaders = np.arange(len(ANSWERS))
    for question, parts in groups.items():
        listed = [answer for part in parts for answer in part]
        if len(set(listed)) != len(listed):
            raise ValueError(f"{question}: expected each answer in one group, got {parts}")
        leaders[slices()[question]] = -1
        for part in parts:
            first = min(place(question, answer) for answer in part)
            for answer in part:
                leaders[place(question, answer)] = first
    return leaders


def folded(counts: NDArray[np.float64], leaders: NDArray[np.int64]) -> NDArray[np.float32]:
    """Votes with those of each group on its first answer, shape (N, 34); votes for answers that are not offered are dropped."""
    result = np.zeros(counts.shape)
    for answer, leader in enumerate(leaders):
        if leader >= 0:
            result[:, leader] += counts[:, answer]
    return result.astype(np.float32)


def learned_tags(votes: NDArray[np.float64]) -> tuple[Learned, ...]:
    """Where each answer was learned, from the votes that trained it.

    Parameters
    ----------
    votes : ndarray
        Shape (len(`LABEL_SETS`), 34), see `MappedVotes.per_answer`.

    Returns
    -------
    tuple of str
        ``real votes`` where volunteers were asked this very question and offered this answer; ``mapped`` where real galaxies taught it
        through a coarser or another question, or through experts; else ``mock only``.
    """
    tags: list[Learned] = []
    for index, answer in enumerate(ANSWERS):
        tag: Learned = "mock only"
        for row, name in enumerate(LABEL_SETS):
            if name == "mock" or votes[row, index] < LEAST_VOTES:
                continue
            tag = "real votes" if answer in MAPPINGS[name][2] or tag == "real votes" else "mapped"
        tags.append(tag)
    return tuple(tags)


Mapped = tuple[Callable[[pa.Table], NDArray[np.float64]], Mapping[str, tuple[tuple[str, ...], ...]], frozenset[str]]

MAPPINGS: dict[str, Mapped] = {
    "mock": (mock_counts, {}, frozenset()),
    "sdss_gz2_votes": (gz2_counts, gz2_groups(), GZ2_EXACT),
    "sdss_efigi_attributes": (efigi_counts, efigi_groups(), frozenset()),
}
"""Per label set: votes of a table, groups of answers that it does not tell apart, answers that it asks word for word."""
