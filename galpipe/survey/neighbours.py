"""Which bricks lie beside a brick: those that share its edge, and those whose frames complete the stamps that overrun its own.

Near the poles a brick's unique area comes closer to the edge of its 3600 x 3600 frame than half a stamp, because lines of equal
declination bend away from the frame's rows (reference section 5.2: |dec| > 74 for 152 pixels).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from galpipe.survey.bricks import BRICK_PIXELS, ROWS, Brick, brick, brick_wcs, columns_of_row, known_brick

Floats = NDArray[np.float64]

STAMP = 152
"""Pixels on a side of the stamps that frames are completed for; ``[76, 76]`` is the pixel nearest to the source."""

REACH = STAMP // 2

EDGE = 0.5
"""Arcsec: fits of one source in two frames that straddle an edge lie closer together than this, and so does each to the edge."""

COMPLETED_DEC = 74.0
"""Deg; no frame nearer to the equator is overrun."""

_STEP = 16
"""Pixels between the points by which frames are compared."""


def touching(area: Brick, within: float = 4 * EDGE) -> tuple[Brick, ...]:
    """Bricks that share an edge or a corner with a brick, sorted by brickid.

    Parameters
    ----------
    area : Brick
    within : float
        Arcsec between two areas that still touch.
    """
    found = []
    for row in range(max(0, area.row - 1), min(ROWS, area.row + 2)):
        count = columns_of_row(row)
        nearest_pole = min(90.0, max(abs(area.dec1), abs(area.dec2)))
        slack = min(180.0, within / 3600 / max(np.cos(np.radians(nearest_pole)), 1e-9))
        width = 360.0 / count
        first, last = int(np.floor((area.ra1 - slack) / width)), int(np.floor((area.ra2 + slack) / width))
        columns = {column % count for column in range(first, min(last, first + count - 1) + 1)}
        found += [brick(row, column) for column in columns if (row, column) != (area.row, area.column)]
    return tuple(sorted(found, key=lambda item: item.brickid))


def distance_to_edge(area: Brick, ra: Floats, dec: Floats) -> Floats:
    """Arcsec from positions to a brick's edge, positive inside, shape (N,).

    Exact near the edges, where it is wanted; the sign is the one of ``ra1 <= ra < ra2`` and ``dec1 <= dec < dec2``.
    """
    offset = (np.asarray(ra, np.float64) - area.ra + 180) % 360 - 180
    half = (area.ra2 - area.ra1) / 2
    sides = [np.asarray(dec) - area.dec1, area.dec2 - np.asarray(dec)]
    if half < 180:
        shrink = np.cos(np.radians(dec))
        sides += [(offset + half) * shrink, (half - offset) * shrink]
    distance: Floats = np.min(sides, axis=0) * 3600
    return np.asarray(distance)


def _pixels(area: Brick, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """0-based pixels of positions in a brick's frame; NaN on the far side of the sky."""
    x, y = brick_wcs(area).all_world2pix(ra, dec, 0)
    away = np.sin(np.radians(dec)) * np.sin(np.radians(area.dec))
    away += np.cos(np.radians(dec)) * np.cos(np.radians(area.dec)) * np.cos(np.radians(ra - area.ra))
    far = away < 0.5
    return np.where(far, np.nan, x), np.where(far, np.nan, y)


def inside_frame(area: Brick, ra: Floats, dec: Floats, margin: float = 0.0) -> Floats:
    """Pixels from positions to the nearest edge of a brick's frame, positive inside; less ``margin``. NaN far away."""
    x, y = _pixels(area, ra, dec)
    last = BRICK_PIXELS - 0.5
    return np.asarray(np.min([x + 0.5, y + 0.5, last - x, last - y], axis=0) - margin)


def overrun(area: Brick) -> tuple[int, int, int, int]:
    """Pixels by which stamps of a brick's primary sources reach beyond its frame: left, right, bottom, top (0 = not at all)."""
    x, y = _nearest(area)
    beyond = STAMP - REACH - BRICK_PIXELS
    edges = (REACH - x.min(), x.max() + beyond, REACH - y.min(), y.max() + beyond)
    left, right, bottom, top = (max(0, int(value)) for value in edges)
    return left, right, bottom, top


