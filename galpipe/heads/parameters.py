"""Parameters: magnitudes, size, profile, shape, bulge fraction and a mock redshift, each with a predicted uncertainty.

Every quantity is a Gaussian in a coordinate of its own (science.md section 4 has the definitions). The loss is the Gaussian likelihood
weighted by the predicted variance to the power 1/2 (beta-NLL, Seitzer et al. 2022, arXiv:2203.09168).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from galpipe.columns import Column
from galpipe.heads.base import FloatArray, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.lvm.encoder import APERTURES, Features, ModelSettings, full_precision
from galpipe.lvm.inputs import MODEL_BANDS, float_column

BETA = 0.5
"""Exponent of the variance that weights the likelihood."""

ROUND = 0.9
"""Axis ratio from which on a position angle means nothing (science.md section 4)."""

LARGEST_ANGLE_SIGMA = 180.0 / np.sqrt(12.0)
"""Standard deviation of an angle of which nothing is known, degrees."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One scalar and the coordinate in which it is a Gaussian.

    Parameters
    ----------
    column, truth, unit, description : str
        Catalog column, truth column, unit, meaning.
    scale : str
        ``linear``, ``log10`` or ``log1p`` (natural log of one plus the value).
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
            if self.scale == "log10":
                result = np.log10(np.where(values > 0, values, np.nan))
            elif self.scale == "log1p":
                result = np.log1p(np.where(values > -1, values, np.nan))
            else:
                result = np.asarray(values)
        return np.where(np.isfinite(result), result, np.nan)

    def decode(self, mean: Values, sigma: Values) -> tuple[Values, Values]:
        """Value and standard deviation, the latter to first order."""
        if self.scale == "log10":
            value = np.clip(10.0 ** np.clip(mean, -6, 6), self.low, self.high)
            return value, value * np.log(10.0) * sigma
        if self.scale == "log1p":
            value = np.clip(np.expm1(np.clip(mean, -6, 6)), self.low, self.high)
            return value, (1.0 + value) * sigma
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
    Quantity("z_mock", "redshift", "", "Redshift learned from the mock sky; not for science", "log1p", 0.0, 3.0),
)
"""The scalars, in the order of the head's outputs; cos and sin of twice the position angle follow them."""

SIZE = len(QUANTITIES) + 2


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


def encoded_truth(table: pa.Table) -> FloatArray:
    """Encoded truth, float32 of shape (N, 10), NaN where unknown; angles only where b/a < 0.9."""
    rows = table.num_rows
    columns = [item.encode(true_values(table, item)) for item in QUANTITIES]
    vector = encode_angle(float_column(table, "position_angle", rows))
    ratio = float_column(table, "axis_ratio", rows)
    vector[~(ratio < ROUND)] = np.nan
    galaxy = ~is_star(table)
    result = np.concatenate([np.stack(columns, axis=1), vector], axis=1)
    result[~galaxy, len(MODEL_BANDS) :] = np.nan
    return result.astype(np.float32)


def true_values(table: pa.Table, item: Quantity) -> Values:
    """A quantity's truth; magnitudes, which the mock's truth gives with dust, without it, as the model's pixels are."""
    values = float_column(table, item.truth, table.num_rows)
    if not item.truth.startswith("mag_"):
        return values
    transmission = float_column(table, f"mw_transmission_{item.truth[-1]}", table.num_rows)
    return values + 2.5 * np.log10(np.where(transmission > 0, transmission, 1.0))


