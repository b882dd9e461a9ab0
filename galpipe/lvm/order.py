"""In which order a stream of stamps is read: a function of (seed, epoch, position) alone, whatever the number of processes.

The rows of all shards are cut into blocks of at most `BLOCK` rows. An epoch is a permutation of the blocks; its rows, one block after the
other, are divided into as many **lanes** as the settings say, of equal length to within one. A batch takes the same number of rows of each
lane. Inside a lane, stretches of rows (**pools**) are permuted, which is all that has to be in memory. Ranks share the lanes, so that a
run on one GPU and a run on eight read the same batches, and one may go on where the other stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from galpipe.errors import ConfigurationError

IntArray = npt.NDArray[np.int64]

BLOCK = 256
"""Most rows that are read together; about what a brick has."""


@dataclass(frozen=True)
class OrderSettings:
    """How a stream is ordered.

    Parameters
    ----------
    batch : int
        Stamps per step, over all lanes.
    lanes : int
        Parts that ranks can share; divides ``batch``.
    buffer : int
        Stamps that are shuffled together, over all lanes.
    seed : int
    """

    batch: int
    lanes: int = 8
    buffer: int = 4096
    seed: int = 1

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.batch < 1 or self.batch % self.lanes:
            raise ConfigurationError("a batch that the number of lanes divides", f"batch {self.batch}, lanes {self.lanes}")
        if self.buffer < self.batch:
            raise ConfigurationError(f"a buffer of at least a batch ({self.batch} stamps)", repr(self.buffer))

    def lanes_of(self, rank: int, ranks: int) -> range:
        """Lanes of one of several processes.

        Raises
        ------
        ConfigurationError
            If the lanes cannot be shared evenly.
        """
        if self.lanes % ranks:
            raise ConfigurationError(f"a number of ranks that divides {self.lanes} lanes", repr(ranks))
        share = self.lanes // ranks
        return range(rank * share, (rank + 1) * share)


@dataclass(frozen=True)
class Piece:
    """Rows ``first`` to ``last`` (not included) of a shard."""

    shard: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Pool:
    """Rows of a lane that are in memory together.

    Parameters
    ----------
    pieces : tuple of Piece
        What is read, in this order.
    shuffle : ndarray
        Permutation of the rows read.
    """

    pieces: tuple[Piece, ...]
    shuffle: IntArray

    def __len__(self) -> int:
        return len(self.shuffle)


@dataclass(frozen=True)
class Part:
    """What a lane gives to a batch: rows ``first`` to ``last`` of a pool's shuffled rows."""

    epoch: int
    pool: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


class StreamOrder:
    """The order of shards of known lengths.

    Parameters
    ----------
    rows : sequence of int
        Rows of each shard.
    settings : OrderSettings

    Raises
    ------
    ConfigurationError
        If there are fewer rows than lanes.
    """

    def __init__(self, rows: IntArray | list[int], settings: OrderSettings) -> None:
        self.settings = settings
        lengths = np.asarray(rows, np.int64)
        self._shard, self._first, self._length = _blocks(lengths)
        self.rows = int(lengths.sum())
        if self.rows < settings.lanes:
            raise ConfigurationError(f"at least one stamp for each of {settings.lanes} lanes", f"{self.rows} stamps")
        self._share = settings.batch // settings.lanes
        self._pool = max(1, settings.buffer // settings.batch) * self._share
        self._order = lru_cache(maxsize=2)(self._permuted)

    @property
    def steps(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        longest = -(-self.rows // self.settings.lanes)
        return -(-longest // self._share)

    def part(self, step: int, lane: int) -> Part:
        """What a lane gives to the batch of a step, counted from the first epoch's first."""
        epoch, place = divmod(step, self.steps)
        first = min(place * self._share, self._lane_rows(lane))
        last = min(first + self._share, self._lane_rows(lane))
        pool = (place * self._share) // self._pool
        return Part(epoch, pool, first - min(pool * self._pool, first), last - min(pool * self._pool, first))

    def size(self, step: int) -> int:
        """Stamps of a whole batch."""
        return sum(len(self.part(step, lane)) for lane in range(self.settings.lanes))

    def pool(self, epoch: int, lane: int, number: int) -> Pool:
        """The rows of a pool; none where the lane is over."""
        start, count = self._lane_start(lane), self._lane_rows(lane)
        first, last = min(number * self._pool, count), min((number + 1) * self._pool, count)
        shuffle = np.random.default_rng([self.settings.seed, 12, epoch, lane, number]).permutation(last - first)
        return Pool(self._pieces(epoch, start + first, start + last), shuffle)

    def after(self, part: Part, lane: int) -> tuple[int, int]:
        """Epoch and number of the pool that a lane reads next."""
        if (part.pool + 1) * self._pool < self._lane_rows(lane):
            return part.epoch, part.pool + 1
        return part.epoch + 1, 0

    def _lane_start(self, lane: int) -> int:
        return lane * self.rows // self.settings.lanes

    def _lane_rows(self, lane: int) -> int:
        return self._lane_start(lane + 1) - self._lane_start(lane)

    def _permuted(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Blocks of an epoch in order, and the epoch's row at which each begins."""
        order = np.random.default_rng([self.settings.seed, 11, epoch]).permutation(len(self._shard)).astype(np.int64)
        return order, np.concatenate([[0], np.cumsum(self._length[order])]).astype(np.int64)

    def _pieces(self, epoch: int, first: int, last: int) -> tuple[Piece, ...]:
        if last <= first:
            return ()
        order, starts = self._order(epoch)
        found = []
        for place in range(int(np.searchsorted(starts, first, "right")) - 1, int(np.searchsorted(starts, last, "left"))):
            block, begin = int(order[place]), int(self._first[order[place]])
            low, high = max(first - int(starts[place]), 0), min(last - int(starts[place]), int(self._length[block]))
            found.append(Piece(int(self._shard[block]), begin + low, begin + high))
        return tuple(found)


def _blocks(lengths: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Shard, first row and length of every block; those of a shard differ by at most one row."""
    counts = -(-lengths // BLOCK)
    shard = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(shard)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = number * lengths[shard] // counts[shard]
    return shard.astype(np.int64), first.astype(np.int64), ((number + 1) * lengths[shard] // counts[shard] - first).astype(np.int64)
