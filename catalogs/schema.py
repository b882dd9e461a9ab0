"""The one module that owns column names, types, units, meanings and tolerances of the catalog.

A row is a galaxy. Its columns are the base columns below (what the survey published, what the stamp had, flags, identity)
followed by what each head declares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from galpipe.columns import Column
from galpipe.errors import ConfigurationError
from galpipe.survey.tractor import subset_schema

SCHEMA_VERSION = 5
"""Raised by hand when the meaning of a column changes; part of every shard's fingerprint."""

HEALPIX = "_healpix_29"
"""Spatial index column: NESTED HEALPix pixel at order 29."""

HEALPIX_ORDER = 29

PARTITION_ORDER = 5
"""HEALPix order of the published partitions; fixed, so that a pixel's file stays the same from version to version."""

OPTICAL = ("g", "r", "i", "z")
INFRARED = ("w1", "w2")

NESTED = ("detections", "embedding")
"""Columns with more than one value per row; left out of flat formats."""

MOCK_REDSHIFT = "z_mock"
"""Prefix of redshift columns learned on the mock only; absent from the science view."""

UNSAFE_FLAGS = ("flag_bright_star", "is_probable_shred", "flag_cluster", "flag_saturated", "degraded", "jpeg_route")
"""A row with any of these set is not in the view ``galaxies_clean``. A large galaxy is, though its own mask covers it, and so are
truncated stamps, as what they cannot tell is null there."""

MEASURED_UNITS = ("mag", "arcsec", "deg", "nanomaggy")
MEASURED_PREFIXES = ("lvm_", "sep_")
"""Head columns named so and in these units are sizes, fluxes and angles of the whole galaxy: null where the stamp cuts it off."""

_FLUX, _IVAR = "nanomaggy", "nanomaggy-2"
_F32, _F64, _I32, _I64 = pa.float32(), pa.float64(), pa.int32(), pa.int64()
_BOOL, _TEXT = pa.bool_(), pa.string()

_IDENTITY = (
    Column(HEALPIX, _I64, "", "NESTED HEALPix pixel of (ra, dec) at order 29; null for a row without a position"),
    Column("source_id", _I64, "", "Packed id: release << 42 | brickid << 22 | objid; for stamps a hash of the content"),
    Column("release_name", _TEXT, "", "Name of the survey release, or 'stamps'"),
    Column("region", _TEXT, "", "Region of the release; 'all' where the release has none"),
    Column("release", _I32, "", "Survey's release number"),
    Column("brickid", _I32, "", "Brick id, 1 to 662174"),
    Column("objid", _I32, "", "Object number in its brick"),
    Column("brickname", _TEXT, "", "Brick name"),
    Column("type", _TEXT, "", "Tractor model: PSF, REX, EXP, DEV, SER, DUP (DR8 also COMP)"),
    Column("brick_primary", _BOOL, "", "The source lies in its own brick's unique area"),
    Column("ra", _F64, "deg", "Right ascension, ICRS"),
    Column("dec", _F64, "deg", "Declination, ICRS"),
    Column("bx", _F32, "pix", "Column in the brick's image, from 0"),
    Column("by", _F32, "pix", "Row in the brick's image, from 0"),
)

_BAND_TEXTS: dict[str, tuple[pa.DataType, str, str]] = {
    "flux": (_F32, _FLUX, "Tractor total flux in {b}, not corrected for dust"),
    "flux_ivar": (_F32, _IVAR, "Inverse variance of flux_{b}; 0 = not observed"),
    "mag": (_F32, "mag", "AB magnitude of flux_{b}, not corrected for dust; null where flux <= 0"),
    "mag_dered": (_F32, "mag", "AB magnitude in {b} corrected for Galactic dust"),
    "mw_transmission": (_F32, "", "Galactic transmission in {b}"),
    "nobs": (_I32, "", "Exposures in {b} at the source"),
    "psfsize": (_F32, "arcsec", "PSF FWHM in {b}"),
    "psfdepth": (_F32, _IVAR, "Point-source depth in {b} as flux inverse variance; 5 sigma = 5 / sqrt(depth)"),
    "galdepth": (_F32, _IVAR, "Same for a round 0.45 arcsec exponential"),
    "fracflux": (_F32, "", "Profile-weighted flux of other sources over this one's, in {b}"),
    "fracmasked": (_F32, "", "Profile-weighted masked share in {b}, 0 to 1"),
    "rchisq": (_F32, "", "Profile-weighted reduced chi2 of the model in {b}"),
    "valid_frac": (_F32, "", "Share of the stamp's pixels with data in {b}, 0 to 1"),
    "nexp": (_F32, "", "Good exposures in {b} over the stamp"),
    "coarse_valid_frac": (_F32, "", "Share of the coarse stamp's pixels with data in {b}, 0 to 1; null without a coarse stamp"),
}

_SHAPE = (
    Column("ebv", _F32, "mag", "Galactic reddening E(B-V), SFD98"),
    Column("shape_r", _F32, "arcsec", "Half-light radius of the model, major axis, PSF-deconvolved; 0 for PSF"),
    Column("shape_r_ivar", _F32, "arcsec-2", "Inverse variance of shape_r"),
    Column("shape_e1", _F32, "", "Ellipticity component 1"),
    Column("shape_e1_ivar", _F32, "", "Inverse variance of shape_e1"),
    Column("shape_e2", _F32, "", "Ellipticity component 2"),
    Column("shape_e2_ivar", _F32, "", "Inverse variance of shape_e2"),
    Column("sersic", _F32, "", "Sersic index of the model"),
    Column("sersic_ivar", _F32, "", "Inverse variance of sersic"),
    Column("maskbits", _I64, "", "Survey mask bits at the source's pixel"),
    Column("fitbits", _I64, "", "Survey fit bits"),
    Column("ref_cat", _TEXT, "", "Reference catalog of the source, empty if none"),
    Column("ref_id", _I64, "", "Id in the reference catalog"),
)

