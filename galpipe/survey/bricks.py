"""The survey's brick grid: 662,174 boxes of about 0.25 x 0.25 deg, the same in every release.

The closed form below reproduces every published name and id (reference: Legacy Survey ``survey-bricks.fits.gz``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.errors import ConfigurationError

BRICK_PIXELS = 3600
"""Pixels on a side of a brick's image, margin included."""

ROWS = 721
BRICKS = 662_174


@dataclass(frozen=True, order=True)
class Brick:
    """One brick; edges are half-open, ``ra1 <= ra < ra2`` and ``dec1 <= dec < dec2`` (deg)."""

    name: str
    brickid: int
    row: int
    column: int
    ra: float
    dec: float
    ra1: float
    ra2: float
    dec1: float
    dec2: float

    @property
    def quadrant(self) -> int:
        """BRICKQ: four interleaved classes; neighbours never share one."""
        return 1 if self.row == 0 else self.column % 2 + 2 * (self.row % 2)


@cache
def _rows() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Center declination, brick count and first brickid of each row."""
    dec = -90.0 + 0.25 * np.arange(ROWS, dtype=np.float64)
    count: NDArray[np.int64] = (2 * np.ceil(1440 * np.cos(np.radians(np.maximum(0, np.abs(dec) - 0.125))) / 2)).astype(np.int64)
    count[0] = count[-1] = 1
    first: NDArray[np.int64] = 1 + np.concatenate([[0], np.cumsum(count)])
    return dec, count, first


def columns_of_row(row: int) -> int:
    """Number of bricks in a row (0..720)."""
    return int(_rows()[1][row])


def row_column(ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the brick that owns each position.

    Parameters
    ----------
    ra, dec : array_like
        Degrees; any RA, wrapped to 0..360.
    """
    dec_of, count, _ = _rows()
    wrapped, north = np.asarray(ra, np.float64) % 360, np.asarray(dec, np.float64)
    # the remainder of a tiny negative angle rounds to 360
    wrapped = np.where(wrapped >= 360, 0.0, wrapped)
    row = np.clip(np.floor((north + 90.125) / 0.25).astype(np.int64), 0, ROWS - 1)
    row -= (north < dec_of[row] - 0.125) & (row > 0)
    column = np.minimum((wrapped / 360 * count[row]).astype(np.int64), count[row] - 1)
    # a division may round across an edge: the edges themselves decide, as they do for brick_primary
    width = 360.0 / count[row]
    column -= wrapped < column * width
    column += (wrapped >= (column + 1) * width) & (column < count[row] - 1)
    return row, column


def brick(row: int, column: int) -> Brick:
    """The brick in a row (0..720, from the south pole) and column (from RA 0)."""
    dec_of, count, first = _rows()
    width, dec = 360.0 / int(count[row]), float(dec_of[row])
    ra = (column + 0.5) * width
    # rounded before it is cut short: int(ra * 10) is wrong for 470 bricks
    name = f"{ra * 1e4:07.0f}"[:4] + ("p" if dec >= 0 else "m") + f"{abs(dec) * 1e4:06.0f}"[:3]
    edges = (column * width, (column + 1) * width, max(-90.0, dec - 0.125), min(90.0, dec + 0.125))
    return Brick(name, int(first[row]) + column, row, column, ra, dec, *edges)


def brick_at(ra: float, dec: float) -> Brick:
    """The brick that owns a position (deg)."""
    row, column = row_column(ra, dec)
    return brick(int(row), int(column))


def brick_by_id(brickid: int) -> Brick:
    """The brick with an id (1..662174)."""
    if not 1 <= brickid <= BRICKS:
        raise ConfigurationError(f"a brickid from 1 to {BRICKS}", repr(brickid))
    first = _rows()[2]
    row = int(np.searchsorted(first, brickid, side="right")) - 1
    return brick(row, brickid - int(first[row]))


