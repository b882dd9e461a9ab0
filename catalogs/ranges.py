"""Ranges of ``_healpix_29``: how a piece of sky is told to files that are sorted by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import HEALPIX_ORDER

Ranges = NDArray[np.int64]
"""Sorted, disjoint, half-open ranges of ``_healpix_29``, shape (n, 2)."""

WHOLE_SKY: Ranges = np.array([[0, 12 * 4**HEALPIX_ORDER]], np.int64)

_CELLS_ACROSS = 5
"""Cells of a covering along an area's width: more cost more than the rows they spare."""

_BASE_WIDTH = 58.6
"""Width (deg) of a pixel at order 0, the square root of its area."""


def merged(low: NDArray[np.int64], high: NDArray[np.int64]) -> Ranges:
    """Ranges sorted, those that touch or overlap joined.

    Parameters
    ----------
    low, high : ndarray
        Half-open, shape (n,), any order.
    """
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    first = np.flatnonzero(np.concatenate([[True], low[1:] > high[:-1]])) if len(low) else np.zeros(0, np.int64)
    last = np.concatenate([first[1:] - 1, [len(low) - 1]]) if len(low) else first
    return np.stack([low[first], high[last]], axis=1).astype(np.int64)


def coarser(ranges: Ranges, most: int) -> Ranges:
    """At most ``most`` ranges that hold the given ones: the smallest gaps are closed."""
    if len(ranges) <= most:
        return ranges
    gaps = ranges[1:, 0] - ranges[:-1, 1]
    kept = np.sort(np.argsort(gaps, kind="stable")[len(gaps) - (most - 1) :]) if most > 1 else np.zeros(0, np.int64)
    low = np.concatenate([ranges[:1, 0], ranges[kept + 1, 0]])
    return np.stack([low, np.concatenate([ranges[kept, 1], ranges[-1:, 1]])], axis=1)


def contains(ranges: Ranges, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which order-29 pixels lie in one of the ranges."""
    if not len(ranges):
        return np.zeros(len(pixels), bool)
    place = np.searchsorted(ranges[:, 0], pixels, side="right") - 1
    return (place >= 0) & (pixels < ranges[np.maximum(place, 0), 1])


def of_cells(cells: NDArray[np.integer[Any]], depth: NDArray[np.integer[Any]]) -> Ranges:
    """Ranges of cells of any orders; both arrays of shape (n,)."""
    shift = 2 * (HEALPIX_ORDER - depth.astype(np.int64))
    low = cells.astype(np.int64) << shift
    return merged(low, low + (np.int64(1) << shift))


def cell_radius(order: int) -> float:
    """The largest distance (deg) from the middle of a cell to its corners (healpy's ``max_pixrad``), one percent wider."""
    step = 1 / 2**order
    equator, pole = (2 / 3, np.pi / 4 * step), (1 - (1 - step) ** 2 / 3, 0.0)
    one, other = (np.array([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z]) for z, phi in (equator, pole))
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(one, other)), one @ other)) * 1.01)


def depth_for(width: float) -> int:
    """Order at which a cell is the given width (deg) over `_CELLS_ACROSS`."""
    return int(np.clip(np.ceil(np.log2(_BASE_WIDTH * _CELLS_ACROSS / max(width, 1e-9))), 0, HEALPIX_ORDER))
