"""Rows are compared value by value, within what the schema allows."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from catalogs.reproduce import compare


def differences(one: dict[str, object], two: dict[str, object], tolerances: dict[str, float] | None = None) -> list[str]:
    found = compare(pa.Table.from_pylist([one]), pa.Table.from_pylist([two]), tolerances or {})
    return [item.column for item in found if not item.same]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (1.0, 1.0009, True),
        (1.0, 1.002, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (None, 1.0, False),
        (None, None, True),
        ([1.0, 2.0], [1.0, 2.0005], True),
        ([1.0, 2.0], [1.0, 2.1], False),
        ([1.0], [1.0, 2.0], False),
        ([{"x": 1.0, "class": "a"}], [{"x": 1.0005, "class": "a"}], True),
        ([{"x": 1.0, "class": "a"}], [{"x": 1.0, "class": "b"}], False),
    ],
)
def test_within_a_thousandth(one: object, two: object, same: bool) -> None:
    assert differences({"value": one}, {"value": two}, {"value": 1e-3}) == ([] if same else ["value"])


def test_what_has_no_tolerance_is_exact() -> None:
    assert differences({"id": 2**62, "on": True, "z": 0.5}, {"id": 2**62 + 1, "on": False, "z": 0.5}) == ["id", "on"]


def test_a_column_that_only_one_side_has_differs_and_the_provenance_id_does_not() -> None:
    assert differences({"a": 1, "provenance_id": 1}, {"b": 1, "provenance_id": 2}) == ["a", "b"]
