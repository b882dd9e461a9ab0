"""The second, coarser stamp of large galaxies: which sources get one, and at which scale (science.md section 1)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.survey.largegalaxies import LARGEST_RADIUS, atlas_entries, half_light_radii, in_galaxy_mask

BINNINGS = (2, 4, 8)
"""Frame pixels on a side of a coarse pixel: stamps of 152 pixels are 80, 159 and 319 arcsec wide. Few, because each is a set of its own."""

REACH = 5.0
"""Half-light radii from the center to the stamp's edge, as far as `BINNINGS` go: 99.8 % of an exponential disk's light, 88 % of a
de Vaucouleurs profile's."""


def binnings(sources: pa.Table, size: int, pixscale: float) -> NDArray[np.int64]:
    """How coarse each source's second stamp is.

    Parameters
    ----------
    sources : pyarrow.Table
        Tractor subset, N rows.
    size : int
        Pixels of a stamp on a side.
    pixscale : float
        Arcsec per pixel of the first stamp.

    Returns
    -------
    ndarray of int64, shape (N,)
        One of `BINNINGS`, the least that reaches `REACH` half-light radii, else the largest; 0 for a source without a second
        stamp: one that is not larger than `LARGEST_RADIUS` and in no large galaxy's ellipse.
    """
    radius = half_light_radii(sources)
    large = (radius > LARGEST_RADIUS) | atlas_entries(sources) | in_galaxy_mask(sources)
    half = size // 2 * pixscale
    # a source without a size (NaN) is compared as False everywhere and gets the finest
    wanted = np.full(len(radius), BINNINGS[0])
    for finer, coarser in pairwise(BINNINGS):
        wanted[radius * REACH > half * finer] = coarser
    return np.where(large, wanted, 0)
