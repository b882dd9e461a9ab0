"""Regions of the sky, as people write them, and the bricks that they touch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import vertices
from mocpy import MOC
from numpy.typing import NDArray

from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import brick_by_name, ids_at

Mask = NDArray[np.bool_]
FORMS = "cone:RA,DEC,DEG, box:RA1,RA2,DEC1,DEC2, bricks:A,B, moc:FILE or all"

MOC_LEVEL = 9
"""HEALPix level (6.9') at which a MOC is compared with bricks; coarser than the sampling of a brick below."""
MOC_SAMPLES = 9
"""Points on a side of the grid that stands for a brick (every 1.9')."""


class Region(ABC):
    """A part of the sky."""

    @abstractmethod
    def touches(self, table: pa.Table) -> Mask:
        """Which rows of a brick table overlap the region; shape (rows,)."""

    def named(self) -> tuple[str, ...]:
        """Bricks that the region asks for by name."""
        return ()


def _edges(table: pa.Table) -> tuple[NDArray[np.float64], ...]:
    return tuple(np.asarray(table[name].to_numpy(), np.float64) for name in ("ra1", "ra2", "dec1", "dec2"))


@dataclass(frozen=True)
class Everything(Region):
    """The whole release."""

    def touches(self, table: pa.Table) -> Mask:
        """All rows."""
        return np.ones(table.num_rows, bool)


@dataclass(frozen=True)
class Cone(Region):
    """All within `radius` of a position (deg)."""

    ra: float
    dec: float
    radius: float

    def touches(self, table: pa.Table) -> Mask:
        """Bricks whose nearest point lies within the radius."""
        ra1, ra2, dec1, dec2 = _edges(table)
        inside = (self.ra - ra1) % 360 <= ra2 - ra1
        nearest = np.where(inside, self._distance(0.0, np.clip(self.dec, dec1, dec2)), np.inf)
        for edge in (ra1, ra2):
            step = (self.ra - edge + 180) % 360 - 180
            # the point of a meridian that is nearest: tan(dec') = tan(dec) / cos(step); beyond 90 deg it is a pole
            foot = np.degrees(np.arctan2(np.sin(np.radians(self.dec)), np.cos(np.radians(self.dec)) * np.cos(np.radians(step))))
            foot = np.clip(np.where(np.abs(foot) > 90, np.copysign(90, foot), foot), dec1, dec2)
            for dec in (foot, dec1, dec2):
                nearest = np.minimum(nearest, self._distance(step, dec))
        return np.asarray(nearest <= self.radius)

    def _distance(self, step: NDArray[np.float64] | float, dec: NDArray[np.float64]) -> NDArray[np.float64]:
        """Angle (deg) to a point ``step`` away in RA, by the haversine formula."""
        half_ra, half_dec = np.radians(step) / 2, np.radians(dec - self.dec) / 2
        square = np.sin(half_dec) ** 2 + np.cos(np.radians(dec)) * np.cos(np.radians(self.dec)) * np.sin(half_ra) ** 2
        return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(square, 0, 1)))))


@dataclass(frozen=True)
class Box(Region):
    """From `ra1` eastward to `ra2` (over RA 0 where ra1 > ra2), and from `dec1` to `dec2` (deg)."""

    ra1: float
    ra2: float
    dec1: float
    dec2: float

    @property
    def width(self) -> float:
        """Extent in RA, deg; 360 is all around."""
        return 360.0 if self.ra2 - self.ra1 >= 360 else (self.ra2 - self.ra1) % 360

    def touches(self, table: pa.Table) -> Mask:
        """Bricks that share some area with the box."""
        ra1, ra2, dec1, dec2 = _edges(table)
        start = (ra1 - self.ra1) % 360
        in_ra = (start < self.width) | (start + (ra2 - ra1) > 360)
        return np.asarray(in_ra & (dec1 < self.dec2) & (dec2 > self.dec1))


@dataclass(frozen=True)
class Bricks(Region):
    """Bricks by name."""

    names: tuple[str, ...]

    def touches(self, table: pa.Table) -> Mask:
        """Rows with one of the names."""
        return np.isin(np.array(table["brickname"].to_pylist(), "S8"), np.array(self.names, "S8"))

    def named(self) -> tuple[str, ...]:
        """The names."""
        return self.names


