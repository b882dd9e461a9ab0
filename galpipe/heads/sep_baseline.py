"""The classical baseline beside the detection head: SEP (SourceExtractor as a library; Barbary 2016, JOSS 1, 58).

Not learned: background, extraction at 1.5 sigma and an automatic (Kron) aperture in one band, the deepest of r, z, g, i that has
enough pixels.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import sep
from numpy.typing import NDArray

from galpipe.columns import Column
from galpipe.stamps.stampset import StampSet
from galpipe.survey.photometry import nanomaggies_to_mag

PREFERENCE = ("r", "z", "g", "i")
"""Order in which bands are tried: r goes deep and sees all types."""

LEAST_VALID = 0.3
"""Share of valid pixels below which a band is not measured."""

THRESHOLD = 1.5
"""Isophote, in sigma of a pixel."""

KRON = 2.5
"""Kron factor of the automatic aperture (Bertin & Arnouts 1996)."""

MAX_DISTANCE = 6.0
"""Pixels between the stamp's center and the object that is taken for its galaxy."""

_FLOATS = {
    "sep_x": ("pix", "Center in the stamp, x from 0"),
    "sep_y": ("pix", "Center in the stamp, y from 0"),
    "sep_a": ("arcsec", "Isophotal major axis, rms"),
    "sep_b": ("arcsec", "Isophotal minor axis, rms"),
    "sep_position_angle": ("deg", "Position angle, east of north, 0 to 180"),
    "sep_flux_auto": ("nmgy", "Flux in the Kron aperture, corrected for dust"),
    "sep_flux_auto_err": ("nmgy", "Its error from the pixels' invvar"),
    "sep_mag_auto": ("mag", "AB magnitude of sep_flux_auto"),
    "sep_flux_radius": ("arcsec", "Radius of half of sep_flux_auto, as observed (with the PSF)"),
}


def columns() -> tuple[Column, ...]:
    """Columns of `sep_columns`, in order."""
    first = (
        Column("sep_band", pa.string(), "", "Band that SEP measured"),
        Column("sep_n_objects", pa.int32(), "", "Objects that SEP found in the stamp"),
    )
    # SEP's sums differ in the last bits between machines
    return first + tuple(Column(name, pa.float32(), unit, f"SEP: {text}", 1e-3) for name, (unit, text) in _FLOATS.items())


def sep_columns(stamps: StampSet) -> pa.Table:
    """Measure the central object of each stamp.

    Parameters
    ----------
    stamps : StampSet
        N stamps.

    Returns
    -------
    pyarrow.Table
        N rows in order, columns as `columns` says; null where SEP found nothing at the center.
    """
    rows = [_measure(stamps, index) for index in range(len(stamps))]
    schema = pa.schema([column.field() for column in columns()])
    return pa.table([pa.array([row.get(item.name) for row in rows], item.type) for item in schema], schema=schema)


def _band(stamps: StampSet, valid: NDArray[np.bool_]) -> int | None:
    usable = [band for band in PREFERENCE if band in stamps.bands and valid[stamps.bands.index(band)].mean() >= LEAST_VALID]
    return stamps.bands.index(usable[0]) if usable else None


def _measure(stamps: StampSet, index: int) -> dict[str, float | int | str]:
    one = stamps.take([index])
    valid = one.valid()[0]
    band = _band(stamps, valid)
    if band is None:
        return {}
    flux = np.ascontiguousarray(one.flux(0)[band], np.float32)
    invvar, mask = one.invvar()[0][band], ~valid[band]
    sigma = np.where(mask, 0.0, 1.0 / np.sqrt(np.where(mask, 1.0, np.maximum(invvar, 1e-12)))).astype(np.float32)
    try:
        background = sep.Background(flux, mask=mask, bw=38, bh=38)
        image = flux - background.back()
        found = sep.extract(image, THRESHOLD, err=sigma, mask=mask, minarea=5)
    # SEP raises a bare Exception when its pixel stack or sub-object limit overflows (a saturated star fills the stamp)
    except Exception:
        return {"sep_band": stamps.bands[band]}
    row: dict[str, float | int | str] = {"sep_band": stamps.bands[band], "sep_n_objects": len(found)}
    center = stamps.size // 2
    distance = np.hypot(found["x"] - center, found["y"] - center)
    if len(found) and distance.min() <= MAX_DISTANCE:
        row |= _central(image, sigma, mask, found[int(np.argmin(distance))], stamps.pixscale)
    return row


def _central(
    image: NDArray[np.float32], sigma: NDArray[np.float32], mask: NDArray[np.bool_], item: np.void, pixscale: float
) -> dict[str, float | int | str]:
    # sep's aperture functions take arrays only
    where = [np.array([float(item[name])]) for name in ("x", "y", "a", "b")]
    x, y, a, b = (float(value[0]) for value in where)
    theta = float(item["theta"])
    # east is -x: a major axis at angle theta from +x points (theta - 90) from north towards east
    row: dict[str, float | int | str] = {"sep_x": x, "sep_y": y, "sep_a": a * pixscale, "sep_b": b * pixscale}
    row["sep_position_angle"] = float((np.degrees(theta) - 90.0) % 180.0)
    if not (np.isfinite([a, b]).all() and b > 0):
        return row
    ellipse = (*where, np.clip([theta], -np.pi / 2, np.pi / 2))
    radius, _ = sep.kron_radius(image, *ellipse, 6.0, mask=mask)
    if not np.isfinite(radius[0]) or radius[0] <= 0:
        return row
    flux, error, _ = sep.sum_ellipse(image, *ellipse, KRON * radius, err=sigma, mask=mask, subpix=1)
    row |= {"sep_flux_auto": float(flux[0]), "sep_flux_auto_err": float(error[0])}
    if flux[0] > 0:
        half, _ = sep.flux_radius(image, where[0], where[1], 6.0 * where[2], 0.5, normflux=flux, mask=mask, subpix=5)
        row |= {"sep_mag_auto": float(nanomaggies_to_mag(flux)[0]), "sep_flux_radius": float(np.ravel(half)[0]) * pixscale}
    return row
