"""What the model sees of a stamp: padded asinh pixels, a validity channel per band, and a few numbers about seeing and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from galpipe.config import SOFTENING, STAMP_SIZE
from galpipe.errors import ConfigurationError
from galpipe.stamps.stampset import StampSet

FloatArray = npt.NDArray[np.float32]

MODEL_BANDS = ("g", "r", "z")
"""Bands of the model's pixel channels, in order."""

PADDED_SIZE = 160
"""Pixels on a side inside the model: the stamp with a frame of invalid pixels, so that every scale divides evenly."""

MARGIN = (PADDED_SIZE - STAMP_SIZE) // 2
"""Width of the frame; the source's pixel ``[76, 76]`` becomes ``[80, 80]``, the point all flips and turns keep."""

FILLED_BIT = 7
"""Mask bit of pixels outside the brick's frame."""

SEEING_UNIT = 1.3
"""Arcsec; typical seeing, brings psfsize near one."""

DEPTH_ZERO, DEPTH_SCALE = 6.5, 2.0
"""ln(psfdepth) of a typical band in nanomaggies^-2, and the spread by which it is divided."""

SHARPENING = 0.85
"""FWHM of restored images over that of the stamp, per band: the stated target of sharpening."""

CONDITIONS = 13
"""Length of the vector of conditions, see `conditions`."""


@dataclass(frozen=True)
class Inputs:
    """One batch as the encoder takes it.

    Parameters
    ----------
    pixels : Tensor
        Shape (N, 3, P, P), asinh units, zero where not valid.
    valid : Tensor
        Shape (N, 3, P, P), 1 where the pixel was measured, else 0.
    conditions : Tensor
        Shape (N, `CONDITIONS`).
    sharpening : Tensor
        Shape (N,): wanted FWHM of the restored image over the input's; only restoration reads it.
    """

    pixels: Tensor
    valid: Tensor
    conditions: Tensor
    sharpening: Tensor

    def to(self, device: torch.device) -> Inputs:
        """Move to a device."""
        return Inputs(self.pixels.to(device), self.valid.to(device), self.conditions.to(device), self.sharpening.to(device))

    def rows(self, first: int, last: int) -> Inputs:
        """Stamps ``first`` to ``last`` (not included)."""
        return Inputs(self.pixels[first:last], self.valid[first:last], self.conditions[first:last], self.sharpening[first:last])

    def __len__(self) -> int:
        return int(self.pixels.shape[0])


def float_column(table: pa.Table, name: str, rows: int) -> npt.NDArray[np.float64]:
    """A column as float64 with NaN for null; all NaN when the table has no such column."""
    if name not in table.column_names:
        return np.full(rows, np.nan)
    column = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.array(column, dtype=np.float64)


def conditions(
    seeing: npt.NDArray[np.float64], depth: npt.NDArray[np.float64], present: npt.NDArray[np.bool_], pixscale: float
) -> FloatArray:
    """The numbers that go beside the pixels.

    Parameters
    ----------
    seeing : ndarray
        Shape (N, 3), arcsec FWHM; NaN or not positive = unknown.
    depth : ndarray
        Shape (N, 3), psfdepth, nanomaggies^-2; NaN or not positive = unknown.
    present : ndarray
        Shape (N, 3), bool: the band has at least one valid pixel.
    pixscale : float
        Arcsec per pixel.

    Returns
    -------
    ndarray
        Float32, shape (N, 13): presence, scaled seeing, scaled log depth, seeing and depth known (any band), unknown
        values zero, pixel scale relative to the survey's.
    """
    known_seeing = np.isfinite(seeing) & (seeing > 0) & present
    known_depth = np.isfinite(depth) & (depth > 0) & present
    scaled_seeing = np.where(known_seeing, np.where(known_seeing, seeing, 1.0) / SEEING_UNIT - 1.0, 0.0)
    scaled_depth = np.where(known_depth, (np.log(np.where(known_depth, depth, 1.0)) - DEPTH_ZERO) / DEPTH_SCALE, 0.0)
    flags = np.stack([known_seeing.any(axis=1), known_depth.any(axis=1), known_depth.all(axis=1)], axis=1)
    scale = np.full((len(seeing), 1), np.log(pixscale / 0.262))
    parts = [present, np.clip(scaled_seeing, -3, 3), np.clip(scaled_depth, -4, 4), flags, scale]
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts], axis=1)


