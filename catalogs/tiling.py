"""Which HEALPix pixels a version is divided into: order 5, and finer only where a pixel outgrew a limit, for ever.

A split is remembered by the version that made it and kept by every later one, also when rows go away: a pixel that had a file once keeps
its extent, so that its file can be linked. Which rows a shard has in finer pixels is counted once per shard, from one column, and only
for shards in pixels that are split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.pixel_math.healpix_pixel import HealpixPixel
from numpy.typing import NDArray

from catalogs.inventory import Entry, Inventory, read_listed
from catalogs.parquet import PARQUET, footer_of
from catalogs.schema import HEALPIX, HEALPIX_ORDER, PARTITION_ORDER
from galpipe.errors import BadData, ConfigurationError

FINEST_ORDER = 8
"""No partition is finer: 13.7 arcmin, about a brick, and the order of the sky map."""

CELLS = "cells.parquet"
"""Name of the file that remembers the rows of shards by pixel at `FINEST_ORDER`, where partitions were split."""

_CELLS = pa.schema([("content_hash", pa.string()), ("cell", pa.int64()), ("rows", pa.int64())])

Cells = Mapping[str, Mapping[int, int]]
"""Rows by pixel at `FINEST_ORDER`, by the content hash of a shard."""


@dataclass(frozen=True)
class Limits:
    """What a partition may hold before it is split.

    A reader of HATS holds whole partitions in memory, one per worker. A million rows is the size that hats-import splits at; 256 MiB of
    compressed Parquet are about 1 GB in memory. An average pixel of DR10 has 14,000 galaxies and 20 MB.

    Parameters
    ----------
    rows : int
    bytes : int
        By the size of the shards.
    """

    rows: int = 1_000_000
    bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.rows < 1 or self.bytes < 1:
            raise ConfigurationError("limits of at least one row and one byte", repr(self))


@dataclass(frozen=True)
class Tiling:
    """The partitions of a version.

    Parameters
    ----------
    members : mapping
        Partition to the shards with rows in it, and how many rows each has there.
    split : frozenset of HealpixPixel
        Pixels that were divided into their four children, in this version or before.
    cells : mapping
        See `Cells`; of the shards in split pixels.
    """

    members: Mapping[HealpixPixel, tuple[tuple[Entry, int], ...]]
    split: frozenset[HealpixPixel] = frozenset()
    cells: Cells = field(default_factory=dict)

    @cached_property
    def _ranges(self) -> tuple[list[HealpixPixel], NDArray[np.int64], NDArray[np.int64]]:
        leaves = sorted(self.members, key=lambda pixel: first_cell(pixel, HEALPIX_ORDER))
        starts = np.array([first_cell(pixel, HEALPIX_ORDER) for pixel in leaves], np.int64)
        ends = np.array([first_cell(pixel, HEALPIX_ORDER) + (1 << 2 * (HEALPIX_ORDER - pixel.order)) for pixel in leaves], np.int64)
        return leaves, starts, ends

    def owners(self, cells: NDArray[np.int64], order: int) -> dict[HealpixPixel, NDArray[np.int64]]:
        """Partitions that pixels of a finer order lie in, with the pixels of each; those in no partition are left out.

        Parameters
        ----------
        cells : ndarray of int64, shape (N,)
        order : int
        """
        leaves, starts, ends = self._ranges
        if not leaves:
            return {}
        at = cells << (2 * (HEALPIX_ORDER - order))
        place = np.searchsorted(starts, at, side="right") - 1
        inside = (place >= 0) & (at < ends[np.maximum(place, 0)])
        return {leaves[int(index)]: cells[inside & (place == index)] for index in np.unique(place[inside])}

    def vacant(self, cells: NDArray[np.int64], order: int) -> set[HealpixPixel]:
        """Pixels of the tiling without a row that pixels of a finer order lie in."""
        owned = self.owners(cells, order).values()
        rest = np.setdiff1d(cells, np.concatenate([*owned, np.zeros(0, np.int64)]))
        found: set[HealpixPixel] = set()
        for cell in np.unique(rest >> 2 * (order - FINEST_ORDER)).tolist():
            level = PARTITION_ORDER
            while HealpixPixel(level, cell >> 2 * (FINEST_ORDER - level)) in self.split:
                level += 1
            found.add(HealpixPixel(level, cell >> 2 * (FINEST_ORDER - level)))
        return found


def first_cell(pixel: HealpixPixel, order: int) -> int:
    """The first of the pixels of a finer order that a pixel has."""
    return int(pixel.pixel) << (2 * (order - pixel.order))


def name_of(pixel: HealpixPixel) -> str:
    """A pixel as JSON has it: ``order/pixel``."""
    return f"{pixel.order}/{pixel.pixel}"


def pixel_of(name: str) -> HealpixPixel:
    """The inverse of `name_of`."""
    order, pixel = name.split("/")
    return HealpixPixel(int(order), int(pixel))


def tile(stock: Inventory, shards: Path, before: Tiling, limits: Limits) -> Tiling:
    """Divide a catalog into partitions: as before, and finer where a limit is passed.

    Parameters
    ----------
    stock : Inventory
    shards : Path
        Folder of the catalog's shards; only those in split pixels that the version before did not know are opened.
    before : Tiling
        Splits and cells of the version before.
    limits : Limits

    Raises
    ------
    BadData
        If a shard in a pixel that is split does not read.
    StaleInventory
        If it was replaced meanwhile.
    """
    coarse: dict[HealpixPixel, list[tuple[Entry, int]]] = {}
    for entry in stock.shards:
        for pixel, rows in entry.pixels:
            coarse.setdefault(HealpixPixel(PARTITION_ORDER, pixel), []).append((entry, rows))
    members: dict[HealpixPixel, tuple[tuple[Entry, int], ...]] = {}
    split: set[HealpixPixel] = set(before.split)
    cells: dict[str, Mapping[int, int]] = {}
    for pixel, entries in sorted(coarse.items()):
        if pixel not in split and not _outgrown(entries, limits):
            members[pixel] = tuple(entries)
            continue
        for entry, _ in entries:
            if entry.content_hash not in cells:
                cells[entry.content_hash] = before.cells.get(entry.content_hash) or count_cells(shards, entry)
        members |= _divide(pixel, [entry for entry, _ in entries], (split, cells), limits)
    return Tiling(members, frozenset(split), cells)


def _outgrown(entries: Iterable[tuple[Entry, int]], limits: Limits) -> bool:
    listed = list(entries)
    held = sum(entry.size * rows / entry.rows for entry, rows in listed)
    return sum(rows for _, rows in listed) > limits.rows or held > limits.bytes


def _divide(
    pixel: HealpixPixel, entries: list[Entry], known: tuple[set[HealpixPixel], Mapping[str, Mapping[int, int]]], limits: Limits
) -> dict[HealpixPixel, tuple[tuple[Entry, int], ...]]:
    """Partitions inside a pixel; the set of splits grows."""
    split, cells = known
    inside = [(entry, rows) for entry in entries if (rows := _rows_in(cells[entry.content_hash], pixel))]
    if not inside:
        return {}
    if pixel not in split and (pixel.order == FINEST_ORDER or not _outgrown(inside, limits)):
        return {pixel: tuple(inside)}
    split.add(pixel)
    found: dict[HealpixPixel, tuple[tuple[Entry, int], ...]] = {}
    for child in range(4):
        found |= _divide(HealpixPixel(pixel.order + 1, 4 * pixel.pixel + child), [entry for entry, _ in inside], known, limits)
    return found


def _rows_in(cells: Mapping[int, int], pixel: HealpixPixel) -> int:
    shift = 2 * (FINEST_ORDER - pixel.order)
    return sum(rows for cell, rows in cells.items() if cell >> shift == pixel.pixel)


def count_cells(shards: Path, entry: Entry) -> dict[int, int]:
    """A shard's rows by pixel at `FINEST_ORDER`, from one column.

    Raises
    ------
    BadData
        If the shard does not read.
    StaleInventory
        If it is gone or was replaced.
    """
    values = read_listed(shards, entry, _read_pixels)
    found, rows = np.unique(values >> (2 * (HEALPIX_ORDER - FINEST_ORDER)), return_counts=True)
    return {int(cell): int(count) for cell, count in zip(found, rows, strict=True)}


def _read_pixels(path: Path) -> tuple[NDArray[np.int64], str]:
    try:
        with pa.OSFile(str(path), "rb") as handle:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            return file.read([HEALPIX])[HEALPIX].drop_null().to_numpy(), footer_of(file.metadata, path)["content_hash"]
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable shard", str(error), file=str(path)) from error


def save_cells(cells: Cells, path: Path) -> None:
    """Write cells beside the version that was made with them."""
    columns = list(zip(*_flat(cells), strict=True)) or [()] * len(_CELLS)
    pq.write_table(
        pa.table([pa.array(values, item.type) for values, item in zip(columns, _CELLS, strict=True)], schema=_CELLS), path, **PARQUET
    )


def _flat(cells: Cells) -> Iterator[tuple[str, int, int]]:
    for content_hash, counts in sorted(cells.items()):
        yield from ((content_hash, cell, rows) for cell, rows in sorted(counts.items()))


def load_cells(path: Path) -> dict[str, dict[int, int]]:
    """The inverse of `save_cells`; nothing where there is no file."""
    cells: dict[str, dict[int, int]] = {}
    if path.exists():
        table = pq.read_table(path, partitioning=None)
        for content_hash, cell, rows in zip(*(table[name].to_pylist() for name in _CELLS.names), strict=True):
            cells.setdefault(content_hash, {})[cell] = rows
    return cells
