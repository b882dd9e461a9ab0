"""Linear filters that keep flux: the candidates among which restoration chooses pixel by pixel.

The image of seeing F is the wanted one, of seeing ``sharpening * F``, convolved with a Gaussian of
``sigma = F / 2.3548 * sqrt(1 - sharpening**2)``. A regularized inverse of that Gaussian (Tikhonov & Arsenin 1977; at a constant ratio of
noise to signal it is Wiener's filter) recovers what the noise allows. Every filter has gain 1 at frequency 0, and so keeps fluxes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.config import SURVEY_PIXSCALE
from galpipe.lvm.inputs import MODEL_BANDS, PADDED_SIZE, SEEING_UNIT, Inputs

BRIGHTEST = 12.0
"""asinh units above which a pixel's flux is not followed (1,000 nanomaggies in r)."""

SIGMA_PER_FWHM = 1 / 2.3548

FILTERS = ((0.02, 0.0), (0.1, 0.7), (0.1, 1.5), (0.1, 3.0))
"""Per filter: noise over signal of the inverse, and sigma (px) of a Gaussian that smooths afterwards."""

CANDIDATES = 1 + len(FILTERS)
"""The stamp with its gaps filled, and the filters' results."""

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
        """Candidates as fluxes in units of the bands' softening, float32, shape (N, `CANDIDATES`, 3, P, P)."""
        filled = torch.sinh(fill(inputs.pixels.float(), inputs.valid.float()).clamp(-BRIGHTEST, BRIGHTEST))
        flux = torch.fft.rfft2(filled)
        response = torch.exp(-0.5 * self.squared * ratio_sigma(inputs)[:, :, None, None] ** 2)
        found = [filled]
        for noise, smoothing in FILTERS:
            gain = (1 + noise) * response / (response**2 + noise) * torch.exp(-0.5 * self.squared * smoothing**2)
            found.append(torch.fft.irfft2(flux * gain, s=filled.shape[-2:]))
        return torch.stack(found, dim=1)


def fill(pixels: Tensor, valid: Tensor) -> Tensor:
    """Pixels with the gaps filled by the mean of the measured ones around, shape (N, 3, P, P), asinh units; 0 without any."""
    result = torch.zeros_like(pixels)
    for side in reversed(CELLS):
        weight = functional.avg_pool2d(valid, side)
        mean = functional.avg_pool2d(pixels * valid, side)
        # neighbouring cells join smoothly, each with the weight of its data
        weight, mean = (functional.interpolate(item, scale_factor=float(side), mode="bilinear") for item in (weight, mean))
        result = torch.where(weight > 0.05, mean / weight.clamp(min=0.05), result)
    return torch.where(valid > 0, pixels, result)


def ratio_sigma(inputs: Inputs) -> Tensor:
    """Sigma (px) of the Gaussian between the wanted PSF and the input's, shape (N, 3)."""
    bands = len(MODEL_BANDS)
    # scaled as `galpipe.lvm.inputs.conditions` says; unknown seeing is 0 there, which is the usual one
    fwhm = SEEING_UNIT * (1 + inputs.conditions[:, bands : 2 * bands].float())
    lost = (1 - inputs.sharpening.float() ** 2).clamp(min=0).sqrt()
    pixscale = SURVEY_PIXSCALE * torch.exp(inputs.conditions[:, -1].float())
    return fwhm.clamp(0.5, 4.0) * (lost * SIGMA_PER_FWHM / pixscale)[:, None]
