"""Which row of one version is which row of another: by id, or by position where ids say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.coordinates import spherical_to_cartesian
from cdshealpix.nested import external_neighbours
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.schema import HEALPIX, HEALPIX_ORDER
from galpipe.errors import BadData

RADIUS = 1.0
"""Arcsec within which rows of two releases are one galaxy."""

LARGEST_RADIUS = 60.0
"""Arcsec; far below the width of a partition."""

_RELEASE_BITS = 42
"""A source_id is release << 42 | brickid << 22 | objid."""

_LIGHT = ("source_id", "ra", "dec", HEALPIX)

Index = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Cell:
    """A HEALPix pixel, NESTED."""

    order: int
    pixel: int

    def at(self, order: int) -> int:
        """Number of the pixel that holds this one, at a lower or the same order."""
        return self.pixel >> (2 * (self.order - order))


def cell_of(path: Path) -> Cell:
    """The pixel that a partition's path names."""
    return Cell(int(path.parent.parent.name.removeprefix("Norder=")), int(path.stem.removeprefix("Npix=")))


@dataclass(frozen=True)
class Rows:
    """Rows of some partitions, without their values; arrays of shape (N,)."""

    files: tuple[Path, ...]
    file: Index
    """Index into ``files``."""
    row: Index
    """Row in that file."""
    ids: Index
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    healpix: Index

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Any) -> Rows:
        """Some of the rows, by index or mask."""
        return Rows(self.files, *(values[rows] for values in (self.file, self.row, self.ids, self.ra, self.dec, self.healpix)))

    def columns(self, names: Sequence[str]) -> dict[str, pa.Array]:
        """Values of columns, in the order of the rows: only the files that hold some of them are read, each once."""
        parts, places = [], []
        for index in np.unique(self.file):
            mine = np.flatnonzero(self.file == index)
            parts.append(_read(self.files[index], names).take(pa.array(self.row[mine])))
            places.append(mine)
        order = pa.array(np.argsort(np.concatenate(places), kind="stable"))
        table = pa.concat_tables(parts).take(order)
        return {name: _whole(table[name]) for name in names}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read(columns=list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable partition", str(error), file=str(path)) from error


def read_rows(files: Sequence[Path]) -> Rows:
    """Ids and positions of every row of some partitions.

    Raises
    ------
    BadData
        If one does not read.
    """
    tables = [_read(path, _LIGHT) for path in files]
    counts = [table.num_rows for table in tables]
    kinds = (np.int64, np.float64, np.float64, np.int64)
    values = [
        np.concatenate([np.empty(0, kind), *(table[name].to_numpy() for table in tables)]) for name, kind in zip(_LIGHT, kinds, strict=True)
    ]
    row = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
    return Rows(tuple(files), np.repeat(np.arange(len(files)), counts), row, *values)


def joined(one: Rows, other: Rows) -> Rows:
    """The rows of both, in this order."""
    arrays = zip(
        (one.file, one.row, one.ids, one.ra, one.dec, one.healpix),
        (other.file + len(one.files), other.row, other.ids, other.ra, other.dec, other.healpix),
        strict=True,
    )
    return Rows(one.files + other.files, *(np.concatenate(pair) for pair in arrays))


def ring(cell: Cell, radius: float) -> tuple[int, Index]:
    """A chain of small pixels around a larger one, in which all lies that is no farther than ``2 * radius`` from it.

    Parameters
    ----------
    cell : Cell
    radius : float
        Arcsec.

    Returns
    -------
    int
        Order of the small pixels.
    ndarray
        Their numbers, sorted.
    """
    # the side of a pixel is 58.6 deg / 2**order on average; twice the reach leaves room for the narrow ones
    order = max(cell.order, int(np.log2(58.6 * 3600 / (4 * max(radius, RADIUS)))))
    borders, corners = external_neighbours(np.array([cell.pixel], np.uint64), cell.order, order - cell.order)
    found = np.concatenate([np.asarray(part).ravel().astype(np.int64) for part in (borders, corners)])
    return order, np.unique(found[found >= 0])


def near(rows: Rows, cell: Cell, radius: float) -> Rows:
    """Those of the rows that lie in the `ring` around a pixel."""
    order, cells = ring(cell, radius)
    return rows.take(np.isin(rows.healpix >> (2 * (HEALPIX_ORDER - order)), cells))


@dataclass(frozen=True)
class Pairs:
    """Rows that are the same galaxy: row ``before[k]`` of one table is row ``after[k]`` of the other; shape (N,) each."""

    before: Index
    after: Index

    @classmethod
    def none(cls) -> Pairs:
        """No pair."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    def plus(self, other: Pairs) -> Pairs:
        """Both lists of pairs."""
        return Pairs(np.concatenate([self.before, other.before]), np.concatenate([self.after, other.after]))

    def only(self, mask: Any) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.before[mask], self.after[mask])


def by_id(before: Index, after: Index) -> Pairs:
    """Pairs of equal ids."""
    _, one, other = np.intersect1d(before, after, return_indices=True)
    return Pairs(one, other)


def by_position(before: Rows, after: Rows, radius: float) -> Pairs:
    """Pairs of rows each of which is the other's nearest, within a radius (arcsec)."""
    if not len(before) or not len(after):
        return Pairs.none()
    places = [_unit_vectors(rows) for rows in (before, after)]
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    distance, nearest = (np.asarray(values) for values in cKDTree(places[1]).query(places[0], distance_upper_bound=chord))
    found = np.flatnonzero(np.isfinite(distance))
    back = np.asarray(cKDTree(places[0]).query(places[1][nearest[found]])[1])
    mutual = found[back == found]
    return Pairs(mutual, nearest[mutual].astype(np.int64))


def _unit_vectors(rows: Rows) -> NDArray[np.float64]:
    parts = spherical_to_cartesian(1.0, np.radians(rows.dec), np.radians(rows.ra))
    return np.stack([part.value for part in parts], axis=1)


def separation(before: Rows, after: Rows) -> NDArray[np.float64]:
    """Arcsec between the rows of two tables of one length, shape (N,)."""
    chord = np.linalg.norm(_unit_vectors(before) - _unit_vectors(after), axis=1)
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1))) * 3600)


