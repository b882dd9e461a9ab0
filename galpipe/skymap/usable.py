"""Usable area of a brick from its own pixels: exposed in the band that selects, and outside the masks that hide galaxies."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix
from numpy.typing import NDArray

from galpipe.errors import BadData
from galpipe.skymap.cells import INDEX_ORDER
from galpipe.survey.bits import FORCED_PSF_MASKS, allmask_bit, bit_names, mask_value, mask_values
from galpipe.survey.bricks import BRICK_PIXELS, brick_by_name, brick_wcs, ids_at
from galpipe.survey.coadd import read_band
from galpipe.survey.files import BrickFiles

STRIDE = 12
"""Every 12th pixel of every 12th row is looked at (3.1 arcsec): 82,000 points of a brick's unique area."""

MEANING = (
    "pixels with an exposure in the selecting band (z, r where there is no z), not in its ALLMASK, "
    "and outside the masks BRIGHT, GALAXY and CLUSTER, in which the survey fits point sources only"
)


def usable_points(files: BrickFiles) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Points of a brick's unique area, and whether each is usable.

    Parameters
    ----------
    files : BrickFiles
        With ``maskbits`` and, of z or r, ``nexp`` or ``invvar``.

    Returns
    -------
    index : ndarray of int64, shape (N,)
        NESTED HEALPix index at order 29.
    usable : ndarray of bool, shape (N,)
        `MEANING`.

    Raises
    ------
    BadData
        If an image does not read, or there is none to tell.
    """
    unit = str(files.unit)
    band = next((band for band in ("z", "r") if band in files.bands), "")
    product = next((product for product in ("nexp", "invvar") if files.path(product, band) is not None), "")
    if not product or files.path("maskbits") is None:
        raise BadData("maskbits, and nexp or invvar in z or r", "not among the brick's files", unit=unit)
    seen = read_band(files, product, band)[0][::STRIDE, ::STRIDE] > 0
    bits, header = read_band(files, "maskbits")
    names = bit_names(header)
    hidden = mask_value(names, FORCED_PSF_MASKS)
    allmask = allmask_bit(band, names)
    hidden |= 0 if allmask is None else 1 << allmask
    clear = (mask_values(bits[::STRIDE, ::STRIDE]) & hidden) == 0
    brick = brick_by_name(files.unit.brick)
    y, x = np.mgrid[0:BRICK_PIXELS:STRIDE, 0:BRICK_PIXELS:STRIDE]
    ra, dec = brick_wcs(brick).pixel_to_world_values(x.ravel(), y.ravel())
    own = ids_at(ra, dec) == brick.brickid
    index = lonlat_to_healpix(Longitude(ra[own] % 360, u.deg), Latitude(dec[own], u.deg), INDEX_ORDER)
    return index.astype(np.int64), (seen & clear).ravel()[own]
