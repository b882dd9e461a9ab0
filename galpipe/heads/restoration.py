"""Restoration: the noiseless image behind a stamp, sharpened to a stated PSF, its gaps filled, with an uncertainty per pixel.

Restored images are for people: no head, no vote and no flux is measured on them (science.md section 5).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.columns import Column
from galpipe.config import SOFTENING
from galpipe.heads.base import Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.heads.sharpen import BRIGHTEST, CANDIDATES, FilterBank
from galpipe.lvm.encoder import Features, ModelSettings, full_precision
from galpipe.lvm.hyperbolic import sinh
from galpipe.lvm.inputs import MODEL_BANDS, PADDED_SIZE, SHARPENING, Inputs, float_column

CENTRAL = 8
"""Radius in pixels (2.1 arcsec) within which the catalog's restoration figures are taken."""

PEAK = 6.0
"""asinh units taken as the full scale of PSNR: 200 softenings, the core of a bright galaxy."""


TOGETHER = 4
"""Galaxies whose images are filtered at once on a CPU."""

FLUX_SCALES = (4, 8, 16)
"""Sides in pixels of the squares whose fluxes the loss compares."""

START = (-1.5, -1.0, 0.0, 2.0, 2.0)
"""Logits of the shares of each candidate, and of empty sky, where a pixel's surroundings are dark and before anything is learned."""

SLOPE = (2.0, 1.5, 0.5, -0.5, -3.0)
"""Logits that each asinh unit of the surroundings' brightness adds: the brighter, the sharper."""

SURROUNDINGS = 2
"""The candidate whose brightness is meant: smoothed by 1.5 pixels."""

BRIGHT = 4.0
"""asinh units above which the surroundings' brightness counts no further."""

LEVELS = (0.68, 0.95)
"""Shares of pixels that the stated intervals hold."""

BRIGHTNESS = (0.25, 0.75, 1.5, 3.0)
"""Edges in asinh units of the bins of brightness that have calibration factors of their own."""

RATIOS = np.geomspace(1e-2, 1e2, 161)
"""Edges of the bins in which calibration counts errors over predicted spreads."""


LEAST_PIXELS = 500
"""Held-out pixels that a calibration factor rests on at least; with fewer it stays as it was."""


