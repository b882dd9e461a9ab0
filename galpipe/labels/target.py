"""What is to be learned from a label set: one column, its classes chosen and merged, or a threshold, or the number itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.errors import BadData, ConfigurationError
from galpipe.labels.columns import as_numbers, as_texts, describe, undetermined

YES_NO = ("no", "yes")


@dataclass(frozen=True)
class Target:
    """Answers of the rows that have one.

    Parameters
    ----------
    kind : str
        ``class`` (codes into ``names``) or ``number``.
    names : tuple of str
        Classes in the order of their codes; empty for numbers.
    rows : ndarray of int64, shape (K,)
        Rows of the label set, ascending.
    values : ndarray, shape (K,)
        int64 codes, or float64 numbers.
    left_out : dict
        Rows without an answer, by reason.
    """

    kind: Literal["class", "number"]
    names: tuple[str, ...]
    rows: NDArray[np.int64]
    values: NDArray[np.int64] | NDArray[np.float64]
    left_out: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Rows per class; empty for numbers."""
        return {name: int((self.values == code).sum()) for code, name in enumerate(self.names)}


@dataclass(frozen=True)
class TargetSpec:
    """Which answers are wanted.

    Parameters
    ----------
    column : str
    classes : tuple of (str, tuple of str)
        Name of each wanted class and the column's classes that it is made of; empty takes every class as it is.
    at_least : float or None
        Numbers from here on are yes, smaller ones no; undetermined and unknown ones are left out.
    """

    column: str
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    at_least: float | None = None

    @classmethod
    def parse(cls, column: str, classes: str = "", at_least: float | None = None) -> TargetSpec:
        """From the texts of a command line.

        Parameters
        ----------
        column : str
        classes : str
            Such as ``elliptical,edge_on,spiral=spiral_clockwise+spiral_anticlockwise``.
        at_least : float, optional

        Raises
        ------
        ConfigurationError
            If a class is empty or named twice, there is only one, or classes come with a threshold.
        """
        if classes and at_least is not None:
            raise ConfigurationError("either classes or a threshold", f"classes {classes!r} and at least {at_least}")
        if at_least is not None and not np.isfinite(at_least):
            raise ConfigurationError("a finite threshold", repr(at_least))
        merged = []
        for part in classes.split(",") if classes else ():
            name, _, members = part.partition("=")
            names = tuple(item.strip() for item in (members or name).split("+"))
            if not name.strip() or not all(names):
                raise ConfigurationError("classes such as a,b,c=d+e", repr(classes))
            merged.append((name.strip(), names))
        used = [member for _, members in merged for member in members]
        if len({name for name, _ in merged}) != len(merged) or len(set(used)) != len(used):
            raise ConfigurationError("each class once", repr(classes))
        if len(merged) == 1:
            raise ConfigurationError("at least two classes to tell apart", repr(classes))
        return cls(column, tuple(merged), at_least)

    def apply(self, table: pa.Table, file: str = "", names: tuple[str, ...] = ()) -> Target:
        """The answers of a table of labels.

        Parameters
        ----------
        table : pyarrow.Table
        file : str
            For messages.
        names : tuple of str
            Classes of the training set, where this is the test set: the same codes, and no other class may be there.

        Raises
        ------
        ConfigurationError
            If the column or a wanted class is not there, or the column does not fit the wish.
        BadData
            If no row has an answer, or all have the same (unless ``names`` says what else there could be).
        """
        if self.column not in table.column_names:
            raise ConfigurationError(f"a label column among {sorted(table.column_names)}", repr(self.column), file=file)
        values = table[self.column]
        found = describe(self.column, values)
        if found is None:
            raise ConfigurationError("a column of classes or numbers", f"{self.column} of type {values.type}", file=file)
        if self.at_least is not None:
            target = self._yes_no(values, self.at_least, file)
        elif found.kind in ("class", "yes/no", "identity") or self.classes:
            target = self._coded(values, found.kind, names, file)
        else:
            numbers = as_numbers(values)
            target = _numbers(numbers, undetermined(numbers))
        return checked(target, self.column, file, constant_allowed=bool(names))

    def _yes_no(self, values: pa.ChunkedArray, limit: float, file: str) -> Target:
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            raise ConfigurationError("a column of numbers for a threshold", f"{self.column} of type {values.type}", file=file)
        numbers = as_numbers(values)
        known = _numbers(numbers, numbers < 0)
        return Target("class", YES_NO, known.rows, (known.values >= limit).astype(np.int64), known.left_out)

    def _coded(self, values: pa.ChunkedArray, kind: str, names: tuple[str, ...], file: str) -> Target:
        texts = as_texts(values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values)
        if kind == "yes/no" and not self.classes:
            texts = [None if text is None else YES_NO[int(text)] for text in texts]
        present = sorted({text for text in texts if text is not None})
        wanted = self.classes or tuple((name, (name,)) for name in names or (YES_NO if kind == "yes/no" else present))
        members = {member: code for code, (_, parts) in enumerate(wanted) for member in parts}
        missing = sorted(set(members) - set(present))
        if missing and not names:
            raise ConfigurationError(f"classes of {self.column} among {present}", repr(missing), file=file)
        if not self.classes and set(present) - set(members):
            others = sorted(set(present) - set(members))
            raise ConfigurationError(f"the training set's classes of {self.column}, {sorted(members)}", f"also {others}", file=file)
        codes = np.array([-1 if text is None else members.get(text, -2) for text in texts], np.int64)
        left_out = {"no value": int((codes == -1).sum()), "another class": int((codes == -2).sum())}
        rows = np.flatnonzero(codes >= 0)
        return Target("class", tuple(name for name, _ in wanted), rows, codes[rows], {k: v for k, v in left_out.items() if v})


def _numbers(numbers: NDArray[np.float64], unknown: NDArray[np.bool_]) -> Target:
    finite = np.isfinite(numbers)
    rows = np.flatnonzero(finite & ~unknown)
    left_out = {"no value": int((~finite).sum()), "undetermined": int((finite & unknown).sum())}
    return Target("number", (), rows, numbers[rows], {reason: count for reason, count in left_out.items() if count})


def checked(target: Target, column: str, file: str, *, constant_allowed: bool) -> Target:
    """The target, if there is something to learn.

    Raises
    ------
    BadData
        If it has no row, or all have one answer (unless that is allowed).
    """
    if not len(target.rows):
        raise BadData(f"rows with a value of {column}", f"none ({target.left_out})", file=file)
    if not constant_allowed and len(np.unique(target.values)) == 1:
        only = target.names[int(target.values[0])] if target.kind == "class" else f"{target.values[0]:g}"
        raise BadData(
            f"at least two different values of {column}", f"only {only!r} in {len(target.rows)} rows: nothing to learn", file=file
        )
    return target