def pad(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put a frame of zeros around the last two axes."""
    widths = [(0, 0)] * (array.ndim - 2) + [
        (MARGIN, PADDED_SIZE - array.shape[-2] - MARGIN),
        (MARGIN, PADDED_SIZE - array.shape[-1] - MARGIN),
    ]
    return np.pad(array, widths)


def valid_pixels(mask: npt.NDArray[np.uint8], bands: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which pixels of the model's bands were measured.

    Parameters
    ----------
    mask : ndarray
        uint8, shape (N, S, S): bit b for the b-th band of ``bands``, bit 7 = outside the frame.
    bands : sequence of str
        Bands the mask's bits stand for.

    Returns
    -------
    ndarray
        Bool, shape (N, 3, S, S); all False for a band that ``bands`` lacks.
    """
    result = np.zeros((mask.shape[0], len(MODEL_BANDS), *mask.shape[1:]), dtype=bool)
    outside = np.bitwise_and(mask, np.uint8(1 << FILLED_BIT)) > 0
    for index, band in enumerate(MODEL_BANDS):
        if band in bands:
            bit = np.uint8(1 << list(bands).index(band))
            result[:, index] = ~(np.bitwise_and(mask, bit) > 0) & ~outside
    return result


def make_inputs(pixels: FloatArray, valid: npt.NDArray[np.bool_], sources: pa.Table, pixscale: float) -> Inputs:
    """Pad and pack arrays of the model's bands.

    Parameters
    ----------
    pixels : ndarray
        Float32, shape (N, 3, S, S), asinh units.
    valid : ndarray
        Bool, shape (N, 3, S, S).
    sources : pyarrow.Table
        N rows, psfsize_<band> (arcsec) and psfdepth_<band> (nanomaggies^-2) where known.
    pixscale : float
        Arcsec per pixel.
    """
    rows = len(pixels)
    seeing = np.stack([float_column(sources, f"psfsize_{band}", rows) for band in MODEL_BANDS], axis=1)
    depth = np.stack([float_column(sources, f"psfdepth_{band}", rows) for band in MODEL_BANDS], axis=1)
    present = np.asarray(valid.any(axis=(2, 3)))
    numbers = conditions(seeing, depth, present, pixscale)
    clean = np.where(valid & np.isfinite(pixels), pixels, np.float32(0))
    return Inputs(
        torch.from_numpy(pad(clean)),
        torch.from_numpy(pad(valid.astype(np.float32))),
        torch.from_numpy(numbers),
        torch.full((rows,), SHARPENING),
    )


def stamp_inputs(stamps: StampSet) -> Inputs:
    """Inputs of a whole stamp set; bands the model does not know are left out, missing ones are marked as absent.

    Raises
    ------
    ConfigurationError
        If the stamps are not of the model's size, or their softening is not the model's.
    """
    if stamps.size != STAMP_SIZE:
        raise ConfigurationError(f"stamps of {STAMP_SIZE} pixels", str(stamps.size))
    rows = len(stamps)
    pixels = np.zeros((rows, len(MODEL_BANDS), stamps.size, stamps.size), dtype=np.float32)
    valid = np.zeros(pixels.shape, dtype=bool)
    normalized, measured = stamps.normalized(), stamps.valid()
    for index, band in enumerate(MODEL_BANDS):
        if band in stamps.bands:
            place = stamps.bands.index(band)
            if stamps.softening[place] != SOFTENING[band]:
                raise ConfigurationError(f"softening {SOFTENING[band]} in {band}", repr(stamps.softening[place]))
            pixels[:, index], valid[:, index] = normalized[:, place], measured[:, place]
    return make_inputs(pixels, valid, stamps.sources, stamps.pixscale)


def turn_quarters(images: Tensor, quarters: int) -> Tensor:
    """Images of shape (..., P, P) turned by quarters about the pixel [P / 2, P / 2]."""
    for _ in range(quarters):
        # index i goes to P - i, so that P / 2 stays
        images = images.flip(-1).roll(1, -1).transpose(-1, -2)
    return images


def turned_inputs(inputs: Inputs, quarters: int) -> Inputs:
    """Inputs turned by quarters about the source's pixel, which is one beside the middle."""
    pixels, valid = (turn_quarters(item, quarters) for item in (inputs.pixels, inputs.valid))
    return Inputs(pixels, valid, inputs.conditions, inputs.sharpening)


def joined_inputs(one: Inputs, other: Inputs) -> Inputs:
    """Two batches as one."""
    pairs = ((one.pixels, other.pixels), (one.valid, other.valid), (one.conditions, other.conditions), (one.sharpening, other.sharpening))
    return Inputs(*(torch.cat(pair) for pair in pairs))
