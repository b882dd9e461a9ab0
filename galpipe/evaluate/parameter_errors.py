"""Errors of measured parameters against the truth, in the same form for this model's columns and for Tractor's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.heads.quantities import ANGLE, QUANTITIES, RADIUS, Quantity, Values, signed_angle, true_angles, true_redshifts, true_values
from galpipe.lvm.inputs import MODEL_BANDS, float_column
from galpipe.survey.photometry import axis_ratio, deredden, mag_error, nanomaggies_to_mag, position_angle

Mask = npt.NDArray[np.bool_]

OUTLIERS = {
    "lvm_half_light_radius": 0.2,
    "lvm_sersic_n": 0.3,
    "lvm_axis_ratio": 0.2,
    "lvm_bulge_fraction": 0.5,
    ANGLE: 30.0,
}
"""Absolute errors (of lengths and indices in dex, angles in degrees) from which on a value is an outlier; 0.3 mag for magnitudes."""

MAG_OUTLIER = 0.3
REDSHIFT_OUTLIER = 0.15
"""Of dz / (1 + z), as science.md section 6 has it."""


@dataclass(frozen=True)
class Errors:
    """One quantity of one method.

    Parameters
    ----------
    quantity, unit : str
        Unit of the errors: mag, dex, deg or none.
    error : ndarray, shape (N,)
        Measured minus true; NaN where either is not known.
    inside68, inside95 : ndarray of bool, shape (N,)
        Whether the stated interval holds the truth.
    outlier : float
        Absolute error of an outlier.
    """

    quantity: str
    unit: str
    error: Values
    inside68: Mask
    inside95: Mask
    outlier: float


def lvm_errors(predicted: pa.Table, sources: pa.Table) -> list[Errors]:
    """Errors of the head's scalars and position angle."""
    rows, result = predicted.num_rows, []
    for item in QUANTITIES:
        value, sigma, low, high = (float_column(predicted, item.column + end, rows) for end in ("", "_sigma", "_lo95", "_hi95"))
        true = true_values(sources, item)
        inside = np.abs(value - true) <= sigma, (low <= true) & (true <= high)
        result.append(Errors(item.column, _unit(item), _difference(item, value, true), *inside, _outlier(item)))
    value, sigma, low, high = (float_column(predicted, ANGLE + end, rows) for end in ("", "_sigma", "_lo95", "_hi95"))
    error = signed_angle(value, true_angles(sources))
    inside95 = np.abs(error) <= (high - low) / 2
    result.append(Errors(ANGLE, "deg", error, np.abs(error) <= sigma, inside95, OUTLIERS[ANGLE]))
    return result


def redshift_errors(predicted: pa.Table, sources: pa.Table, column: str) -> Errors:
    """Errors of the redshift as dz / (1 + z)."""
    rows, true = predicted.num_rows, true_redshifts(sources)
    ends = (float_column(predicted, column + end, rows) for end in ("", "_lo", "_hi", "_lo95", "_hi95"))
    value, low, high, low95, high95 = ends
    inside = (low <= true) & (true <= high), (low95 <= true) & (true <= high95)
    return Errors(column, "", (value - true) / (1 + true), *inside, REDSHIFT_OUTLIER)


def tractor_errors(sources: pa.Table) -> list[Errors]:
    """Errors of Tractor's columns, under the names of the head's; fluxes dereddened, shapes as axis ratio and position angle.

    Point sources have no shape, and no index: those are left out of its figures, not counted against it.
    """
    rows = sources.num_rows

    def column(name: str) -> Values:
        return float_column(sources, name, rows)

    result = []
    for item, band in zip(QUANTITIES, MODEL_BANDS, strict=False):
        flux, ivar = column(f"flux_{band}"), column(f"flux_ivar_{band}")
        value = nanomaggies_to_mag(deredden(flux, column(f"mw_transmission_{band}")))
        result.append(_stated(item, value, mag_error(flux, ivar), sources))
    extended = column("shape_r") > 0
    for item, name in zip(QUANTITIES[RADIUS : RADIUS + 2], ("shape_r", "sersic"), strict=True):
        value = np.where(extended & (column(name) > 0), column(name), np.nan)
        result.append(_stated(item, value, _sigma(column(f"{name}_ivar")), sources))
    e1, e2 = column("shape_e1"), column("shape_e2")
    length = np.hypot(e1, e2)
    spread = np.sqrt((_sigma(column("shape_e1_ivar")) ** 2 + _sigma(column("shape_e2_ivar")) ** 2) / 2)
    ratio = np.where(extended, axis_ratio(e1, e2), np.nan)
    # q = (1 - e) / (1 + e)
    result.append(_stated(QUANTITIES[RADIUS + 2], ratio, 2 * spread / (1 + length) ** 2, sources))
    error = np.where(extended & (length > 0), signed_angle(position_angle(e1, e2), true_angles(sources)), np.nan)
    sigma = np.degrees(0.5 * spread / np.maximum(length, 1e-6))
    result.append(Errors(ANGLE, "deg", error, np.abs(error) <= sigma, np.abs(error) <= 1.96 * sigma, OUTLIERS[ANGLE]))
    return result


def _stated(item: Quantity, value: Values, sigma: Values, sources: pa.Table) -> Errors:
    true = true_values(sources, item)
    away = np.abs(value - true)
    return Errors(item.column, _unit(item), _difference(item, value, true), away <= sigma, away <= 1.96 * sigma, _outlier(item))


def _sigma(ivar: Values) -> Values:
    """One over the root of an inverse variance; 0 where there is none, so that nothing is claimed."""
    return np.where(ivar > 0, 1 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0)


def _difference(item: Quantity, value: Values, true: Values) -> Values:
    return item.encode(value) - item.encode(true)


def _unit(item: Quantity) -> str:
    return "dex" if item.scale == "log10" else item.unit


def _outlier(item: Quantity) -> float:
    return OUTLIERS.get(item.column, MAG_OUTLIER)
