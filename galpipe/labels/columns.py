"""What the columns of a label set are: identity, class, yes/no, vote fraction or number; and which values say that nobody knows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as types
from numpy.typing import NDArray

Kind = Literal["identity", "class", "yes/no", "fraction", "number"]

FRACTION_NAMES = ("_fraction", "_debiased")
"""Ends of the names of vote fractions, as Galaxy Zoo publishes them."""

MOST_CLASSES = 32
"""Whole numbers with more different values are numbers, not classes."""

IDENTITIES = re.compile(r"(id|name|objid|dr7objid|dr8_id|iauname|file|filename|path|inds?|row|ra|dec)|.*_(id|key)|.*objid|brickid")
"""Names of columns that say which galaxy it is, not what it is like."""

UNKNOWN_TEXTS = ("", "nan", "null")
"""What stands for no value in a text column; ``none`` is an answer (no ring, no bulge)."""


@dataclass(frozen=True)
class LabelColumn:
    """One column of a label set.

    Parameters
    ----------
    name : str
    kind : str
        ``identity``, ``class``, ``yes/no`` (0 and 1), ``fraction`` (0 to 1, of votes) or ``number``.
    known : int
        Rows whose value is known.
    undetermined : int
        Rows whose value says that it could not be told: below zero where all others lie from 0 to 1.
    counts : dict
        Rows per class; empty for fractions and numbers.
    """

    name: str
    kind: Kind
    known: int
    undetermined: int = 0
    counts: dict[str, int] = field(default_factory=dict)


def describe(name: str, values: pa.ChunkedArray) -> LabelColumn | None:
    """What a column is; None for a column that holds no label (lists, images).

    Parameters
    ----------
    name : str
    values : pyarrow.ChunkedArray
    """
    kind = values.type
    if types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if IDENTITIES.fullmatch(name.lower()):
        return LabelColumn(name, "identity", len(values) - values.null_count)
    if types.is_string(kind) or types.is_large_string(kind):
        texts = Counter(value for value in as_texts(values) if value is not None)
        return LabelColumn(name, "class", sum(texts.values()), counts=dict(sorted(texts.items())))
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return _describe_numbers(name, values)
    return None


def _describe_numbers(name: str, values: pa.ChunkedArray) -> LabelColumn:
    numbers = as_numbers(values)
    unknown = undetermined(numbers)
    known = np.isfinite(numbers) & ~unknown
    found = np.unique(numbers[known])
    count, lost = int(known.sum()), int(unknown.sum())
    whole = bool(len(found)) and bool(np.all(found == np.rint(found)))
    if whole and set(found.tolist()) <= {0.0, 1.0} and not types.is_floating(values.type):
        return LabelColumn(name, "yes/no", count, lost, _counts(numbers[known]))
    if whole and types.is_integer(values.type) and len(found) <= MOST_CLASSES:
        return LabelColumn(name, "class", count, lost, _counts(numbers[known]))
    if name.endswith(FRACTION_NAMES) and len(found) and found[0] >= 0 and found[-1] <= 1:
        return LabelColumn(name, "fraction", count, lost)
    return LabelColumn(name, "number", count, lost)


def _counts(numbers: NDArray[np.float64]) -> dict[str, int]:
    found, counts = np.unique(numbers, return_counts=True)
    return {f"{int(value)}": int(count) for value, count in zip(found, counts, strict=True)}


def as_texts(values: pa.ChunkedArray) -> list[str | None]:
    """Text values with None where nothing is said; whole numbers as their digits."""
    if types.is_floating(values.type):
        return [None if value is None or not np.isfinite(value) else f"{value:g}" for value in values.to_pylist()]
    texts = [None if value is None else str(value).strip() for value in values.to_pylist()]
    return [None if value is None or value.lower() in UNKNOWN_TEXTS else value for value in texts]


def as_numbers(values: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Values as float64, shape (N,); NaN where null."""
    return np.array(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def undetermined(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Values that stand for "could not be told": negative ones in a column whose others lie from 0 to 1 (EFIGI's -1); shape (N,)."""
    finite = np.isfinite(numbers)
    positive = numbers[finite & (numbers >= 0)]
    below: NDArray[np.bool_] = finite & (numbers < 0)
    return below if len(positive) and positive.max() <= 1 else np.zeros_like(below)
