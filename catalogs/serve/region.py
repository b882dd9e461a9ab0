"""Regions of the sky as DALI writes them (CIRCLE, RANGE, POLYGON) and which footprints touch them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from catalogs.serve.limits import UsageFault
from catalogs.serve.params import interval, number, shown

MOST_VERTICES = 64
ALONG = 256
"""Points along a parallel, which is no great circle: even 1 deg from a pole it is followed to 0.3 arcsec."""

Vectors = NDArray[np.float64]


class Region(Protocol):
    """A part of the sky."""

    @property
    def cone(self) -> tuple[float, float, float]:
        """RA, Dec and radius, degrees, of a circle that holds it."""

    def touches(self, corners: Vectors) -> NDArray[np.bool_]:
        """Which small convex footprints, shape (N, K, 2) in degrees, have a point in common with it, shape (N,)."""


def unit_vectors(sky: Vectors) -> Vectors:
    """Directions of RA and Dec in degrees, shape (..., 2) to (..., 3)."""
    lon, lat = np.radians(sky[..., 0]), np.radians(sky[..., 1])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def angles(first: Vectors, second: Vectors) -> NDArray[np.float64]:
    """Degrees between directions; exact for small angles too."""
    along = np.sum(first * second, axis=-1)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(first, second), axis=-1), along))


@dataclass(frozen=True)
class Circle:
    """All within ``radius`` of a position; degrees."""

    ra: float
    dec: float
    radius: float

    @property
    def cone(self) -> tuple[float, float, float]:
        """The circle itself."""
        return self.ra, self.dec, self.radius

    def touches(self, corners: Vectors) -> NDArray[np.bool_]:
        """Whether the center lies within a footprint or no further from its edges than the radius."""
        center = unit_vectors(np.array([self.ra, self.dec]))
        start = unit_vectors(corners)
        end = np.roll(start, -1, axis=1)
        normal = np.cross(start, end)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        side = normal @ center
        inside = (np.all(side >= 0, axis=1) | np.all(side <= 0, axis=1)) & (start.mean(axis=1) @ center > 0)
        # nearest to an edge itself only where the foot lies between its ends
        between = (np.cross(normal, start) @ center >= 0) & (np.cross(end, normal) @ center >= 0)
        edge = np.where(between, np.degrees(np.arcsin(np.clip(np.abs(side), 0, 1))), np.inf)
        reach = np.minimum(edge, angles(start, center)).min(axis=1)
        touched: NDArray[np.bool_] = inside | (reach <= self.radius)
        return touched


@dataclass(frozen=True)
class Polygon:
    """A polygon of great circles smaller than a hemisphere.

    Parameters
    ----------
    vertices : ndarray of float64, shape (M, 2)
        RA and Dec, degrees.
    """

    vertices: Vectors

    @property
    def cone(self) -> tuple[float, float, float]:
        """Around the mean of the vertices."""
        points = unit_vectors(self.vertices)
        mean = points.mean(axis=0)
        length = float(np.linalg.norm(mean))
        if length < 1e-3:
            return 0.0, 0.0, 180.0
        center = mean / length
        ra, dec = np.degrees(np.arctan2(center[1], center[0])) % 360, np.degrees(np.arcsin(np.clip(center[2], -1, 1)))
        return float(ra), float(dec), float(angles(points, center).max())

    def touches(self, corners: Vectors) -> NDArray[np.bool_]:
        """By a gnomonic projection, in which great circles are straight lines."""
        ra, dec, _ = self.cone
        own = _outline(_gnomonic(self.vertices, ra, dec))
        flat = _gnomonic(corners, ra, dec)
        return np.array([bool(np.isfinite(item).all()) and own.intersects_path(_outline(item), filled=True) for item in flat], bool)


def _outline(points: Vectors) -> Outline:
    return Outline(np.concatenate([points, points[:1]]), closed=True)


def _gnomonic(sky: Vectors, ra: float, dec: float) -> Vectors:
    """Plane coordinates about a position; NaN beyond a right angle."""
    points = unit_vectors(sky)
    center = unit_vectors(np.array([ra, dec]))
    lon, lat = np.radians(ra), np.radians(dec)
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    depth = points @ center
    plane: Vectors = np.stack([points @ east, points @ north], axis=-1) / np.where(depth > 0, depth, np.nan)[..., None]
    return plane


def parse_region(text: str, most: float) -> Region:
    """A region of a POS parameter.

    Parameters
    ----------
    text : str
        ``CIRCLE ra dec radius``, ``RANGE ra1 ra2 dec1 dec2`` or ``POLYGON ra1 dec1 ra2 dec2 ra3 dec3 ...``; degrees.
    most : float
        Largest radius of a circle that holds it, degrees.

    Raises
    ------
    UsageFault
        If the text is none of these, a number is out of range or the region is too large.
    """
    word, _, rest = text.partition(" ")
    parts = rest.split()
    region: Region
    if word.upper() == "CIRCLE" and len(parts) == 3:
        region = parse_circle(rest, most)
    elif word.upper() == "RANGE" and len(parts) == 4:
        region = _range(interval_of(parts[:2], "RA", (0, 360), wraps=True), interval_of(parts[2:], "Dec", (-90, 90)))
    elif word.upper() == "POLYGON" and 6 <= len(parts) <= 2 * MOST_VERTICES and len(parts) % 2 == 0:
        values = [number(part, "POLYGON", *((0, 360), (-90, 90))[index % 2]) for index, part in enumerate(parts)]
        region = Polygon(np.array(values).reshape(-1, 2))
    else:
        raise UsageFault("CIRCLE ra dec radius, RANGE ra1 ra2 dec1 dec2 or POLYGON ra1 dec1 ... of 3 to 64 corners", shown(text))
    if region.cone[2] > most:
        raise UsageFault(f"a region within a circle of {most:g} deg radius", f"one that needs {region.cone[2]:.4g} deg: {shown(text)}")
    return region


def parse_circle(text: str, most: float) -> Circle:
    """A circle written as ``ra dec radius`` in degrees, radius above 0.

    Raises
    ------
    UsageFault
        If it is not that.
    """
    parts = text.split()
    if len(parts) != 3:
        raise UsageFault("a circle 'ra dec radius' in degrees", shown(text))
    circle = Circle(number(parts[0], "RA", 0, 360), number(parts[1], "Dec", -90, 90), number(parts[2], "radius", 0, most))
    if circle.radius == 0:
        raise UsageFault("a radius above 0", shown(text))
    return circle


def interval_of(parts: list[str], what: str, bounds: tuple[float, float], *, wraps: bool = False) -> tuple[float, float]:
    """Two ends within bounds, ``-Inf`` and ``+Inf`` being the bounds; where it wraps, the first may be the larger one.

    Raises
    ------
    UsageFault
        If they are not that.
    """
    ends = [
        min(max(interval(part, what)[0], bounds[0]), bounds[1]) if "inf" in part.lower() else number(part, what, *bounds) for part in parts
    ]
    if wraps and ends[0] > ends[1]:
        return ends[0] - 360.0, ends[1]
    if ends[0] > ends[1]:
        raise UsageFault(f"{what} from the lower end to the upper one", " ".join(parts))
    return ends[0], ends[1]


def _range(ra: tuple[float, float], dec: tuple[float, float]) -> Polygon:
    """Its outline, with points along the parallels."""
    along = np.linspace(ra[0], ra[1], ALONG)
    south = np.stack([along, np.full(ALONG, dec[0])], axis=-1)
    north = np.stack([along[::-1], np.full(ALONG, dec[1])], axis=-1)
    return Polygon(np.concatenate([south, north]))
