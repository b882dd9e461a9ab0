"""By how much the values of one column differ between two versions, row against row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogs.schema import base_columns

TOLERANCE = b"tolerance"
"""Key of a column's tolerance in the metadata of its field."""

UNDECLARED = 1e-3
"""Tolerance of a model's floating-point column whose file does not tell it: that of most heads."""

IN_LISTS = 1e-2
"""Largest tolerance of the members of nested objects: what a catalog declares for them is about their number."""

KEPT = 50_000
"""Amounts per column up to which the median is exact; beyond, it is that of bins of 0.005 dex (1.2 %)."""

_LOW, _HIGH, _PER_DEX = -20, 20, 200

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One column of N pairs of rows.

    Parameters
    ----------
    changed : ndarray
        Whether the values differ by more than the tolerance, shape (N,). Null equals null, NaN equals NaN.
    amount : ndarray
        Absolute change, shape (N,), in the column's unit; NaN for text, flags and where one of the two is null or NaN. Of a list
        the largest of its members'.
    """

    changed: Mask
    amount: Floats


def tolerance_of(item: pa.Field) -> float:
    """The largest difference that does not count as a change; 0 is exact.

    From the field's metadata where the catalog wrote it there, else from the declared base columns.
    """
    told = (item.metadata or {}).get(TOLERANCE)
    if told is not None:
        return float(told)
    declared = {column.name: column.tolerance for column in base_columns()}
    if item.name in declared:
        return declared[item.name]
    return UNDECLARED if _has_floats(item.type) else 0.0


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _has_floats(kind: pa.DataType) -> bool:
    if _is_list(kind):
        return _has_floats(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_has_floats(part.type) for part in kind)
    return bool(pa.types.is_floating(kind))


def compare(before: pa.Array, after: pa.Array, tolerance: float) -> Compared:
    """Compare N values with N others.

    Parameters
    ----------
    before, after : pyarrow.Array
        Shape (N,): numbers, text, flags, lists or structs of these. Types may differ in width.
    tolerance : float
        In the column's unit.
    """
    missing = np.asarray(before.is_null()), np.asarray(after.is_null())
    both = ~(missing[0] | missing[1])
    changed, amount = missing[0] != missing[1], np.full(len(before), np.nan)
    rows = np.flatnonzero(both)
    inner = _present(before.take(pa.array(rows)), after.take(pa.array(rows)), tolerance)
    changed[rows], amount[rows] = inner.changed, inner.amount
    return Compared(changed, amount)


def _present(before: pa.Array, after: pa.Array, tolerance: float) -> Compared:
    """`compare` where neither value is null."""
    kinds = before.type, after.type
    if all(map(_is_list, kinds)):
        return _lists(before, after, tolerance)
    if all(map(pa.types.is_struct, kinds)):
        return _structs(before, after, min(tolerance, IN_LISTS))
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        return _numbers(before.to_numpy(zero_copy_only=False), after.to_numpy(zero_copy_only=False), tolerance)
    same = pc.equal(before, after) if kinds[0] == kinds[1] else pc.equal(before.cast(pa.string()), after.cast(pa.string()))
    return Compared(~np.asarray(same, bool), np.full(len(before), np.nan))


def _numbers(before: NDArray[Any], after: NDArray[Any], tolerance: float) -> Compared:
    # 64-bit integers are compared as such: as floats, ids that differ in the last digits would be equal
    equal = np.asarray(before == after)
    one, other = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(invalid="ignore"):
        amount = np.where(equal, 0.0, np.abs(other - one))
    lost = np.isnan(one) != np.isnan(other)
    both_nan = np.isnan(one) & np.isnan(other)
    beyond = amount > tolerance if tolerance else ~both_nan
    return Compared(np.asarray(lost | (~equal & beyond)), amount)


def _structs(before: pa.StructArray, after: pa.StructArray, tolerance: float) -> Compared:
    changed, amount = np.zeros(len(before), bool), np.full(len(before), np.nan)
    names = [{part.name for part in array.type} for array in (before, after)]
    if names[0] != names[1]:
        changed[:] = True
    for name in sorted(names[0] & names[1]):
        part = compare(pc.struct_field(before, name), pc.struct_field(after, name), tolerance)
        changed |= part.changed
        amount = np.fmax(amount, part.amount)
    return Compared(changed, amount)


def _lists(before: pa.Array, after: pa.Array, tolerance: float) -> Compared:
    lengths = [pc.list_value_length(array).to_numpy(zero_copy_only=False) for array in (before, after)]
    changed, amount = np.asarray(lengths[0] != lengths[1]), np.full(len(before), np.nan)
    rows = np.flatnonzero(~changed & (lengths[0] > 0))
    if not len(rows):
        return Compared(changed, amount)
    chosen = pa.array(rows)
    inner = compare(pc.list_flatten(before.take(chosen)), pc.list_flatten(after.take(chosen)), tolerance)
    starts = np.concatenate([[0], np.cumsum(lengths[0][rows])[:-1]]).astype(np.int64)
    changed[rows] = np.logical_or.reduceat(inner.changed, starts)
    amount[rows] = np.fmax.reduceat(inner.amount, starts)
    return Compared(changed, amount)


@dataclass
class Amounts:
    """The changes of one column, gathered part by part in bounded memory."""

    changed: int = 0
    largest: float = np.nan
    largest_at: int | None = None
    """``source_id`` of the row with the largest change."""
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros((_HIGH - _LOW) * _PER_DEX, np.int64))
    """Changes by their decimal logarithm."""
    _first: list[Floats] | None = field(default_factory=list)

    def add(self, compared: Compared, ids: NDArray[np.int64]) -> None:
        """Take in the changed rows of a part; ``ids`` has the shape of its arrays."""
        self.changed += int(compared.changed.sum())
        known = compared.changed & ~np.isnan(compared.amount)
        amount = compared.amount[known]
        if not len(amount):
            return
        place = int(np.argmax(amount))
        if not amount[place] <= self.largest:
            self.largest, self.largest_at = float(amount[place]), int(ids[known][place])
        with np.errstate(divide="ignore"):
            logarithm = np.nan_to_num(np.log10(amount), posinf=_HIGH, neginf=_LOW)
        index = np.clip(((logarithm - _LOW) * _PER_DEX).astype(np.int64), 0, len(self.bins) - 1)
        np.add.at(self.bins, index, 1)
        if self._first is not None:
            self._first.append(amount)
            if self.bins.sum() > KEPT:
                self._first = None

    @property
    def median(self) -> float:
        """Of the absolute changes; NaN where there is none to take."""
        if self._first is not None:
            return float(np.median(np.concatenate(self._first))) if self._first else float("nan")
        place = int(np.searchsorted(np.cumsum(self.bins), (self.bins.sum() + 1) // 2))
        return float(10 ** ((place + 0.5) / _PER_DEX + _LOW))

    def as_dict(self) -> Mapping[str, Any]:
        """Plain values, ready for JSON."""
        return {"changed": self.changed, "median": self.median, "max": self.largest, "max_at": self.largest_at}
