"""Names, order, types and units of a Tractor table's columns, per release (reference section 3.1; order of a real DR9 file)."""

from __future__ import annotations

from dataclasses import dataclass

from galpipe.mock.spec import ReleaseStyle

WISE = ("w1", "w2", "w3", "w4")
GALEX = ("nuv", "fuv")


@dataclass(frozen=True)
class TractorColumn:
    """One FITS column."""

    name: str
    form: str
    """FITS binary table format: ``E``, ``8E``, ``3A``."""
    unit: str = ""


FLUX, IVAR = "nanomaggies", "nanomaggies^(-2)"


def _plain(text: str) -> list[TractorColumn]:
    """Columns from ``name:form[:unit]`` words."""
    found = []
    for word in text.split():
        name, form, *unit = word.split(":")
        found.append(TractorColumn(name, form, unit[0] if unit else ""))
    return found


def _head(style: ReleaseStyle) -> list[TractorColumn]:
    mask = "I" if style.mask_type == "int16" else "J"
    first = "ls_id_dr11:K " if style.extension_names else ""
    count = "J" if style.extension_names else "I"
    blob, fit, kind, point = ("brightblob:I ", "", "4A", "gaia_pointsource:L ") if style.two_profiles else ("", "fitbits:I ", "3A", "")
    return _plain(
        first + f"release:I brickid:J brickname:8A objid:J brick_primary:L {blob}"
        f"maskbits:{mask} {fit}type:{kind} ra:D:deg dec:D:deg ra_ivar:E:deg^(-2) dec_ivar:E:deg^(-2) bx:E:pix by:E:pix "
        "dchisq:5E ebv:E:mag mjd_min:D:d mjd_max:D:d ref_cat:2A ref_id:K pmra:E:mas/yr pmdec:E:mas/yr parallax:E:mas "
        f"pmra_ivar:E:(mas/yr)^(-2) pmdec_ivar:E:(mas/yr)^(-2) parallax_ivar:E:mas^(-2) ref_epoch:E:yr {point}gaia_phot_g_mean_mag:E:mag "
        f"gaia_phot_g_mean_flux_over_error:E gaia_phot_g_n_obs:{count} gaia_phot_bp_mean_mag:E:mag gaia_phot_bp_mean_flux_over_error:E "
        f"gaia_phot_bp_n_obs:{count} gaia_phot_rp_mean_mag:E:mag gaia_phot_rp_mean_flux_over_error:E gaia_phot_rp_n_obs:{count} "
        "gaia_phot_variable_flag:L gaia_astrometric_excess_noise:E gaia_astrometric_excess_noise_sig:E gaia_astrometric_n_obs_al:I "
        "gaia_astrometric_n_good_obs_al:I gaia_astrometric_weight_al:E gaia_duplicated_source:L gaia_a_g_val:E:mag "
        "gaia_e_bp_min_rp_val:E:mag gaia_phot_bp_rp_excess_factor:E gaia_astrometric_sigma5d_max:E:mas gaia_astrometric_params_solved:B"
    )


def _each(stem: str, form: str, unit: str, bands: tuple[str, ...]) -> list[TractorColumn]:
    return [TractorColumn(f"{stem}_{band}", form, unit) for band in bands]


def _photometry(style: ReleaseStyle, bands: tuple[str, ...]) -> list[TractorColumn]:
    every = bands + WISE + (GALEX if style.galex else ())
    columns = _each("flux", "E", FLUX, every) + _each("flux_ivar", "E", IVAR, every)
    columns += _each("fiberflux", "E", FLUX, bands) + _each("fibertotflux", "E", FLUX, bands)
    apertures = (("apflux", FLUX), ("apflux_resid", FLUX), ("apflux_blobresid", FLUX), ("apflux_ivar", IVAR), ("apflux_masked", ""))
    for stem, unit in apertures:
        if not (style.two_profiles and stem in ("apflux_blobresid", "apflux_masked")):
            columns += _each(stem, "8E", unit, bands)
    for stem, unit in () if style.two_profiles else (("apflux", FLUX), ("apflux_resid", FLUX), ("apflux_ivar", IVAR)):
        columns += _each(stem, "5E", unit, WISE)
    return columns


def _quality(style: ReleaseStyle, bands: tuple[str, ...]) -> list[TractorColumn]:
    both = bands + WISE
    columns = _each("mw_transmission", "E", "", both) + _each("nobs", "I", "", both)
    if style.mask_type != "int16":
        columns += _each("ngood", "I", "", bands)
    columns += _each("rchisq", "E", "", both) + _each("fracflux", "E", "", both)
    columns += _each("fracmasked", "E", "", bands) + _each("fracin", "E", "", bands)
    columns += _each("anymask", "I", "", bands) + _each("allmask", "I", "", bands) + _each("wisemask", "B", "", ("w1", "w2"))
    columns += _each("psfsize", "E", "arcsec", bands) + _each("psfdepth", "E", IVAR, bands) + _each("galdepth", "E", IVAR, bands)
    if not style.two_profiles:
        columns += _each("nea", "E", "arcsec^2", bands) + _each("blob_nea", "E", "arcsec^2", bands)
    return columns + _each("psfdepth", "E", IVAR, WISE)


def _tail(style: ReleaseStyle) -> list[TractorColumn]:
    columns = _plain("wise_coadd_id:8A" if style.two_profiles else "wise_coadd_id:8A wise_x:E:pix wise_y:E:pix")
    n = style.lightcurve
    for stem, form, unit in (
        ("lc_flux", "E", FLUX),
        ("lc_flux_ivar", "E", IVAR),
        ("lc_nobs", "I", ""),
        ("lc_fracflux", "E", ""),
        ("lc_rchisq", "E", ""),
        ("lc_mjd", "D", "d"),
        ("lc_epoch_index", "I", ""),
    ):
        if not (style.two_profiles and stem == "lc_epoch_index"):
            columns += _each(stem, f"{n}{form}", unit, ("w1", "w2"))
    if style.two_profiles:
        columns += _plain("fracdev:E fracdev_ivar:E")
        return columns + [column for stem in ("shapeexp", "shapedev") for column in _shape(stem)]
    columns += _plain("sersic:E sersic_ivar:E") + _shape("shape")
    return columns + (_plain("nearest_neighbor:E:arcsec") if style.extension_names else [])


def _shape(stem: str) -> list[TractorColumn]:
    words = f"{stem}_r:E:arcsec {stem}_r_ivar:E:arcsec^(-2) {stem}_e1:E {stem}_e1_ivar:E {stem}_e2:E {stem}_e2_ivar:E"
    return _plain(words)


def tractor_columns(style: ReleaseStyle, bands: tuple[str, ...]) -> list[TractorColumn]:
    """All columns of a Tractor table: 160 for DR8, 181 for DR9 (g, r, z), 207 for DR10 (g, r, i, z)."""
    return _head(style) + _photometry(style, bands) + _quality(style, bands) + _tail(style)