_PHOTOZ_TEXTS = {
    "z_phot_mean": "Official photometric redshift, mean",
    "z_phot_median": "Official photometric redshift, median",
    "z_phot_std": "Its standard deviation",
    "z_phot_l68": "Lower bound of its 68 % interval",
    "z_phot_u68": "Upper bound of its 68 % interval",
    "z_phot_l95": "Lower bound of its 95 % interval",
    "z_phot_u95": "Upper bound of its 95 % interval",
    "z_spec": "Spectroscopic redshift where the survey lists one",
}

_STAMP = (
    Column("stamp_dx", _F32, "pix", "Source position minus the stamp's central pixel, along x"),
    Column("stamp_dy", _F32, "pix", "Same along y"),
    Column("pixscale", _F32, "arcsec", "Size of a stamp pixel"),
    Column(
        "mosaic_frac", _F32, "", "Share of the stamp's pixels from neighbouring bricks; null where the brick's own frame holds every stamp"
    ),
    Column("coarse_pixscale", _F32, "arcsec", "Size of a pixel of the second, coarser stamp; null for a source without one"),
    Column("dereddened", _BOOL, "", "Pixels were corrected for Galactic dust before the model saw them"),
    Column("bands_used", _TEXT, "", "Bands the model saw, in its order, such as 'grz'"),
    Column("degraded", _BOOL, "", "A band that the model was trained on has no data"),
    Column("file", _TEXT, "", "File that the stamp was read from; null for stamps cut from bricks"),
    Column("jpeg_route", _BOOL, "", "Pixels taken back from a color picture (JPEG route): not claimed to hold for survey pixels"),
    Column("resampled", _BOOL, "", "The file's pixels had another scale; null for bricks"),
    Column("pixscale_input", _F32, "arcsec", "Pixel scale of the file; null for bricks"),
    Column("invvar_estimated", _BOOL, "", "The file had no inverse variance: estimated from its pixels"),
)

_FLAGS = (
    Column("flag_bright_star", _BOOL, "", "In the mask of a bright star"),
    Column("flag_medium", _BOOL, "", "In the mask of a medium-bright star"),
    Column("flag_galaxy_mask", _BOOL, "", "In the ellipse of a large galaxy (SGA)"),
    Column("flag_cluster", _BOOL, "", "In the mask of a globular cluster or planetary nebula"),
    Column("flag_saturated", _BOOL, "", "Central pixel saturated in a band that the model uses"),
    Column("beyond_volunteers", _BOOL, "", "Smaller than twice the seeing, or r > 19: not what volunteers classified"),
    Column("sga_id", _I64, "", "Id in the Siena Galaxy Atlas where the source is its entry, else null"),
    Column("in_sga_ellipse", _BOOL, "", "In the ellipse of a large galaxy (SGA), that galaxy itself included"),
    Column("stamp_truncated", _BOOL, "", "shape_r > 8 arcsec: larger than the stamp; sizes, fluxes and angles (lvm_*, sep_*) are null"),
    Column("is_probable_shred", _BOOL, "", "In a large galaxy's ellipse without being that galaxy"),
)

_LINEAGE = (
    Column("provenance_id", _I64, "", "Hash of everything the row was made from; `galpipe provenance ID` tells"),
    Column("embedding", pa.list_(pa.float16()), "", "The encoder's vector for the stamp", tolerance=5e-2),
)


def band_name(quantity: str, band: str) -> str:
    """Column of a quantity in a band: ``flux_g``, ``mag_g``, ``mag_g_dered``."""
    if quantity == "mag_dered":
        return f"mag_{band}_dered"
    return f"{quantity}_{band}"


def _band_columns() -> tuple[Column, ...]:
    columns = []
    for quantity, (kind, unit, text) in _BAND_TEXTS.items():
        bands = OPTICAL + INFRARED if quantity in ("flux", "flux_ivar", "mag") else OPTICAL
        columns += [Column(band_name(quantity, band), kind, unit, text.format(b=band)) for band in bands]
    return tuple(columns)


def base_columns() -> tuple[Column, ...]:
    """Columns that every catalog has, whatever its heads."""
    photoz = tuple(Column(name, _F32, "", text + "; null where not published") for name, text in _PHOTOZ_TEXTS.items())
    return _IDENTITY + _band_columns() + _SHAPE + photoz + _STAMP + _FLAGS + _LINEAGE


def catalog_columns(heads: Sequence[Column]) -> tuple[Column, ...]:
    """Base columns followed by the heads' columns.

    Raises
    ------
    ConfigurationError
        If two columns have one name.
    """
    columns = base_columns() + tuple(heads)
    repeated = sorted(name for name, count in Counter(column.name for column in columns).items() if count > 1)
    if repeated:
        raise ConfigurationError("one owner for each column", f"{repeated} declared twice")
    return columns


def assemble(heads: Sequence[Column]) -> pa.Schema:
    """Arrow schema of a catalog with these head columns; unit and description are in each field's metadata."""
    return pa.schema([column.field() for column in catalog_columns(heads)])


def tolerances(heads: Sequence[Column]) -> dict[str, float]:
    """Largest difference per column that two machines may show for the same inputs (0 = exact)."""
    return {column.name: column.tolerance for column in catalog_columns(heads)}


def unpublished_survey_columns() -> list[str]:
    """Columns of the survey's subset that the catalog lacks; a test keeps this list empty."""
    known = {column.name for column in base_columns()}
    return [name for name in subset_schema().names if name not in known]
