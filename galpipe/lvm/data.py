"""Batches for training: decoded, augmented, degraded, each a function of (seed, step) alone so that a resumed run repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from galpipe.config import SOFTENING
from galpipe.heads.base import FloatArray, Truth
from galpipe.lvm.inputs import FILLED_BIT, MARGIN, MODEL_BANDS, PADDED_SIZE, SHARPENING, Inputs, conditions, float_column, pad, valid_pixels
from galpipe.lvm.pack import Pack
from galpipe.lvm.ranks import rank, ranks
from galpipe.stamps.normalize import codec, normalized

PIXSCALE = 0.262
SIGMA_PER_FWHM = 1 / 2.3548
USUAL_SEEING = 1.3
"""Arcsec; taken where the seeing is not known."""

KERNEL = 7
"""Half width in pixels of the blurring kernel."""


@dataclass(frozen=True)
class Degradation:
    """How often a training stamp is changed; each a probability.

    Parameters
    ----------
    blur : float
        Blurred and given fresh noise, the truth keeping its PSF: what sharpening learns from.
    gap : float
        A band of pixels or a rectangle loses its data.
    band_loss : float
        One band is taken away.
    unknown : float
        Seeing and depth are not told, as with stamps from files.
    """

    blur: float = 0.5
    gap: float = 0.4
    band_loss: float = 0.15
    unknown: float = 0.0


@dataclass
class Arrays:
    """A batch before it becomes tensors; padded, asinh units."""

    pixels: FloatArray
    valid: npt.NDArray[np.bool_]
    seeing: npt.NDArray[np.float64]
    depth: npt.NDArray[np.float64]
    sharpening: FloatArray


class Batches:
    """Random access to training batches by step.

    Parameters
    ----------
    pack : Pack
    size : int
        Stamps per batch.
    seed : int
    degradation : Degradation, optional
    """

    def __init__(self, pack: Pack, size: int, seed: int, degradation: Degradation | None = None) -> None:
        self.pack, self.size, self.seed = pack, min(size, len(pack)), seed
        self.degradation = degradation or Degradation()
        rows = len(pack)
        self.seeing = np.stack([float_column(pack.sources, f"psfsize_{band}", rows) for band in MODEL_BANDS], axis=1)
        self.depth = np.stack([float_column(pack.sources, f"psfdepth_{band}", rows) for band in MODEL_BANDS], axis=1)

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Rows of the pack in the batch of a step, of several ranks this one's; every epoch is another permutation."""
        per_epoch = len(self.pack) // self.size
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.pack))
        return np.asarray(order[place * self.size : (place + 1) * self.size][rank() :: ranks()])

    def unlabelled(self, step: int) -> Inputs:
        """Augmented inputs, without degradation."""
        rows = self.rows(step)
        rng = np.random.default_rng([self.seed, 2, step])
        arrays, _ = self._turned(rows, rng)
        return _inputs(arrays)

    def labelled(self, step: int) -> tuple[Inputs, Truth]:
        """Augmented and degraded inputs with their truth."""
        rows = self.rows(step)
        rng = np.random.default_rng([self.seed, 3, step])
        arrays, turns = self._turned(rows, rng)
        truth = turned_truth(load_truth(self.pack, rows), turns)
        chance = rng.random((3, len(rows)))
        blur(arrays, chance[0] < self.degradation.blur, rng)
        for index in np.flatnonzero(chance[1] < self.degradation.gap):
            cut_gap(arrays.valid[index], rng)
        for index in np.flatnonzero(chance[2] < self.degradation.band_loss):
            arrays.valid[index, rng.integers(len(MODEL_BANDS))] = False
        # drawn apart, so that the other changes do not depend on it
        untold = np.random.default_rng([self.seed, 4, step]).random(len(rows)) < self.degradation.unknown
        arrays.seeing[untold], arrays.depth[untold] = np.nan, np.nan
        return _inputs(arrays), truth

    def _turned(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[Arrays, npt.NDArray[np.int64]]:
        turns = rng.integers(8, size=len(rows))
        arrays = Arrays(*load_pixels(self.pack, rows), self.seeing[rows], self.depth[rows], np.ones(len(rows), dtype=np.float32))
        for index, turn in enumerate(turns):
            arrays.pixels[index] = turn_pixels(arrays.pixels[index], int(turn))
            arrays.valid[index] = turn_pixels(arrays.valid[index], int(turn))
        return arrays, turns


def degraded_inputs(pack: Pack, rows: npt.NDArray[np.int64], seed: int) -> Inputs:
    """Inputs for scoring restoration: every stamp blurred to 1 / `SHARPENING` of its seeing, a gap in every second one.

    The truth at the stamp's own PSF is then the image sharpened to the stated target.
    """
    seeing, depth = (
        np.stack([float_column(pack.sources, f"{name}_{band}", len(pack))[rows] for band in MODEL_BANDS], axis=1)
        for name in ("psfsize", "psfdepth")
    )
    arrays = Arrays(*load_pixels(pack, rows), seeing, depth, np.ones(len(rows), dtype=np.float32))
    rng = np.random.default_rng([seed, 9, int(rows[0])])
    blur(arrays, np.ones(len(rows), dtype=bool), rng)
    for index in range(0, len(rows), 2):
        cut_gap(arrays.valid[index], rng)
    return _inputs(arrays)


def load_pixels(pack: Pack, rows: npt.NDArray[np.int64]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Padded pixels (asinh units) and validity of some rows, both (K, 3, P, P)."""
    return pad(_decode(pack.image[rows])), pad(valid_pixels(np.asarray(pack.mask[rows]), MODEL_BANDS))


def load_truth(pack: Pack, rows: npt.NDArray[np.int64]) -> Truth:
    """Truth of some rows in the padded frame.

    Raises
    ------
    ValueError
        If the pack has no truth.
    """
    if pack.clean is None or pack.segments is None or pack.objects is None or pack.object_start is None:
        raise ValueError("expected a pack with truth, got one without")
    objects = []
    for row in rows:
        own = np.array(pack.objects[pack.object_start[row] : pack.object_start[row + 1]])
        own[:, :6] += MARGIN
        objects.append(own)
    inside = np.bitwise_and(np.asarray(pack.mask[rows]), np.uint8(1 << FILLED_BIT)) == 0
    table = pack.sources.take(pa.array(rows))
    return Truth(table, tuple(objects), pad(np.asarray(pack.segments[rows])), pad(_decode(pack.clean[rows])), pad(inside))


def _decode(codes: npt.NDArray[np.int16]) -> FloatArray:
    return np.stack([normalized(codes[:, index], codec(SOFTENING[band])) for index, band in enumerate(MODEL_BANDS)], axis=1)


def turn_pixels(array: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """One of the eight flips and turns about the source's pixel, on the last two axes.

    Parameters
    ----------
    array : ndarray
        Shape (..., P, P).
    turn : int
        Bit 0 flips x, bit 1 flips y, bit 2 then swaps x and y.
    """
    # index i goes to P - i, so that P / 2 stays; row and column 0 are frame, where nothing is
    back = (-np.arange(array.shape[-1])) % array.shape[-1]
    if turn & 1:
        array = array[..., back]
    if turn & 2:
        array = array[..., back, :]
    return np.swapaxes(array, -1, -2) if turn & 4 else array


def turn_objects(objects: FloatArray, turn: int) -> FloatArray:
    """The same for objects (x, y, x0, y0, x1, y1, ...) of the padded frame."""
    result = objects.copy()
    for bit, (low, high, center) in ((1, (2, 4, 0)), (2, (3, 5, 1))):
        if turn & bit:
            result[:, center] = PADDED_SIZE - result[:, center]
            result[:, [low, high]] = PADDED_SIZE - result[:, [high, low]]
    return result[:, [1, 0, 3, 2, 5, 4, *range(6, result.shape[1])]] if turn & 4 else result


def turn_angle(angle: npt.NDArray[np.float64], turn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The same for position angles (deg, east of north): a flip negates, the swap takes 90 minus the angle."""
    flips = (turn & 1) + ((turn >> 1) & 1)
    flipped = np.where(flips == 1, -angle, angle)
    return np.asarray(np.mod(np.where(turn & 4, 90.0 - flipped, flipped), 180.0))


def turned_truth(truth: Truth, turns: npt.NDArray[np.int64]) -> Truth:
    """Truth of stamps that were turned."""
    table = truth.table
    if "position_angle" in table.column_names:
        angle = turn_angle(float_column(table, "position_angle", len(table)), turns)
        column = pa.array(angle, pa.float64(), mask=~np.isfinite(angle))
        table = table.set_column(table.column_names.index("position_angle"), "position_angle", column)
    objects = tuple(turn_objects(item, int(turn)) for item, turn in zip(truth.objects, turns, strict=True))
    parts = [
        np.stack([turn_pixels(item, int(turn)) for item, turn in zip(part, turns, strict=True)])
        for part in (truth.segments, truth.clean, truth.known)
    ]
    return Truth(table, objects, *parts)


def cut_gap(valid: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Take the data from a rectangle or a streak, in one band or in all."""
    bands = slice(None) if rng.random() < 0.5 else slice(band := int(rng.integers(len(MODEL_BANDS))), band + 1)
    if rng.random() < 0.5:
        wide, high = rng.integers(4, 40, size=2)
        x, y = rng.integers(0, PADDED_SIZE, size=2)
        valid[bands, y : y + high, x : x + wide] = False
        return
    angle, width = rng.uniform(0, np.pi), rng.uniform(1.0, 4.0)
    x, y = rng.uniform(0, PADDED_SIZE, size=2)
    grid = np.arange(PADDED_SIZE)
    away = (grid[None, :] - x) * np.sin(angle) - (grid[:, None] - y) * np.cos(angle)
    valid[bands, np.abs(away) < width] = False


def blur(arrays: Arrays, chosen: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Blur chosen stamps to 1 / `SHARPENING` of their seeing and bring the sky noise back to what it was; changes ``arrays``.

    The truth keeps the stamp's own PSF, so the pair shows what sharpening by that factor is.
    """
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    fwhm = np.where(np.isfinite(arrays.seeing[rows]) & (arrays.seeing[rows] > 0), arrays.seeing[rows], USUAL_SEEING)
    sigma = fwhm * np.sqrt(1 / SHARPENING**2 - 1) * SIGMA_PER_FWHM / PIXSCALE
    softening = np.array([SOFTENING[band] for band in MODEL_BANDS], dtype=np.float32)[:, None, None]
    valid = torch.from_numpy(arrays.valid[rows].astype(np.float32))
    flux = torch.from_numpy(np.sinh(np.clip(arrays.pixels[rows], -13, 13)) * softening) * valid
    noise = _sky_sigma(flux.numpy(), arrays.valid[rows])
    smooth = _gauss(flux, sigma) / _gauss(valid, sigma).clamp(min=0.05)
    # a Gaussian of sigma pixels leaves 1 / (4 pi sigma^2) of the variance of white noise
    lost = np.sqrt(np.clip(1 - 1 / (4 * np.pi * sigma**2), 0, 1))
    fresh = rng.standard_normal(flux.shape, dtype=np.float32) * (noise * lost)[:, :, None, None].astype(np.float32)
    arrays.pixels[rows] = np.arcsinh((smooth.numpy() + fresh) / softening)
    arrays.seeing[rows] = arrays.seeing[rows] / SHARPENING
    arrays.depth[rows] = arrays.depth[rows] * SHARPENING**2
    arrays.sharpening[rows] = SHARPENING


def _sky_sigma(flux: FloatArray, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Robust pixel noise per stamp and band, shape (K, 3), from every third pixel."""
    sparse = np.where(valid, flux, np.nan)[:, :, ::3, ::3].reshape(*flux.shape[:2], -1)
    result = np.zeros(flux.shape[:2])
    seen = np.isfinite(sparse).any(axis=2)
    middle = np.nanmedian(sparse[seen], axis=1, keepdims=True)
    result[seen] = 1.4826 * np.nanmedian(np.abs(sparse[seen] - middle), axis=1)
    return result


def _gauss(images: Tensor, sigma: npt.NDArray[np.float64]) -> Tensor:
    """Convolve each image of (K, 3, P, P) with its own Gaussian."""
    count, bands, side, _ = images.shape
    line = torch.arange(-KERNEL, KERNEL + 1, dtype=torch.float32)
    kernel = torch.exp(-(line**2) / (2 * torch.from_numpy(sigma.astype(np.float32)).reshape(-1, 1) ** 2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    flat = images.reshape(1, count * bands, side, side)
    across = functional.conv2d(flat, kernel[:, None, None, :], padding=(0, KERNEL), groups=count * bands)
    down = functional.conv2d(across, kernel[:, None, :, None], padding=(KERNEL, 0), groups=count * bands)
    return down.reshape(count, bands, side, side)


def _inputs(arrays: Arrays) -> Inputs:
    present = np.asarray(arrays.valid.any(axis=(2, 3)))
    numbers = conditions(arrays.seeing, arrays.depth, present, PIXSCALE)
    pixels = np.where(arrays.valid, arrays.pixels, np.float32(0))
    parts = (pixels, arrays.valid.astype(np.float32), numbers, arrays.sharpening)
    return Inputs(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))
