"""The maps of a report as a FITS table: partial-sky HEALPix, explicit NESTED indices, that any HEALPix program reads."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from astropy.io import fits
from astropy.table import Table

from catalogs.maps import SkyMaps
from galpipe.skymap.cells import points_in


def as_fits(maps: SkyMaps) -> bytes:
    """One row per cell: index, center, galaxies, covered share, every condition, and each class's galaxies and those of its question.

    Parameters
    ----------
    maps : SkyMaps
    """
    ra, dec = points_in(maps.cells, maps.order, 0)
    table = Table({"PIXEL": maps.cells, "RA": ra[:, 0], "DEC": dec[:, 0], "GALAXIES": maps.galaxies, "COVERED": maps.covered})
    table["RA"].unit = table["DEC"].unit = "deg"
    for condition, values in maps.conditions.items():
        table[condition.name.upper()] = values
        table[condition.name.upper()].unit = condition.unit or None
        table[condition.name.upper()].description = condition.label
    for answer, (hits, tries) in maps.classes.items():
        name = answer.column.removesuffix("_fraction")
        table[f"N_{name}"], table[f"OF_{name}"] = hits.astype(np.int64), tries.astype(np.int64)
    unit = fits.table_to_hdu(table)
    cards = {"PIXTYPE": "HEALPIX", "ORDERING": "NESTED", "INDXSCHM": "EXPLICIT", "COORDSYS": "C", "NSIDE": 2**maps.order}
    for key, value in cards.items():
        unit.header[key] = value
    unit.header["USABLE"] = (maps.usable_from.split(":")[0] or "unknown")[:60]
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(buffer)
    return buffer.getvalue()
