"""A stamp as a file, whole or in part (SODA 1.0, synchronous)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord

from catalogs.query import Catalog
from catalogs.serve.limits import Limits, UsageFault
from catalogs.serve.params import Parameters, shown
from catalogs.serve.region import Circle, parse_circle
from catalogs.serve.sia import source_of
from catalogs.serve.stamps import Stamp, StampShelves
from galpipe.stamps.fitsfile import Window, stamp_fits
from galpipe.stamps.render import png, to_rgb

UNSUPPORTED = ("POLYGON", "BAND", "TIME", "POL")


@dataclass(frozen=True)
class Cutout:
    """The part of one stamp that is asked for; all of it without a circle."""

    source_id: int
    circle: Circle | None

    @classmethod
    def read(cls, parameters: Parameters, limits: Limits) -> Cutout:
        """The request in a client's parameters.

        Raises
        ------
        UsageFault
            If ID is missing, or the part is not a circle.
        """
        wanted = parameters.one("ID")
        if wanted is None:
            raise UsageFault("ID: an obs_publisher_did of this service, or a source_id", "none")
        for name in UNSUPPORTED:
            if parameters.all(name):
                raise UsageFault("CIRCLE, or POS=CIRCLE ra dec radius", name)
        circle, position = parameters.one("CIRCLE"), parameters.one("POS")
        if circle and position:
            raise UsageFault("CIRCLE or POS", "both")
        if position and position.split()[0].upper() != "CIRCLE":
            raise UsageFault("POS=CIRCLE ra dec radius", shown(position))
        text = circle or (position.partition(" ")[2] if position else "")
        return cls(source_of(wanted), parse_circle(text, limits.radius) if text else None)


def fits_of(catalog: Catalog, shelves: StampShelves, wanted: Cutout, about: tuple[str, int]) -> bytes | None:
    """The FITS file of a stamp or of the pixels of it that a circle needs; None where the circle lies beside the stamp.

    Parameters
    ----------
    catalog : Catalog
        Of this thread alone.
    shelves : StampShelves
    wanted : Cutout
    about : tuple
        Name and version of the catalog.

    Raises
    ------
    NotThere
        If there is no such stamp.
    BadData
        If its store does not read.
    """
    stamp = shelves.stamp(catalog, wanted.source_id)
    window = None
    if wanted.circle is not None:
        window = _window(stamp, wanted.circle)
        if window is None:
            return None
    row = stamp.row
    cards: dict[str, tuple[str | int | float | bool, str]] = {
        "SRC_ID": (row["source_id"], "source_id in the catalog"),
        "PROVID": (row["provenance_id"], "provenance_id of the row"),
        "RELEASE": (row["release_name"], "survey release"),
        "REGION": (row["region"], "region of the release"),
        "BRICK": (row["brickname"], "brick"),
        "CATALOG": (about[0], "name of the catalog"),
        "CATVERS": (about[1], "its version"),
        "CUTNAME": (stamp.cut, "name of the cut settings"),
        "CUTHASH": (stamp.fingerprint[:64], "fingerprint of the store"),
    }
    comments = ["Pixels were kept as asinh codes of 16 bits, inverse variances as 8 bits: see DEREDDEN, MWT_<band>."]
    return stamp_fits(stamp.pixels, 0, cards, comments, window)


def picture_of(catalog: Catalog, shelves: StampShelves, source_id: int) -> bytes:
    """The PNG of a stamp, drawn as the survey's viewer does.

    Raises
    ------
    NotThere
        If there is no such stamp.
    BadData
        If its store does not read.
    """
    pixels = shelves.stamp(catalog, source_id).pixels
    return png(to_rgb(pixels.observed_flux(0), pixels.bands))


def _window(stamp: Stamp, circle: Circle) -> Window | None:
    """The smallest rectangle with all pixels whose centers lie in a circle; None without any."""
    wcs, size = stamp.pixels.wcs(0), stamp.pixels.size
    if wcs is None:
        return None
    y, x = np.mgrid[0:size, 0:size]
    apart = wcs.pixel_to_world(x, y).separation(SkyCoord(circle.ra, circle.dec, unit="deg")).deg
    inside = apart <= circle.radius
    if not inside.any():
        # smaller than a pixel, but on the stamp
        if float(apart.min()) > stamp.pixels.pixscale * math.sqrt(0.5) / 3600:
            return None
        inside = apart == apart.min()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return Window(int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1)
