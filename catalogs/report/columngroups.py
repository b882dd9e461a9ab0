"""Which task a column belongs to, and how a column is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import pyarrow as pa

from catalogs.extent import floats
from catalogs.report.columnstats import ColumnFacts, ColumnSums, is_number
from catalogs.report.histogram import Histogram, of_numbers, of_texts
from catalogs.report.rows import field_text
from galpipe.errors import ConfigurationError

_GROUPS = (
    ("Morphology", r"[^_]+_(.+_fraction(_lo|_hi)?|proportion_asked)"),
    ("Parameters of the model", r"(lvm|z_lvm|z_mock)(_|$).*"),
    ("Detection", r"(n_detections|detections|sep_.*|coarse_sep_.*)"),
    ("Restoration", r"restoration_.*"),
    ("Photometry", r"(flux|mag|mw_transmission)_.*"),
    ("Observing conditions", r"(nobs|nexp|psfsize|psfdepth|galdepth)_.*|ebv"),
    ("Quality of the fit and the stamp", r"(fracflux|fracmasked|rchisq|valid_frac|coarse_valid_frac)_.*|mosaic_frac"),
    ("Shape", r"shape_.*|sersic.*"),
    ("Published redshifts", r"z_phot_.*|z_spec"),
    ("Flags", r"flag_.*|is_.*|in_.*|beyond_.*|stamp_truncated|degraded|dereddened|resampled|jpeg_route|invvar_estimated|maskbits|fitbits"),
)
"""Names of the groups, in the order of the page, and what their columns are called; the first that fits takes a column."""
_IDENTITY, _ANSWERS = "Identity, position and stamp", "Other answers of the model"
_SIDE = r".*_((lo|hi|l|u)(\d\d)?|sigma|std|proportion_asked)"
"""Names of columns that say how sure another one is."""
_IDS = ("_healpix_29", "source_id", "release", "brickid", "objid", "ref_id", "sga_id", "provenance_id")
"""Numbers that are names: neither their histogram nor their mean says anything."""
_SHARES = r".*(_fraction(_lo|_hi)?|_proportion_asked|valid_frac_.|axis_ratio)"
"""Columns of shares of a whole."""
_MEASURED = ("mag_r", "mag_z", "shape_r", "sersic")


@dataclass(frozen=True)
class ColumnLine:
    """One column as the page shows it.

    Parameters
    ----------
    name, unit, description, learned : str
    facts : ColumnFacts
    drawn : Histogram or None
        Of a column of numbers.
    listed : list of tuple
        Of a column of texts or flags: (text, rows, share of the most frequent).
    """

    name: str
    unit: str
    description: str
    learned: str
    facts: ColumnFacts
    drawn: Histogram | None = None
    listed: list[tuple[str, int, float]] = field(default_factory=list)

    @property
    def is_name(self) -> bool:
        """Whether the column's numbers are names of things."""
        return self.name in _IDS


def group_of(name: str, schema: pa.Schema) -> str:
    """The group that a column is shown in."""
    for group, pattern in _GROUPS:
        if re.fullmatch(pattern, name):
            return group
    return _ANSWERS if field_text(schema, name, "learned") else _IDENTITY


def picked_columns(schema: pa.Schema, wanted: Sequence[str] = ()) -> list[str]:
    """Columns whose lowest and highest galaxies are shown.

    Parameters
    ----------
    schema : pyarrow.Schema
        The catalog's.
    wanted : sequence of str
        Columns by name, or ``all``; the model's answers and a few measured columns by default.

    Raises
    ------
    ConfigurationError
        If a wanted column is not there, or is not one of numbers.
    """
    numbers = [item.name for item in schema if is_number(item.type) and item.name not in _IDS]
    if list(wanted) == ["all"]:
        return numbers
    if unknown := sorted(set(wanted) - set(numbers)):
        near = [name for item in unknown for name in get_close_matches(item, numbers, 1)]
        raise ConfigurationError("columns of numbers that the catalog has", f"{unknown}" + (f"; near: {', '.join(near)}" if near else ""))
    if wanted:
        return list(dict.fromkeys(wanted))
    answers = [name for name in numbers if field_text(schema, name, "learned") and not re.fullmatch(_SIDE, name)]
    return answers + [name for name in _MEASURED if name in numbers]


def column_lines(sums: ColumnSums) -> dict[str, list[ColumnLine]]:
    """Every column by group, in the order of the page; a group without columns is left out."""
    names = [_IDENTITY, *(group for group, _ in _GROUPS), _ANSWERS]
    groups: dict[str, list[ColumnLine]] = {name: [] for name in names}
    for item in sums.schema:
        facts = sums.facts[item.name]
        unit, description, learned = (field_text(sums.schema, item.name, key) for key in ("unit", "description", "learned"))
        line = ColumnLine(item.name, unit, description, learned, facts)
        if is_number(item.type) and not line.is_name:
            drawn = of_numbers(floats(sums.sample, item.name), share=bool(re.fullmatch(_SHARES, item.name)))
            line = replace(line, drawn=drawn)
        elif facts.known and not line.is_name:
            line = replace(line, listed=_flags(sums, item.name) if pa.types.is_boolean(item.type) else of_texts(facts.texts))
        groups[group_of(item.name, sums.schema)].append(line)
    return {group: lines for group, lines in groups.items() if lines}


def _flags(sums: ColumnSums, name: str) -> list[tuple[str, int, float]]:
    """Rows where a flag is set and where it is not."""
    facts = sums.facts[name]
    true = round(facts.total)
    counts = {"true": true, "false": facts.known - true}
    top = max(counts.values()) or 1
    return [(text, count, count / top) for text, count in counts.items()]