def _nearest(area: Brick) -> tuple[Floats, Floats]:
    """The frame's pixels nearest to points along the border of a brick's unique area; what lies outside the frame is in no table."""
    x, y = (np.floor(values + 0.5) for values in _border(area))
    held = (x >= 0) & (x < BRICK_PIXELS) & (y >= 0) & (y < BRICK_PIXELS)
    # where the unique area leaves the frame, sources lie up to the frame's own edge
    return (x[held], y[held]) if held.all() else (np.clip(x, 0, BRICK_PIXELS - 1), np.clip(y, 0, BRICK_PIXELS - 1))


def _border(area: Brick) -> tuple[Floats, Floats]:
    """Pixels of points along the border of a brick's unique area."""
    along = np.linspace(0.0, 1.0, 129)
    ra, dec = area.ra1 + (area.ra2 - area.ra1) * along, area.dec1 + (area.dec2 - area.dec1) * along
    ends = [np.full(129, value) for value in (area.ra1, area.ra2, area.dec1, area.dec2)]
    return _pixels(area, np.concatenate([ra, ra, ends[0], ends[1]]), np.concatenate([ends[2], ends[3], dec, dec]))


def stamp_neighbours_of(name: str) -> tuple[Brick, ...]:
    """`stamp_neighbours` of the brick with a name; none for a name that is not in the grid."""
    area = known_brick(name)
    return stamp_neighbours(area) if area else ()


@cache
def stamp_neighbours(area: Brick) -> tuple[Brick, ...]:
    """Bricks whose frames are needed to complete the stamps of a brick's primary sources, sorted by brickid.

    Of the bricks that touch it, the fewest that together cover what its stamps reach beyond the brick's frame.
    """
    if abs(area.dec) <= COMPLETED_DEC or not any(overrun(area)):
        return ()
    ra, dec = _missing(area)
    choices = {other: inside_frame(other, ra, dec, margin=2.0) >= 0 for other in _around(area)}
    open_points = np.ones(len(ra), bool)
    chosen: list[Brick] = []
    while choices:
        best = max(choices, key=lambda other: (int((choices[other] & open_points).sum()), -other.brickid))
        if not (choices[best] & open_points).any():
            break
        open_points &= ~choices.pop(best)
        chosen.append(best)
    return tuple(sorted(chosen, key=lambda item: item.brickid))


def _around(area: Brick) -> tuple[Brick, ...]:
    """Bricks that may have a frame over a brick's stamps: those that touch it, and those that touch these where bricks are narrow."""
    near = set(touching(area))
    if abs(area.dec) > 88:
        near |= {far for other in tuple(near) for far in touching(other)} - {area}
    return tuple(sorted(near, key=lambda item: item.brickid))


def _missing(area: Brick) -> tuple[Floats, Floats]:
    """Positions of points beyond a brick's frame that stamps of its primary sources reach, on a grid of `_STEP` and at the rim."""
    left, right, bottom, top = overrun(area)
    last = BRICK_PIXELS - 1
    x_line = np.unique(np.concatenate([np.arange(-left, last + right + 1, _STEP), [-left, -1, last + 1, last + right]]))
    y_line = np.unique(np.concatenate([np.arange(-bottom, last + top + 1, _STEP), [-bottom, -1, last + 1, last + top]]))
    gx, gy = (values.ravel().astype(np.float64) for values in np.meshgrid(x_line, y_line))
    beyond = (gx < 0) | (gx > last) | (gy < 0) | (gy > last)
    gx, gy = gx[beyond], gy[beyond]
    wanted = np.zeros(len(gx), bool)
    # a pixel outside the frame is reached from the border of the unique area before it is from within
    for x, y in zip(*_nearest(area), strict=True):
        wanted |= (gx >= x - REACH) & (gx < x + STAMP - REACH) & (gy >= y - REACH) & (gy < y + STAMP - REACH)
    ra, dec = brick_wcs(area).all_pix2world(gx[wanted], gy[wanted], 0)
    return np.asarray(ra), np.asarray(dec)


@cache
def completed_by(area: Brick) -> tuple[Brick, ...]:
    """Bricks whose stamps a brick's frame completes: the inverse of `stamp_neighbours`."""
    if abs(area.dec) <= COMPLETED_DEC - 0.25:
        return ()
    return tuple(other for other in _around(area) if area in stamp_neighbours(other))
