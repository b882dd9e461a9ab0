"""Batches from stamps on disk, more than memory holds: read ahead by workers, shuffled in pools, turned, by step.

A batch is a function of (seed, step) and of the shards: a run that was ended goes on from its step in the middle of an epoch, on as many
ranks and workers as it likes (see `galpipe.lvm.order`). Memory: two pools of a lane, of ``buffer / lanes`` stamps of 162 kB each.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from galpipe.config import SOFTENING, SURVEY_PIXSCALE
from galpipe.errors import BadData, ResourceFailure
from galpipe.lvm.inputs import FILLED_BIT, MARGIN, MODEL_BANDS, PADDED_SIZE, Inputs, conditions
from galpipe.lvm.order import IntArray, OrderSettings, Part, Pool, StreamOrder
from galpipe.lvm.shards import Content, Refused, Shards, read_shard
from galpipe.stamps.normalize import codec

ENOUGH = 1000
"""Stamps after which a stream without a single good one gives up."""


@dataclass(frozen=True)
class Place:
    """Which process reads: rank ``rank`` of ``ranks``, with some loader processes (0: one thread)."""

    rank: int = 0
    ranks: int = 1
    workers: int = 0


@dataclass(frozen=True)
class LanePart:
    """What one lane gives to a batch.

    Parameters
    ----------
    lane : int
    inputs : Inputs
        Turned; refused stamps have no valid pixel.
    """

    lane: int
    inputs: Inputs


@dataclass
class _Held:
    """A pool in memory, and its rows in the order of training."""

    key: tuple[int, int]
    content: Content
    shuffle: IntArray
    turns: IntArray


class StampStream:
    """Random access to the batches of a stream, fast where steps follow one another; use it as a context.

    Parameters
    ----------
    shards : Shards
    settings : OrderSettings
    place : Place, optional
    report : callable, optional
        Called with every stamp that is refused, again when it is read again.
    """

    def __init__(
        self, shards: Shards, settings: OrderSettings, place: Place | None = None, report: Callable[[Refused], None] | None = None
    ) -> None:
        self.shards, self.order = shards, StreamOrder(shards.rows, settings)
        place = place or Place()
        self._ranks, self._lanes = place.ranks, settings.lanes_of(place.rank, place.ranks)
        self._report = report or (lambda refused: None)
        self._held: dict[int, _Held] = {}
        self._coming: dict[int, tuple[tuple[int, int], list[Future[Content]]]] = {}
        self._read = self._good = 0
        # processes start from nothing: a fork would copy torch's locks
        spawn = multiprocessing.get_context("spawn")
        self._pool: Executor = ProcessPoolExecutor(place.workers, spawn) if place.workers else ThreadPoolExecutor(1)

    def __enter__(self) -> StampStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.order.steps

    def batch(self, step: int) -> list[LanePart]:
        """Part of a batch that this rank has, lane by lane; lanes that are over give nothing.

        Raises
        ------
        BadData
            If `ENOUGH` stamps, or all there are, were read and none was good.
        ResourceFailure
            If a loader process was ended.
        """
        parts = [(lane, self.order.part(step, lane)) for lane in self._lanes]
        return [LanePart(lane, self._inputs(lane, part)) for lane, part in parts if len(part)]

    def weight(self, step: int) -> float:
        """Factor that makes the mean over ranks of means over their stamps the mean over all stamps of the batch."""
        own = sum(len(self.order.part(step, lane)) for lane in self._lanes)
        return own * self._ranks / self.order.size(step)

    def _inputs(self, lane: int, part: Part) -> Inputs:
        held = self._pool_of(lane, part)
        rows, turns = held.shuffle[part.first : part.last], held.turns[part.first : part.last]
        return turned_inputs(held.content, rows, turns)

    def _pool_of(self, lane: int, part: Part) -> _Held:
        key = (part.epoch, part.pool)
        held = self._held.get(lane)
        if held is None or held.key != key:
            # what is done with is given back before the next is put together
            self._held.pop(lane, None)
            held = self._held[lane] = self._load(lane, key)
            following = self.order.after(part, lane)
            self._coming[lane] = (following, self._ask(lane, following))
        return held

    def _ask(self, lane: int, key: tuple[int, int]) -> list[Future[Content]]:
        pool = self.order.pool(key[0], lane, key[1])
        return [self._pool.submit(read_shard, self.shards.found[piece.shard], piece.first, piece.last) for piece in pool.pieces]

    def _load(self, lane: int, key: tuple[int, int]) -> _Held:
        epoch, number = key
        expected, futures = self._coming.pop(lane, ((-1, -1), []))
        if expected != key:
            # after a jump, what was read ahead is for nobody
            for future in futures:
                future.cancel()
            futures = self._ask(lane, key)
        try:
            content = _joined([future.result() for future in futures])
        except BrokenExecutor as error:
            raise ResourceFailure("loader processes that live", f"{error} (out of memory? fewer workers or a smaller buffer)") from error
        self._count(content)
        pool: Pool = self.order.pool(epoch, lane, number)
        turns = np.random.default_rng([self.order.settings.seed, 13, epoch, lane, number]).integers(8, size=len(pool))
        return _Held(key, content, pool.shuffle, turns)

    def _count(self, content: Content) -> None:
        for refused in content.refused:
            self._report(refused)
        self._read, self._good = self._read + len(content), self._good + len(content) - len(content.refused)
        if not self._good and self._read >= min(ENOUGH, self.order.rows // self._ranks):
            first = content.refused[0]
            raise BadData(f"a good stamp among the first {self._read}", first.reason, file=f"{first.file}[{first.row}]")


def turned_inputs(content: Content, rows: IntArray, turns: IntArray) -> Inputs:
    """Inputs of some stamps, each turned as `galpipe.lvm.data.turn_pixels` does; made for speed, as one process feeds a GPU.

    Parameters
    ----------
    content : Content
    rows, turns : ndarray of int64, shape (N,)
    """
    pixels = np.zeros((len(rows), len(MODEL_BANDS), PADDED_SIZE, PADDED_SIZE), np.float32)
    mask = np.full((len(rows), PADDED_SIZE, PADDED_SIZE), 255, np.uint8)
    for place, (row, turn) in enumerate(zip(rows.tolist(), turns.tolist(), strict=True)):
        _put_turned(pixels[place], content.image[row], turn)
        _put_turned(mask[place], content.mask[row], turn)
    bits = np.array([1 << band | 1 << FILLED_BIT for band in range(len(MODEL_BANDS))], np.uint8)[:, None, None]
    valid = (mask[:, None] & bits) == 0
    lines = [codec(SOFTENING[band]) for band in MODEL_BANDS]
    pixels *= np.array([line.scale for line in lines], np.float32)[:, None, None]
    pixels += np.array([line.offset for line in lines], np.float32)[:, None, None]
    pixels *= valid
    told = content.told[rows]
    seeing, depth = told[:, : len(MODEL_BANDS)], told[:, len(MODEL_BANDS) :]
    numbers = conditions(seeing, depth, np.asarray(valid.any(axis=(2, 3))), SURVEY_PIXSCALE)
    return Inputs(*(torch.from_numpy(part) for part in (pixels, valid.astype(np.float32), numbers, np.ones(len(rows), np.float32))))


def _put_turned(frame: npt.NDArray[Any], stamp: npt.NDArray[Any], turn: int) -> None:
    """Copy a stamp, shape (..., S, S), into its frame, shape (..., P, P), in one pass."""
    size = stamp.shape[-1]
    starts = [MARGIN, MARGIN]
    # index i of the frame goes to P - i, so that the frame's margins swap but for one pixel
    if turn & 1:
        stamp, starts[1] = stamp[..., ::-1], PADDED_SIZE - MARGIN - size + 1
    if turn & 2:
        stamp, starts[0] = stamp[..., ::-1, :], PADDED_SIZE - MARGIN - size + 1
    if turn & 4:
        stamp, starts = np.swapaxes(stamp, -1, -2), starts[::-1]
    frame[..., starts[0] : starts[0] + size, starts[1] : starts[1] + size] = stamp


def _joined(parts: list[Content]) -> Content:
    """One after the other; a part's memory is freed with the list."""
    refused = tuple(item for part in parts for item in part.refused)
    if len(parts) == 1:
        return Content(parts[0].image, parts[0].mask, parts[0].told, refused)
    image, mask, told = (np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "mask", "told"))
    return Content(image, mask, told, refused)