@dataclass(frozen=True)
class Matched:
    """What became of the rows of one pixel.

    Parameters
    ----------
    before, after : Rows
        The pixel's own rows, followed by those of its surroundings.
    own : tuple of int
        How many of either are the pixel's own.
    pairs : Pairs
        With the pixel's own rows on the side ``before``.
    positional : ndarray
        Of each pair whether it was found by position.
    removed, added : ndarray
        Own rows without a counterpart.
    """

    before: Rows
    after: Rows
    own: tuple[int, int]
    pairs: Pairs
    positional: NDArray[np.bool_]
    removed: Index
    added: Index


def match(cell: Cell, own: tuple[Rows, Rows], around: tuple[Iterable[Path], Iterable[Path]], radius: float | None) -> Matched:
    """Pair the rows of a pixel.

    Parameters
    ----------
    cell : Cell
    own : tuple of Rows
        Of the pixel, before and after.
    around : tuple of iterables of Path
        The partitions beside it, before and after; read only when a row finds no counterpart in its own.
    radius : float or None
        Arcsec: match by position alone. None: by id, and what is left over by position where the releases differ.
    """
    counts = len(own[0]), len(own[1])
    if radius is not None:
        sides = _with_margin(cell, own, around, radius)
        pairs = by_position(*sides, radius)
        return _settle(sides, counts, pairs, np.ones(len(pairs.before), bool))
    pairs = by_id(own[0].ids, own[1].ids)
    if len(pairs.before) == counts[0] == counts[1]:
        return _settle(own, counts, pairs, np.zeros(len(pairs.before), bool))
    sides = joined(own[0], read_rows(tuple(around[0]))), joined(own[1], read_rows(tuple(around[1])))
    pairs = by_id(sides[0].ids, sides[1].ids)
    left = [np.setdiff1d(np.arange(len(rows)), used) for rows, used in zip(sides, (pairs.before, pairs.after), strict=True)]
    left = [_reachable(rows, index, count, cell) for rows, index, count in zip(sides, left, counts, strict=True)]
    close = by_position(sides[0].take(left[0]), sides[1].take(left[1]), RADIUS)
    more = Pairs(left[0][close.before], left[1][close.after])
    more = more.only(sides[0].ids[more.before] >> _RELEASE_BITS != sides[1].ids[more.after] >> _RELEASE_BITS)
    return _settle(sides, counts, pairs.plus(more), np.repeat([False, True], [len(pairs.before), len(more.before)]))


def _reachable(rows: Rows, index: Index, own: int, cell: Cell) -> Index:
    order, cells = ring(cell, RADIUS)
    beside = np.isin(rows.healpix[index] >> (2 * (HEALPIX_ORDER - order)), cells)
    return np.asarray(index[(index < own) | beside])


def _with_margin(cell: Cell, own: tuple[Rows, Rows], around: tuple[Iterable[Path], Iterable[Path]], radius: float) -> tuple[Rows, Rows]:
    margins = [near(read_rows(tuple(files)), cell, radius) for files in around]
    return joined(own[0], margins[0]), joined(own[1], margins[1])


def _settle(sides: tuple[Rows, Rows], counts: tuple[int, int], pairs: Pairs, positional: NDArray[np.bool_]) -> Matched:
    removed = np.setdiff1d(np.arange(counts[0]), pairs.before)
    added = np.setdiff1d(np.arange(counts[1]), pairs.after)
    # a pair belongs to the pixel that its first row lies in
    mine = pairs.before < counts[0]
    return Matched(*sides, counts, pairs.only(mine), positional[mine], removed, added)
