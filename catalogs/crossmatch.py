"""Match a catalog with a user's table by position: the galaxies within a radius of each of its rows, or the nearest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy.coordinates import Latitude, Longitude, spherical_to_cartesian
from cdshealpix.nested import lonlat_to_healpix, neighbours
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.pushdown import Wanted
from catalogs.ranges import Ranges, depth_for, of_cells
from catalogs.usertable import UserTable
from galpipe.errors import ConfigurationError

MOST_RADIUS = 36_000.0
"""Largest radius of a match, arcsec."""

USER_SUFFIX = "_user"
"""Behind the name of a user's column that the catalog has too."""

_FINEST = 12
"""Order (51 arcsec) of the cells about the user's positions at most: finer ones spare no row group."""

_ROOM = 4
"""Widths of a cell over the radius: then a cell and its neighbours hold the radius about every position in the cell."""

Search = Callable[[Wanted], pa.Table]


@dataclass(frozen=True)
class Match:
    """How to match.

    Parameters
    ----------
    radius : float
        Arcsec.
    every : bool
        All galaxies within the radius instead of the nearest one.

    Raises
    ------
    ConfigurationError
        If the radius is none.
    """

    radius: float
    every: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.radius <= MOST_RADIUS:
            raise ConfigurationError(f"a radius above 0 and up to {MOST_RADIUS:g} arcsec", repr(self.radius))

    @property
    def chord(self) -> float:
        """The radius as a chord of the unit sphere, a rounding longer."""
        return float(2 * np.sin(np.radians(self.radius / 3600) / 2) * (1 + 1e-9) + 1e-15)


def match(user: UserTable, how: Match, search: Search, columns: Sequence[str]) -> pa.Table:
    """Pairs of a user's rows and galaxies, in the order of the user's rows, nearest first.

    Unit vectors and chords, not coordinates, so that RA 0 and the poles are places as any other.

    Parameters
    ----------
    user : UserTable
    how : Match
    search : callable
        Gives the wanted rows of the catalog, with ``ra`` and ``dec``, sorted by ``source_id``.
    columns : sequence of str
        Of the catalog, for the result.

    Returns
    -------
    pyarrow.Table
        The user's columns (with `USER_SUFFIX` where the catalog or the result has the name too), the catalog's, ``separation`` (arcsec).
        A user's row without a galaxy within the radius, or without a position, is not in it.
    """
    placed = np.flatnonzero(user.placed)
    spots = _vectors(user.ra[placed], user.dec[placed])
    tree = cKDTree(spots.reshape(-1, 3))

    def keep(rows: pa.Table) -> NDArray[np.bool_]:
        far, _ = tree.query(_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy()), distance_upper_bound=how.chord * (1 + 1e-9))
        return np.asarray(np.isfinite(far))

    found = search(Wanted(_near(user.ra[placed], user.dec[placed], how.radius), keep))
    galaxies = _vectors(found["ra"].to_numpy(), found["dec"].to_numpy())
    mine, theirs = _pairs(spots, galaxies, how)
    chord = np.linalg.norm(spots[mine] - galaxies[theirs], axis=1)
    apart = 3600 * np.degrees(2 * np.arcsin(np.minimum(1.0, chord / 2)))
    order = np.lexsort([theirs, apart, mine])
    order = order[apart[order] <= how.radius]
    theirs_table = found.select(list(columns)).take(theirs[order])
    ours = _renamed(user.table, {*columns, "separation"}).take(placed[mine[order]])
    item = pa.field("separation", pa.float64(), metadata={"unit": "arcsec", "description": "Distance to the user's position"})
    schema = pa.schema([*ours.schema, *theirs_table.schema, item])
    return pa.table([*ours.columns, *theirs_table.columns, pa.array(apart[order])], schema=schema)


def _vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.asarray(part) for part in spherical_to_cartesian(1.0, np.radians(dec), np.radians(ra))], axis=-1)


def _near(ra: NDArray[np.float64], dec: NDArray[np.float64], radius: float) -> Ranges:
    """Ranges of ``_healpix_29`` that hold the radius (arcsec) about every position."""
    depth = min(_FINEST, max(0, depth_for(radius / 3600 * _ROOM * 5) - 1))
    if not len(ra):
        return np.zeros((0, 2), np.int64)
    cells = np.unique(lonlat_to_healpix(Longitude(ra % 360, u.deg), Latitude(dec, u.deg), depth))
    around = np.unique(np.asarray(neighbours(cells, depth)).ravel())
    around = around[around >= 0]
    return of_cells(around, np.full(len(around), depth))


def _pairs(spots: NDArray[np.float64], galaxies: NDArray[np.float64], how: Match) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the user's positions and of the galaxies that belong together."""
    if not len(spots) or not len(galaxies):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    tree = cKDTree(galaxies)
    if how.every:
        close = cast("list[list[int]]", tree.query_ball_point(spots, how.chord))
        mine = np.repeat(np.arange(len(spots)), [len(item) for item in close])
        return mine, np.fromiter((number for item in close for number in item), np.int64, len(mine))
    far, nearest = (np.asarray(item) for item in tree.query(spots, distance_upper_bound=how.chord * (1 + 1e-9)))
    mine = np.flatnonzero(np.isfinite(far))
    return mine, nearest[mine].astype(np.int64)


def _renamed(table: pa.Table, taken: set[str]) -> pa.Table:
    """The user's table with names that nobody else has."""
    names: list[str] = []
    for name in table.column_names:
        fresh = name
        while fresh in taken or fresh in names:
            fresh += USER_SUFFIX
        names.append(fresh)
    return table.rename_columns(names)
