"""A Tractor table as the survey's fitter might have written it: what is found, as which type, and how wrong.

The errors follow the pixels: flux errors from local inverse variance and noise-equivalent area, centroid and shape errors from
S/N and resolution, types from chi-squared differences that grow with S/N squared. Correlations between parameters are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import galsim
import numpy as np
from numpy.typing import NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.frame import Frame, in_gaia, signal_to_noise, window
from galpipe.mock.pixels import SATUR_BIT, BandPixels, is_large
from galpipe.mock.render import moffat
from galpipe.mock.spec import ALL_BANDS
from galpipe.survey.bricks import BRICK_PIXELS, brick_wcs

Floats = NDArray[np.float64]

EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211, "w1": 0.184, "w2": 0.113, "w3": 0.0241, "w4": 0.00910}
"""A / E(B-V) of the SFD98 map (reference section 3.3)."""

APERTURES = np.array([0.5, 0.75, 1.0, 1.5, 2.0, 3.5, 5.0, 7.0])
WISE_IVAR = {"w1": 4.0, "w2": 1.0, "w3": 1e-3, "w4": 1.3e-5}


@dataclass(frozen=True)
class Fit:
    """The table of a frame."""

    columns: dict[str, NDArray[np.generic]]
    """By Tractor name; columns that are not here are zero."""
    source: NDArray[np.int64]
    """Index into the frame's catalog per row; -1 = of no true source, or a fragment of one."""
    matches: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    """Where rows and true sources do not pair one to one: ``objid``, ``source`` (index into the catalog) and ``role``: ``main``,
    ``merged`` (its light is in that row) or ``shred`` (the row is a fragment of it). Empty for the plain sky."""


def fit(frame: Frame, rng: np.random.Generator) -> Fit:
    """Make the table of a frame.

    Parameters
    ----------
    frame : Frame
    rng : numpy.random.Generator
    """
    snr, ivar = signal_to_noise(frame)
    # saturated stars have no good pixel at the center; Gaia knows where they are
    total = np.maximum(np.sqrt((snr**2).sum(axis=1)), np.where(in_gaia(frame.catalog), 100.0, 0.1))
    inside = (frame.x >= -0.5) & (frame.x < BRICK_PIXELS - 0.5) & (frame.y >= -0.5) & (frame.y < BRICK_PIXELS - 0.5)
    seen = (total + rng.standard_normal(len(total)) > 6) & ~_swallowed(frame, rng)
    found = inside & (seen | in_gaia(frame.catalog))
    rows = np.flatnonzero(found)
    columns = positions(frame, rows, total[rows], rng)
    columns |= pixel_columns(frame, columns)
    types = _types(frame, rows, total[rows], columns, rng)
    columns |= shape_columns(frame, rows, types, total[rows], rng)
    columns |= flux_columns(frame, rows, (snr[rows], ivar[rows]), rng)
    columns |= identity_columns(frame, columns)
    columns |= reference_columns(frame, rows)
    columns |= wise_columns(frame, rows, rng)
    columns["dchisq"] = dchisq(types, total[rows])
    return Fit(columns, rows)


