"""Domain: how far a stamp lies from what the model was trained on, for every row.

The distance is that of probabilistic principal components (Tipping & Bishop 1999, J. R. Stat. Soc. B 61, 611): Mahalanobis inside the
leading components, and what is left over in units of its usual size. It is taken over features of several depths, because the embedding
alone is trained to forget what the stamp was taken with (Lee et al. 2018, arXiv:1807.03888, for the idea).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from galpipe.columns import Column
from galpipe.heads.base import Frozen, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.lvm.encoder import Features, ModelSettings, full_precision
from galpipe.lvm.inputs import MODEL_BANDS, Inputs, float_column, stamp_inputs

COMPONENTS = 64
"""Leading components at most."""

STAMPS = 3000
"""Training stamps that the distance is learned from at most."""

UNTOLD = 0.25
"""Share of them without seeing and depth, as in the last stretch of training."""

ROOM = 0.05
"""Added to the spread of every component, in units of the mean one: what a few thousand stamps cannot tell from zero."""

LEVELS = 257
"""Quantiles of the distance that are kept."""

LEAST_NOISE = 1e-3
"""asinh units; keeps images without any noise finite."""

FULL = 0.98
"""Share of valid pixels in every band from which on a stamp counts for the calibration."""

BATCH = 32

Values = npt.NDArray[np.float64]


def grain(pixels: Tensor, valid: Tensor) -> Tensor:
    """How the noise of neighbouring pixels hangs together: what resampling, a wrong pixel scale and JPEG change.

    Parameters
    ----------
    pixels, valid : Tensor
        Shape (N, B, P, P), asinh units.

    Returns
    -------
    Tensor
        Shape (N, B): log of the median absolute difference of neighbours over that of pixels three apart; 0 without data.
    """
    result = []
    # every fourth row says as much, at a quarter of the sorting
    pixels, valid = pixels[:, :, ::4], valid[:, :, ::4]
    for step in (1, 3):
        apart = (pixels[..., step:] - pixels[..., :-step]).abs()
        both = valid[..., step:] * valid[..., :-step]
        result.append(torch.where(both > 0, apart, torch.nan).flatten(2).nanmedian(dim=2).values)
    ratio = torch.log((result[0] + LEAST_NOISE) / (result[1] + LEAST_NOISE))
    return torch.nan_to_num(ratio, nan=0.0)


def described(features: Features) -> Tensor:
    """What the distance is taken over, shape (N, F).

    Embedding, means of three scales, spread of the finest, and per band the valid share and the noise's `grain`.
    """
    scales = [scale.float() for scale in features.scales[:3]]
    parts = [features.embedding.float(), *(scale.mean(dim=(2, 3)) for scale in scales), scales[0].std(dim=(2, 3))]
    inputs = features.inputs
    return torch.cat([*parts, inputs.valid.mean(dim=(2, 3)), grain(inputs.pixels, inputs.valid)], dim=1)


class Domain(Head):
    """Mean, spread and leading components of the training stamps' features, and the quantiles of their distance."""

    name = "domain"

    mean: Tensor
    spread: Tensor
    components: Tensor
    inverse: Tensor
    rest: Tensor
    quantiles: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        one, two, three, _ = settings.stage_dims
        size = settings.embedding + 2 * one + two + three + 2 * len(MODEL_BANDS)
        kept = min(COMPONENTS, size // 2)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.register_buffer("components", torch.eye(size)[:, :kept].clone())
        self.register_buffer("inverse", torch.ones(kept))
        self.register_buffer("rest", torch.ones(1))
        self.register_buffer("quantiles", torch.linspace(0.0, 10.0, LEVELS))

    @classmethod
    def build(cls, settings: ModelSettings) -> Domain:
        """Make the head."""
        return cls(settings)

    def forward(self, features: Features) -> Outputs:
        """``distance`` of shape (N,)."""
        with full_precision(features.embedding):
            return {"distance": self.distance(described(features).detach())}

    def distance(self, values: Tensor) -> Tensor:
        """Root of the mean squared deviation from the training stamps, in units of theirs; shape (N,), near 1 for a usual stamp."""
        standard = (values - self.mean) / self.spread
        inside = standard @ self.components
        left = (standard**2).sum(dim=1) - (inside**2).sum(dim=1)
        square = ((inside * self.inverse) ** 2).sum(dim=1) + left.clamp(min=0.0) / self.rest**2
        return torch.sqrt(square / values.shape[1])

    def targets(self, truth: Truth) -> Outputs:
        """Nothing is learned by gradient."""
        return {}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Zero: see `fit_frozen`."""
        return outputs["distance"].new_zeros(())

    def fit_frozen(self, frozen: Frozen) -> dict[str, float]:
        """Learn mean, spread, components and quantiles from training stamps, some of them without seeing and depth."""
        rng = np.random.default_rng([frozen.seed, 31])
        rows = np.sort(rng.permutation(len(frozen.stamps))[:STAMPS])
        known = rng.random(len(rows)) >= UNTOLD
        parts = []
        for first in range(0, len(rows), BATCH):
            some = slice(first, first + BATCH)
            inputs = without_conditions(stamp_inputs(frozen.stamps.take(rows[some])), torch.from_numpy(known[some]))
            parts.append(described(frozen.encode(inputs)).cpu())
        values = torch.cat(parts).double()
        self._learn(values)
        own = self.distance(values.float().to(self.mean.device)).double().cpu().numpy()
        self._set_quantiles(own)
        return {"stamps": float(len(rows)), "median_distance": float(np.median(own))}

    def _learn(self, values: Tensor) -> None:
        mean, spread = values.mean(dim=0), values.std(dim=0)
        # a feature that never changes (a band that is always there) must count when it does
        spread = spread.clamp(min=float(spread.median()) * 0.1)
        standard = (values - mean) / spread
        _, size, turned = torch.linalg.svd(standard, full_matrices=False)
        kept = self.components.shape[1]
        variance = size**2 / max(len(values) - 1, 1)
        room = ROOM * float(variance.sum()) / values.shape[1]
        left = float(variance[kept:].sum()) / max(values.shape[1] - kept, 1)
        self.mean.copy_(mean)
        self.spread.copy_(spread)
        self.components.zero_()
        count = min(kept, turned.shape[0])
        self.components[:, :count] = turned[:count].T.to(self.components)
        self.inverse.fill_(1.0)
        self.inverse[:count] = (1 / torch.sqrt(variance[:count] + room)).to(self.inverse)
        self.rest.fill_(float(np.sqrt(left + room)))

    def _set_quantiles(self, distance: Values) -> None:
        self.quantiles.copy_(torch.from_numpy(np.quantile(distance, np.linspace(0, 1, LEVELS))))

    def calibration(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, Values]:
        """Distances of stamps with every band whole."""
        inside = slice(context.margin, context.margin + context.size)
        whole = (context.valid[:, :, inside, inside].mean(axis=(2, 3)) >= FULL).all(axis=1)
        return {"distance": outputs["distance"][whole].astype(np.float64)}

    def calibrate(self, gathered: dict[str, Values]) -> dict[str, float]:
        """Take the quantiles from stamps that trained nothing; too few of them (under 100) leave those of the training stamps."""
        distance = gathered.get("distance", np.zeros(0))
        if len(distance) < 100:
            return {}
        before = float((self.ranks(distance) > 0.95).mean())
        self._set_quantiles(distance)
        return {"stamps": float(len(distance)), "share_beyond_95_before": before, "median_distance": float(np.median(distance))}

    def ranks(self, distance: Values) -> Values:
        """Share of the calibrating stamps that are nearer, 0 to 1."""
        quantiles = self.quantiles.double().cpu().numpy()
        # half-precision storage may make neighbours equal
        return np.interp(distance, np.maximum.accumulate(quantiles), np.linspace(0, 1, LEVELS))

    def columns(self) -> tuple[Column, ...]:
        """The share, and the distance that still tells apart what lies beyond every training stamp."""
        share = "Share of mock stamps like the training ones that lie nearer to them; near 1: do not trust the model's answers"
        far = "Distance from the training stamps, about 1 for a usual one"
        return (
            Column("out_of_domain", pa.float32(), "", share, 2e-2, "mock only"),
            Column("domain_distance", pa.float32(), "", far, 2e-2, "mock only"),
        )

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Share and distance."""
        distance = outputs["distance"].astype(np.float64)
        return {
            "out_of_domain": pa.array(self.ranks(distance).astype(np.float32)),
            "domain_distance": pa.array(distance.astype(np.float32)),
        }

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """How far the share is from uniform on stamps like the training ones, beside calling every stamp 0.5."""
        share = np.sort(float_column(predicted, "out_of_domain", predicted.num_rows))
        if not len(share):
            return []
        level = np.arange(1, len(share) + 1) / len(share)
        gap = float(np.abs(share - level).max())
        worst = 0.5
        return [Score("out_of_domain: largest distance from uniform", "", gap, worst, False, len(share), "0.5 for every stamp")]


def without_conditions(inputs: Inputs, known: Tensor) -> Inputs:
    """Inputs in which seeing and depth are told only where ``known``, shape (N,); presence and pixel scale stay."""
    told = inputs.conditions.clone()
    # layout of `galpipe.lvm.inputs.conditions`: presence, seeing, depth, three flags, pixel scale
    bands = len(MODEL_BANDS)
    told[~known, bands : told.shape[1] - 1] = 0.0
    return Inputs(inputs.pixels, inputs.valid, told, inputs.sharpening)
