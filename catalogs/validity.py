"""Which values a column may hold, by its name: what `galpipe verify` holds every shard against."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.derive import healpix29
from catalogs.schema import HEALPIX, HEALPIX_ORDER, base_columns

SUM_TOLERANCE = 0.02
"""How far the fractions of one question may be from adding up to 1 (float16 heads round)."""

ROUNDING = 1e-3
"""How far a value may lie beyond its range."""

_ANY_BIT = float(2**63 - 1)
_SHARE = r".*_fraction(_lo|_hi)?|.*_proportion_asked|(coarse_)?valid_frac_.*|fracmasked_.*|mw_transmission_.*|mosaic_frac|.*axis_ratio"

VALID = tuple(
    (re.compile(pattern), low, high)
    for pattern, low, high in (
        (re.escape(HEALPIX), 0.0, 12.0 * 4**HEALPIX_ORDER - 1),
        ("ra", 0.0, 360.0),
        ("dec", -90.0, 90.0),
        ("brickid", 0.0, 662_174.0),
        ("provenance_id|maskbits|fitbits", 0.0, _ANY_BIT),
        (_SHARE, 0.0, 1.0),
        (r".*_ivar(_.*)?|.*_sigma(_.*)?|z_phot_std|psfsize_.*|psfdepth_.*|galdepth_.*|nobs_.*|nexp_.*", 0.0, np.inf),
        (r"ebv|shape_r|.*_radius|(coarse_)?pixscale|pixscale_input|n_detections", 0.0, np.inf),
        (r"shape_e[12]", -1.0, 1.0),
        ("sersic", 0.0, 10.0),
        (r"z_phot_(mean|median|[lu]\d\d)|z_spec", -0.1, 30.0),
        (r"mag_.*|.*_mag|lvm_mag_[a-z]\d?", -10.0, 70.0),
    )
)
"""Name of a column, and its least and largest value; the first that fits counts."""

_PAIRS = (("_fraction_lo", "_fraction_hi"), ("_l68", "_u68"), ("_l95", "_u95"))
"""Endings of the lower and the upper bound of one interval."""


def valid_range(name: str) -> tuple[float, float]:
    """Least and largest value of a column; any finite number where nothing is known of it."""
    for pattern, low, high in VALID:
        if pattern.fullmatch(name):
            return low, high
    return -np.finfo(np.float64).max, np.finfo(np.float64).max


def value_problems(table: pa.Table, units: dict[str, str]) -> Iterator[str]:
    """What is wrong with the values of a shard: position, ranges, order of bounds, sums of fractions, units.

    Parameters
    ----------
    table : pyarrow.Table
    units : dict
        Unit by column, as the catalog's other shards have it; what is new here is added. Begin with `schema_units`.
    """
    ra, dec = (np.array(table[name].cast(pa.float64()).to_numpy()) for name in ("ra", "dec"))
    if not healpix29(ra, dec).equals(table[HEALPIX].combine_chunks()):
        yield f"expected {HEALPIX} of (ra, dec), got others"
    for item in table.schema:
        if pa.types.is_floating(item.type) or pa.types.is_integer(item.type):
            yield from _range_problems(item.name, table[item.name])
    for low, high in _PAIRS:
        for name in table.schema.names:
            if name.endswith(high) and (other := name.removesuffix(high) + low) in table.schema.names:
                turned = pc.sum(pc.greater(table[other], pc.add(table[name], ROUNDING))).as_py() or 0
                if turned:
                    yield f"expected {other} not above {name}, got {turned} rows where it is"
    for question, answers in _questions(table.schema.names).items():
        values = np.array([table[name].cast(pa.float64()).to_numpy() for name in answers])
        # a NaN or null answer leaves its row out: the question was not asked
        bad = int((np.abs(values.sum(axis=0) - 1) > SUM_TOLERANCE).sum())
        if bad:
            yield f"expected the fractions of {question} to add up to 1, got other sums in {bad} rows"
    yield from unit_problems(table.schema, units)


def _range_problems(name: str, values: pa.ChunkedArray) -> Iterator[str]:
    extremes = pc.min_max(values).as_py()
    if extremes["min"] is None or np.isnan(extremes["min"]):
        return
    low, high = valid_range(name)
    if extremes["min"] < low - ROUNDING or extremes["max"] > high + ROUNDING or np.isinf([*extremes.values()]).any():
        wanted = "finite" if high > 1e300 and low < -1e300 else f"from {low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"
        yield f"expected {name} {wanted}, got {extremes['min']:.4g} to {extremes['max']:.4g}"


def schema_units() -> dict[str, str]:
    """Unit of every base column, empty for a dimensionless one."""
    return {column.name: column.unit for column in base_columns()}


def unit_problems(schema: pa.Schema, units: dict[str, str]) -> Iterator[str]:
    """Columns whose unit is not that of the catalog; of columns that ``units`` lacks the unit is added there."""
    for item in schema:
        came = (item.metadata or {}).get(b"unit", b"").decode()
        if came != units.setdefault(item.name, came):
            yield f"expected unit {units[item.name]!r} in the metadata of {item.name}, got {came!r}"


def _questions(names: list[str]) -> Mapping[str, list[str]]:
    """Fraction columns by question, ``{question}_{answer}_fraction``; a question is what has ``{question}_proportion_asked``."""
    asked = [name.removesuffix("_proportion_asked") for name in names if name.endswith("_proportion_asked")]
    fractions = {question: [name for name in names if name.startswith(f"{question}_") and name.endswith("_fraction")] for question in asked}
    return {question: answers for question, answers in fractions.items() if answers}
