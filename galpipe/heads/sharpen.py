"""Linear filters that keep flux: the candidates among which restoration chooses pixel by pixel.

The image of seeing F is the wanted one, of seeing ``sharpening * F``, convolved with a Gaussian of
``sigma = F / 2.3548 * sqrt(1 - sharpening**2)``. A regularized inverse of that Gaussian (Tikhonov & Arsenin 1977; at a constant ratio of
noise to signal it is Wiener's filter) recovers what the noise allows. These filters have gain 1 at frequency 0,
and so keep fluxes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.config import SURVEY_PIXSCALE
from galpipe.lvm.hyperbolic import asinh, sinh
from galpipe.lvm.inputs import MODEL_BANDS, PADDED_SIZE, SEEING_UNIT, Inputs

BRIGHTEST = 12.0
"""asinh units above which a pixel's flux is not followed (1,000 nanomaggies in r)."""

SIGMA_PER_FWHM = 1 / 2.3548

SHARP = ((0.02, 0.0), (0.1, 0.7))
"""Per inverse filter: noise over signal, and sigma (px) of a Gaussian that smooths afterwards."""

SMOOTH = (1.5, 3.0)
"""Sigmas (px) of the Gaussians that smooth the last sharp image further. They smooth asinh units: of fluxes, a bright core would spread
over its surroundings, where the smooth candidates are chosen, and a galaxy would gain light."""

CANDIDATES = len(SHARP) + len(SMOOTH)

RETURN = 2.0
"""Sigma (px) of the Gaussian over which `FilterBank.balanced` compares fluxes: within the core of a galaxy, many pixels of noise."""

LIT = (1.0, 2.0)
"""Softenings of smoothed flux between which that comparison comes to count: noise alone does not reach them."""

TRUSTED = 0.08
"""Share of the smoothed flux up to which a difference is the restoration's bias; twice that and more is what it took away on purpose: the
halo of a star, a trail."""

CELLS = (4, 16)
"""Sides in pixels of the cells whose means fill gaps: the small ones where they hold data, else the large ones."""


class FilterBank(nn.Module):
    """Candidates for the restored image, from the input alone: nothing is learned here."""

    squared: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows, columns = torch.fft.fftfreq(PADDED_SIZE), torch.fft.rfftfreq(PADDED_SIZE)
        squared = (2 * math.pi) ** 2 * (rows[:, None] ** 2 + columns[None, :] ** 2)
        self.register_buffer("squared", squared, persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """Candidates in asinh units, float32, shape (N, `CANDIDATES`, 3, P, P)."""
        pixels = fill(inputs.pixels.float(), inputs.valid.float()).clamp(-BRIGHTEST, BRIGHTEST)
        flux = torch.fft.rfft2(sinh(pixels))
        response = torch.exp(-0.5 * self.squared * ratio_sigma(inputs)[:, :, None, None] ** 2)
        found = []
        for noise, smoothing in SHARP:
            gain = (1 + noise) * response / (response**2 + noise) * self._smooth(smoothing)
            found.append(asinh(torch.fft.irfft2(flux * gain, s=pixels.shape[-2:])))
        faint = torch.fft.rfft2(found[-1])
        found += [torch.fft.irfft2(faint * self._smooth(sigma), s=pixels.shape[-2:]) for sigma in SMOOTH]
        return torch.stack(found, dim=1)

    def balanced(self, restored: Tensor, inputs: Inputs) -> Tensor:
        """Restored pixels with the flux that they lost: medians in asinh units are less than mean fluxes wherever noise matters.

        The restored image, blurred back to the input's PSF, is compared with the input over `RETURN`; where there is a source (`LIT`) and
        little lacks (`TRUSTED`), pixels are multiplied by what would make it whole, in the manner of a step of Richardson and Lucy's.

        Parameters
        ----------
        restored : Tensor
            Shape (N, 3, P, P), asinh units.
        inputs : Inputs
        """
        shape, smooth = restored.shape[-2:], self._smooth(RETURN)
        with torch.no_grad():
            # no gradient: a bright pixel would answer for its neighbours' errors
            flux = sinh(restored.clamp(-BRIGHTEST, BRIGHTEST))
            whole = torch.fft.rfft2(flux)
            again = torch.fft.irfft2(whole * torch.exp(-0.5 * self.squared * ratio_sigma(inputs)[:, :, None, None] ** 2), s=shape)
            lost = inputs.valid.float() * (sinh(inputs.pixels.float().clamp(-BRIGHTEST, BRIGHTEST)) - again)
            around = torch.fft.irfft2(whole * smooth, s=shape).clamp(min=1e-3)
            share = torch.fft.irfft2(torch.fft.rfft2(lost) * smooth, s=shape) / around
            trust = ((around - LIT[0]) / (LIT[1] - LIT[0])).clamp(0, 1) * (2 - share.abs() / TRUSTED).clamp(0, 1)
            added = asinh(flux * (1 + trust * share)) - asinh(flux)
        return restored + added

    def _smooth(self, sigma: float) -> Tensor:
        return torch.exp(-0.5 * self.squared * sigma**2)


def fill(pixels: Tensor, valid: Tensor) -> Tensor:
    """Pixels with the gaps filled by the mean of the measured ones around, shape (N, 3, P, P), asinh units; 0 without any."""
    small, large = CELLS
    weight, total = functional.avg_pool2d(valid, small), functional.avg_pool2d(pixels * valid, small)
    step = large // small
    # around a large cell: its neighbours too
    far_weight, far = (functional.avg_pool2d(functional.avg_pool2d(item, step), 3, 1, 1) for item in (weight, total))
    far = functional.interpolate(far / far_weight.clamp(min=1e-3), scale_factor=float(step), mode="bilinear")
    mean = torch.where(weight > 0.2, total / weight.clamp(min=0.2), far)
    return torch.where(valid > 0, pixels, functional.interpolate(mean, scale_factor=float(small), mode="bilinear"))


def ratio_sigma(inputs: Inputs) -> Tensor:
    """Sigma (px) of the Gaussian between the wanted PSF and the input's, shape (N, 3)."""
    bands = len(MODEL_BANDS)
    # scaled as `galpipe.lvm.inputs.conditions` says; unknown seeing is 0 there, which is the usual one
    fwhm = SEEING_UNIT * (1 + inputs.conditions[:, bands : 2 * bands].float())
    lost = (1 - inputs.sharpening.float() ** 2).clamp(min=0).sqrt()
    pixscale = SURVEY_PIXSCALE * torch.exp(inputs.conditions[:, -1].float())
    return fwhm.clamp(0.5, 4.0) * (lost * SIGMA_PER_FWHM / pixscale)[:, None]
