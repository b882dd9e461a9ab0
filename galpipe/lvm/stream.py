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

import numpy as np
import pyarrow as pa
import torch

from galpipe.config import SOFTENING, SURVEY_PIXSCALE
from galpipe.errors import BadData, ResourceFailure
from galpipe.lvm.data import turn_pixels
from galpipe.lvm.inputs import MODEL_BANDS, Inputs, make_inputs, valid_pixels
from galpipe.lvm.order import IntArray, OrderSettings, Part, Pool, StreamOrder
from galpipe.lvm.shards import TOLD, Content, Refused, Shards, read_shard
from galpipe.stamps.normalize import codec, normalized

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
        rows = held.shuffle[part.first : part.last]
        codes, mask = held.content.image[rows], held.content.mask[rows]
        pixels = np.stack([normalized(codes[:, index], codec(SOFTENING[band])) for index, band in enumerate(MODEL_BANDS)], axis=1)
        told = pa.table({name: held.content.told[rows, place] for place, name in enumerate(TOLD)})
        inputs = make_inputs(pixels, valid_pixels(mask, MODEL_BANDS), told, SURVEY_PIXSCALE)
        for index, turn in enumerate(held.turns[part.first : part.last].tolist()):
            for array in (inputs.pixels, inputs.valid):
                array[index] = torch.from_numpy(np.ascontiguousarray(turn_pixels(array[index].numpy(), turn)))
        return inputs

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


def _joined(parts: list[Content]) -> Content:
    """One after the other; a part's memory is freed with the list."""
    refused = tuple(item for part in parts for item in part.refused)
    if len(parts) == 1:
        return Content(parts[0].image, parts[0].mask, parts[0].told, refused)
    image, mask, told = (np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "mask", "told"))
    return Content(image, mask, told, refused)
