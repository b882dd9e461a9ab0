"""Astronomical augmentation: turned, zoomed and shifted views; dimmed, blurred, noisier ones; other colors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ZOOM = (0.7, 1.3)
SHIFT = 0.03
"""Standard deviation of the shift, as a part of half the picture."""


def moved(images: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Each image turned by any angle, mirrored at random, zoomed and shifted; what lies outside is mirrored in.

    Parameters
    ----------
    images : Tensor
        Float, shape (N, C, H, W).
    size : int
        Pixels on a side of the result.
    rng : numpy.random.Generator
    """
    count = len(images)
    angle, zoom = rng.uniform(0, 2 * np.pi, count), np.exp(rng.uniform(np.log(ZOOM[0]), np.log(ZOOM[1]), count))
    mirror, shift = rng.choice([-1.0, 1.0], count), rng.normal(0, SHIFT, (2, count))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    matrix = np.stack([np.stack([cos * mirror, -sin, shift[0]], axis=1), np.stack([sin * mirror, cos, shift[1]], axis=1)], axis=1)
    grid = functional.affine_grid(torch.from_numpy(matrix.astype(np.float32)), [count, images.shape[1], size, size], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def colored(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures (values 0 to 1) brighter or fainter, of other colors or of none: surveys draw theirs differently."""
    count = len(pictures)
    grey = torch.from_numpy(rng.choice([0.0, 0.0, 0.5, 1.0], (count, 1, 1, 1)).astype(np.float32))
    mixed = torch.lerp(pictures, pictures.mean(dim=1, keepdim=True).expand_as(pictures), grey)
    gain = rng.uniform(0.8, 1.25, (count, 1, 1, 1)) * rng.uniform(0.8, 1.2, (count, 3, 1, 1))
    offset = rng.normal(0, 0.02, (count, 3, 1, 1))
    return (mixed * torch.from_numpy(gain.astype(np.float32)) + torch.from_numpy(offset.astype(np.float32))).clamp(0, 1)


def observed(pixels: Tensor, softening: Tensor, rng: np.random.Generator) -> Tensor:
    """Stamps (asinh units) as another telescope would have seen them: dimmed, with other band gains, blurred, noisier.

    Parameters
    ----------
    pixels : Tensor
        Shape (N, 3, H, W).
    softening : Tensor
        Shape (3, 1, 1), nanomaggies.
    rng : numpy.random.Generator
    """
    count = len(pixels)
    grey = torch.from_numpy(rng.choice([0.0, 0.0, 0.0, 0.7], (count, 1, 1, 1)).astype(np.float32))
    mixed = torch.lerp(pixels, pixels.mean(dim=1, keepdim=True).expand_as(pixels), grey)
    gain = np.exp(rng.uniform(np.log(0.5), np.log(1.6), (count, 1, 1, 1)) + rng.normal(0, 0.12, (count, 3, 1, 1)))
    flux = torch.sinh(mixed.clamp(-11, 11)) * softening * torch.from_numpy(gain.astype(np.float32))
    flux = _blurred(flux, np.where(rng.random(count) < 0.3, rng.uniform(0.5, 1.5, count), 0.0))
    noise = torch.from_numpy(rng.standard_normal(flux.shape, dtype=np.float32))
    level = torch.from_numpy(rng.uniform(0, 0.7, (count, 1, 1, 1)).astype(np.float32))
    return torch.asinh(flux / softening + noise * level)


def _blurred(flux: Tensor, sigma: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    result = flux.clone()
    line = torch.arange(-4, 5, dtype=torch.float32)
    for index in np.flatnonzero(sigma > 0):
        kernel = torch.exp(-(line**2) / (2 * float(sigma[index]) ** 2))
        kernel = kernel / kernel.sum()
        across = functional.conv2d(flux[index][:, None], kernel[None, None, None, :], padding=(0, 4))
        result[index] = functional.conv2d(across, kernel[None, None, :, None], padding=(4, 0))[:, 0]
    return result