def _swallowed(frame: Frame, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Sources that lie so close to a brighter one that the fitter sees one source."""
    order = np.argsort(frame.x)
    lost = np.zeros(len(order), bool)
    flux = frame.catalog["flux"][:, 1]
    reach = 0.55 * frame.state.seeing["r"] / SURVEY_PIXSCALE
    for position, k in enumerate(order):
        for other in order[position + 1 :]:
            if frame.x[other] - frame.x[k] > reach:
                break
            if np.hypot(frame.x[other] - frame.x[k], frame.y[other] - frame.y[k]) < reach:
                lost[k if flux[k] < flux[other] else other] = True
    return lost & (rng.random(len(lost)) < 0.85)


def positions(frame: Frame, rows: NDArray[np.int64], total: Floats, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """Centers as fitted, with their inverse variances."""
    size = np.hypot(frame.state.seeing["r"] / 2.355, 0.5 * frame.catalog["half_light_radius"][rows])
    sigma = np.hypot(size / np.maximum(total, 1), 0.004) / SURVEY_PIXSCALE
    bx = frame.x[rows] + sigma * rng.standard_normal(len(rows))
    by = frame.y[rows] + sigma * rng.standard_normal(len(rows))
    ra, dec = brick_wcs(frame.area).all_pix2world(bx, by, 0)
    area = frame.area
    primary = (ra >= area.ra1) & (ra < area.ra2) & (dec >= area.dec1) & (dec < area.dec2)
    ivar = (3600 / (sigma * SURVEY_PIXSCALE)) ** 2
    return {"bx": bx, "by": by, "ra": ra, "dec": dec, "ra_ivar": ivar, "dec_ivar": ivar, "brick_primary": primary}


def pixel_columns(frame: Frame, columns: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Everything that is read off the images at a source's pixel."""
    column = np.clip(np.round(columns["bx"].astype(float)), 0, BRICK_PIXELS - 1).astype(np.int64)
    row = np.clip(np.round(columns["by"].astype(float)), 0, BRICK_PIXELS - 1).astype(np.int64)
    found: dict[str, NDArray[np.generic]] = {"maskbits": frame.mask[row, column]}
    for band, products in frame.pixels.items():
        saturated = (frame.mask[row, column] >> SATUR_BIT[band]) & 1
        count = frame.state.exposures[band]
        found[f"psfsize_{band}"] = products.psfsize[row, column]
        found[f"nobs_{band}"] = np.where(products.psfsize[row, column] > 0, np.maximum(products.nexp[row, column], count - 1), 0)
        found[f"ngood_{band}"] = products.nexp[row, column]
        found[f"anymask_{band}"] = found[f"allmask_{band}"] = 2 * saturated
    return found


def _types(
    frame: Frame, rows: NDArray[np.int64], total: Floats, columns: dict[str, NDArray[np.generic]], rng: np.random.Generator
) -> NDArray[np.str_]:
    catalog = frame.catalog[rows]
    band = min(1, len(frame.bands) - 1)
    point = _point_area(frame.bands[band], frame.state.seeing[frame.bands[band]])[0]
    blur = np.clip(1 - point / np.maximum(frame.drawn.nea[rows, band], point), 0, 1)
    resolved = np.clip(catalog["half_light_radius"] / frame.state.seeing["r"], 0, 1.5)
    luck = np.exp(0.4 * rng.standard_normal((3, len(rows))))
    extended = total**2 * 0.5 * blur**1.5 * luck[0]
    q = catalog["bulge"][:, 1] * catalog["bulge_q"] + (1 - catalog["bulge"][:, 1]) * catalog["disk_q"]
    shaped = total**2 * resolved * (0.08 * (1 - q) ** 2 + 0.006 * np.abs(catalog["sersic_n"] - 1)) * luck[1]
    off = np.minimum(np.abs(catalog["sersic_n"] - 1), np.abs(catalog["sersic_n"] - 4)) + 0.2
    free = total**2 * resolved * 0.004 * off * luck[2]
    types = np.where(catalog["sersic_n"] > 2.2, "DEV", "EXP")
    types = np.where(free > 120, "SER", types)
    types = np.where(shaped < 14, "REX", types)
    types = np.where(extended < 20, "PSF", types)
    star = catalog["kind"] == "star"
    types = np.where(star, np.where((rng.random(len(rows)) < 0.03) & (total < 60), "REX", "PSF"), types)
    bits, large = columns["maskbits"].astype(np.int64), is_large(catalog)
    forced = (((bits >> 1) | (bits >> 12)) & 1 == 1) & ~large
    columns["fitbits"] = np.where(large, 1 << 9, np.where(forced & ~star, 1, 0))
    types = np.where(forced, "PSF", np.where(large, "SER", types))
    columns["type"] = types
    return types


def _point_area(band: str, fwhm: float) -> tuple[float, float]:
    """Noise-equivalent area (square pixels) of a star and of a 0.45 arcsec round exponential."""
    psf = moffat(fwhm, band)
    round_galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=0.45), psf)
    areas = []
    for profile in (psf, round_galaxy):
        image = profile.drawImage(nx=63, ny=63, scale=SURVEY_PIXSCALE, method="no_pixel", dtype=float).array
        areas.append(float(image.sum() ** 2 / (image**2).sum()))
    return areas[0], areas[1]


