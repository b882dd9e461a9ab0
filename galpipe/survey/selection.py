"""Which sources are predicted, and why the others are not (design: the default selection ``galaxies-z20``)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.config import LIMITED, SelectionSettings
from galpipe.errors import ConfigurationError
from galpipe.idlist import read_ids
from galpipe.survey.bits import FORCED_PSF_MASKS, mask_value
from galpipe.survey.photometry import mag_to_nanomaggies
from galpipe.survey.tractor import maskbit_names

GALAXY_TYPES = ("REX", "EXP", "DEV", "SER", "COMP")
RULES = (
    "duplicated_row",
    "conflicting_rows",
    "bad_position",
    "not_in_list",
    "not_primary",
    "type_dup",
    "forced_psf_in_mask",
    "type_psf",
    "type_other",
    "bad_flux",
    "no_ivar",
    "faint",
)
"""Every reason that `select` gives, in the order in which they are tried."""

FAILURES = frozenset({"conflicting_rows", "bad_position", "bad_flux"})
"""Reasons that are failures of the data rather than choices."""

REPEATED = frozenset({"duplicated_row", "conflicting_rows"})
"""Reasons that more than one row of a source may have."""


def _column(sources: pa.Table, name: str, missing: float) -> NDArray[np.float64]:
    if name not in sources.column_names:
        return np.full(sources.num_rows, missing)
    # nulls become NaN on the way to numpy; NaN itself must stay one
    column = sources[name].cast(pa.float64())
    values = np.array(column.to_numpy(), np.float64)
    values[np.array(column.is_null().to_numpy(), bool)] = missing
    return values


def select(sources: pa.Table, settings: SelectionSettings, bands: tuple[str, ...]) -> pa.Array:
    """Apply the named selection.

    ``galaxies-zM``: primary, a galaxy type, ``flux_ivar > 0`` and observed flux above magnitude M in z, or in r where z was
    not observed. ``ids:FILE``: exactly the sources listed, whatever their type.

    Parameters
    ----------
    sources : pyarrow.Table
        From `galpipe.survey.tractor.tractor_subset`, any number of rows.
    settings : SelectionSettings
    bands : tuple of str
        Bands whose images the brick has; a band without an image counts as not observed.

    Returns
    -------
    pyarrow.Array
        Strings, one per row: empty for a selected source, else the first of `RULES` that it broke.

    Raises
    ------
    ConfigurationError
        If the selection has no such name or its list cannot be read.
    """
    ra, dec = _column(sources, "ra", np.nan), _column(sources, "dec", np.nan)
    rules = [*_repeated(sources), ("bad_position", ~((ra >= 0) & (ra < 360) & (np.abs(dec) <= 90)))]
    named = LIMITED.fullmatch(settings.name)
    if settings.ids_file is not None:
        wanted = np.array(sorted(read_ids(settings.ids_file)), np.int64)
        ids = sources["source_id"].fill_null(-1).to_numpy()
        rules.append(("not_in_list", ~np.isin(ids, wanted)))
    elif named:
        rules += _type_rules(sources) + _flux_rules(sources, bands, float(mag_to_nanomaggies(float(named.group(1)))))
    else:
        raise ConfigurationError("a selection galaxies-z20, galaxies-z21 or ids:FILE", repr(settings.name))
    reason = np.full(sources.num_rows, "", dtype=object)
    for name, broken in reversed(rules):
        reason[broken] = name
    return pa.array(reason.tolist(), pa.string())


def _repeated(sources: pa.Table) -> list[tuple[str, NDArray[np.bool_]]]:
    """Rows with an id that another row has: copies of the first one but it, and all rows of an id that do not agree.

    They agree when they are the same in every column that is carried on.
    """
    copies, conflicts = np.zeros(sources.num_rows, bool), np.zeros(sources.num_rows, bool)
    ids = sources["source_id"]
    if ids.null_count < len(ids):
        values, place, count = np.unique(ids.fill_null(-1).to_numpy(), return_inverse=True, return_counts=True)
        rows = np.flatnonzero((count[place] > 1) & (values[place] >= 0))
        # as text, a NaN is equal to another
        texts = [repr(row) for row in sources.take(pa.array(rows)).to_pylist()]
        for value in np.unique(place[rows]):
            same = rows[place[rows] == value]
            if len({texts[int(at)] for at in np.searchsorted(rows, same)}) == 1:
                copies[same[1:]] = True
            else:
                conflicts[same] = True
    return [("duplicated_row", copies), ("conflicting_rows", conflicts)]


def _type_rules(sources: pa.Table) -> list[tuple[str, NDArray[np.bool_]]]:
    kind = sources["type"].fill_null("").to_numpy(zero_copy_only=False).astype(str)
    names = maskbit_names(sources)
    # not by way of a float, which has no room for 64 bits
    bits = sources["maskbits"].fill_null(0).to_numpy().astype(np.int64)
    # a table without the column (a sweep) says it by a mask bit, or holds primary sources only
    stated = _column(sources, "brick_primary", -1.0)
    primary = np.where(stated >= 0, stated > 0, (bits & mask_value(names, ("NPRIMARY",))) == 0)
    forced = (bits & mask_value(names, FORCED_PSF_MASKS)) != 0
    return [
        ("not_primary", ~primary),
        ("type_dup", kind == "DUP"),
        ("forced_psf_in_mask", (kind == "PSF") & forced),
        ("type_psf", kind == "PSF"),
        ("type_other", ~np.isin(kind, GALAXY_TYPES)),
    ]


def _observed(sources: pa.Table, band: str, bands: tuple[str, ...]) -> NDArray[np.bool_]:
    if band not in bands:
        return np.zeros(sources.num_rows, bool)
    # where exposures were not counted, an inverse variance says that there were some
    counted = _column(sources, f"nobs_{band}", -1.0)
    return np.where(counted >= 0, counted > 0, _column(sources, f"flux_ivar_{band}", 0.0) > 0)


def _flux_rules(sources: pa.Table, bands: tuple[str, ...], limit: float) -> list[tuple[str, NDArray[np.bool_]]]:
    in_z = _observed(sources, "z", bands)
    flux = np.where(in_z, _column(sources, "flux_z", 0.0), _column(sources, "flux_r", 0.0))
    ivar = np.where(in_z, _column(sources, "flux_ivar_z", 0.0), _column(sources, "flux_ivar_r", 0.0))
    neither = ~in_z & ~_observed(sources, "r", bands)
    return [
        ("bad_flux", ~np.isfinite(flux) | ~np.isfinite(ivar)),
        ("no_ivar", neither | ~(ivar > 0)),
        ("faint", ~(flux > limit)),
    ]
