"""Answers of trained methods, kept from one run to the next: a training that was done is not done again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.commit import replace_file
from galpipe.labels.labelset import Dropped, LabelSet
from galpipe.labels.sources import Item

Floats = NDArray[np.float64]

VERSION = 2
"""Raised by hand when the code that learns changes what it answers."""


@dataclass(frozen=True)
class Answer:
    """What a method that learned from some labels says of the test rows.

    Parameters
    ----------
    rows : ndarray of int64, shape (M,)
        Rows of the test set.
    predicted : ndarray, shape (M, C) or (M,)
        Scores of the classes, or numbers.
    labels : int
        Labels that were learned from.
    half_widths : ndarray, shape (L,)
        Of the intervals of numbers; empty where there are none.
    """

    rows: NDArray[np.int64]
    predicted: Floats
    labels: int
    half_widths: Floats


@dataclass(frozen=True)
class Kept:
    """Answers in a folder, each in a file of its own, found by all that they depend on.

    Parameters
    ----------
    folder : Path or None
        None keeps nothing.
    """

    folder: Path | None

    def path(self, name: str, depends: Mapping[str, Any]) -> Path | None:
        """File of an answer; ``depends`` are plain values."""
        if self.folder is None:
            return None
        text = json.dumps({"version": VERSION, **depends}, sort_keys=True, allow_nan=False)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"

    def has(self, path: Path | None) -> bool:
        """Whether an answer lies there that can be read."""
        return path is not None and _read(path) is not None

    def get(self, path: Path | None, learn: Callable[[], Answer]) -> Answer:
        """The answer that lies there, else a new one, which is kept."""
        found = None if path is None else _read(path)
        if found is not None:
            return found
        answer = learn()
        if path is not None:
            # the file is opened here: NumPy would add an ending to the name
            with replace_file(path) as aside, aside.open("wb") as handle:
                np.savez(
                    handle,
                    rows=answer.rows,
                    predicted=answer.predicted,
                    labels=np.int64(answer.labels),
                    half_widths=answer.half_widths,
                )
        return answer


def _read(path: Path) -> Answer | None:
    try:
        with np.load(path, allow_pickle=False) as held:
            return Answer(held["rows"], held["predicted"], int(held["labels"]), held["half_widths"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def rows_digest(labels: LabelSet, rows: NDArray[np.int64], answers: NDArray[np.generic]) -> str:
    """sha256 over the ids, the pictures and the answers of some rows, and how the pictures were drawn."""
    digest = hashlib.sha256(f"{labels.route} {labels.kind}".encode())
    for (row, item), answer in zip(labels.items(rows), answers, strict=True):
        digest.update(f"{labels.ids[row]} {answer!r} {_content(item)}".encode())
    return digest.hexdigest()


def _content(item: Item | Dropped) -> str:
    if isinstance(item, Dropped):
        return "none"
    if isinstance(item, bytes):
        return hashlib.sha256(item).hexdigest()
    pixels = [array for array in (item.flux, item.invvar, item.known) if array is not None]
    digest = hashlib.sha256(f"{item.bands} {item.grid} {item.per_survey_pixel} {item.jpeg_route}".encode())
    for array in pixels:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