def shape_columns(
    frame: Frame, rows: NDArray[np.int64], types: NDArray[np.str_], total: Floats, rng: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Radii, ellipticities and Sersic indices as fitted."""
    catalog, count = frame.catalog[rows], len(rows)
    extended, oriented, free = types != "PSF", np.isin(types, ["EXP", "DEV", "SER"]), types == "SER"
    seeing = frame.state.seeing["r"]
    radius = np.maximum(catalog["half_light_radius"], 0.05)
    q = catalog["bulge"][:, 1] * catalog["bulge_q"] + (1 - catalog["bulge"][:, 1]) * catalog["disk_q"]
    radius = np.where(types == "REX", radius * np.sqrt(q), radius)
    # unresolved sources have worse sizes: errors grow as (seeing / radius)^2
    relative = np.hypot(1.5 / total * (1 + (0.5 * seeing / radius) ** 2), 0.01)
    systematic = np.exp(0.06 * rng.standard_normal(count))
    fitted = radius * systematic * np.exp(np.clip(relative, 0, 0.8) * rng.standard_normal(count))
    size = (1 - q) / (1 + q)
    spread = np.hypot(np.clip(1.5 * relative, 0, 0.3), 0.01)
    angle = np.radians(2 * catalog["pa"])
    e1 = np.clip(size * np.cos(angle) + spread * rng.standard_normal(count), -0.9, 0.9)
    e2 = np.clip(size * np.sin(angle) + spread * rng.standard_normal(count), -0.9, 0.9)
    length = np.maximum(np.hypot(e1, e2) / 0.92, 1.0)
    spread_n = np.hypot(0.15 * catalog["sersic_n"], 8 * relative)
    index = np.clip(catalog["sersic_n"] + np.minimum(spread_n, 1.5) * rng.standard_normal(count), 0.5, 6.0)
    sersic = np.select([free, types == "DEV", extended], [index, 4.0, 1.0], 0.0)
    return {
        "shape_r": np.where(extended, fitted, 0),
        "shape_r_ivar": np.where(extended, 1 / (fitted * relative) ** 2, 0),
        "shape_e1": np.where(oriented, e1 / length, 0),
        "shape_e2": np.where(oriented, e2 / length, 0),
        "shape_e1_ivar": np.where(oriented, spread**-2, 0),
        "shape_e2_ivar": np.where(oriented, spread**-2, 0),
        "sersic": sersic,
        "sersic_ivar": np.where(free, spread_n**-2, 0),
    }


def flux_columns(
    frame: Frame,
    rows: NDArray[np.int64],
    light: tuple[Floats, Floats],
    rng: np.random.Generator,
    mismatch: tuple[float, float] = (0.03, 0.01),
) -> dict[str, NDArray[np.generic]]:
    """Per-band photometry; ``light`` is (snr, ivar), each of shape (rows, bands).

    ``mismatch`` is what models miss: scatter of galaxies' fluxes common to all bands, and of every flux on its own.
    """
    catalog, count = frame.catalog[rows], len(rows)
    found: dict[str, NDArray[np.generic]] = {}
    common = np.where(catalog["kind"] == "star", 1.0, np.exp(mismatch[0] * rng.standard_normal(count)))
    column = np.clip(np.round(frame.x[rows]), 0, BRICK_PIXELS - 1).astype(np.int64)
    line = np.clip(np.round(frame.y[rows]), 0, BRICK_PIXELS - 1).astype(np.int64)
    for k, band in enumerate(frame.bands):
        ivar = light[1][:, k]
        true = catalog["flux"][:, ALL_BANDS.index(band)]
        sigma = np.where(ivar > 0, 1 / np.sqrt(np.maximum(ivar, 1e-30)), 0)
        fitted = true * common * np.exp(mismatch[1] * rng.standard_normal(count)) + sigma * rng.standard_normal(count)
        # a saturated star keeps the flux that Gaia predicts, with no inverse variance
        flux = np.where(ivar > 0, fitted, np.where(in_gaia(catalog), true, 0))
        own = np.maximum(frame.drawn.central[rows, k], 1e-9)
        others = np.maximum(frame.drawn.clean[band][line, column] / own - 1, 0)
        point, faint_galaxy = _point_area(band, frame.state.seeing[band])
        local = ivar * frame.drawn.nea[rows, k]
        nea = frame.drawn.nea[rows, k] * SURVEY_PIXSCALE**2
        growth = 1 - np.exp(-2 * np.pi * APERTURES[None, :] ** 2 / nea[:, None])
        found |= {f"flux_{band}": flux, f"flux_ivar_{band}": ivar, f"fracflux_{band}": others}
        found |= {f"fiberflux_{band}": flux * growth[:, 1], f"fibertotflux_{band}": flux * growth[:, 1] * (1 + others)}
        found |= {f"apflux_{band}": flux[:, None] * growth * (1 + others[:, None])}
        found[f"apflux_ivar_{band}"] = local[:, None] * SURVEY_PIXSCALE**2 / (np.pi * APERTURES[None, :] ** 2)
        found |= {f"psfdepth_{band}": local / point, f"galdepth_{band}": local / faint_galaxy}
        found |= {f"nea_{band}": nea, f"blob_nea_{band}": nea * (1 + others)}
        found[f"fracmasked_{band}"] = _masked(frame.pixels[band], frame.x[rows], frame.y[rows])
        found[f"fracin_{band}"] = np.where(ivar > 0, 1 - 0.03 * rng.random(count), 0)
        rough = np.where((catalog["kind"] != "star") & ~catalog["faint"], 2e-4 * light[0][:, k], 0)
        found[f"rchisq_{band}"] = np.where(ivar > 0, 1 + 0.04 * rng.standard_normal(count) + rough, 0)
    return found


def _masked(products: BandPixels, x: Floats, y: Floats) -> Floats:
    return np.array([1 - float((window(products.invvar, px, py, 4) > 0).mean()) for px, py in zip(x, y, strict=True)])


def identity_columns(frame: Frame, columns: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Ids, dust and what is the same for every row."""
    count = len(columns["bx"])
    release, brickid, objid = frame.spec.release, frame.area.brickid, np.arange(count, dtype=np.int64)
    found: dict[str, NDArray[np.generic]] = {
        "release": np.full(count, release),
        "brickid": np.full(count, brickid),
        "brickname": np.full(count, frame.area.name),
        "objid": objid,
        "ls_id_dr11": (release << 42) | (brickid << 22) | objid,
        "ebv": np.full(count, frame.state.ebv),
        "mjd_min": np.full(count, 57400.0),
        "mjd_max": np.full(count, 58500.0),
        "wise_coadd_id": np.full(count, frame.area.name),
        "wise_x": columns["bx"].astype(float) * SURVEY_PIXSCALE / 2.75 - 0.94327,
        "wise_y": columns["by"].astype(float) * SURVEY_PIXSCALE / 2.75 - 0.94327,
        "ref_cat": np.full(count, "  "),
    }
    for band in (*frame.spec.band_list, "w1", "w2", "w3", "w4"):
        found[f"mw_transmission_{band}"] = np.full(count, 10 ** (-0.4 * EXTINCTION[band] * frame.state.ebv))
    return found


def reference_columns(frame: Frame, rows: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Reference columns: what Gaia knows of stars, and the ids of large galaxies."""
    catalog = frame.catalog[rows]
    g_mag = 22.5 - 2.5 * np.log10(catalog["flux"][:, 1])
    known, large = in_gaia(catalog), is_large(catalog)
    number = (catalog["brickid"].astype(np.int64) << 32) + catalog["number"]
    color = 2.5 * np.log10(catalog["flux"][:, 1] / catalog["flux"][:, 0])
    return {
        "ref_cat": np.where(known, frame.spec.style.gaia, np.where(large, frame.spec.style.large, "  ")),
        "ref_id": np.where(known, number, np.where(large, number & 0xFFFFF, 0)),
        "ref_epoch": np.where(known, 2015.5, 0),
        "gaia_phot_g_mean_mag": np.where(known, g_mag, 0),
        "gaia_phot_bp_mean_mag": np.where(known, g_mag - 0.4 * color, 0),
        "gaia_phot_rp_mean_mag": np.where(known, g_mag + 0.6 * color, 0),
        "gaia_phot_g_n_obs": np.where(known, 200, 0),
        "gaia_phot_g_mean_flux_over_error": np.where(known, 1e3, 0),
        "gaia_astrometric_params_solved": np.where(known, 31, 0),
    }


def wise_columns(frame: Frame, rows: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """Forced photometry in the WISE bands."""
    catalog = frame.catalog[rows]
    found: dict[str, NDArray[np.generic]] = {}
    for band, ratio in (("w1", 1.1), ("w2", 0.75), ("w3", 0.6), ("w4", 0.8)):
        ivar = np.full(len(rows), WISE_IVAR[band])
        found[f"flux_{band}"] = catalog["flux"][:, 3] * ratio + rng.standard_normal(len(rows)) / np.sqrt(ivar)
        found |= {f"flux_ivar_{band}": ivar, f"psfdepth_{band}": ivar * 1.4, f"nobs_{band}": np.full(len(rows), 120)}
        found[f"rchisq_{band}"] = 1 + 0.1 * rng.standard_normal(len(rows))
    return found


def dchisq(types: NDArray[np.str_], total: Floats) -> Floats:
    """PSF, REX, DEV, EXP, SER: the chosen type has the largest improvement; simpler ones fall short of it."""
    chi = np.repeat((total**2)[:, None], 5, axis=1)
    lags: dict[str, tuple[float, ...]] = {"PSF": (0, -1, -1, -1, -1), "REX": (0.03, 0, -1, -1, -1), "DEV": (0.10, 0.03, 0, 0.02, -1)}
    lags |= {"EXP": (0.10, 0.03, 0.02, 0, -1), "SER": (0.12, 0.05, 0.02, 0.02, 0)}
    lag = np.array([lags[str(name)] for name in types]).reshape(-1, 5)
    return np.where(lag < 0, 0, chi * (1 - lag))
