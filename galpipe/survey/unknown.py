"""What a release has that this version does not know: it is carried past, never fatal, and told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galpipe.config import SOFTENING
from galpipe.survey.bits import mask_values
from galpipe.survey.selection import GALAXY_TYPES
from galpipe.survey.tractor import bands_of, maskbit_names

_COLUMNS = (
    "release brickid brickname objid ls_id_dr11 brick_primary brightblob maskbits fitbits type ra dec ra_ivar dec_ivar bx by dchisq "
    "ebv mjd_min mjd_max ref_cat ref_id ref_epoch pmra pmdec parallax pmra_ivar pmdec_ivar parallax_ivar gaia_pointsource fracdev "
    "fracdev_ivar sersic sersic_ivar wise_coadd_id wise_x wise_y nearest_neighbor photsys z_spec"
)
COLUMNS = frozenset(_COLUMNS.split())
"""Columns without a band that some release's tables have (reference section 3.1)."""

_STEMS = (
    "flux flux_ivar fiberflux fibertotflux apflux apflux_resid apflux_blobresid apflux_ivar apflux_masked mw_transmission nobs ngood "
    "rchisq fracflux fracmasked fracin anymask allmask wisemask psfsize psfdepth galdepth nea blob_nea lc_flux lc_flux_ivar lc_nobs "
    "lc_fracflux lc_rchisq lc_mjd lc_epoch_index"
)
STEMS = frozenset(_STEMS.split())
"""Columns that come once per band."""

FAMILIES = ("gaia_phot_", "gaia_astrometric_", "gaia_duplicated_", "gaia_a_g_", "gaia_e_bp_", "shape_", "shapeexp_", "shapedev_", "z_phot_")
"""Beginnings of the columns that come in groups."""

TYPES = frozenset({*GALAXY_TYPES, "PSF", "DUP", "SIMP", ""})


def unknown_in(table: pa.Table) -> dict[str, list[str]]:
    """What a Tractor table has that is not carried on because nobody here knows what it means.

    Parameters
    ----------
    table : pyarrow.Table
        From `galpipe.survey.tractor.read_tractor`.

    Returns
    -------
    dict
        ``bands`` without pixels in a stamp, ``columns``, ``types`` of source, ``maskbits`` (numbers of set bits without a name);
        kinds that have none are left out.
    """
    found = {
        "bands": [band for band in bands_of(table) if band not in SOFTENING],
        "columns": sorted(name for name in table.column_names if not _is_known(name)),
        "types": sorted(set(pc.unique(table["type"]).to_pylist()) - TYPES) if "type" in table.column_names else [],
        "maskbits": [str(bit) for bit in nameless_bits(table)],
    }
    return {kind: names for kind, names in found.items() if names}


def nameless_bits(table: pa.Table) -> list[int]:
    """Bits that are set in the column maskbits and that neither the header nor the published table names."""
    if "maskbits" not in table.column_names or not table.num_rows:
        return []
    together = int(np.bitwise_or.reduce(mask_values(table["maskbits"].to_numpy()).view(np.uint64)))
    named = set(maskbit_names(table).values())
    return [bit for bit in range(64) if together >> bit & 1 and bit not in named]


def _is_known(name: str) -> bool:
    return name in COLUMNS or name.startswith(FAMILIES) or name.rpartition("_")[0] in STEMS


def words(unknown: dict[str, list[str]]) -> str:
    """`unknown_in` in one line; empty where everything is known."""
    parts = [f"{kind} {', '.join(names)}" for kind, names in unknown.items()]
    return f"unknown to this version, left aside: {'; '.join(parts)}" if parts else ""
