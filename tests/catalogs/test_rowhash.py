"""Sums of hashes know rows whatever their order, and every value in them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.rowhash import row_sums
from tests.catalogs.sky import UNITS, make_shard


def total(table: pa.Table) -> int:
    return int(row_sums(table, np.zeros(table.num_rows, np.int64), 1)[0])


TABLE = make_shard(UNITS[0], 12)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(12)), st.integers(1, 11))
def test_order_and_pieces_do_not_show(order: list[int], cut: int) -> None:
    table = TABLE
    pieces = pa.concat_tables([table.take(order).slice(0, cut), table.take(order).slice(cut)])
    assert total(pieces) == total(table)
    groups = np.arange(12) % 3
    assert row_sums(table, groups, 3).sum(dtype=np.uint64) == total(table)


@pytest.mark.parametrize("column", ["ra", "type", "brick_primary", "maskbits", "mag_model_r", "embedding", "z_mock_pdf", "detections"])
def test_every_kind_of_value_counts(column: str) -> None:
    table = make_shard(UNITS[0], 4)
    place = table.schema.get_field_index(column)
    swapped = table[column].take([1, 0, 2, 3])
    # every row of a fake brick has the same of these
    others = {"type": ["PSF", *["SER"] * 3], "brick_primary": [False, True, True, True], "maskbits": [4096, 0, 4096, 4096]}
    swapped = pa.array(others[column]) if column in others else swapped
    # the same values in another row
    assert total(table.set_column(place, table.schema.field(place), swapped.cast(table.schema.field(place).type))) != total(table)


def test_what_is_not_there_counts_too() -> None:
    table = make_shard(UNITS[0], 4)
    place = table.schema.get_field_index("mag_model_r")
    values = pa.array([None, *table["mag_model_r"].to_pylist()[1:]], pa.float32())
    assert total(table.set_column(place, table.schema.field(place), values)) != total(table)


def test_places_in_lists_count() -> None:
    """An embedding turned round, and values of two detections changed with each other, are other rows."""
    turned = [None if row is None else row[::-1] for row in TABLE["embedding"].to_pylist()]
    place = TABLE.schema.get_field_index("embedding")
    assert total(TABLE.set_column(place, TABLE.schema.field(place), pa.array(turned, TABLE.schema.field(place).type))) != total(TABLE)
    found = [{"x": 1.0, "y": 2.0}, {"x": 3.0, "y": 4.0}]
    mixed = [{"x": 1.0, "y": 4.0}, {"x": 3.0, "y": 2.0}]
    one, other = (pa.table({"source_id": [1], "d": [item]}) for item in (found, mixed))
    assert total(one) != total(other)
    columns = {key: [item[key] for item in found] for key in "xy"}
    assert total(pa.table({"source_id": [1], "d": [columns]})) == total(one)
