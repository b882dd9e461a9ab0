"""Sums per HEALPix cell (NESTED), in bounded memory: the cells become coarser when there are too many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import astropy.units as u
import numpy as np
from cdshealpix.nested import healpix_to_lonlat
from numpy.typing import NDArray

INDEX_ORDER = 29
"""Order of the index that rows carry."""

FINEST_ORDER = 11
"""Cells of 1.7 arcmin: finer than any catalog of galaxies fills."""

MOST_CELLS = 100_000
COARSEST, FINEST = 3, 6
"""Orders below a cell at which its area is sampled: 64 points of each of many cells, 4096 of each of a few, whose edges matter more."""
MOST_POINTS = 2_000_000

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


class CellSums:
    """Sums and counts of named values per cell.

    Parameters
    ----------
    names : sequence of str
        The values that are summed.
    order : int
        HEALPix order to begin with.
    most : int
        Cells that are held; with more the order falls by one.
    """

    def __init__(self, names: Sequence[str], order: int = FINEST_ORDER, most: int = MOST_CELLS) -> None:
        self.names = tuple(names)
        self.order = order
        self._most = most
        self.cells: Ids = np.zeros(0, np.int64)
        self.rows: Floats = np.zeros(0)
        self._sums = np.zeros((0, len(self.names)))
        self._counts = np.zeros((0, len(self.names)))

    def add(self, index: Ids, values: NDArray[np.floating]) -> None:
        """Add rows.

        Parameters
        ----------
        index : ndarray of int64, shape (N,)
            NESTED index at order 29.
        values : ndarray, shape (N, len(names))
            NaN adds nothing, neither to the sum nor to its count.
        """
        known = np.isfinite(values)
        cells = index >> (2 * (INDEX_ORDER - self.order))
        self._merge(cells, np.ones(len(cells)), np.where(known, values, 0.0), known.astype(np.float64))
        while len(self.cells) > self._most and self.order > 0:
            self.coarsen(self.order - 1)

    def coarsen(self, order: int) -> None:
        """Go to a lower order; sums and counts are kept."""
        cells, rows, sums, counts = self.cells >> (2 * (self.order - order)), self.rows, self._sums, self._counts
        self.order, self.cells, self.rows = order, np.zeros(0, np.int64), np.zeros(0)
        self._sums = self._counts = np.zeros((0, len(self.names)))
        self._merge(cells, rows, sums, counts)

    def _merge(self, cells: Ids, rows: Floats, sums: Floats, counts: Floats) -> None:
        self.cells, place = np.unique(np.concatenate([self.cells, cells]), return_inverse=True)
        self.rows = np.asarray(np.bincount(place, np.concatenate([self.rows, rows]), len(self.cells)), np.float64)
        self._sums = _summed(place, np.concatenate([self._sums, sums]), len(self.cells))
        self._counts = _summed(place, np.concatenate([self._counts, counts]), len(self.cells))

    def settle(self, wanted: float) -> None:
        """Coarsen until half of the rows lie in cells of at least ``wanted`` rows."""
        while self.order > 0 and len(self.cells) > 1 and self._typical() < wanted:
            self.coarsen(self.order - 1)

    def _typical(self) -> float:
        """Rows in the cell of the median row: cut cells at the edge of a footprint hold few of them."""
        sizes = np.sort(self.rows)
        return float(sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)])

    def sums(self, name: str) -> Floats:
        """Sum of a value per cell, in the order of ``cells``."""
        return self._sums[:, self.names.index(name)]

    def counts(self, name: str) -> Floats:
        """How many values each sum has."""
        return self._counts[:, self.names.index(name)]

    def means(self, name: str) -> Floats:
        """Mean of a value per cell; NaN where there is none."""
        return ratio(self.sums(name), self.counts(name))


def _summed(place: NDArray[np.intp], values: Floats, cells: int) -> Floats:
    out = np.zeros((cells, values.shape[1]))
    for column in range(values.shape[1]):
        out[:, column] = np.bincount(place, values[:, column], cells)
    return out


def ratio(above: Floats, below: Floats) -> Floats:
    """``above / below``, NaN where ``below`` is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def cell_area(order: int) -> float:
    """Area of a cell, square arcmin."""
    return float(4 * np.pi * np.degrees(1.0) ** 2 * 3600 / (12 * 4**order))


def aligned(cells: Ids, other: Ids, values: Floats) -> Floats:
    """Values given for other cells, in the order of ``cells``; 0 where a cell is not among them.

    Parameters
    ----------
    cells, other : ndarray of int64
        NESTED cells of one order; ``other`` sorted.
    values : ndarray
        One per cell of ``other``.
    """
    if not len(other):
        return np.zeros(len(cells))
    place = np.minimum(np.searchsorted(other, cells), len(other) - 1)
    return np.where(other[place] == cells, values[place], 0.0)


def points_in(cells: Ids, order: int, deeper: int) -> tuple[Floats, Floats]:
    """Positions that stand for the area of cells: the centers of their descendants.

    Returns
    -------
    ra, dec : ndarray, shape (len(cells), 4**deeper)
        Degrees.
    """
    children = (cells[:, None] << (2 * deeper)) + np.arange(4**deeper)
    lon, lat = healpix_to_lonlat(children.ravel().astype(np.uint64), order + deeper)
    return np.asarray(lon.to_value(u.deg)).reshape(children.shape), np.asarray(lat.to_value(u.deg)).reshape(children.shape)


def share_inside(cells: Ids, order: int, inside: Callable[[Floats, Floats], NDArray[np.bool_]]) -> Floats:
    """Share of each cell's area that a test of positions accepts.

    Parameters
    ----------
    cells : ndarray of int64, shape (N,)
    order : int
    inside : callable
        From RA and Dec (deg, shape (M,)) to a mask of shape (M,).
    """
    share = np.zeros(len(cells))
    room = np.log2(MOST_POINTS / max(len(cells), 1)) / 2
    deeper = int(np.clip(room, COARSEST, FINEST))
    for part in np.array_split(np.arange(len(cells)), max(1, len(cells) * 4**deeper // MOST_POINTS)):
        ra, dec = points_in(cells[part], order, deeper)
        share[part] = inside(ra.ravel(), dec.ravel()).reshape(ra.shape).mean(axis=1)
    return share