@dataclass(frozen=True)
class MocFile(Region):
    """The coverage map in a file (FITS or JSON)."""

    path: Path

    def load(self) -> MOC:
        """Read the map.

        Raises
        ------
        ConfigurationError
            If the file is no MOC.
        """
        form = "fits" if self.path.suffix.lower() in (".fits", ".fit", ".fz", ".gz") else "json"
        try:
            return MOC.load(str(self.path), format=form)
        # mocpy's own reader raises its error types, OSError and ValueError
        except Exception as error:
            raise ConfigurationError("a MOC in FITS or JSON", f"{type(error).__name__}: {error}", file=str(self.path)) from error

    def touches(self, table: pa.Table) -> Mask:
        """Bricks that share some area with the map; one more may be taken where the map is finer than `MOC_LEVEL`."""
        moc = self.load()
        if moc.max_order > MOC_LEVEL:
            moc = moc.degrade_to_order(MOC_LEVEL)
        ra, dec = (np.asarray(table[name].to_numpy(), np.float64) for name in ("ra", "dec"))
        # a cell of level 6 is wider than a brick, so that a cell and its neighbours hold every brick that may touch
        near = moc.degrade_to_order(min(6, moc.max_order)).add_neighbours().contains_lonlat(ra * u.deg, dec * u.deg)
        result = np.zeros(table.num_rows, bool)
        rows = np.flatnonzero(near)
        for part in np.array_split(rows, max(1, len(rows) // 10_000)):
            result[part] = _sampled(moc, table.take(pa.array(part)))
        return result | _holds_a_corner(moc, table)


def _sampled(moc: MOC, table: pa.Table) -> Mask:
    ra1, ra2, dec1, dec2 = (edge[:, None, None] for edge in _edges(table))
    step = np.linspace(1e-6, 1 - 1e-6, MOC_SAMPLES)
    ra = np.broadcast_to(ra1 + (ra2 - ra1) * step[None, None, :], (table.num_rows, MOC_SAMPLES, MOC_SAMPLES))
    dec = np.broadcast_to(dec1 + (dec2 - dec1) * step[None, :, None], ra.shape)
    inside = moc.contains_lonlat(Longitude(ra.ravel(), u.deg), Latitude(dec.ravel(), u.deg))
    return np.asarray(inside.reshape(table.num_rows, -1).any(axis=1))


def _holds_a_corner(moc: MOC, table: pa.Table) -> Mask:
    """Bricks that hold the corner of a cell: a tip of a cell can lie between the points of a brick's grid."""
    lon, lat = vertices(moc.flatten(), moc.max_order)
    return np.isin(table["brickid"].to_numpy(), ids_at(lon.to_value(u.deg).ravel(), lat.to_value(u.deg).ravel()))


def parse_region(text: str) -> Region:
    """Read a region as people write it.

    Parameters
    ----------
    text : str
        ``cone:RA,DEC,DEG``, ``box:RA1,RA2,DEC1,DEC2``, ``bricks:A,B``, ``moc:FILE`` or ``all``.

    Raises
    ------
    ConfigurationError
        If it is none of these or its numbers make no sense.
    """
    kind, _, rest = text.strip().partition(":")
    if text.strip() == "all":
        return Everything()
    if kind == "cone":
        ra, dec, radius = _numbers(rest, 3, text)
        if not (abs(dec) <= 90 and 0 < radius <= 180):
            raise ConfigurationError("cone:RA,DEC,DEG with Dec from -90 to 90 and a radius above 0", repr(text))
        return Cone(ra % 360, dec, radius)
    if kind == "box":
        ra1, ra2, dec1, dec2 = _numbers(rest, 4, text)
        if not (-90 <= dec1 < dec2 <= 90 and Box(ra1, ra2, dec1, dec2).width > 0):
            raise ConfigurationError("box:RA1,RA2,DEC1,DEC2 with some width and DEC1 < DEC2 within -90..90", repr(text))
        return Box(ra1, ra2, dec1, dec2)
    if kind == "bricks":
        names = tuple(dict.fromkeys(part.strip() for part in rest.split(",") if part.strip()))
        if not names:
            raise ConfigurationError("bricks:A,B with at least one name", repr(text))
        return Bricks(tuple(brick_by_name(name).name for name in names))
    if kind == "moc" and rest:
        if not Path(rest).is_file():
            raise ConfigurationError("moc:FILE with an existing file", repr(rest))
        return MocFile(Path(rest))
    raise ConfigurationError(FORMS, repr(text))


def _numbers(text: str, count: int, whole: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(FORMS, repr(whole)) from error
    if len(values) != count or not np.isfinite(values).all():
        raise ConfigurationError(f"{count} numbers after the colon", repr(whole))
    return values


def select_bricks(region: Region, table: pa.Table) -> Mask:
    """Which rows of a brick table the region touches; shape (rows,)."""
    return region.touches(table)
