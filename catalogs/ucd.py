"""What each column of the catalog means in the Virtual Observatory's words: UCDs (Unified Content Descriptors, UCD1+) and VOUnits."""

from __future__ import annotations

import re

import pyarrow as pa

from catalogs.schema import INFRARED, OPTICAL

EXACT = {
    "source_id": "meta.id",
    "ra": "pos.eq.ra;meta.main",
    "dec": "pos.eq.dec;meta.main",
    "separation": "pos.angDistance",
    "release_name": "meta.dataset",
    "release": "meta.version",
    "brickid": "meta.id.part",
    "objid": "meta.id.part",
    "brickname": "meta.id.part",
    "_healpix_29": "pos.healpix",
    "type": "src.morph.type",
    "bx": "pos.cartesian.x;instr.det",
    "by": "pos.cartesian.y;instr.det",
    "ebv": "phot.color.excess",
    "shape_r": "phys.angSize;src",
    "sersic": "src.morph.param",
    "shape_e1": "src.morph.param",
    "shape_e2": "src.morph.param",
    "maskbits": "meta.code.qual",
    "fitbits": "meta.code.qual",
    "ref_cat": "meta.bib",
    "ref_id": "meta.id.cross",
    "z_phot_mean": "src.redshift.phot",
    "z_phot_median": "src.redshift.phot;stat.median",
    "z_phot_std": "stat.stdev;src.redshift.phot",
    "z_phot_l68": "src.redshift.phot;stat.min",
    "z_phot_u68": "src.redshift.phot;stat.max",
    "z_phot_l95": "src.redshift.phot;stat.min",
    "z_phot_u95": "src.redshift.phot;stat.max",
    "z_spec": "src.redshift",
    "pixscale": "instr.scale",
    "provenance_id": "meta.ref",
    "sga_id": "meta.id.cross",
    "z_lvm": "src.redshift.phot",
}
"""UCD by column name, where the name alone decides."""

BANDS = {"g": "em.opt.B", "r": "em.opt.R", "i": "em.opt.I", "z": "em.opt.I", "w1": "em.IR.3-4um", "w2": "em.IR.4-8um"}
"""The nearest band that the UCD vocabulary knows."""

_QUANTITIES = {
    "flux": "phot.flux;{band}",
    "flux_ivar": "stat.weight;phot.flux;{band}",
    "mag": "phot.mag;{band}",
    "nobs": "meta.number;obs",
    "psfsize": "instr.obsty.seeing",
    "psfdepth": "instr.sensitivity;{band}",
    "galdepth": "instr.sensitivity;{band}",
    "mw_transmission": "phys.transmission;{band}",
    "rchisq": "stat.fit.chi2",
}
_BAND = re.compile(rf"(.+?)_({'|'.join(OPTICAL + INFRARED)})(_dered)?")


def ucd(item: pa.Field) -> str:
    """The UCD of a column; empty where the vocabulary has no word for it."""
    if item.name in EXACT:
        return EXACT[item.name]
    banded = _BAND.fullmatch(item.name)
    if banded and banded.group(1) in _QUANTITIES:
        return _QUANTITIES[banded.group(1)].format(band=BANDS[banded.group(2)])
    if pa.types.is_boolean(item.type):
        return "meta.code.qual"
    if item.name.endswith("_ivar"):
        return "stat.weight"
    unit = text_of(item, "unit")
    return {"mag": "phot.mag", "arcsec": "phys.angSize"}.get(unit, "")


def vounit(unit: str) -> str:
    """A unit of the catalog in the syntax of VOUnits 1.0; nanomaggies, which no standard has, in quotes as the standard wants."""
    name, power = re.fullmatch(r"(.*?)(-?\d+)?", unit).groups()  # type: ignore[union-attr]
    quoted = f"'{name}'" if name == "nanomaggy" else name
    return f"{quoted}**{power}" if power else quoted


def text_of(item: pa.Field, key: str) -> str:
    """One text of a field's metadata; empty where there is none."""
    return (item.metadata or {}).get(key.encode(), b"").decode()
