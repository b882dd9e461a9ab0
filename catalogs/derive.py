"""Columns that follow from others: magnitudes, spatial index, flags, which bands were used."""

from __future__ import annotations

from collections.abc import Sequence

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix
from numpy.typing import NDArray

from catalogs.schema import HEALPIX, HEALPIX_ORDER, INFRARED, OPTICAL
from galpipe.survey.bits import mask_value
from galpipe.survey.largegalaxies import LARGEST_RADIUS, atlas_entries, half_light_radii, in_galaxy_mask
from galpipe.survey.photometry import deredden, nanomaggies_to_mag
from galpipe.survey.tractor import maskbit_names
from galpipe.unit import Unit

VOLUNTEERS_FAINTEST_R = 19.0
"""Volunteers classified galaxies brighter than this in r (Galaxy Zoo DESI)."""

VOLUNTEERS_SMALLEST = 2.0
"""Half-light radius over seeing below which volunteers see a smooth blob."""


def healpix29(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> pa.Array:
    """NESTED HEALPix index at order 29.

    Parameters
    ----------
    ra, dec : ndarray
        Degrees, shape (rows,).

    Returns
    -------
    pyarrow.Array
        int64, null where the position is not finite or |dec| > 90.
    """
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    index = np.zeros(len(ra), np.int64)
    if good.any():
        lon, lat = Longitude(ra[good] % 360.0, u.deg), Latitude(dec[good], u.deg)
        index[good] = lonlat_to_healpix(lon, lat, HEALPIX_ORDER).astype(np.int64)
    return pa.array(index, mask=~good)


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64, shape (rows,); NaN where null or absent."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.array(table[name].cast(pa.float64()).to_numpy(), np.float64)


def _ints(table: pa.Table, name: str) -> NDArray[np.int64]:
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    return np.array(table[name].cast(pa.int64()).fill_null(0).to_numpy(), np.int64)


def derive(sources: pa.Table, unit: Unit, model_bands: Sequence[str]) -> dict[str, pa.Array]:
    """Every derived base column.

    Parameters
    ----------
    sources : pyarrow.Table
        Tractor subset and per-stamp columns, any number of rows.
    unit : Unit
    model_bands : sequence of str
        Bands the model was trained on.
    """
    rows = sources.num_rows
    columns = {
        HEALPIX: healpix29(_floats(sources, "ra"), _floats(sources, "dec")),
        "release_name": pa.array([unit.release] * rows, pa.string()),
        "region": pa.array([unit.region] * rows, pa.string()),
    }
    return columns | _magnitudes(sources) | _bands(sources, model_bands) | _mask_flags(sources, model_bands) | _size_flags(sources)


def _magnitudes(sources: pa.Table) -> dict[str, pa.Array]:
    columns = {}
    for band in OPTICAL + INFRARED:
        flux, ivar = _floats(sources, f"flux_{band}"), _floats(sources, f"flux_ivar_{band}")
        # an unobserved band has flux 0; a band without ivar was not fitted
        seen = np.where(ivar == 0, np.nan, flux)
        columns[f"mag_{band}"] = _nullable(nanomaggies_to_mag(seen))
        if band in OPTICAL:
            columns[f"mag_{band}_dered"] = _nullable(nanomaggies_to_mag(deredden(seen, _floats(sources, f"mw_transmission_{band}"))))
    return columns


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values.astype(np.float32), from_pandas=True)


def _bands(sources: pa.Table, model_bands: Sequence[str]) -> dict[str, pa.Array]:
    seen = np.array([_floats(sources, f"valid_frac_{band}") > 0 for band in model_bands]).reshape(len(model_bands), sources.num_rows)
    used = ["".join(band for band, ok in zip(model_bands, row, strict=True) if ok) for row in seen.T]
    return {"bands_used": pa.array(used, pa.string()), "degraded": pa.array(~seen.all(axis=0))}


def _mask_flags(sources: pa.Table, model_bands: Sequence[str]) -> dict[str, pa.Array]:
    names, bits = maskbit_names(sources), _ints(sources, "maskbits")
    wanted = {
        "flag_bright_star": ("BRIGHT",),
        "flag_medium": ("MEDIUM",),
        "flag_galaxy_mask": ("GALAXY",),
        "flag_cluster": ("CLUSTER",),
        "flag_saturated": tuple(f"SATUR_{band.upper()}" for band in model_bands),
    }
    return {flag: pa.array((bits & mask_value(names, of)) != 0) for flag, of in wanted.items()}


def _size_flags(sources: pa.Table) -> dict[str, pa.Array]:
    size, seeing = half_light_radii(sources), _floats(sources, "psfsize_r")
    flux = np.where(_floats(sources, "flux_ivar_r") == 0, np.nan, _floats(sources, "flux_r"))
    faint = nanomaggies_to_mag(flux) > VOLUNTEERS_FAINTEST_R
    known = np.isfinite(size) & (seeing > 0)
    beyond = faint | (known & (size < VOLUNTEERS_SMALLEST * seeing))
    atlas, in_mask = atlas_entries(sources), in_galaxy_mask(sources)
    return {
        "beyond_volunteers": pa.array(beyond, mask=~(known | np.isfinite(flux))),
        "sga_id": pa.array(_ints(sources, "ref_id"), mask=~atlas),
        "in_sga_ellipse": pa.array(in_mask | atlas),
        "stamp_truncated": pa.array(size > LARGEST_RADIUS, mask=~np.isfinite(size)),
        "is_probable_shred": pa.array(in_mask & ~atlas),
    }
