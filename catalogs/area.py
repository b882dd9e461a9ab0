"""Pieces of sky to ask a catalog for: which rows lie inside, and the ranges of ``_healpix_29`` that cover them.

Each area answers two questions. `Area.ranges` gives half-open ranges of order-29 NESTED pixels that hold the whole area and little
more, from cdshealpix and mocpy: they decide which files and row groups are read. `Area.inside` decides exactly, row by row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import Latitude, Longitude, spherical_to_cartesian
from cdshealpix.nested import cone_search, healpix_to_lonlat, lonlat_to_healpix, polygon_search
from mocpy import MOC
from numpy.typing import ArrayLike, NDArray

from catalogs.ranges import WHOLE_SKY, Ranges, cell_radius, contains, depth_for, merged, of_cells
from catalogs.schema import HEALPIX_ORDER
from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import BRICK_PIXELS, BRICKS, geometry_of
from galpipe.survey.region import MocFile

Mask = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

_EDGE = 1e-9
"""Degrees by which coverings are wider than their area, so that rounding loses no row on an edge."""


class Area(ABC):
    """A piece of the sky."""

    @abstractmethod
    def ranges(self) -> Ranges:
        """Ranges of ``_healpix_29`` that hold every position inside."""

    @abstractmethod
    def inside(self, ra: ArrayLike, dec: ArrayLike) -> Mask:
        """Which positions (deg) lie inside; shape of ``ra``. NaN lies nowhere."""


def separation(ra: ArrayLike, dec: ArrayLike, ra0: float, dec0: float) -> FloatArray:
    """Great-circle distance in arcsec (haversine form, exact at small angles).

    Parameters
    ----------
    ra, dec : array_like
        Degrees.
    ra0, dec0 : float
        Degrees.
    """
    lon, lat = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    lon0, lat0 = np.radians(ra0), np.radians(dec0)
    square = np.sin((lat - lat0) / 2) ** 2 + np.cos(lat) * np.cos(lat0) * np.sin((lon - lon0) / 2) ** 2
    return np.asarray(3600 * np.degrees(2 * np.arcsin(np.sqrt(np.minimum(square, 1.0)))))


@dataclass(frozen=True)
class Cone(Area):
    """All within ``radius`` of a position (deg).

    Raises
    ------
    ConfigurationError
        If a number is out of range.
    """

    ra: float
    dec: float
    radius: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.ra) and abs(self.dec) <= 90 and 0 < self.radius <= 180):
            raise ConfigurationError("RA, Dec within 90 deg and a radius of 0 to 180 deg", f"{self.ra}, {self.dec}, {self.radius}")

    def ranges(self) -> Ranges:
        """Ranges of ``_healpix_29`` that hold every position inside."""
        center = Longitude(self.ra % 360.0, u.deg), Latitude(self.dec, u.deg)
        # a rounding wider, as the edge itself is inside
        radius = min(180.0, self.radius + _EDGE)
        cells, depth, _ = cone_search(*center, radius * u.deg, depth_for(2 * self.radius), flat=False)
        return of_cells(cells, depth)

    def inside(self, ra: ArrayLike, dec: ArrayLike) -> Mask:
        """Which positions (deg) lie inside."""
        return np.asarray(separation(ra, dec, self.ra, self.dec) <= 3600 * self.radius)


@dataclass(frozen=True)
class Box(Area):
    """From ``ra1`` eastward to ``ra2`` (over RA 0 where ra1 > ra2), and from ``dec1`` to ``dec2`` (deg).

    Lower edges are inside, upper edges outside, but for the pole.

    Raises
    ------
    ConfigurationError
        If the box has no extent or its numbers make no sense.
    """

    ra1: float
    ra2: float
    dec1: float
    dec2: float

    def __post_init__(self) -> None:
        if not (-90 <= self.dec1 < self.dec2 <= 90 and np.isfinite([self.ra1, self.ra2]).all() and self._width > 0):
            what = "RA1, RA2, DEC1, DEC2 with some width and DEC1 < DEC2 within -90 to 90"
            raise ConfigurationError(what, f"{self.ra1}, {self.ra2}, {self.dec1}, {self.dec2}")

    @property
    def _width(self) -> float:
        return 360.0 if self.ra2 - self.ra1 >= 360 else (self.ra2 - self.ra1) % 360

    def ranges(self) -> Ranges:
        """Ranges of ``_healpix_29`` that hold every position inside."""
        height = self.dec2 - self.dec1
        middle = 0.0 if self.dec1 < 0 < self.dec2 else min(abs(self.dec1), abs(self.dec2))
        across = self._width * np.cos(np.radians(middle))
        # a narrow strip takes many cells: no finer than a 32nd of its length
        depth = depth_for(max(min(height, across), max(height, across) / 32))
        # cdshealpix's zone_search loses cells that bulge over a parallel near the poles (0.9.0): halved by hand
        cells = np.arange(12, dtype=np.int64)
        for order in range(depth + 1):
            cells = cells[self._may_touch(cells, order)]
            if order < depth:
                cells = (4 * cells[:, None] + np.arange(4)).ravel()
        return of_cells(cells, np.full(len(cells), depth))

    def _may_touch(self, cells: NDArray[np.int64], order: int) -> Mask:
        """Cells of one order whose circumscribed circle touches the box."""
        lon, lat = healpix_to_lonlat(cells.astype(np.uint64), order)
        ra, dec, reach = lon.to_value(u.deg), lat.to_value(u.deg), cell_radius(order) + _EDGE
        over_pole = np.abs(dec) + reach >= 90
        with np.errstate(invalid="ignore"):
            half = np.where(over_pole, 360.0, np.degrees(np.arcsin(np.sin(np.radians(reach)) / np.cos(np.radians(dec)))))
        in_ra = ((ra - self.ra1 + half) % 360 <= self._width + 2 * half) | (self._width + 2 * half >= 360)
        return np.asarray(in_ra & (dec + reach >= self.dec1) & (dec - reach <= self.dec2))

    def inside(self, ra: ArrayLike, dec: ArrayLike) -> Mask:
        """Which positions (deg) lie inside."""
        east, north = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        in_dec = (north >= self.dec1) & ((north < self.dec2) | ((self.dec2 == 90) & (north == 90)))
        if self._width >= 360:
            return np.asarray(in_dec & np.isfinite(east))
        low, high = self.ra1 % 360, self.ra2 % 360
        in_ra = (east >= low) & (east < high) if low < high else (east >= low) | (east < high)
        return np.asarray(in_dec & in_ra)


def _vector(ra: ArrayLike, dec: ArrayLike) -> FloatArray:
    """Unit vectors of positions (deg), shape (..., 3)."""
    parts = spherical_to_cartesian(1.0, np.radians(np.asarray(dec, np.float64)), np.radians(np.asarray(ra, np.float64)))
    return np.stack([np.asarray(part) for part in parts], axis=-1)


@dataclass(frozen=True)
class Polygon(Area):
    """The inside of a polygon whose sides are great circles; where it crosses itself, an odd number of crossings of a ray is inside.

    Parameters
    ----------
    vertices : tuple of (float, float)
        RA and Dec (deg), at least three, all within 90 deg of their middle.

    Raises
    ------
    ConfigurationError
        If there are too few, they lie on one great circle, or they do not fit on half a sphere.
    """

    vertices: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        given = np.array(self.vertices, np.float64).reshape(-1, 2)
        if not (np.isfinite(given).all() and (np.abs(given[:, 1]) <= 90).all() and len({*self.vertices}) >= 3):
            raise ConfigurationError("a polygon of at least three different RA, Dec (deg)", f"{self.vertices}")
        corners = _vector(*given.T)
        if np.linalg.norm(corners.mean(axis=0)) < 1e-9 or (corners @ self._frame[2]).min() < 1e-6:
            raise ConfigurationError("a polygon whose corners all lie within 90 deg of their middle", f"{self.vertices}")
        if np.linalg.matrix_rank(corners, tol=1e-12) < 3:
            raise ConfigurationError("a polygon with some area", f"{self.vertices}")

    @cached_property
    def _frame(self) -> FloatArray:
        """Unit vectors east, north and towards the middle of the corners, shape (3, 3)."""
        middle = _vector(*np.array(self.vertices).T).mean(axis=0)
        middle = middle / max(float(np.linalg.norm(middle)), 1e-300)
        # any direction that is not the middle's own
        other = np.eye(3)[np.argmin(np.abs(middle))]
        east = np.cross(other, middle)
        east = east / np.linalg.norm(east)
        return np.stack([east, np.cross(middle, east), middle])

    def _plane(self, ra: ArrayLike, dec: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Gnomonic projection, in which great circles are straight: x, y and the cosine to the middle."""
        along = _vector(ra, dec) @ self._frame.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return along[..., 0] / along[..., 2], along[..., 1] / along[..., 2], along[..., 2]

    @cached_property
    def _crosses_itself(self) -> bool:
        """Whether two sides have a point in common that is no corner of both."""
        corners = np.stack(self._plane(*np.array(self.vertices).T)[:2], axis=1)
        ends = np.roll(corners, -1, axis=0)

        def side(of: int, point: FloatArray) -> FloatArray:
            """On which side of a line points lie."""
            along, away = ends[of] - corners[of], point - corners[of]
            return np.sign(along[0] * away[..., 1] - along[1] * away[..., 0])

        count = len(corners)
        for one in range(count):
            for other in range(one + 2, count - (one == 0)):
                apart = side(one, corners[other]) * side(one, ends[other]), side(other, corners[one]) * side(other, ends[one])
                if apart[0] <= 0 and apart[1] <= 0:
                    return True
        return False

    def ranges(self) -> Ranges:
        """Ranges of ``_healpix_29`` that hold every position inside."""
        ra, dec = np.array(self.vertices).T
        reach = float(np.degrees(np.arccos(np.clip(self._plane(ra, dec)[2].min(), -1, 1))))
        if self._crosses_itself:
            # the search by polygon loses cells then
            x, y, z = self._frame[2]
            return Cone(float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y)))), reach).ranges()
        cells, depth, _ = polygon_search(Longitude(ra % 360, u.deg), Latitude(dec, u.deg), depth_for(2 * reach), flat=False)
        return of_cells(cells, depth)

    def inside(self, ra: ArrayLike, dec: ArrayLike) -> Mask:
        """Which positions (deg) lie inside, by the crossings of a ray in the plane."""
        x, y, toward = self._plane(ra, dec)
        corner_x, corner_y, _ = self._plane(*np.array(self.vertices).T)
        odd = np.zeros(np.shape(x), bool)
        for (x1, y1), (x2, y2) in zip(
            np.stack([corner_x, corner_y], 1), np.roll(np.stack([corner_x, corner_y], 1), -1, axis=0), strict=True
        ):
            with np.errstate(divide="ignore", invalid="ignore"):
                odd ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        return np.asarray(odd & (toward > 0))


