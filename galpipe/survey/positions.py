"""Positions in a Tractor table: put right by a whole turn, and turned into what older tables leave out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.survey.bricks import Brick, brick_wcs

TURN_REACH = 1.0
"""Deg from its brick's center within which a right ascension that was put right must lie: a frame's corner is 0.2 deg away."""


def turned(table: pa.Table, brick: Brick | None = None) -> pa.Table:
    """A table whose right ascensions lie in 0..360: those that are one turn off (360.0003, -0.0001) are put right.

    Others outside that range stay as they are, and so does one that a turn would not bring to its own brick.

    Parameters
    ----------
    table : pyarrow.Table
        With columns ra and dec, deg.
    brick : Brick, optional
        The brick whose sources they are.
    """
    ra, dec = _positions(table)
    off = ((ra >= -360) & (ra < 0)) | ((ra >= 360) & (ra < 720))
    if not off.any():
        return table
    # the remainder of a tiny negative angle rounds to 360
    right = np.where(off, ra % 360 % 360, ra)
    if brick is not None:
        near, south = np.radians((right - brick.ra) / 2), np.radians((dec - brick.dec) / 2)
        square = np.sin(south) ** 2 + np.cos(np.radians(dec)) * np.cos(np.radians(brick.dec)) * np.sin(near) ** 2
        right = np.where(off & (square <= np.sin(np.radians(TURN_REACH / 2)) ** 2), right, ra)
    return table.set_column(table.column_names.index("ra"), "ra", pa.array(right))


def _positions(table: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return table["ra"].to_numpy().astype(np.float64), table["dec"].to_numpy().astype(np.float64)


def inside(table: pa.Table, brick: Brick) -> NDArray[np.bool_]:
    """Which sources lie in a brick's own area, shape (rows,): ``brick_primary``."""
    ra, dec = _positions(table)
    return (ra >= brick.ra1) & (ra < brick.ra2) & (dec >= brick.dec1) & (dec < brick.dec2)


def add_pixels(table: pa.Table, brick: Brick) -> pa.Table:
    """A table with ``bx`` and ``by`` (0-based pixels of the brick's image) from its positions."""
    ra, dec = _positions(table)
    good = np.isfinite(ra) & np.isfinite(dec)
    pixels = np.full((2, len(ra)), np.nan, np.float32)
    if good.any():
        pixels[:, good] = brick_wcs(brick, SURVEY_PIXSCALE).all_world2pix(ra[good], dec[good], 0)
    rest = table.drop_columns([name for name in ("bx", "by") if name in table.column_names])
    return rest.append_column("bx", pa.array(pixels[0])).append_column("by", pa.array(pixels[1]))
