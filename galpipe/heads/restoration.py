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
from galpipe.lvm.inputs import MODEL_BANDS, PADDED_SIZE, SHARPENING, float_column

CENTRAL = 8
"""Radius in pixels (2.1 arcsec) within which the catalog's restoration figures are taken."""

PEAK = 6.0
"""asinh units taken as the full scale of PSNR: 200 softenings, the core of a bright galaxy."""


FLUX_SCALES = (4, 8, 16)
"""Sides in pixels of the squares whose fluxes the loss compares."""

START = (-2.0, -1.0, 2.0, 0.0, 0.0)
"""Logits of the candidates' shares before anything is learned."""

LEVELS = (0.68, 0.95)
"""Shares of pixels that the stated intervals hold."""

BRIGHTNESS = (0.25, 0.75, 1.5, 3.0)
"""Edges in asinh units of the bins of brightness that have calibration factors of their own."""

RATIOS = np.geomspace(1e-2, 1e2, 161)
"""Edges of the bins in which calibration counts errors over predicted spreads."""


class Restoration(Head):
    """Mean and spread of every pixel in asinh units: a mixture of flux-keeping filters, chosen pixel by pixel, and what they miss."""

    name = "restoration"
    version = 2
    calibrates_degraded = True

    factors: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        bands = len(MODEL_BANDS)
        self.bank = FilterBank()
        self.film = nn.Linear(1, settings.decoder)
        self.hidden = nn.Conv2d(settings.decoder, settings.decoder, 3, padding=1)
        self.last = nn.Conv2d(settings.decoder, 8 * bands, 3, padding=1)
        self.choice = nn.Conv2d(settings.decoder, CANDIDATES * bands, 1)
        # training starts from the filtered images: unlearned additions would cost flux first
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.choice.weight)
        with torch.no_grad():
            self.choice.bias.copy_(torch.tensor(START).repeat_interleave(bands))
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
            choice = functional.interpolate(choice, scale_factor=2.0, mode="bilinear")
            shares = torch.softmax(choice.unflatten(1, (CANDIDATES, len(MODEL_BANDS))), dim=1)
            restored = added + (shares * self.bank(features.inputs)).sum(dim=1)
        return {"restored": restored, "log_sigma": (log_sigma - 1.0).clamp(-6.0, 3.0)}

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
            text = f"Mean predicted uncertainty per pixel of the restored {band} image within 2.1 arcsec. For the eye only"
            result.append(Column(f"restoration_sigma_{band}", pa.float32(), "nanomaggy", text, 1e-3, "mock only"))
            text = f"rms of the stamp minus the restored {band} image, asinh units, valid pixels. For the eye only"
            result.append(Column(f"restoration_change_{band}", pa.float32(), "", text, 1e-2, "mock only"))
        text = "Share of the stamp's pixels that restoration had to fill (mean over the bands)"
        result.append(Column("restoration_filled_fraction", pa.float32(), "", text, 1e-6))
        return tuple(result)

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Figures of each stamp."""
        inside = slice(context.margin, context.margin + context.size)
        disk = central_disk()
        result: dict[str, pa.Array] = {}
        for index, band in enumerate(MODEL_BANDS):
            mean, spread = outputs["restored"][:, index], np.exp(outputs["log_sigma"][:, index])
            # d flux = s cosh(y) dy
            flux_sigma = SOFTENING[band] * np.cosh(np.clip(mean, -12, 12)) * spread * np.sqrt(2.0)
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
    ours, true = (torch.sinh(item.clamp(-BRIGHTEST, BRIGHTEST)) * known for item in (restored, clean))
    for side in FLUX_SCALES:
        # the noise of a square's mean is that of a pixel over its side
        ours_flux, true_flux = (torch.asinh(side * functional.avg_pool2d(item, side, side // 2)) for item in (ours, true))
        total = total + (ours_flux - true_flux).abs().mean()
    return total / len(FLUX_SCALES)


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
