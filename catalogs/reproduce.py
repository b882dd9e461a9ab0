"""Compare a row with the same row computed again, column by column, within the schema's tolerances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

UNCOMPARED = ("provenance_id",)
"""Hash of the inputs, the code version among them: compared as such, not as a value."""


@dataclass(frozen=True)
class Compared:
    """One column of one row.

    Parameters
    ----------
    column : str
    stored, again : object
        Plain values.
    difference : float
        Largest absolute difference of a number; infinite for anything else that differs.
    tolerance : float
        What the schema allows; 0 = exact.
    """

    column: str
    stored: Any
    again: Any
    difference: float
    tolerance: float

    @property
    def same(self) -> bool:
        """Within the tolerance."""
        return self.difference <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"same": self.same}


def compare(stored: pa.Table, again: pa.Table, tolerances: Mapping[str, float]) -> list[Compared]:
    """Compare two tables of one row.

    Parameters
    ----------
    stored, again : pyarrow.Table
        One row each.
    tolerances : mapping
        From `catalogs.schema.tolerances`; a column that it lacks must be equal.

    Returns
    -------
    list of Compared
        Every column of either; one that is missing on a side differs.
    """
    one, two = stored.to_pylist()[0], again.to_pylist()[0]
    missing = object()
    found = []
    for name in dict.fromkeys([*one, *two]):
        if name in UNCOMPARED:
            continue
        was, came = one.get(name, missing), two.get(name, missing)
        difference = math.inf if missing in (was, came) else _difference(was, came)
        found.append(Compared(name, one.get(name), two.get(name), difference, tolerances.get(name, 0.0)))
    return found


def _difference(one: Any, two: Any) -> float:
    """Largest difference of two values; numbers within lists and structs count one by one."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return max((_difference(one[key], two[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return max((_difference(*pair) for pair in zip(one, two, strict=True)), default=0.0)
    if _is_number(one) and _is_number(two):
        if math.isnan(one) and math.isnan(two):
            return 0.0
        # integers beyond 2**53 must not be rounded together
        gap = abs(one - two)
        return math.inf if math.isnan(gap) else float(gap)
    return 0.0 if one == two and type(one) is type(two) else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
