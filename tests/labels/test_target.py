"""Columns are understood, classes chosen and merged, thresholds applied; what cannot be learned is refused in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.errors import BadData, ConfigurationError
from galpipe.labels.columns import describe
from galpipe.labels.target import Target, TargetSpec

MORPHOLOGY = ["elliptical", "spiral_clockwise", "edge_on", None, "spiral_anticlockwise", "merger", "elliptical", ""]
TABLE = pa.table(
    {
        "label": MORPHOLOGY,
        "bar": [0.0, 0.5, -1.0, 1.0, 0.25, None, float("nan"), 0.75],
        "T": [-5.0, 3.0, -1.0, 0.0, 7.0, None, 2.0, 1.0],
        "ring": [0, 1, 1, 0, 0, None, 1, 0],
        "has-spiral-arms_no_fraction": [0.1] * 7 + [0.9],
        "same": [1.0] * 8,
        "number": pa.array([3, 4, 5, 3, 4, 5, 3, 4], pa.int64()),
        "dr7objid": range(8),
        "odd": [[1]] * 8,
    }
)


def target(column: str, classes: str = "", at_least: float | None = None) -> Target:
    return TargetSpec.parse(column, classes, at_least).apply(TABLE, "a.parquet")


@pytest.mark.parametrize(
    ("name", "kind", "known", "undetermined"),
    [
        ("label", "class", 6, 0),
        ("bar", "number", 5, 1),
        ("T", "number", 7, 0),
        ("ring", "yes/no", 7, 0),
        ("has-spiral-arms_no_fraction", "fraction", 8, 0),
        ("number", "class", 8, 0),
        ("dr7objid", "identity", 8, 0),
    ],
)
def test_columns_are_understood(name: str, kind: str, known: int, undetermined: int) -> None:
    found = describe(name, TABLE[name])
    assert found is not None
    assert (found.kind, found.known, found.undetermined) == (kind, known, undetermined)
    assert describe("odd", TABLE["odd"]) is None


def test_classes_are_chosen_and_merged() -> None:
    found = target("label", "elliptical,edge_on,spiral=spiral_clockwise+spiral_anticlockwise")
    assert found.names == ("elliptical", "edge_on", "spiral")
    assert found.rows.tolist() == [0, 1, 2, 4, 6] and found.values.tolist() == [0, 2, 1, 2, 0]
    assert found.counts() == {"elliptical": 2, "edge_on": 1, "spiral": 2}
    assert found.left_out == {"no value": 2, "another class": 1}


def test_all_classes_where_none_is_chosen() -> None:
    assert target("label").names == ("edge_on", "elliptical", "merger", "spiral_anticlockwise", "spiral_clockwise")
    assert target("ring").counts() == {"no": 4, "yes": 3}
    assert target("number", "low=3,high=4+5").counts() == {"low": 3, "high": 5}


def test_a_threshold_leaves_out_what_is_undetermined() -> None:
    found = target("bar", at_least=0.5)
    assert found.rows.tolist() == [0, 1, 3, 4, 7] and found.values.tolist() == [0, 1, 1, 0, 1]
    assert found.names == ("no", "yes") and found.left_out == {"no value": 2, "undetermined": 1}


def test_numbers_below_zero_are_numbers_where_that_is_their_scale() -> None:
    found = target("T")
    assert found.kind == "number" and found.values.tolist() == [-5.0, 3.0, -1.0, 0.0, 7.0, 2.0, 1.0]
    assert target("bar").rows.tolist() == [0, 1, 3, 4, 7]


def test_a_test_set_has_the_training_set_s_codes() -> None:
    spec = TargetSpec.parse("label", "elliptical,spiral=spiral_clockwise+spiral_anticlockwise")
    other = pa.table({"label": ["spiral_anticlockwise", "spiral_anticlockwise"]})
    assert spec.apply(other, names=("elliptical", "spiral")).values.tolist() == [1, 1]
    plain = TargetSpec.parse("label")
    assert plain.apply(pa.table({"label": ["b"]}), names=("a", "b")).values.tolist() == [1]
    with pytest.raises(ConfigurationError, match="also \\['c'\\]"):
        plain.apply(pa.table({"label": ["b", "c"]}), names=("a", "b"))


@pytest.mark.parametrize(
    ("column", "classes", "at_least", "text"),
    [
        ("lable", "", None, "'lable'"),
        ("label", "elliptical,irregular", None, "'irregular'"),
        ("label", "elliptical,a=elliptical+merger", None, "each class once"),
        ("label", "elliptical", None, "at least two classes"),
        ("label", "a=b+,c", None, "classes such as"),
        ("label", "a,b", 0.5, "either classes or a threshold"),
        ("label", "", 0.5, "numbers for a threshold"),
        ("bar", "", float("nan"), "finite"),
        ("odd", "", None, "classes or numbers"),
    ],
)
def test_wrong_wishes_are_refused(column: str, classes: str, at_least: float | None, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        target(column, classes, at_least)


def test_a_target_that_never_changes_is_refused() -> None:
    with pytest.raises(BadData, match="only '1' in 8 rows: nothing to learn"):
        target("same")
    with pytest.raises(BadData, match="only 'yes'"):
        target("has-spiral-arms_no_fraction", at_least=0.0)
    with pytest.raises(BadData, match="none"):
        TargetSpec.parse("x").apply(pa.table({"x": pa.array([None, None], pa.float64())}))


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.sampled_from("abcd")), min_size=2, max_size=30))
def test_every_row_is_used_or_counted(values: list[str | None]) -> None:
    table = pa.table({"label": pa.array(values, pa.string())})
    wanted = sorted({value for value in values if value is not None})[:2]
    if len(wanted) < 2:
        return
    found = TargetSpec.parse("label", ",".join(wanted)).apply(table)
    assert len(found.rows) + sum(found.left_out.values()) == len(values)
    assert [values[row] for row in found.rows] == [found.names[int(code)] for code in found.values]
    assert np.all(np.diff(found.rows) > 0)
