"""Simple Image Access 2.0: the stamps that lie in a part of the sky."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.query import Catalog
from catalogs.serve.limits import Limits, UsageFault
from catalogs.serve.obscore import CALIBRATED, FITS, PNG, WAVELENGTHS, obscore_table
from catalogs.serve.params import Parameters, interval, shown
from catalogs.serve.region import Region, parse_region
from catalogs.serve.stamps import UNIT_COLUMNS, Shelf, StampShelves
from catalogs.serve.votable import Answer

HALF_DIAGONAL = 90.0
"""Arcsec that a stamp's corner is away from its galaxy at most: of stamps of 480 pixels, far more than any cut."""

INTERVALS = {
    "BAND": ("em_min", "em_max"),
    "TIME": ("t_min", "t_max"),
    "FOV": ("s_fov", "s_fov"),
    "SPATRES": ("s_resolution", "s_resolution"),
    "EXPTIME": ("t_exptime", "t_exptime"),
    "TIMERES": ("t_resolution", "t_resolution"),
    "SPECRP": ("em_res_power", "em_res_power"),
}
"""Parameters that are intervals, and the columns that have to overlap one of them; a null overlaps nothing."""

EQUALS = {
    "POL": "pol_states",
    "COLLECTION": "obs_collection",
    "FACILITY": "facility_name",
    "INSTRUMENT": "instrument_name",
    "DPTYPE": "dataproduct_type",
    "CALIB": "calib_level",
    "TARGET": "target_name",
}
"""Parameters that a column has to be equal to."""

_FORMATS = {FITS: FITS, "fits": FITS, PNG: PNG, "png": PNG, "all": FITS}
_COLUMNS = ["source_id", *UNIT_COLUMNS, "ra", "dec", "provenance_id"]
_SOURCE = re.compile(r"(?:ivo://galpipe/[^?\s]*\?)?(-?\d{1,19})")


@dataclass(frozen=True)
class Images:
    """What an image request asks for.

    Parameters
    ----------
    regions : tuple of Region
        Stamps that touch any of them; empty for `ids` alone.
    ids : tuple of int
        ``source_id`` of the stamps; empty for all in the regions.
    parameters : Parameters
        For what the columns have to be.
    format : str
        `FITS` or `PNG`.
    most : int
        0 asks for the columns alone.
    """

    regions: tuple[Region, ...]
    ids: tuple[int, ...]
    parameters: Parameters
    format: str
    most: int

    @classmethod
    def read(cls, parameters: Parameters, limits: Limits) -> Images:
        """The request in a client's parameters.

        Raises
        ------
        UsageFault
            If neither POS nor ID says which stamps, or a value is not what it can be.
        """
        regions = tuple(parse_region(text, limits.radius) for text in parameters.all("POS"))
        ids = tuple(source_of(text) for text in parameters.all("ID", 1000))
        most = parameters.most(limits)
        if not regions and not ids and most:
            raise UsageFault("POS or ID, as all stamps of a catalog are too many to list", "neither")
        for name in INTERVALS:
            for text in parameters.all(name):
                interval(text, name)
        return cls(regions, ids, parameters, _format(parameters.all("FORMAT")), most)


def _format(texts: Sequence[str]) -> str:
    """One file per stamp: FITS, unless only pictures are asked for."""
    unknown = [text for text in texts if text.lower() not in _FORMATS]
    if unknown:
        raise UsageFault(f"FORMAT: one of {', '.join(_FORMATS)}", shown(unknown[0]))
    wanted = {_FORMATS[text.lower()] for text in texts}
    return PNG if wanted == {PNG} else FITS


def source_of(text: str) -> int:
    """The ``source_id`` in an id as `publisher_did` gives it; a bare number is taken too.

    Raises
    ------
    UsageFault
        If it is none.
    """
    found = _SOURCE.fullmatch(text)
    if not found or not -(2**63) <= int(found.group(1)) < 2**63:
        raise UsageFault("ID: an obs_publisher_did of this service, or a source_id", shown(text))
    return int(found.group(1))


def publisher_did(name: str, source_id: int) -> str:
    """The id of a stamp: unique here, not registered in the Virtual Observatory."""
    return f"ivo://galpipe/{name}?{source_id}"


def images(catalog: Catalog, shelves: StampShelves, wanted: Images, place: tuple[str, str]) -> Answer:
    """The kept stamps that are asked for, nearest to the first region's center first.

    Parameters
    ----------
    catalog : Catalog
        Of this thread alone.
    shelves : StampShelves
    wanted : Images
    place : tuple of str
        Name of the catalog and address of the service, which ends in ``/``.
    """
    rows: list[dict[str, Any]] = []
    damaged: set[str] = set()
    if wanted.most:
        for row in _stamps(candidates(catalog, wanted), shelves, wanted, damaged):
            told = _described(row, wanted.format, place)
            if _fits(told, wanted.parameters):
                rows.append(told)
            if len(rows) > wanted.most:
                break
    infos = (("WARNING", f"stores that do not read, their stamps are left out: {', '.join(sorted(damaged))}"),) if damaged else ()
    return Answer(obscore_table(rows[: wanted.most]), len(rows) > wanted.most, infos=infos, soda=place[1] + "cutout")


