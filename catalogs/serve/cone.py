"""Simple Cone Search (SCS 1.03, with MAXREC and RESPONSEFORMAT of 1.1): rows of the catalog around a position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalogs.query import Catalog
from catalogs.schema import base_columns
from catalogs.serve.limits import Limits
from catalogs.serve.params import Parameters
from catalogs.serve.votable import Answer, described, flat

IDENTIFIER = pa.field(
    "id", pa.string(), metadata={"ucd": "meta.id;meta.main", "description": "source_id as text: what Simple Cone Search asks for"}
)
SEPARATION = pa.field("separation", pa.float64(), metadata={"unit": "arcsec", "description": "Angle from the position asked for"})

UCD1 = {"id": "ID_MAIN", "ra": "POS_EQ_RA_MAIN", "dec": "POS_EQ_DEC_MAIN"}
"""The words of SCS 1.03, from before UCD1+, that its validators and pyvo's ``record.id`` and ``record.pos`` look for; newer readers
warn of them, so that only ``UCD=1`` gets them."""

LEAST = ("source_id", "ra", "dec")
MAIN = re.compile(
    r"release_name|brickname|type|mag_\w+|ebv|shape_r|sersic|z_phot_median|z_phot_std|z_spec|maskbits|bands_used|degraded|stamp_truncated"
    r"|is_probable_shred|flag_\w+|provenance_id"
)
"""Base columns of VERB=2, beside `LEAST` and every answer of the model that is one value."""


@dataclass(frozen=True)
class Cone:
    """What a cone search asks for; degrees. ``radius`` or ``most`` of 0 ask for the columns alone; ``old_words`` are for `UCD1`."""

    ra: float
    dec: float
    radius: float
    verbosity: int
    most: int
    old_words: bool = False

    @classmethod
    def read(cls, parameters: Parameters, limits: Limits) -> Cone:
        """The request in a client's parameters.

        Raises
        ------
        UsageFault
            If RA, DEC or SR are missing, not numbers or out of range, or VERB or MAXREC are not what they can be.
        """
        ra, dec = parameters.required("RA", 0, 360), parameters.required("DEC", -90, 90)
        radius = parameters.required("SR", 0, limits.radius)
        verbosity = int(parameters.choice("VERB", {"1": "1", "2": "2", "3": "3"}, "2"))
        old_words = parameters.choice("UCD", {"1": "1", "1+": "1+"}, "1+") == "1"
        return cls(ra, dec, radius, verbosity, parameters.most(limits), old_words)


def columns_of(schema: pa.Schema, verbosity: int) -> list[str]:
    """Columns of an answer, in the catalog's order.

    Parameters
    ----------
    schema : pyarrow.Schema
    verbosity : int
        1: id and position; 2: what most people want; 3: every column that is not nested.
    """
    possible = flat(schema)
    if verbosity == 1:
        return [name for name in possible if name in LEAST]
    if verbosity == 3:
        return possible
    base = {column.name for column in base_columns()}

    def wanted(name: str) -> bool:
        if name in base:
            return name in LEAST or MAIN.fullmatch(name) is not None
        return not pa.types.is_nested(schema.field(name).type)

    return [name for name in possible if wanted(name)]


def search(catalog: Catalog, cone: Cone) -> Answer:
    """Rows within a cone, nearest first, no more than asked for.

    Parameters
    ----------
    catalog : Catalog
        Of this thread alone.
    cone : Cone
    """
    columns = columns_of(catalog.schema, cone.verbosity)
    overflow = False
    if cone.radius == 0 or cone.most == 0:
        found = pa.schema([*(catalog.schema.field(name) for name in columns), SEPARATION]).empty_table()
    else:
        found, overflow = nearest(catalog, (cone.ra, cone.dec, cone.radius), columns, cone.most)
    known = described(found, [*catalog.schema, SEPARATION])
    table = known.add_column(0, IDENTIFIER, pc.cast(known["source_id"], pa.string()))
    return Answer(_in_old_words(table) if cone.old_words else table, overflow)


def _in_old_words(table: pa.Table) -> pa.Table:
    fields = [
        item.with_metadata({**(item.metadata or {}), b"ucd": UCD1[item.name]}) if item.name in UCD1 else item for item in table.schema
    ]
    return table.cast(pa.schema(fields))


def nearest(catalog: Catalog, cone: tuple[float, float, float], columns: Sequence[str], most: int) -> tuple[pa.Table, bool]:
    """The nearest rows within a cone and whether there were more.

    Wide rows are read of those alone: a first look at ids and angles says how far to go.

    Parameters
    ----------
    catalog : Catalog
    cone : tuple of float
        RA, Dec, radius, degrees.
    columns : sequence of str
    most : int
        At least 1.
    """
    ra, dec, radius = cone
    angles = catalog.cone(ra, dec, radius, ["source_id"])["separation"]
    if len(angles) <= most:
        return catalog.cone(ra, dec, radius, columns), False
    # a hair more than the last row's angle, which is rounded; the surplus is cut off
    reach = min(radius, max(angles[most - 1].as_py() / 3600 * (1 + 1e-9), 1e-9))
    return catalog.cone(ra, dec, reach, columns).slice(0, most), True
