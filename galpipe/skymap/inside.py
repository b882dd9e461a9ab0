"""Which positions lie in a region of the sky."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.coordinates import Latitude, Longitude
from numpy.typing import NDArray

from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import brickids_of, ids_at
from galpipe.survey.region import Box, Bricks, Cone, Everything, MocFile, Region


def inside(region: Region, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each position lies in a region.

    Parameters
    ----------
    region : Region
    ra, dec : ndarray, shape (N,)
        Degrees; a position that is not finite lies in `Everything` only.

    Raises
    ------
    ConfigurationError
        If the region is of a kind that this function does not know.
    """
    if isinstance(region, Everything):
        return np.ones(len(ra), bool)
    good = np.isfinite(ra) & np.isfinite(dec)
    within = np.zeros(len(ra), bool)
    within[good] = _inside(region, ra[good] % 360, dec[good])
    return within


def _inside(region: Region, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
    if isinstance(region, Cone):
        half_ra, half_dec = np.radians(ra - region.ra) / 2, np.radians(dec - region.dec) / 2
        square = np.sin(half_dec) ** 2 + np.cos(np.radians(dec)) * np.cos(np.radians(region.dec)) * np.sin(half_ra) ** 2
        return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(square, 0, 1)))) <= region.radius)
    if isinstance(region, Box):
        return np.asarray(((ra - region.ra1) % 360 < region.width) & (dec >= region.dec1) & (dec < region.dec2))
    if isinstance(region, Bricks):
        return np.isin(ids_at(ra, dec), brickids_of(list(region.names)))
    if isinstance(region, MocFile):
        return np.asarray(region.load().contains_lonlat(Longitude(ra, u.deg), Latitude(dec, u.deg)))
    raise ConfigurationError("a cone, box, bricks, MOC or everything", type(region).__name__)
