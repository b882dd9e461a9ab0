"""Where stamps lie in a brick's frame, and how a frame's pixels become a stamp's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.survey.bricks import BRICK_PIXELS


@dataclass(frozen=True)
class Windows:
    """Where N square stamps lie in a frame.

    Parameters
    ----------
    x0, y0 : ndarray of int64, shape (N,)
        Frame pixel of each stamp's first row and column; may lie outside the frame.
    size : int
        Pixels of the stamp on a side, S.
    shape : tuple of int
        Rows and columns of the frame.
    binning : int
        Frame pixels on a side of one pixel of the stamp, b.
    """

    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    size: int
    shape: tuple[int, int]
    binning: int = 1

    @classmethod
    def around(cls, x: NDArray[np.float64], y: NDArray[np.float64], size: int, shape: tuple[int, int], binning: int = 1) -> Windows:
        """Windows around 0-based positions, shape (N,), far outside ones included.

        The pixel ``[size // 2, size // 2]`` is the one whose center is nearest: without binning the frame's pixel
        ``floor(x + 0.5)``; with binning the source is at most half a frame pixel off that pixel's center.
        """
        far = 10 * BRICK_PIXELS
        first = [np.floor(np.clip(values, -far, far) - (binning - 1) / 2 + 0.5).astype(np.int64) for values in (x, y)]
        return cls(first[0] - binning * (size // 2), first[1] - binning * (size // 2), size, shape, binning)

    def part(self, rows: slice) -> Windows:
        """Some of the windows."""
        return Windows(self.x0[rows], self.y0[rows], self.size, self.shape, self.binning)

    def centers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frame x and y of the center of each stamp's pixel ``[size // 2, size // 2]``, shape (N,) each."""
        offset = self.binning * (self.size // 2) + (self.binning - 1) / 2
        return np.asarray(self.x0 + offset, np.float64), np.asarray(self.y0 + offset, np.float64)

    def outside(self) -> NDArray[np.bool_]:
        """True where a frame pixel of a stamp lies outside the frame, shape (N, S b, S b)."""
        step = np.arange(self.size * self.binning)
        y, x = self.y0[:, None] + step, self.x0[:, None] + step
        beyond: NDArray[np.bool_] = ((y < 0) | (y >= self.shape[0]))[:, :, None] | ((x < 0) | (x >= self.shape[1]))[:, None, :]
        return beyond

    def gather(self, plane: NDArray[Any]) -> NDArray[Any]:
        """The frame pixels of the stamps, shape (N, S b, S b); meaningless where `outside`."""
        step = np.arange(self.size * self.binning)
        y = np.clip(self.y0[:, None] + step, 0, self.shape[0] - 1)
        x = np.clip(self.x0[:, None] + step, 0, self.shape[1] - 1)
        stamps: NDArray[Any] = plane[y[:, :, None], x[:, None, :]]
        return stamps

    def any(self, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Frame pixels (N, S b, S b) to stamp pixels (N, S, S): True where any of them is."""
        if self.binning == 1:
            return values
        return np.asarray(self._blocks(values).any(axis=(2, 4)))

    def fluxes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fluxes of frame pixels (N, S b, S b) to those of stamp pixels (N, S, S): their sum, so that flux is conserved."""
        if self.binning == 1:
            return values
        # not finite in, not finite out: who sums must see that something was missing
        with np.errstate(invalid="ignore"):
            return np.asarray(self._blocks(values).sum(axis=(2, 4), dtype=np.float64), np.float32)

    def weights(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inverse variances of frame pixels (N, S b, S b) to those of the sums (N, S, S).

        Variances add up, ``1 / sum(1 / w)``; 0 where one of them is unknown (0 or less, not finite), because then a part of
        the flux is.
        """
        if self.binning == 1:
            return values
        blocks = self._blocks(values).astype(np.float64)
        good = np.isfinite(blocks) & (blocks > 0)
        variance = (1 / np.where(good, blocks, 1.0)).sum(axis=(2, 4))
        return np.where(good.all(axis=(2, 4)), 1 / variance, 0.0).astype(np.float32)

    def _blocks(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(len(values), self.size, self.binning, self.size, self.binning)
