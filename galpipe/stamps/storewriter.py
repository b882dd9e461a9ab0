"""Write a brick's Zarr store: one group per pixel scale, three arrays each, whole shards only, one writer.

The first stamps lie in the root group, the second ones of large galaxies in groups ``coarse2``, ``coarse4``, ``coarse8`` of the same
form, which are there only if they have stamps. Beside each group's arrays lies the table of its sources.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from galpipe.commit import replace_folder
from galpipe.stamps.contenthash import ARRAYS, ContentHash
from galpipe.stamps.result import Cut, outcome_counts
from galpipe.stamps.stampset import StampSet

CHUNK_STAMPS = 32
"""Stamps per chunk inside a shard: one batch is read without decoding the rest."""

SHARD_STAMPS = 1024
"""Most stamps in a shard, four times the galaxies with z < 20 of an average brick: nearly every brick has one shard per array."""

FORMAT = "galpipe-stamps-3"
SOURCES, OUTCOMES_FILE = "sources.parquet", "outcomes.parquet"
COARSE = "coarse"


def coarse_group(binning: int) -> str:
    """Name of the group of the second stamps of a scale."""
    return f"{COARSE}{binning}"


def write_store(path: Path, cut: Cut, fingerprint: str) -> str:
    """Write a brick's stamps and outcomes in one step, holding no more than a block of them.

    Parameters
    ----------
    path : Path
        ``<brick>.zarr``; replaced if it exists.
    cut : Cut
    fingerprint : str
        Hash of everything the stamps were made from; `galpipe.stamps.store.store_fingerprint` reads it back.

    Returns
    -------
    str
        sha256 of the content (arrays and tables, not their encoding).

    Raises
    ------
    BadData
        If an image of the brick is corrupt.
    ResourceFailure
        If the disk refuses the write.
    """
    with replace_folder(path) as aside:
        content = ContentHash()
        scales: dict[int, _ScaleWriter] = {}
        for block in cut.blocks():
            for stamps in (block.stamps, *block.coarse):
                if stamps.binning not in scales:
                    folder = aside if stamps.binning == 1 else aside / coarse_group(stamps.binning)
                    scales[stamps.binning] = _ScaleWriter(folder, stamps)
                scales[stamps.binning].add(stamps)
                content.add(stamps)
        tables = [scales[binning].finish() for binning in sorted(scales)]
        outcomes = cut.outcomes
        pq.write_table(outcomes, aside / OUTCOMES_FILE, compression="zstd")
        told = content.finish([*tables, outcomes])
        attrs = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "content_hash": told,
            "counts": outcome_counts(outcomes),
            "coarse": [binning for binning in sorted(scales) if binning != 1],
        }
        zarr.open_group(str(aside), mode="r+", zarr_format=3).update_attributes(attrs)
    return told


class _ScaleWriter:
    """Stamps of one scale on their way into a group's arrays, a whole shard at a time."""

    def __init__(self, folder: Path, like: StampSet) -> None:
        self._folder, self._like = folder, like
        self._group = zarr.open_group(str(folder), mode="w", zarr_format=3)
        self._buffers = {name: np.empty((SHARD_STAMPS, *_array(like, name).shape[1:]), _array(like, name).dtype) for name in ARRAYS}
        self._held = self._written = 0
        self._tables: list[pa.Table] = []

    def add(self, stamps: StampSet) -> None:
        """Stamps that follow on those before."""
        self._tables.append(stamps.sources)
        start = 0
        while start < len(stamps):
            # a full buffer is written only once it is known that more follows: so the last one is known to be the last
            if self._held == SHARD_STAMPS:
                self._flush()
            taken = min(SHARD_STAMPS - self._held, len(stamps) - start)
            for name in ARRAYS:
                self._buffers[name][self._held : self._held + taken] = _array(stamps, name)[start : start + taken]
            self._held, start = self._held + taken, start + taken

    def finish(self) -> pa.Table:
        """Write what waits, the table and the description; returns the table."""
        self._flush()
        table = pa.concat_tables(self._tables).combine_chunks()
        pq.write_table(table, self._folder / SOURCES, compression="zstd")
        self._group.update_attributes(json.loads(json.dumps(self._attrs(len(table)), allow_nan=False)))
        return table

    def _attrs(self, rows: int) -> dict[str, Any]:
        stamps = self._like
        return {
            "rows": rows,
            "bands": list(stamps.bands),
            "pixscale": stamps.pixscale,
            "softening": list(stamps.softening),
            "scale": [band.scale for band in stamps.codecs],
            "offset": [band.offset for band in stamps.codecs],
            "flux": "softening * sinh(code * scale + offset), nanomaggies per pixel, divided by mw_transmission of the source",
            "attrs": stamps.attrs,
        }

    def _flush(self) -> None:
        for name in ARRAYS:
            self._write(name, self._buffers[name][: self._held])
        self._written, self._held = self._written + self._held, 0

    def _write(self, name: str, values: NDArray[Any]) -> None:
        end = self._written + len(values)
        if not self._written:
            chunk = (min(CHUNK_STAMPS, max(1, len(values))), *values.shape[1:])
            shard = (max(1, -(-len(values) // chunk[0])) * chunk[0], *values.shape[1:])
            codec = BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle)
            array = self._group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunk, shards=shard, compressors=codec)
        else:
            array = self._array(name)
            array.resize((end, *values.shape[1:]))
        if len(values):
            # one assignment of a whole shard: one written twice, or by two writers, loses data silently
            array[self._written : end] = values

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self._group[name]
        if not isinstance(found, zarr.Array):
            raise TypeError(f"an array {name!r}, got {type(found).__name__}")
        return found


def _array(stamps: StampSet, name: str) -> NDArray[Any]:
    values: NDArray[Any] = getattr(stamps, name)
    return values
