"""The training loader: batches of stored stamps with everything that is done to them, against the bare reading of their pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.bench.figures import Figure, Size, in_turns
from galpipe.config import SOFTENING, STAMP_SIZE, SURVEY_PIXSCALE
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.order import OrderSettings
from galpipe.lvm.shards import TOLD, Shards, find_shards, read_shard
from galpipe.lvm.stream import StampStream
from galpipe.stamps.normalize import codec, encode
from galpipe.stamps.result import OUTCOMES, CutResult
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import write_store

BRICK = 230
"""Stamps of a store: galaxies with z < 20 of an average brick."""

ORDER = OrderSettings(batch=64, lanes=8, buffer=1024)
SEED = 1


def run(size: Size) -> list[Figure]:
    """Read an epoch of noise stamps, in stores as bricks have them, by one thread."""
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        counts = [BRICK] * max(1, round(size.galaxies / BRICK))
        for number, count in enumerate(counts):
            write_store(Path(place) / f"{number:04d}p000.zarr", CutResult(_noise(count, number), OUTCOMES.empty_table()), "")
        shards = find_shards([Path(place)])
        seconds = in_turns({"stream": lambda: _stream(shards), "read": lambda: _read(shards)}, size.repeats)
    stamps = sum(counts)
    return [
        Figure("stream_over_read", seconds["stream"] / seconds["read"], "ratio", "shuffled, turned, normalized batches over bare reading"),
        Figure("stream_rate", stamps / seconds["stream"], "stamps/s", "one thread"),
        Figure("read_rate", stamps / seconds["read"], "stamps/s", "one thread, which is what one loader process does"),
    ]


def _stream(shards: Shards) -> None:
    with StampStream(shards, ORDER) as stream:
        for step in range(stream.steps):
            stream.batch(step)


def _read(shards: Shards) -> None:
    for shard in shards.found:
        read_shard(shard, 0, shard.rows)


def _noise(count: int, seed: int) -> StampSet:
    rng = np.random.default_rng([SEED, seed])
    shape = (count, STAMP_SIZE, STAMP_SIZE)
    image = [encode(SOFTENING[band] * rng.standard_normal(shape, dtype=np.float32), codec(SOFTENING[band])) for band in MODEL_BANDS]
    told = pa.table({name: pa.array(np.full(count, 1.3), pa.float32()) for name in TOLD})
    softening = tuple(SOFTENING[band] for band in MODEL_BANDS)
    codes = np.full((count, len(MODEL_BANDS), *shape[1:]), 120, np.uint8)
    return StampSet(np.stack(image, axis=1), codes, np.zeros(shape, np.uint8), told, MODEL_BANDS, SURVEY_PIXSCALE, softening)
