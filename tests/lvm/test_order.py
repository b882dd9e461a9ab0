"""Every stamp once an epoch, whoever reads."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.errors import ConfigurationError
from galpipe.lvm.order import BLOCK, OrderSettings, StreamOrder

SHARDS = st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=12).filter(lambda rows: sum(rows) >= 8)
ORDERS = st.builds(
    lambda share, lanes, pools, seed: OrderSettings(share * lanes, lanes, share * lanes * pools, seed),
    st.integers(1, 40),
    st.sampled_from((1, 2, 4, 8)),
    st.integers(1, 6),
    st.integers(0, 2**31),
)


def rows_of(order: StreamOrder, step: int, lanes: range) -> list[tuple[int, int]]:
    """Shard and row of the stamps that some lanes give to a batch."""
    found = []
    for lane in lanes:
        part = order.part(step, lane)
        if not len(part):
            continue
        pool = order.pool(part.epoch, lane, part.pool)
        read = [(piece.shard, row) for piece in pool.pieces for row in range(piece.first, piece.last)]
        assert len(read) == len(pool)
        found += [read[place] for place in pool.shuffle[part.first : part.last].tolist()]
    return found


@settings(max_examples=40, deadline=None)
@given(SHARDS, ORDERS, st.integers(0, 2))
def test_every_stamp_comes_once_an_epoch_and_ranks_share_them(rows: list[int], wanted: OrderSettings, epoch: int) -> None:
    order = StreamOrder(rows, wanted)
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(epoch * order.steps, (epoch + 1) * order.steps):
        whole = rows_of(order, step, wanted.lanes_of(0, 1))
        assert len(whole) == order.size(step) <= wanted.batch
        assert len(whole) > 0
        for ranks in (1, wanted.lanes):
            # the parts of the ranks, side by side, are the batch of one process
            assert [row for rank in range(ranks) for row in rows_of(order, step, wanted.lanes_of(rank, ranks))] == whole
        seen.update(whole)
    assert seen == Counter((shard, row) for shard, count in enumerate(rows) for row in range(count))


@settings(max_examples=30, deadline=None)
@given(SHARDS, ORDERS, st.integers(0, 10**6))
def test_a_batch_depends_on_its_step_alone(rows: list[int], wanted: OrderSettings, step: int) -> None:
    step %= 3 * StreamOrder(rows, wanted).steps
    walked = StreamOrder(rows, wanted)
    for before in range(max(0, step - 3), step):
        rows_of(walked, before, range(wanted.lanes))
    assert rows_of(walked, step, range(wanted.lanes)) == rows_of(StreamOrder(rows, wanted), step, range(wanted.lanes))


@settings(max_examples=30, deadline=None)
@given(SHARDS, ORDERS)
def test_pools_follow_one_another_and_are_small(rows: list[int], wanted: OrderSettings) -> None:
    order = StreamOrder(rows, wanted)
    for lane in range(wanted.lanes):
        parts = [order.part(step, lane) for step in range(2 * order.steps)]
        pools = [(part.epoch, part.pool) for part in parts if len(part)]
        followers = {(part.epoch, part.pool): order.after(part, lane) for part in parts if len(part)}
        for before, now in pairwise(pools):
            assert now in (before, followers[before])
        for epoch, number in set(pools):
            assert 0 < len(order.pool(epoch, lane, number)) * wanted.lanes <= wanted.buffer


def test_epochs_differ_and_mix_shards() -> None:
    order = StreamOrder([BLOCK] * 64, OrderSettings(64, 8, 4096))
    first = rows_of(order, 0, range(8))
    assert first != rows_of(order, order.steps, range(8))
    assert len({shard for shard, _ in first}) > 8


@pytest.mark.parametrize(("batch", "lanes"), [(10, 4), (0, 1)])
def test_a_batch_that_lanes_do_not_divide_is_refused(batch: int, lanes: int) -> None:
    with pytest.raises(ConfigurationError, match="number of lanes divides"):
        OrderSettings(batch, lanes)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="number of ranks that divides 8 lanes"):
        OrderSettings(16, 8).lanes_of(0, 3)
    with pytest.raises(ConfigurationError, match="buffer of at least a batch"):
        OrderSettings(16, 8, 4)
    with pytest.raises(ConfigurationError, match="at least one stamp for each of 8 lanes"):
        StreamOrder([3], OrderSettings(16, 8))
