"""Read the rows of a piece of sky from partitions: only the files, row groups and columns that it needs.

A partition's file says by its name which pixel it holds, its row groups say by their statistics which range of ``_healpix_29``. Both
are looked at before rows are read. A version never changes, so what is learned of it is kept for the life of the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogs.ranges import WHOLE_SKY, Ranges, contains
from catalogs.schema import HEALPIX, HEALPIX_ORDER
from galpipe.errors import BadData

_NAME = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)\.parquet$")

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Wanted:
    """Which rows are wanted.

    Parameters
    ----------
    ranges : ndarray
        Ranges of ``_healpix_29`` outside which no row is wanted.
    keep : callable, optional
        Tells which rows of a table of ``ra`` and ``dec`` within the ranges are wanted; all where not given.
    ids : ndarray, optional
        Sorted; only rows with one of these ``source_id``, which a catalog has once.
    """

    ranges: Ranges
    keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None
    ids: Ids | None = None

    @property
    def probe(self) -> list[str]:
        """Columns that are read to decide."""
        return ["source_id"] if self.ids is not None else [HEALPIX, "ra", "dec"]

    def groups(self, told: Footer) -> list[int]:
        """Row groups of a file that can hold a wanted row."""
        chosen = _overlap(told.low, told.high, self.ranges)
        if self.ids is not None:
            chosen &= np.searchsorted(self.ids, told.high_id, side="right") > np.searchsorted(self.ids, told.low_id)
        return np.flatnonzero(chosen).tolist()

    def rows(self, probe: pa.Table) -> NDArray[np.int64]:
        """Numbers of the wanted rows in a table of the columns `probe`."""
        if self.ids is not None:
            return np.flatnonzero(np.isin(probe["source_id"].to_numpy(), self.ids))
        rows = _within(probe[HEALPIX], self.ranges)
        if self.keep is not None and len(rows):
            rows = rows[self.keep(probe.take(rows))]
        return rows


@dataclass(frozen=True)
class Footer:
    """What one file says about itself.

    Parameters
    ----------
    low, high : ndarray
        Smallest and largest ``_healpix_29`` of each row group, inclusive, shape (row groups,).
    low_id, high_id : ndarray
        The same of ``source_id``.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    low_id: NDArray[np.int64]
    high_id: NDArray[np.int64]


@lru_cache(maxsize=64)
def _metadata(path: Path, _size: int, _mtime_ns: int) -> pq.FileMetaData:
    """A file's whole footer: half a megabyte of a wide catalog, so that few are kept."""
    return pq.read_metadata(path)