_MOC_TEXT = "a MOC: a file, or text such as 6/1-3 7/12"


@dataclass(frozen=True)
class Coverage(Area):
    """The cells of a MOC."""

    moc: MOC

    @classmethod
    def read(cls, text: str) -> Coverage:
        """A MOC from a file (FITS or JSON), or written out: ``6/1-3 7/12``, or ``{"6": [1, 2, 3]}``.

        Raises
        ------
        ConfigurationError
            If it is neither.
        """
        if len(text) < 4096 and Path(text).is_file():
            return cls(MocFile(Path(text)).load())
        try:
            found = cls(MOC.from_string(text, "json" if text.lstrip().startswith("{") else "ascii"))
        # mocpy's own reader raises its error types, OSError and ValueError
        except Exception as error:
            raise ConfigurationError(_MOC_TEXT, f"{text[:60]!r} ({error})") from error
        if not 0 < found.ranges().max(initial=0) <= WHOLE_SKY[0, 1]:
            raise ConfigurationError(_MOC_TEXT, f"{text[:60]!r}, which names no cell of the sky")
        return found

    @cached_property
    def _ranges(self) -> Ranges:
        return np.asarray(self.moc.to_depth29_ranges).astype(np.int64).reshape(-1, 2)

    def ranges(self) -> Ranges:
        """The MOC's own ranges."""
        return self._ranges

    def inside(self, ra: ArrayLike, dec: ArrayLike) -> Mask:
        """Which positions (deg) lie inside."""
        east, north = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        known = np.isfinite(east) & (np.abs(north) <= 90)
        pixels = lonlat_to_healpix(
            Longitude(np.where(known, east, 0.0) % 360, u.deg), Latitude(np.where(known, north, 0.0), u.deg), HEALPIX_ORDER
        )
        return np.asarray(known & contains(self._ranges, np.atleast_1d(pixels).astype(np.int64).reshape(np.shape(east))))