def brick_by_name(name: str) -> Brick:
    """The brick with a name.

    Raises
    ------
    ConfigurationError
        If no brick of the grid has this name.
    """
    well_formed = len(name) == 8 and name[4] in "pm" and (name[:4] + name[5:]).isdigit()
    if well_formed:
        dec = float(name[5:]) / 10 * (1 if name[4] == "p" else -1)
        ra = float(name[:4]) / 10
        # a name keeps one decimal, so the center lies up to 0.1 deg further on in either coordinate
        for near_dec in (dec, dec + 0.05, dec - 0.05):
            row = int(row_column(0.0, near_dec)[0])
            count = int(_rows()[1][row])
            guess = int(ra / 360 * count)
            for column in range(max(0, guess - 1), min(count, guess + 3)):
                found = brick(row, column)
                if found.name == name:
                    return found
    raise ConfigurationError("a brick name of the survey's grid, such as 1126p222", repr(name))


@cache
def known_brick(name: str) -> Brick | None:
    """The brick with a name; None if the grid has none."""
    try:
        return brick_by_name(name)
    except ConfigurationError:
        return None


def all_centers() -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """brickid, RA and Dec (deg) of every brick, shape (662174,) each."""
    dec_of, count, first = _rows()
    row = np.repeat(np.arange(ROWS), count)
    brickid = np.arange(1, BRICKS + 1)
    column = brickid - first[row]
    return brickid, (column + 0.5) * 360.0 / count[row], dec_of[row]


@cache
def _names() -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """All brick names in sorted order, and the brickid of each."""
    brickid, ra, dec = all_centers()
    # rounded before they are cut short, as in `brick`; digit by digit, because 662,174 format calls take seconds
    first = (np.rint(ra * 1e4) // 1000).astype(np.int64)
    last = (np.rint(np.abs(dec) * 1e4) // 1000).astype(np.int64)
    letters = [first // 10**k % 10 + ord("0") for k in (3, 2, 1, 0)]
    letters += [np.where(dec >= 0, ord("p"), ord("m"))] + [last // 10**k % 10 + ord("0") for k in (2, 1, 0)]
    names = np.ascontiguousarray(np.stack(letters, axis=1).astype(np.uint8)).view("S8").ravel()
    order = np.argsort(names)
    return names[order], brickid[order]


def ids_at(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.int64]:
    """The brickid that owns each position (deg)."""
    row, column = row_column(ra, dec)
    return _rows()[2][row] + column


def brickids_of(names: ArrayLike) -> NDArray[np.int64]:
    """The brickid of each name, 0 where the grid has no such brick.

    Parameters
    ----------
    names : array_like
        Brick names, shape (n,).
    """
    known, ids = _names()
    wanted = np.asarray(names).astype("S8")
    place = np.minimum(np.searchsorted(known, wanted), BRICKS - 1)
    return np.where(known[place] == wanted, ids[place], 0)


def names_of(brickids: ArrayLike) -> NDArray[np.str_]:
    """Name of each brickid, shape (n,); the inverse of `brickids_of`."""
    known, ids = _names()
    by_id = np.empty(BRICKS + 1, "S8")
    by_id[ids] = known
    return by_id[np.asarray(brickids, np.int64)].astype(str)


def geometry_of(brickids: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Centers and edges (deg) of many bricks: ``ra, dec, ra1, ra2, dec1, dec2``, shape (n,) each."""
    dec_of, count, first = _rows()
    ids = np.asarray(brickids, np.int64)
    row = np.searchsorted(first, ids, side="right") - 1
    column, width, dec = ids - first[row], 360.0 / count[row], dec_of[row]
    edges = {"ra1": column * width, "ra2": (column + 1) * width}
    edges |= {"dec1": np.maximum(-90.0, dec - 0.125), "dec2": np.minimum(90.0, dec + 0.125)}
    return {"ra": (column + 0.5) * width, "dec": dec, **edges}


def brick_wcs(center: Brick, pixscale: float = SURVEY_PIXSCALE) -> WCS:
    """TAN projection of a brick's 3600 x 3600 coadds: north up, east left, centered."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [center.ra, center.dec]
    wcs.wcs.crpix = [BRICK_PIXELS / 2 + 0.5] * 2
    wcs.wcs.cd = [[-pixscale / 3600, 0.0], [0.0, pixscale / 3600]]
    wcs.array_shape = (BRICK_PIXELS, BRICK_PIXELS)
    return wcs