@lru_cache(maxsize=16384)
def _read_footer(path: Path, size: int, mtime_ns: int) -> Footer:
    """What is needed of the footer of a file of that size and time, which stand for its content: a kilobyte."""
    try:
        metadata = _metadata(path, size, mtime_ns)
        place = {metadata.schema.column(index).path: index for index in range(metadata.num_columns)}
        low, high = _extremes(metadata, place[HEALPIX])
        low_id, high_id = _extremes(metadata, place["source_id"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise _damaged(path, error) from error
    return Footer(low, high, low_id, high_id)


def _extremes(metadata: pq.FileMetaData, column: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest value of a column in each row group; those of int64 where a file does not say."""
    limits = np.iinfo(np.int64)
    told = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    pairs = [(item.min, item.max) if item is not None and item.has_min_max else (limits.min, limits.max) for item in told]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _damaged(path: Path, error: Exception) -> BadData:
    text = str(error).splitlines()[0] if str(error) else ""
    return BadData("a readable Parquet file of the catalog", f"{type(error).__name__} {text}", file=str(path))


def footer(path: Path) -> Footer:
    """What a Parquet file with positions says about itself.

    Raises
    ------
    BadData
        If it does not read.
    """
    return _read_footer(path, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise _damaged(path, error) from error
    return state.st_size, state.st_mtime_ns


def check_pages(path: Path) -> None:
    """Read every page of a file and compare it with its checksum.

    Raises
    ------
    BadData
        If one does not agree.
    """
    try:
        with pa.OSFile(str(path), "rb") as handle:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            for group in range(file.num_row_groups):
                file.read_row_group(group, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error


def pixel_range(path: Path) -> tuple[int, int]:
    """Half-open range of ``_healpix_29`` of a partition, by its name (``Norder=5/Dir=0/Npix=77.parquet``); else the whole sky."""
    named = _NAME.search(path.as_posix())
    if named is None:
        return 0, int(WHOLE_SKY[0, 1])
    shift = 2 * (HEALPIX_ORDER - int(named[1]))
    return int(named[2]) << shift, (int(named[2]) + 1) << shift


@dataclass(frozen=True)
class Files:
    """Parquet files with positions.

    Parameters
    ----------
    paths : tuple of Path
        Partitions of any orders, or shards.
    """

    paths: tuple[Path, ...]

    @cached_property
    def _spans(self) -> Ranges:
        return np.array([pixel_range(path) for path in self.paths], np.int64).reshape(-1, 2)

    def touched(self, ranges: Ranges) -> tuple[Path, ...]:
        """Files whose pixel shares something with the ranges."""
        return tuple(self.paths[index] for index in np.flatnonzero(_overlap(self._spans[:, 0], self._spans[:, 1] - 1, ranges)))

    def read(self, wanted: Wanted, columns: Sequence[str]) -> list[pa.Table]:
        """Wanted rows, a table per row group that has some.

        Raises
        ------
        BadData
            If a file does not read; it is named.
        """
        found: list[pa.Table] = []
        for path in self.touched(wanted.ranges):
            try:
                for table in _read_file(path, wanted, columns):
                    found.append(table)
                    if wanted.ids is not None and sum(map(len, found)) == len(wanted.ids):
                        return found
            except (OSError, pa.ArrowInvalid) as error:
                raise _damaged(path, error) from error
        return found


def _read_file(path: Path, wanted: Wanted, columns: Sequence[str]) -> Iterator[pa.Table]:
    state = _state(path)
    groups = wanted.groups(_read_footer(path, *state))
    if not groups:
        return
    probe = wanted.probe
    others = [name for name in columns if name not in probe]
    # not a Python file, and none that pyarrow has to find a file system for
    with pa.OSFile(str(path), "rb") as handle:
        file = pq.ParquetFile(handle, metadata=_metadata(path, *state), page_checksum_verification=True)
        for group in groups:
            seen = file.read_row_group(group, columns=probe, use_threads=False)
            rows = wanted.rows(seen)
            if not len(rows):
                continue
            part = seen.take(rows)
            if others:
                rest = file.read_row_group(group, columns=others, use_threads=False).take(rows)
                part = pa.table({item: part[item] if item in probe else rest[item] for item in columns})
            yield part.select(list(columns))


def _overlap(low: NDArray[np.int64], high: NDArray[np.int64], ranges: Ranges) -> NDArray[np.bool_]:
    """Which inclusive spans share a pixel with the (sorted) ranges."""
    if not len(ranges):
        return np.zeros(len(low), bool)
    after = np.searchsorted(ranges[:, 1], low, side="right")
    return (after < len(ranges)) & (ranges[np.minimum(after, len(ranges) - 1), 0] <= high)


def _within(pixels: pa.ChunkedArray, ranges: Ranges) -> NDArray[np.int64]:
    """Numbers of the rows whose pixel lies in the ranges."""
    if pixels.null_count:
        # shards hold rows without a position
        return np.flatnonzero(contains(ranges, pixels.fill_null(-1).to_numpy()))
    values = pixels.to_numpy()
    if not (values[1:] >= values[:-1]).all():
        return np.flatnonzero(contains(ranges, values))
    edges = np.searchsorted(values, ranges)
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, last) for first, last in edges.tolist() if first < last)])
