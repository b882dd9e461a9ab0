"""Parameters: magnitudes, size, profile, shape and bulge fraction with intervals, and a redshift as a whole PDF.

Every quantity but the redshift is a Gaussian in a coordinate of its own (`galpipe.heads.quantities`). The loss is the Gaussian likelihood
weighted by the predicted variance to the power 1/2 (beta-NLL, Seitzer et al. 2022, arXiv:2203.09168); that of the redshift is the cross
entropy of its bins (`galpipe.heads.redshiftpdf`). Intervals and PDF are calibrated on stamps that trained nothing
(`galpipe.heads.intervals`, `galpipe.heads.recalibrate`).

The redshift's columns are ``z_mock_*`` until the head's buffer ``spectroscopic`` says that real redshifts trained it; then ``z_lvm_*``.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from galpipe.columns import Column, Learned
from galpipe.heads import intervals, recalibrate
from galpipe.heads.bands import SETS, band_sets
from galpipe.heads.base import Head, Outputs, RawOutputs, Score, StampContext, Truth, rebase_linear
from galpipe.heads.intervals import FACTS, Measured
from galpipe.heads.moments import MOMENTS, PROFILE, Moments, Profile
from galpipe.heads.parameter_scores import scores
from galpipe.heads.quantities import (
    ANGLE,
    ANGLE_TEXT,
    LARGEST_ANGLE_SIGMA,
    MOCK,
    QUANTITIES,
    R_MAG,
    RADIUS,
    SIZE,
    SPECTROSCOPIC,
    Values,
    decode_angle,
    encoded_truth,
    is_star,
    signed_angle,
    true_angles,
    true_redshifts,
    true_values,
)
from galpipe.heads.recalibrate import LEVELS
from galpipe.heads.redshiftpdf import BINS, GRID_TEXT, quantiles, soft_bins
from galpipe.lvm.encoder import APERTURES, Features, ModelSettings, full_precision
from galpipe.lvm.inputs import CONDITIONS, MODEL_BANDS, float_column

BETA = 0.5
"""Exponent of the variance that weights the likelihood."""

ANSWERS = len(QUANTITIES) + 1
"""Answers with an interval: the scalars and the position angle."""


class Parameters(Head):
    """Means and log variances of the nine coordinates, and logits of the redshift's bins."""

    name = "parameters"
    version = 2

    mean: Tensor
    spread: Tensor
    interval_weights: Tensor
    usual_sigma: Tensor
    temperature_weights: Tensor
    usual_width: Tensor
    pit_map: Tensor
    spectroscopic: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        measured = len(APERTURES) * len(MODEL_BANDS) + MOMENTS + PROFILE
        inputs = settings.embedding + settings.center + CONDITIONS + measured
        self.moments, self.profile = Moments(), Profile()
        self.hidden = nn.Sequential(nn.Linear(inputs, 256), nn.GELU(), nn.Linear(256, 128), nn.GELU())
        self.gaussian = nn.Linear(128, 2 * SIZE)
        self.redshift = nn.Linear(128, BINS)
        # magnitudes and colors are nearly linear in log fluxes
        self.direct = nn.Linear(measured, SIZE)
        self.register_buffer("mean", torch.zeros(SIZE))
        self.register_buffer("spread", torch.ones(SIZE))
        self.register_buffer("interval_weights", torch.from_numpy(np.stack([intervals.uncalibrated()] * ANSWERS)).float())
        self.register_buffer("usual_sigma", torch.ones(ANSWERS))
        self.register_buffer("temperature_weights", torch.zeros(SETS, FACTS))
        self.register_buffer("usual_width", torch.ones(()))
        self.register_buffer("pit_map", torch.from_numpy(LEVELS).float().repeat(SETS, 1))
        self.register_buffer("spectroscopic", torch.zeros((), dtype=torch.int64))

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
                # as stored: a mean of 20 mag rounded after the training would shift every answer
                self.mean[index] = float(np.float16(column.mean()))
                self.spread[index] = float(np.float16(max(float(column.std()), 1e-3)))

    def rebase(self, matrix: Tensor) -> None:
        """See `Head.rebase`."""
        rebase_linear(cast(nn.Linear, self.hidden[0]), matrix)

    def forward(self, features: Features) -> Outputs:
        """``mean`` and ``log_variance``, both (N, 9) in units of the training spread, and ``redshift``, (N, 64) logits."""
        hidden, measured = self.latent(features)
        with full_precision(hidden):
            mean, log_variance = self.gaussian(hidden).chunk(2, dim=1)
            redshift = self.redshift(hidden)
            mean = mean + self.direct(measured)
        return {"mean": mean, "log_variance": log_variance.clamp(-11.0, 4.0), "redshift": redshift}

    def latent(self, features: Features) -> tuple[Tensor, Tensor]:
        """What the last layers see, (N, 128), and the sums over pixels, (N, 204)."""
        with full_precision(features.embedding):
            measured = torch.cat([features.photometry, self.moments(features.inputs), self.profile(features.inputs)], dim=1)
            hidden: Tensor = self.hidden(torch.cat([features.embedding, features.center, features.inputs.conditions, measured], dim=1))
        return hidden, measured

    def targets(self, truth: Truth) -> Outputs:
        """``parameters`` of shape (N, 9) and ``redshift`` of shape (N, 64), NaN where unknown."""
        bins = soft_bins(true_redshifts(truth.table)).astype(np.float32)
        return {"parameters": torch.from_numpy(encoded_truth(truth.table)), "redshift": torch.from_numpy(bins)}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Mean over the known values of the weighted likelihood, in which the redshift is one of ten."""
        wanted = (targets["parameters"] - self.mean) / self.spread
        known = torch.isfinite(wanted)
        error = torch.where(known, outputs["mean"] - torch.where(known, wanted, 0.0), 0.0).clamp(-8.0, 8.0)
        log_variance = outputs["log_variance"]
        likelihood = 0.5 * (error**2 * torch.exp(-log_variance) + log_variance)
        weight = torch.exp(BETA * log_variance).detach()
        entropy, seen = redshift_loss(outputs, targets)
        return ((likelihood * weight * known).sum() + entropy) / (known.sum() + seen).clamp(min=1)

    def columns(self) -> tuple[Column, ...]:
        """Each value with its 68 % half-width and its 95 % interval; the redshift with its PDF."""
        result = []
        for name, unit, text in [*((item.column, item.unit, item.description) for item in QUANTITIES), (ANGLE, "deg", ANGLE_TEXT)]:
            result += _with_interval(name, unit, text, "mock only")
        own: Learned = "real redshifts" if self.redshift_name == SPECTROSCOPIC else "mock only"
        text = "Redshift, median of its PDF" + ("" if own == "real redshifts" else "; learned from the mock sky, not for science")
        result += _with_interval(self.redshift_name, "", text, own)
        ends = (("lo", "Lower"), ("hi", "Upper"))
        for end, word in ends:
            result.append(Column(f"{self.redshift_name}_{end}", pa.float32(), "", f"{word} end of the 68 % interval. {text}", 1e-2, own))
        kind, grid = pa.list_(pa.float16(), BINS), f"Probability of the redshift in each bin; {GRID_TEXT}"
        result.append(Column(f"{self.redshift_name}_pdf", kind, "", grid, 2e-2, own))
        return tuple(result)

    @property
    def redshift_name(self) -> str:
        """``z_lvm`` once real redshifts trained the head, else ``z_mock``."""
        return SPECTROSCOPIC if int(self.spectroscopic) else MOCK

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Values and intervals in their own units."""
        value, sigma, facts, sets = self._plain(outputs, context)
        weights, usual = _numbers(self.interval_weights), _numbers(self.usual_sigma)
        result: dict[str, pa.Array] = {}
        for index, name in enumerate([*(item.column for item in QUANTITIES), ANGLE]):
            own = intervals.with_sigma(facts, sigma[:, index], usual[index])
            shift, half, low, high = intervals.apply(weights[index], sigma[:, index], own, sets)
            if name == ANGLE:
                half, arm = np.minimum(half, LARGEST_ANGLE_SIGMA), np.minimum(np.maximum(low, high), 90.0)
                columns = (value[:, index], half, value[:, index] - arm, value[:, index] + arm)
            else:
                item = QUANTITIES[index]
                middle = np.clip(value[:, index] + shift, item.low, item.high)
                columns = (middle, half, np.maximum(middle - low, item.low), np.minimum(middle + high, item.high))
            result |= _arrays(name, columns)
        result[ANGLE] = pa.array(_below_half_turn(value[:, -1]))
        return result | self._redshift(outputs["redshift"], facts, sets)

    def _plain(self, outputs: RawOutputs, context: StampContext) -> tuple[Values, Values, Values, npt.NDArray[np.int64]]:
        """Values and predicted sigmas before calibration, shape (N, 8) each, the stamps' facts and sets of bands."""
        mean, spread = _numbers(self.mean), _numbers(self.spread)
        middle = outputs["mean"].astype(np.float64) * spread + mean
        width = np.exp(0.5 * outputs["log_variance"].astype(np.float64)) * spread
        decoded = [item.decode(middle[:, index], width[:, index]) for index, item in enumerate(QUANTITIES)]
        decoded.append(decode_angle(middle[:, -2:], width[:, -2:]))
        value, sigma = (np.stack(part, axis=1) for part in zip(*decoded, strict=True))
        return value, sigma, intervals.coarse_facts(value[:, R_MAG], value[:, RADIUS], context), band_sets(context)

    def _redshift(self, logits: npt.NDArray[np.float32], facts: Values, sets: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        fitted = recalibrate.Fitted(_numbers(self.temperature_weights), float(self.usual_width), _numbers(self.pit_map))
        pdf = recalibrate.calibrated(logits.astype(np.float64), facts, sets, fitted)
        low95, low, middle, high, high95 = quantiles(pdf, (0.025, 0.16, 0.5, 0.84, 0.975)).T
        name = self.redshift_name
        result = _arrays(name, (middle, (high - low) / 2, low95, high95))
        result |= {f"{name}_lo": _single(low), f"{name}_hi": _single(high)}
        flat = pa.array(pdf.astype(np.float16).ravel())
        return result | {f"{name}_pdf": pa.FixedSizeListArray.from_arrays(flat, BINS)}

    def calibration(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, Values]:
        """Errors and predicted sigmas (N, 8), facts, sets of bands, bricks, logits and redshifts, of galaxies."""
        value, sigma, facts, sets = self._plain(outputs, context)
        true = np.stack([*(true_values(truth.table, item) for item in QUANTITIES), true_angles(truth.table)], axis=1)
        error = value - true
        error[:, -1] = signed_angle(value[:, -1], true[:, -1])
        error[is_star(truth.table)] = np.nan
        told = {"error": error, "sigma": sigma, "facts": facts, "sets": sets.astype(np.float64)}
        told["brick"] = float_column(truth.table, "brickid", len(error))
        return told | {"logits": outputs["redshift"].astype(np.float64), "redshift": true_redshifts(truth.table)}

    def calibrate(self, gathered: dict[str, Values]) -> dict[str, float]:
        """Fit intervals and PDF; coverage of the 68 % intervals before and after."""
        facts, sets, told = gathered["facts"], gathered["sets"].astype(np.int64), {}
        for index, name in enumerate([*(item.column for item in QUANTITIES), ANGLE]):
            error, sigma = gathered["error"][:, index], gathered["sigma"][:, index]
            if not np.isfinite(error).any():
                continue
            usual = float(np.float16(np.median(sigma))) or 1.0
            own = intervals.with_sigma(facts, sigma, usual)
            weights = intervals.fit(Measured(error, sigma, own, sets, gathered["brick"]))
            if name == ANGLE:
                weights[intervals.SHIFT] = 0.0
            self.usual_sigma[index] = usual
            self.interval_weights[index] = torch.from_numpy(weights.astype(np.float16))
            shift, half, _, _ = intervals.apply(weights, sigma, own, sets)
            told[f"{name}: coverage before"] = intervals.coverage(error, sigma)
            told[f"{name}: coverage"] = intervals.coverage(error + shift, half)
        fitted, more = recalibrate.fit(gathered["logits"], gathered["redshift"], facts, sets)
        self.temperature_weights[:] = torch.from_numpy(fitted.temperatures.astype(np.float16))
        self.usual_width.fill_(fitted.usual)
        self.pit_map[:] = torch.from_numpy(fitted.pits.astype(np.float16))
        return told | {f"{self.redshift_name}: {name}": value for name, value in more.items()}

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Median and rms errors beside those of the training median and mean, the 68 % coverage, and the PDF's CRPS."""
        return scores(predicted, truth.table, training, self.redshift_name)


def redshift_loss(outputs: Outputs, targets: Outputs) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of the known redshifts, and how many they are."""
    known = torch.isfinite(targets["redshift"]).all(dim=1)
    wanted = torch.where(known[:, None], targets["redshift"], 0.0)
    return -(wanted * torch.log_softmax(outputs["redshift"], dim=1)).sum(), known.sum()


def _with_interval(name: str, unit: str, text: str, learned: Learned) -> list[Column]:
    words = {"": text, "_sigma": f"Half-width of the 68 % interval. {text}"}
    words |= {"_lo95": f"Lower end of the 95 % interval. {text}", "_hi95": f"Upper end of the 95 % interval. {text}"}
    return [Column(name + end, pa.float32(), unit, said, 1e-2, learned) for end, said in words.items()]


def _arrays(name: str, columns: tuple[Values, ...]) -> dict[str, pa.Array]:
    return {name + end: _single(column) for end, column in zip(("", "_sigma", "_lo95", "_hi95"), columns, strict=True)}


def _single(values: Values) -> pa.Array:
    return pa.array(values.astype(np.float32))


def _numbers(buffer: Tensor) -> Values:
    return np.asarray(buffer.cpu().numpy(), np.float64)


def _below_half_turn(angle: Values) -> npt.NDArray[np.float32]:
    # 179.9999999 rounds to 180 in float32
    single = angle.astype(np.float32)
    return np.where(single >= 180.0, np.float32(0), single)