def is_star(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which true sources are stars."""
    if "kind" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    return np.array([kind == "star" for kind in table["kind"].to_pylist()], dtype=bool)


class Parameters(Head):
    """Means and log variances of the ten coordinates."""

    name = "parameters"

    mean: Tensor
    spread: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        inputs = settings.embedding + settings.center + len(APERTURES) * len(MODEL_BANDS)
        self.hidden = nn.Sequential(nn.Linear(inputs, 192), nn.GELU(), nn.Linear(192, 96), nn.GELU(), nn.Linear(96, 2 * SIZE))
        self.register_buffer("mean", torch.zeros(SIZE))
        self.register_buffer("spread", torch.ones(SIZE))

    @classmethod
    def build(cls, settings: ModelSettings) -> Parameters:
        """Make the head."""
        return cls(settings)

    def prepare(self, table: pa.Table) -> None:
        """Center and scale of each coordinate; angles keep theirs."""
        known = encoded_truth(table)
        for index in range(len(QUANTITIES)):
            column = known[np.isfinite(known[:, index]), index]
            if len(column) > 1:
                self.mean[index] = float(column.mean())
                self.spread[index] = max(float(column.std()), 1e-3)

    def forward(self, features: Features) -> Outputs:
        """``mean`` and ``log_variance``, both (N, 10), in units of the training spread."""
        with full_precision(features.embedding):
            raw = self.hidden(torch.cat([features.embedding, features.center, features.photometry], dim=1))
        return {"mean": raw[:, :SIZE], "log_variance": raw[:, SIZE:].clamp(-9.0, 4.0)}

    def targets(self, truth: Truth) -> Outputs:
        """``parameters`` of shape (N, 10), NaN where unknown."""
        return {"parameters": torch.from_numpy(encoded_truth(truth.table))}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Mean over the known values of the weighted Gaussian likelihood."""
        wanted = (targets["parameters"] - self.mean) / self.spread
        known = torch.isfinite(wanted)
        error = torch.where(known, outputs["mean"] - torch.where(known, wanted, 0.0), 0.0).clamp(-8.0, 8.0)
        log_variance = outputs["log_variance"]
        likelihood = 0.5 * (error**2 * torch.exp(-log_variance) + log_variance)
        weight = torch.exp(BETA * log_variance).detach()
        return (likelihood * weight * known).sum() / known.sum().clamp(min=1)

    def columns(self) -> tuple[Column, ...]:
        """Each value with its standard deviation."""
        result = []
        for name, unit, text in [
            *((item.column, item.unit, item.description) for item in QUANTITIES),
            ("lvm_position_angle", "deg", "Position angle of the major axis, east of north, 0 to 180"),
        ]:
            result.append(Column(name, pa.float32(), unit, text, 1e-2, "mock only"))
            result.append(Column(f"{name}_sigma", pa.float32(), unit, f"Predicted standard deviation. {text}", 1e-2, "mock only"))
        return tuple(result)

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Values and standard deviations in their own units."""
        mean, spread = self.mean.cpu().numpy().astype(np.float64), self.spread.cpu().numpy().astype(np.float64)
        value = outputs["mean"].astype(np.float64) * spread + mean
        sigma = np.exp(0.5 * outputs["log_variance"].astype(np.float64)) * spread
        result: dict[str, pa.Array] = {}
        for index, item in enumerate(QUANTITIES):
            own, error = item.decode(value[:, index], sigma[:, index])
            result[item.column] = pa.array(own.astype(np.float32))
            result[f"{item.column}_sigma"] = pa.array(error.astype(np.float32))
        angle, error = decode_angle(value[:, -2:], sigma[:, -2:])
        result["lvm_position_angle"] = pa.array(_below_half_turn(angle))
        result["lvm_position_angle_sigma"] = pa.array(error.astype(np.float32))
        return result

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Median and rms errors beside those of the training median and mean, and the 68 % coverage."""
        scores: list[Score] = []
        rows = predicted.num_rows
        galaxy = ~is_star(truth.table)
        covered: list[npt.NDArray[np.bool_]] = []
        for item in QUANTITIES:
            true = true_values(truth.table, item)
            use = galaxy & np.isfinite(item.encode(true))
            known = true_values(training, item)
            error = np.abs(float_column(predicted, item.column, rows) - true)[use]
            if not len(error) or not np.isfinite(known).any():
                continue
            covered.append(error <= float_column(predicted, f"{item.column}_sigma", rows)[use])
            scores.append(_beside(item, "median error", (float(np.median(error)), np.abs(np.nanmedian(known) - true[use]))))
            scores.append(_beside(item, "rms error", (float(np.sqrt(np.mean(error**2))), np.abs(np.nanmean(known) - true[use]))))
        scores.extend(_angle_score(predicted, truth.table, galaxy))
        if covered:
            inside = np.concatenate(covered)
            miss = abs(float(inside.mean()) - 0.68)
            scores.append(Score("coverage of one sigma: distance from 0.68", "", miss, 0.68, False, len(inside), "no uncertainty given"))
        return scores


def _beside(item: Quantity, figure: str, errors: tuple[float, Values]) -> Score:
    """The model's figure and the same figure of the constant answer's errors."""
    model, fixed = errors
    median = figure == "median error"
    constant = float(np.median(fixed)) if median else float(np.sqrt(np.mean(fixed**2)))
    said = "training median" if median else "training mean"
    return Score(f"{item.column}: {figure}", item.unit, model, constant, False, len(fixed), said)


def _below_half_turn(angle: Values) -> FloatArray:
    # 179.9999999 rounds to 180 in float32
    single = angle.astype(np.float32)
    return np.where(single >= 180.0, np.float32(0), single)


def _angle_score(predicted: pa.Table, truth: pa.Table, galaxy: npt.NDArray[np.bool_]) -> list[Score]:
    rows = predicted.num_rows
    use = galaxy & (float_column(truth, "axis_ratio", rows) < ROUND) & np.isfinite(float_column(truth, "position_angle", rows))
    if not use.any():
        return []
    true = float_column(truth, "position_angle", rows)[use]
    error = angle_difference(float_column(predicted, "lvm_position_angle", rows)[use], true)
    fixed = float(np.median(angle_difference(np.full(len(true), 90.0), true)))
    return [Score("lvm_position_angle: median error", "deg", float(np.median(error)), fixed, False, len(true), "90 deg")]


def angle_difference(one: Values, other: Values) -> Values:
    """Smallest angle between two axes, 0 to 90 degrees."""
    return np.asarray(90.0 - np.abs(90.0 - np.mod(one - other, 180.0)))
