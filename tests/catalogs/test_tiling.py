import itertools
from pathlib import Path

import numpy as np
import pytest
from hats.pixel_math.healpix_pixel import HealpixPixel
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.inventory import Entry, Inventory, StaleInventory
from catalogs.schema import HEALPIX_ORDER, PARTITION_ORDER
from catalogs.tiling import (
    FINEST_ORDER,
    Limits,
    Tiling,
    count_cells,
    first_cell,
    load_cells,
    name_of,
    pixel_of,
    save_cells,
    tile,
)
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.sky import UNITS, write_brick

DEPTH = 2 * (FINEST_ORDER - PARTITION_ORDER)
BYTES_PER_ROW = 10


def counts() -> st.SearchStrategy[dict[int, int]]:
    """Rows of a shard by pixel at `FINEST_ORDER`, in two neighbouring partitions."""
    return st.dictionaries(st.integers(5 << DEPTH, (7 << DEPTH) - 1), st.integers(1, 40), min_size=1, max_size=12)


def stock_of(shards: list[dict[int, int]]) -> tuple[Inventory, dict[str, dict[int, int]]]:
    entries, cells = [], {}
    for number, shard in enumerate(shards):
        coarse: dict[int, int] = {}
        for cell, rows in shard.items():
            coarse[cell >> DEPTH] = coarse.get(cell >> DEPTH, 0) + rows
        rows = sum(shard.values())
        name = f"h{number}-{hash(tuple(sorted(shard.items())))}"
        entries.append(Entry(f"{number}", rows * BYTES_PER_ROW, 0, name, rows=rows, pixels=tuple(sorted(coarse.items()))))
        cells[name] = shard
    return Inventory(tuple(entries), ()), cells


def rows_of(tiling: Tiling) -> dict[HealpixPixel, int]:
    return {pixel: sum(rows for _, rows in members) for pixel, members in tiling.members.items()}


@settings(max_examples=60, deadline=None)
@given(st.lists(counts(), min_size=1, max_size=5), st.lists(counts(), min_size=0, max_size=3), st.integers(1, 120))
def test_partitions_hold_every_row_once_split_only_when_outgrown_and_never_merge(
    first: list[dict[int, int]], second: list[dict[int, int]], most: int
) -> None:
    limits = Limits(rows=most)
    stock, cells = stock_of(first)
    one = tile(stock, Path("none"), Tiling({}, cells=cells), limits)
    assert sum(rows_of(one).values()) == sum(sum(shard.values()) for shard in first)
    ranges = sorted((first_cell(pixel, HEALPIX_ORDER), 1 << 2 * (HEALPIX_ORDER - pixel.order)) for pixel in one.members)
    assert all(low + size <= following for (low, size), (following, _) in itertools.pairwise(ranges))
    for pixel, rows in rows_of(one).items():
        assert rows <= most or pixel.order == FINEST_ORDER
        # each parent of a partition was split because it outgrew the limit
        parent = HealpixPixel(pixel.order - 1, pixel.pixel >> 2)
        assert pixel.order == PARTITION_ORDER or parent in one.split
    # with other shards, and no limit to speak of, what was split stays split
    other, more = stock_of(second)
    two = tile(other, Path("none"), Tiling({}, one.split, more), Limits())
    assert two.split == one.split
    assert all(pixel not in one.split for pixel in two.members)
    # the same shards give the same partitions: nothing depends on the order in which they outgrew it
    assert rows_of(tile(stock, Path("none"), Tiling({}, one.split, cells), limits)) == rows_of(one)


def test_bytes_count_too() -> None:
    stock, cells = stock_of([{5 << DEPTH: 30, (5 << DEPTH) + 1: 30}])
    assert set(tile(stock, Path("none"), Tiling({}, cells=cells), Limits(bytes=600)).members) == {HealpixPixel(PARTITION_ORDER, 5)}
    split = tile(stock, Path("none"), Tiling({}, cells=cells), Limits(bytes=599)).members
    assert {pixel.order for pixel in split} == {FINEST_ORDER}
    with pytest.raises(ConfigurationError, match=r"at least one row and one byte, got Limits\(rows=0"):
        Limits(rows=0)


@given(st.integers(PARTITION_ORDER, FINEST_ORDER), st.integers(0, 12 * 4**PARTITION_ORDER - 1))
def test_names_of_pixels_are_read_back(order: int, pixel: int) -> None:
    assert pixel_of(name_of(HealpixPixel(order, pixel))) == HealpixPixel(order, pixel)


@settings(max_examples=20, deadline=None)
@given(cells=st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=8), counts(), max_size=4))
def test_cells_are_read_back(tmp_path_factory: pytest.TempPathFactory, cells: dict[str, dict[int, int]]) -> None:
    path = tmp_path_factory.mktemp("cells") / "cells.parquet"
    save_cells(cells, path)
    assert load_cells(path) == cells
    assert load_cells(path.with_name("none")) == {}


def test_owners_of_fine_pixels() -> None:
    stock, cells = stock_of([{5 << DEPTH: 30, (5 << DEPTH) + 1: 30, 6 << DEPTH: 1}])
    tiling = tile(stock, Path("none"), Tiling({}, cells=cells), Limits(rows=50))
    fine, low = 13, 2 * (13 - FINEST_ORDER)
    found = tiling.owners(np.array([5 << DEPTH << low, ((5 << DEPTH) + 2) << low, (7 << 2 * (13 - 5)) - 1, 1]), fine)
    # no partition has the second, which nobody's row lies in, nor the last
    assert {name_of(pixel): len(owned) for pixel, owned in found.items()} == {f"8/{5 << DEPTH}": 1, "5/6": 1}


def test_a_shard_is_counted_from_one_column_and_a_damaged_or_replaced_one_is_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    meta, _ = write_brick(layout, UNITS[0], 40)
    path = layout.shard(UNITS[0], "main")
    entry = Entry(path.relative_to(layout.catalog("main")).as_posix(), 1, 1, meta.content_hash, rows=40)
    cells = count_cells(layout.catalog("main"), entry)
    assert {cell >> DEPTH for cell in cells} == set(meta.pixels)
    assert sum(cells.values()) == 40
    write_brick(layout, UNITS[0], 41)
    with pytest.raises(StaleInventory, match="was replaced"):
        count_cells(layout.catalog("main"), entry)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(BadData, match=r"0001m002\.parquet: expected a readable shard"):
        count_cells(layout.catalog("main"), entry)
    path.unlink()
    with pytest.raises(StaleInventory, match="is gone"):
        count_cells(layout.catalog("main"), entry)