def candidates(catalog: Catalog, wanted: Images) -> list[dict[str, Any]]:
    """Rows of the catalog whose stamps might be asked for, each once."""
    found: dict[int, dict[str, Any]] = {}
    for region in wanted.regions:
        ra, dec, radius = region.cone
        for row in catalog.cone(ra, dec, min(180.0, radius + HALF_DIAGONAL / 3600), _COLUMNS).to_pylist():
            found.setdefault(row["source_id"], row)
    if not wanted.regions:
        return catalog.by_id(wanted.ids, _COLUMNS).to_pylist()
    return [row for source, row in found.items() if not wanted.ids or source in wanted.ids]


@dataclass(frozen=True)
class _Found:
    """A row whose stamp is kept."""

    row: Mapping[str, Any]
    shelf: Shelf
    index: int
    corners: NDArray[np.float64]


def _stamps(rows: Sequence[Mapping[str, Any]], shelves: StampShelves, wanted: Images, damaged: set[str]) -> Iterator[_Found]:
    """In the order of the rows; outlines are worked out brick by brick, when the first row of a brick is met."""
    by_unit: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_unit.setdefault(tuple(row[name] for name in UNIT_COLUMNS), []).append(row)
    kept: dict[tuple[str, ...], dict[int, _Found]] = {}
    for row in rows:
        unit = tuple(row[name] for name in UNIT_COLUMNS)
        if unit not in kept:
            shelf, broken = shelves.shelf_or_none(row)
            if broken:
                damaged.add("/".join(unit))
            kept[unit] = _touching(by_unit[unit], shelf, wanted.regions) if shelf else {}
        if row["source_id"] in kept[unit]:
            yield kept[unit][row["source_id"]]


def _touching(rows: Sequence[Mapping[str, Any]], shelf: Shelf, regions: Sequence[Region]) -> dict[int, _Found]:
    mine = [(row, shelf.rows[row["source_id"]]) for row in rows if row["source_id"] in shelf.rows]
    outlines = shelf.corners([index for _, index in mine])
    touched = np.any([region.touches(outlines) for region in regions], axis=0) if regions and mine else np.ones(len(mine), bool)
    return {row["source_id"]: _Found(row, shelf, index, outlines[n]) for n, (row, index) in enumerate(mine) if touched[n]}


def _described(found: _Found, form: str, place: tuple[str, str]) -> dict[str, Any]:
    """A stamp in the words of ObsCore."""
    row, shelf, (name, address) = found.row, found.shelf, place
    source = str(row["source_id"])
    bands = [band for band in shelf.bands if _value(found, f"valid_frac_{band}") != 0]
    seeing = [value for value in (_value(found, f"psfsize_{band}") for band in bands) if math.isfinite(value) and value > 0]
    edges = [WAVELENGTHS[band] for band in bands if band in WAVELENGTHS]
    pixel_bytes = {FITS: shelf.size**2 * (8 * len(shelf.bands) + 1), PNG: 2 * shelf.size**2}
    outline = " ".join(f"{value:.7f}" for value in found.corners.ravel())
    return {
        "dataproduct_type": "image",
        "calib_level": CALIBRATED,
        "obs_collection": f"{row['release_name']}/{row['region']}",
        "obs_id": source,
        "obs_publisher_did": publisher_did(name, row["source_id"]),
        "access_url": f"{address}stamps/{source}.{'fits' if form == FITS else 'png'}",
        "access_format": form,
        "access_estsize": math.ceil(pixel_bytes[form] / 1000),
        "target_name": source,
        "s_ra": row["ra"],
        "s_dec": row["dec"],
        "s_fov": shelf.size * shelf.pixscale * math.sqrt(2) / 3600,
        "s_region": f"POLYGON ICRS {outline}" if np.isfinite(found.corners).all() else None,
        "s_resolution": sum(seeing) / len(seeing) if seeing else None,
        "s_xel1": shelf.size,
        "s_xel2": shelf.size,
        "em_min": min((edge[0] for edge in edges), default=None),
        "em_max": max((edge[1] for edge in edges), default=None),
        "em_xel": len(bands),
        "o_ucd": "phot.flux.density",
        "bands": "".join(bands),
        "preview": f"{address}stamps/{source}.png",
        "provenance_id": row["provenance_id"],
    }


def _value(found: _Found, column: str) -> float:
    sources = found.shelf.store.sources()
    value = sources[column][found.index].as_py() if column in sources.column_names else None
    return math.nan if value is None else float(value)


def _fits(row: Mapping[str, Any], parameters: Parameters) -> bool:
    """Whether a described stamp is what the other parameters ask for; values of one parameter are alternatives."""
    for name, (low, high) in INTERVALS.items():
        wanted = [interval(text, name) for text in parameters.all(name)]
        first, last = row.get(low), row.get(high)
        if wanted and (first is None or last is None or not any(first <= end and last >= start for start, end in wanted)):
            return False
    for name, column in EQUALS.items():
        texts = parameters.all(name)
        if texts and (row.get(column) is None or str(row[column]).lower() not in [text.lower() for text in texts]):
            return False
    return True
