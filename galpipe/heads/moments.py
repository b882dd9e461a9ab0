"""Sums over the input pixels, band by band: moments under Gaussian windows, and profiles in rings.

The classical start of shape measurement (Kaiser, Squires & Broadhurst 1995, ApJ 449, 460), given to a head beside the encoder's features,
so that few training steps go into learning what a sum over pixels tells.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from galpipe.config import SOFTENING
from galpipe.lvm.encoder import BRIGHTEST
from galpipe.lvm.hyperbolic import sinh
from galpipe.lvm.inputs import MODEL_BANDS, PADDED_SIZE, Inputs

WINDOWS = (2.0, 4.0, 8.0, 16.0)
"""Standard deviations in pixels of the Gaussian windows around the source's pixel."""

PER_WINDOW = 7
"""Numbers per band and window: log flux, x, y, size, two ellipticities, share of valid pixels."""

MOMENTS = len(MODEL_BANDS) * len(WINDOWS) * PER_WINDOW

LEAST_FLUX = 0.05
"""Nanomaggies below which a window's flux no longer scales its moments: they are noise."""

LARGEST_RATIO = 4.0

RINGS = (0.0, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0, 76.0)
"""Edges in pixels of the rings of a profile."""

PER_RING = 3
"""Numbers per band and ring: mean, median and lower quartile of the surface brightness."""

PROFILE = len(MODEL_BANDS) * (len(RINGS) - 1) * PER_RING

MOST_SORTED = 400
"""Pixels of a ring that its median and quartile are taken from, evenly spread; the mean takes all."""


class Moments(nn.Module):
    """Moments of g, r, z under four windows; masked pixels count as sky."""

    windows: Tensor
    weights: Tensor
    softening: Tensor

    def __init__(self) -> None:
        super().__init__()
        grid = torch.arange(PADDED_SIZE, dtype=torch.float32) - PADDED_SIZE // 2
        y, x = torch.meshgrid(grid, grid, indexing="ij")
        rows, weights = [], []
        for width in WINDOWS:
            window = torch.exp(-0.5 * (x**2 + y**2) / width**2)
            weights.append(window.reshape(-1))
            forms = (torch.ones_like(x), x / width, y / width, (x**2 + y**2) / width**2, (x**2 - y**2) / width**2, 2 * x * y / width**2)
            rows += [(window * form).reshape(-1) for form in forms]
        self.register_buffer("windows", torch.stack(rows), persistent=False)
        self.register_buffer("weights", torch.stack(weights), persistent=False)
        self.register_buffer("softening", torch.tensor([SOFTENING[band] for band in MODEL_BANDS]), persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """Shape (N, 84), each of order one; zero for a band without data."""
        flux = sinh(inputs.pixels.float().clamp(-BRIGHTEST, BRIGHTEST)) * self.softening[:, None, None]
        count, bands, kinds = len(flux), len(MODEL_BANDS), PER_WINDOW - 1
        sums = (flux.flatten(2) @ self.windows.T).reshape(count, bands, len(WINDOWS), kinds)
        share = (inputs.valid.float().flatten(2) @ self.weights.T) / self.weights.sum(dim=1)
        total = sums[..., :1]
        ratios = sums[..., 1:] / torch.sqrt(total**2 + LEAST_FLUX**2)
        logs = torch.asinh(10.0 * total / share.clamp(min=0.05)[..., None]) / 4.0
        return torch.cat([logs, ratios.clamp(-LARGEST_RATIO, LARGEST_RATIO), share[..., None]], dim=-1).flatten(1)


class Profile(nn.Module):
    """Mean, median and lower quartile in rings; the last two hardly know of neighbours, so the three tell what is the galaxy's own."""

    rings: Tensor

    def __init__(self) -> None:
        super().__init__()
        grid = torch.arange(PADDED_SIZE, dtype=torch.float32) - PADDED_SIZE // 2
        radius = torch.sqrt(grid[:, None] ** 2 + grid[None, :] ** 2).reshape(-1)
        inside = [(radius >= low) & (radius < high) for low, high in pairwise(RINGS)]
        self.register_buffer("rings", torch.stack(inside).float(), persistent=False)
        self.sorted = [_spread(torch.nonzero(part)[:, 0]) for part in inside]

    def forward(self, inputs: Inputs) -> Tensor:
        """Shape (N, 108), half asinh units; zero for a ring without data."""
        pixels, valid = inputs.pixels.float().flatten(2), inputs.valid.float().flatten(2)
        count = valid @ self.rings.T
        flux = sinh(pixels.clamp(-BRIGHTEST, BRIGHTEST)) * valid
        mean = torch.asinh((flux @ self.rings.T) / count.clamp(min=1))
        ranked = torch.stack([_ranked(pixels[..., rows], valid[..., rows]) for rows in self.sorted], dim=2)
        return 0.5 * torch.cat([mean[..., None], ranked], dim=-1).flatten(1)


def _spread(rows: Tensor) -> Tensor:
    """At most `MOST_SORTED` of a ring's pixels; they lie row by row, so an even stride spreads them over the ring."""
    if len(rows) <= MOST_SORTED:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, MOST_SORTED).round().long()]


def _ranked(values: Tensor, valid: Tensor) -> Tensor:
    """Median and lower quartile of the valid values, shape (N, 3, 2); zero without any."""
    count = valid.sum(dim=-1, keepdim=True)
    ordered = torch.where(valid > 0, values, torch.inf).sort(dim=-1).values
    places = [((count - 1).clamp(min=0) * share).long() for share in (0.5, 0.25)]
    return torch.cat([torch.where(count > 0, ordered.gather(-1, place), 0.0) for place in places], dim=-1)
