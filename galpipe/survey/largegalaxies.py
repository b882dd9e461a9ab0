"""Which sources are large galaxies, or lie inside one: the atlas (SGA), its ellipses, and sizes beyond a stamp."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.survey.bits import mask_value
from galpipe.survey.tractor import maskbit_names

LARGEST_RADIUS = 8.0
"""Half-light radius (arcsec) above which a 39.8 arcsec stamp, five of them wide, cuts off the galaxy."""

ATLAS = "L"
"""How the ``ref_cat`` of an entry of the large-galaxy atlas begins: L2, L3, L4."""


def atlas_entries(sources: pa.Table) -> NDArray[np.bool_]:
    """Which sources are the atlas's own entries, shape (rows,)."""
    if "ref_cat" not in sources.column_names:
        return np.zeros(sources.num_rows, bool)
    texts = sources["ref_cat"].cast(pa.string()).fill_null("").to_pylist()
    return np.array([text.startswith(ATLAS) for text in texts], bool)


def in_galaxy_mask(sources: pa.Table) -> NDArray[np.bool_]:
    """Which sources lie in a large galaxy's ellipse (bit GALAXY), shape (rows,)."""
    if "maskbits" not in sources.column_names:
        return np.zeros(sources.num_rows, bool)
    bits = np.array(sources["maskbits"].cast(pa.int64()).fill_null(0).to_numpy(), np.int64)
    inside: NDArray[np.bool_] = (bits & mask_value(maskbit_names(sources), ("GALAXY",))) != 0
    return inside


def half_light_radii(sources: pa.Table) -> NDArray[np.float64]:
    """``shape_r``, arcsec, shape (rows,); NaN where null or absent."""
    if "shape_r" not in sources.column_names:
        return np.full(sources.num_rows, np.nan)
    return np.array(sources["shape_r"].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