_FRAME_REACH = 0.262 / 3600 * BRICK_PIXELS / 2 * 2**0.5 + 0.001
"""From the middle of a brick's image to its corners (deg), and a little: every source of its table lies on it."""


def ranges_of_bricks(brickids: Iterable[int]) -> Ranges:
    """Ranges of ``_healpix_29`` that hold the images of bricks; ids that are none are left out."""
    known = [number for number in brickids if 1 <= number <= BRICKS]
    centers = geometry_of(known)
    found = [Cone(ra, dec, _FRAME_REACH).ranges() for ra, dec in zip(centers["ra"], centers["dec"], strict=True)]
    return merged(*np.concatenate(found).T) if found else np.zeros((0, 2), np.int64)


def parse_area(*, cone: str = "", box: str = "", polygon: str = "", moc: str = "") -> Area | None:
    """An area as people write it on the command line; None where none is given.

    Raises
    ------
    ConfigurationError
        If more than one is given, or one makes no sense.
    """
    given = {"cone": cone, "box": box, "polygon": polygon, "moc": moc}
    named = [name for name, text in given.items() if text]
    if len(named) > 1:
        raise ConfigurationError("one piece of sky", " and ".join(f"--{name}" for name in named))
    if cone:
        return Cone(*_numbers(cone, 3, "--cone RA,DEC,DEG"))
    if box:
        return Box(*_numbers(box, 4, "--box RA1,RA2,DEC1,DEC2"))
    if polygon:
        values = _numbers(polygon, 0, "--polygon RA,DEC,RA,DEC,RA,DEC,...")
        return Polygon(tuple(zip(values[::2], values[1::2], strict=True)))
    return Coverage.read(moc) if moc else None


def _numbers(text: str, count: int, what: str) -> list[float]:
    """Comma-separated numbers; ``count`` 0 is any even number from six on."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not (len(values) == count if count else len(values) >= 6 and len(values) % 2 == 0):
        raise ConfigurationError(f"{what} with {count or 'at least six'} numbers", repr(text))
    return values
