"""Sums per HEALPix cell: nothing is lost, whatever the batches and however coarse the cells become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.derive import healpix29
from galpipe.skymap.cells import CellSums, aligned, cell_area, share_inside
from galpipe.survey.bricks import brick_by_name, ids_at


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    index = (random.integers(5_000, 5_040, count) << (2 * (29 - 8))) + random.integers(0, 1 << 42, count)
    values = random.normal(size=(count, 2))
    values[random.random((count, 2)) < 0.2] = np.nan
    return index, values


@given(st.lists(st.integers(1, 199), max_size=5), st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_batches_and_order_do_not_matter(cuts: list[int], order: int) -> None:
    index, values = rows(200)
    whole, parts = CellSums(("a", "b")), CellSums(("a", "b"))
    whole.add(index, values)
    for part in np.split(np.arange(200), sorted(set(cuts))):
        parts.add(index[part], values[part])
    parts.coarsen(order)
    whole.coarsen(order)
    assert np.array_equal(parts.cells, np.unique(index >> (2 * (29 - order)))) and np.array_equal(whole.cells, parts.cells)
    assert np.allclose(parts.sums("a"), whole.sums("a")) and np.array_equal(parts.counts("b"), whole.counts("b"))
    assert parts.rows.sum() == 200 and parts.counts("a").sum() == np.isfinite(values[:, 0]).sum()
    assert parts.sums("b").sum() == pytest.approx(np.nansum(values[:, 1]))


def test_too_many_cells_become_coarser_and_keep_their_sums() -> None:
    index, values = rows(500)
    sums = CellSums(("a", "b"), order=11, most=60)
    sums.add(index, values)
    assert len(sums.cells) <= 60 and sums.order < 11
    assert sums.rows.sum() == 500 and sums.sums("a").sum() == pytest.approx(np.nansum(values[:, 0]))


def test_cells_settle_where_the_typical_galaxy_has_company() -> None:
    index, values = rows(4000)
    sums = CellSums(("a", "b"))
    sums.add(index, values)
    sums.settle(10)
    own = sums.rows[np.searchsorted(sums.cells, index >> (2 * (29 - sums.order)))]
    assert np.median(own) >= 10
    finer = CellSums(("a", "b"), order=sums.order + 1)
    finer.add(index, values)
    assert np.median(finer.rows[np.searchsorted(finer.cells, index >> (2 * (29 - finer.order)))]) < 10


def test_the_area_inside_a_brick_is_the_bricks() -> None:
    brick = brick_by_name("1126p222")
    area = np.degrees((brick.ra2 - brick.ra1) * (np.sin(np.radians(brick.dec2)) - np.sin(np.radians(brick.dec1)))) * 3600
    base = CellSums(("a",), order=9)
    ra, dec = (grid.ravel() for grid in np.meshgrid(np.linspace(brick.ra1, brick.ra2, 40), np.linspace(brick.dec1, brick.dec2, 40)))
    base.add(healpix29(ra, dec).to_numpy(), np.ones((len(ra), 1)))
    share = share_inside(base.cells, 9, lambda ra, dec: ids_at(ra, dec) == brick.brickid)
    found = share.sum() * cell_area(9)
    assert found == pytest.approx(area, rel=0.005)


def test_cells_that_are_missing_count_nothing() -> None:
    assert aligned(np.array([1, 5, 9]), np.array([5, 7]), np.array([2.0, 3.0])).tolist() == [0, 2, 0]
    assert aligned(np.array([1]), np.zeros(0, np.int64), np.zeros(0)).tolist() == [0]
