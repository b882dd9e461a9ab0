"""What the parameters head answers: each quantity's truth, the coordinate it is learned in, and the way back (science.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.heads.base import FloatArray
from galpipe.lvm.inputs import MODEL_BANDS, float_column

ROUND = 0.9
"""Axis ratio from which on a position angle means nothing (science.md section 4)."""

LARGEST_ANGLE_SIGMA = 0.68 * 90.0
"""Half-width in degrees of the 68 % interval of an angle of which nothing is known."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One scalar and the coordinate in which it is a Gaussian.

    Parameters
    ----------
    column, truth, unit, description : str
        Catalog column, truth column, unit, meaning.
    scale : str
        ``linear`` or ``log10``.
    low, high : float
        Range to which decoded values are clipped.
    """

    column: str
    truth: str
    unit: str
    description: str
    scale: str
    low: float
    high: float

    def encode(self, values: Values) -> Values:
        """Into the Gaussian coordinate; NaN where the value has no place there."""
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.log10(np.where(values > 0, values, np.nan)) if self.scale == "log10" else np.asarray(values)
        return np.where(np.isfinite(result), result, np.nan)

    def decode(self, mean: Values, sigma: Values) -> tuple[Values, Values]:
        """Value and standard deviation, the latter to first order."""
        if self.scale == "log10":
            value = np.clip(10.0 ** np.clip(mean, -6, 6), self.low, self.high)
            return value, value * np.log(10.0) * sigma
        return np.clip(mean, self.low, self.high), sigma


QUANTITIES = (
    *(
        Quantity(f"lvm_mag_{band}", f"mag_{band}", "mag", f"Total AB magnitude in {band}, dereddened", "linear", 8.0, 30.0)
        for band in MODEL_BANDS
    ),
    Quantity(
        "lvm_half_light_radius",
        "half_light_radius",
        "arcsec",
        "Half-light radius along the major axis, without the PSF",
        "log10",
        0.01,
        60.0,
    ),
    Quantity("lvm_sersic_n", "sersic_n", "", "Sersic index of a single component", "log10", 0.2, 8.0),
    Quantity("lvm_axis_ratio", "axis_ratio", "", "Axis ratio b/a", "linear", 0.02, 1.0),
    Quantity("lvm_bulge_fraction", "bulge_fraction", "", "Share of the bulge in the r flux", "linear", 0.0, 1.0),
)
"""The scalars, in the order of the head's outputs; cos and sin of twice the position angle follow them."""

SIZE = len(QUANTITIES) + 2
"""Gaussian coordinates of the head."""

R_MAG = MODEL_BANDS.index("r")
RADIUS = len(MODEL_BANDS)
"""Places of the r magnitude and of the half-light radius among `QUANTITIES`."""

MOCK, SPECTROSCOPIC = "z_mock", "z_lvm"
"""Names of the redshift by what trained it."""

ANGLE = "lvm_position_angle"
ANGLE_TEXT = "Position angle of the major axis, east of north, 0 to 180"


def encode_angle(angle: Values) -> Values:
    """Cos and sin of twice a position angle in degrees, shape (N, 2); no jump at 180."""
    double = np.deg2rad(2.0 * angle)
    return np.stack([np.cos(double), np.sin(double)], axis=-1)


def decode_angle(vector: Values, sigma: Values) -> tuple[Values, Values]:
    """Position angle in [0, 180) and its standard deviation, degrees.

    Parameters
    ----------
    vector, sigma : ndarray
        Shape (N, 2): predicted cos and sin of the double angle and their standard deviations.
    """
    angle = np.mod(np.rad2deg(0.5 * np.arctan2(vector[:, 1], vector[:, 0])), 180.0)
    length = np.hypot(vector[:, 0], vector[:, 1])
    unit = vector / np.maximum(length, 1e-9)[:, None]
    across = np.hypot(unit[:, 1] * sigma[:, 0], unit[:, 0] * sigma[:, 1])
    spread = np.rad2deg(0.5 * across / np.maximum(length, 1e-3))
    return np.where(angle >= 180.0, 0.0, angle), np.minimum(spread, LARGEST_ANGLE_SIGMA)


def angle_difference(one: Values, other: Values) -> Values:
    """Smallest angle between two axes, 0 to 90 degrees."""
    return np.abs(signed_angle(one, other))


def signed_angle(one: Values, other: Values) -> Values:
    """First axis minus the second, from -90 to 90 degrees."""
    return np.asarray(np.mod(one - other + 90.0, 180.0) - 90.0)


def encoded_truth(table: pa.Table) -> FloatArray:
    """Encoded truth, float32 of shape (N, 9), NaN where unknown; angles only where b/a < 0.9."""
    columns = [item.encode(true_values(table, item)) for item in QUANTITIES]
    result = np.concatenate([np.stack(columns, axis=1), encode_angle(true_angles(table))], axis=1)
    result[is_star(table), len(MODEL_BANDS) :] = np.nan
    return result.astype(np.float32)


def true_values(table: pa.Table, item: Quantity) -> Values:
    """A quantity's truth; magnitudes, which the mock's truth gives with dust, without it, as the model's pixels are."""
    values = float_column(table, item.truth, table.num_rows)
    if not item.truth.startswith("mag_"):
        return values
    transmission = float_column(table, f"mw_transmission_{item.truth[-1]}", table.num_rows)
    return values + 2.5 * np.log10(np.where(transmission > 0, transmission, 1.0))


def true_angles(table: pa.Table) -> Values:
    """True position angles, degrees; NaN where b/a >= 0.9."""
    rows = table.num_rows
    elongated = float_column(table, "axis_ratio", rows) < ROUND
    return np.where(elongated, float_column(table, "position_angle", rows), np.nan)


def true_redshifts(table: pa.Table) -> Values:
    """True redshifts; NaN for stars."""
    return np.where(is_star(table), np.nan, float_column(table, "redshift", table.num_rows))


def is_star(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which true sources are stars."""
    if "kind" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    return np.array([kind == "star" for kind in table["kind"].to_pylist()], dtype=bool)