class Restoration(Head):
    """Mean and spread of every pixel in asinh units: a mixture of flux-keeping filters, chosen pixel by pixel, and what they miss."""

    name = "restoration"
    version = 3
    calibrates_degraded = True

    factors: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        bands = len(MODEL_BANDS)
        self.bank = FilterBank()
        self.film = nn.Linear(1, settings.decoder)
        self.hidden = nn.Conv2d(settings.decoder, settings.decoder, 3, padding=1)
        self.last = nn.Conv2d(settings.decoder, 8 * bands, 3, padding=1)
        self.choice = nn.Conv2d(settings.decoder, (CANDIDATES + 1) * bands, 1, bias=False)
        # training starts from the filtered images: unlearned additions would cost flux first
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.choice.weight)
        self.start = nn.Parameter(torch.tensor(START)[:, None].repeat(1, bands))
        self.slope = nn.Parameter(torch.tensor(SLOPE)[:, None].repeat(1, bands))
        # half widths of a Laplace distribution's intervals, until `calibrate` has measured them
        laplace = -torch.log(1 - torch.tensor(LEVELS))
        shape = (len(LEVELS), 2, bands, len(BRIGHTNESS) + 1)
        self.register_buffer("factors", laplace[:, None, None, None].expand(shape).clone())

    @classmethod
    def build(cls, settings: ModelSettings) -> Restoration:
        """Make the head."""
        return cls(settings)

    def forward(self, features: Features) -> Outputs:
        """``restored`` and ``log_sigma``, both (N, 3, P, P)."""
        # 0 = keep the PSF, -1 = 15 % sharper
        wanted = (features.inputs.sharpening - 1.0)[:, None] / (1.0 - SHARPENING)
        shifted = features.decoded + self.film(wanted)[:, :, None, None]
        hidden = shifted + functional.gelu(self.hidden(shifted))
        added, log_sigma = functional.pixel_shuffle(self.last(hidden).float(), 2).chunk(2, dim=1)
        choice = self.choice(hidden).float()
        with full_precision(choice):
            restored = self._restored(choice, added, features.inputs)
        return {"restored": restored, "log_sigma": (log_sigma - 1.0).clamp(-6.0, 3.0)}

    def _restored(self, choice: Tensor, added: Tensor, inputs: Inputs) -> Tensor:
        """Mixed and balanced; in prediction on a CPU a few galaxies at a time, as the images of a whole batch do not fit its cache."""
        count = len(inputs)
        step = count if choice.is_cuda or torch.is_grad_enabled() else TOGETHER
        parts = []
        for first in range(0, count, step):
            rows = slice(first, first + step)
            few = inputs.rows(first, first + step)
            parts.append(self.bank.balanced(self.mixed(choice[rows], added[rows], few), few))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def mixed(self, choice: Tensor, added: Tensor, inputs: Inputs) -> Tensor:
        """The candidates in their shares, and an addition: of flux where there is data, so that bright pixels keep theirs; else free.

        Parameters
        ----------
        choice : Tensor
            Shape (N, 3 (K + 1), P / 2, P / 2), logits of the candidates and of empty sky.
        added : Tensor
            Shape (N, 3, P, P).
        inputs : Inputs
        """
        candidates = self.bank(inputs)
        around = functional.avg_pool2d(candidates[:, SURROUNDINGS], 2).clamp(0.0, BRIGHT)
        count, bands, side = around.shape[:3]
        learned = choice.reshape(count, CANDIDATES + 1, bands, side, side)
        logits = learned + self.start[:, :, None, None] + self.slope[:, :, None, None] * around[:, None]
        shares = torch.softmax(logits, dim=1)[:, :CANDIDATES].flatten(1, 2)
        shares = functional.interpolate(shares, scale_factor=2.0, mode="bilinear").reshape(candidates.shape)
        mixture = shares[:, 0] * candidates[:, 0]
        for k in range(1, CANDIDATES):
            mixture = torch.addcmul(mixture, shares[:, k], candidates[:, k])
        # d y = d flux / cosh(y), nearly
        reach = inputs.valid * torch.exp(-mixture.abs()) + 1 - inputs.valid
        return mixture + reach * added

    def targets(self, truth: Truth) -> Outputs:
        """``clean`` (N, 3, P, P) and ``known`` (N, 1, P, P)."""
        return {"clean": torch.from_numpy(truth.clean), "known": torch.from_numpy(truth.known[:, None].astype(np.float32))}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Mean Laplace likelihood over the known pixels, the plain error so that faint structure keeps its weight, and the fluxes."""
        error = (outputs["restored"] - targets["clean"]).abs()
        likelihood = error * torch.exp(-outputs["log_sigma"]) + outputs["log_sigma"]
        weight = targets["known"].expand_as(error)
        pixels = ((0.25 * likelihood + error) * weight).sum() / weight.sum().clamp(min=1)
        return pixels + 0.2 * flux_error(outputs["restored"], targets["clean"], targets["known"])

    def columns(self) -> tuple[Column, ...]:
        """Figures about the restored image, which itself is not a column."""
        result = []
        for band in MODEL_BANDS:
            text = f"Mean half width of the 68 % interval of a pixel of the restored {band} image within 2.1 arcsec. For the eye only"
            result.append(Column(f"restoration_sigma_{band}", pa.float32(), "nanomaggy", text, 1e-3, "mock only"))
            text = f"rms of the stamp minus the restored {band} image, asinh units, valid pixels. For the eye only"
            result.append(Column(f"restoration_change_{band}", pa.float32(), "", text, 1e-2, "mock only"))
        text = "Share of the stamp's pixels that restoration had to fill (mean over the bands)"
        result.append(Column("restoration_filled_fraction", pa.float32(), "", text, 1e-6))
        return tuple(result)

    def half_widths(self, outputs: RawOutputs, valid: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Half widths of the 68 % and 95 % intervals of every pixel in asinh units, shape (2, N, 3, P, P).

        Parameters
        ----------
        outputs : dict
            Of `forward`.
        valid : ndarray
            Shape (N, 3, P, P), 1 where measured.
        """
        factors = self.factors.float().cpu().numpy()
        band = np.arange(len(MODEL_BANDS))[None, :, None, None]
        place = np.digitize(outputs["restored"], BRIGHTNESS)
        return factors[:, (valid > 0).astype(np.int64), band, place] * np.exp(outputs["log_sigma"])

    def calibration(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """How often errors over predicted spreads fall into the bins of `RATIOS`, by measured or filled, band and brightness."""
        known = np.broadcast_to(truth.known[:, None], truth.clean.shape)
        # bands that were taken away as a whole are filled pixels too, but their colors decide, not their surroundings
        present = (context.valid > 0).any(axis=(2, 3), keepdims=True) & known
        ratio = np.abs(outputs["restored"] - truth.clean) * np.exp(-outputs["log_sigma"])
        bands = np.broadcast_to(np.arange(len(MODEL_BANDS))[None, :, None, None], ratio.shape)
        place = np.digitize(outputs["restored"], BRIGHTNESS)
        level = np.digitize(ratio, RATIOS[1:-1])
        shape = (2, len(MODEL_BANDS), len(BRIGHTNESS) + 1, len(RATIOS) - 1)
        cells = np.ravel_multi_index(tuple(item[present] for item in ((context.valid > 0).astype(int), bands, place, level)), shape)
        return {"ratios": np.bincount(cells, minlength=int(np.prod(shape))).astype(np.float64)}

    def calibrate(self, gathered: dict[str, npt.NDArray[np.float64]]) -> dict[str, float]:
        """Set the intervals' half widths, over the predicted spread, to the quantiles of the errors of held-out pixels."""
        shape = (2, len(MODEL_BANDS), len(BRIGHTNESS) + 1, len(RATIOS) - 1)
        counts = gathered["ratios"].reshape(-1, *shape).sum(axis=0)
        before = self.factors.float().cpu().numpy().copy()
        after = before.copy()
        facts = {}
        for number, level in enumerate(LEVELS):
            for cell in np.ndindex(shape[:-1]):
                if counts[cell].sum() >= LEAST_PIXELS:
                    after[(number, *cell)] = _quantile(counts[cell], level)
            for name, factors in (("before", before), ("after", after)):
                facts[f"coverage_{100 * level:.0f}_{name}"] = _held(counts, factors[number])
        self.factors.copy_(torch.from_numpy(after))
        return facts

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Figures of each stamp."""
        inside = slice(context.margin, context.margin + context.size)
        disk, spread = central_disk(), self.half_widths(outputs, context.valid)[0]
        result: dict[str, pa.Array] = {}
        for index, band in enumerate(MODEL_BANDS):
            mean = outputs["restored"][:, index]
            # d flux = s cosh(y) dy
            flux_sigma = SOFTENING[band] * np.cosh(np.clip(mean, -12, 12)) * spread[:, index]
            result[f"restoration_sigma_{band}"] = pa.array(flux_sigma[:, disk].mean(axis=1).astype(np.float32))
            valid = context.valid[:, index]
            change = ((context.pixels[:, index] - mean) ** 2 * valid).sum(axis=(1, 2)) / np.maximum(valid.sum(axis=(1, 2)), 1)
            result[f"restoration_change_{band}"] = pa.array(np.sqrt(change).astype(np.float32))
        filled = 1.0 - context.valid[:, :, inside, inside].mean(axis=(1, 2, 3))
        result["restoration_filled_fraction"] = pa.array(filled.astype(np.float32))
        return result

    def measure(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """Mean squared errors per stamp: of the restored image, of the stamp itself, in and outside gaps, against sky only."""
        known = truth.known[:, None] & np.ones_like(truth.clean, dtype=bool)
        measured = context.valid > 0
        model = (outputs["restored"] - truth.clean) ** 2
        noisy = (context.pixels - truth.clean) ** 2
        gap = known & ~measured
        seen = known & measured
        return {
            "restored_mse": _mean(model, seen),
            "stamp_mse": _mean(noisy, seen),
            "restored_gap_error": _mean(np.abs(outputs["restored"] - truth.clean), gap),
            "empty_gap_error": _mean(np.abs(context.pixels - truth.clean), gap),
        }

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """PSNR of the pixels that were measured and error in the gaps, beside the unrestored stamp and empty sky."""
        rows = predicted.num_rows
        figures = {
            name: float_column(predicted, name, rows) for name in ("restored_mse", "stamp_mse", "restored_gap_error", "empty_gap_error")
        }
        scores = []
        seen = np.isfinite(figures["restored_mse"]) & np.isfinite(figures["stamp_mse"])
        if seen.any():
            model, noisy = (float(np.mean(_psnr(figures[name][seen]))) for name in ("restored_mse", "stamp_mse"))
            scores.append(
                Score(
                    "PSNR in asinh units, blurred by 1/0.85, noise restored",
                    "dB",
                    model,
                    noisy,
                    True,
                    int(seen.sum()),
                    "the degraded stamp as it is",
                )
            )
        gaps = np.isfinite(figures["restored_gap_error"])
        if gaps.any():
            model, noisy = (float(np.mean(figures[name][gaps])) for name in ("restored_gap_error", "empty_gap_error"))
            scores.append(Score("mean error in gaps, asinh units", "", model, noisy, False, int(gaps.sum()), "empty sky"))
        return scores


def flux_error(restored: Tensor, clean: Tensor, known: Tensor) -> Tensor:
    """Mean error of the fluxes of squares: in units of the sky noise where they are faint, relative where they are bright.

    Parameters
    ----------
    restored, clean : Tensor
        Shape (N, 3, P, P), asinh units.
    known : Tensor
        Shape (N, 1, P, P).
    """
    total = restored.new_zeros(())
    ours, true = (sinh(item.clamp(-BRIGHTEST, BRIGHTEST)) * known for item in (restored, clean))
    for side in FLUX_SCALES:
        # the noise of a square's mean is that of a pixel over its side
        ours_flux, true_flux = (torch.asinh(side * functional.avg_pool2d(item, side, side // 2)) for item in (ours, true))
        total = total + (ours_flux - true_flux).abs().mean()
    return total / len(FLUX_SCALES)


def _quantile(counts: npt.NDArray[np.float64], level: float) -> float:
    """Ratio below which a share ``level`` of the counted ones lies."""
    held = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    return float(np.exp(np.interp(level, held, np.log(RATIOS))))


def _held(counts: npt.NDArray[np.float64], factors: npt.NDArray[np.float32]) -> float:
    """Share of all counted pixels within the half widths of one level."""
    middle = np.sqrt(RATIOS[1:] * RATIOS[:-1])
    return float((counts * (middle <= factors[..., None])).sum() / max(counts.sum(), 1.0))


def central_disk() -> npt.NDArray[np.bool_]:
    """Pixels within `CENTRAL` of the source's pixel, shape (P, P)."""
    grid = np.arange(PADDED_SIZE) - PADDED_SIZE // 2
    return np.asarray(np.hypot(grid[:, None], grid[None, :]) <= CENTRAL)


def _mean(values: npt.NDArray[np.float32], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    count = where.sum(axis=(1, 2, 3))
    total = np.where(where, values, 0).sum(axis=(1, 2, 3), dtype=np.float64)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _psnr(error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(10.0 * np.log10(PEAK**2 / np.maximum(error, 1e-12)))
