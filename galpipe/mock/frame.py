"""A brick's frame: everything that is in it, drawn, and how well it can be measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galpipe.mock.pixels import BandPixels, Conditions
from galpipe.mock.render import Drawn
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import ALL_BANDS, MockSpec
from galpipe.survey.bricks import BRICK_PIXELS, Brick

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A brick's frame with everything in it."""

    spec: MockSpec
    area: Brick
    state: Conditions
    catalog: Catalog
    x: Floats
    y: Floats
    drawn: Drawn
    pixels: dict[str, BandPixels]
    mask: NDArray[np.int32]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands with pixels."""
        return tuple(self.pixels)


def signal_to_noise(frame: Frame) -> tuple[Floats, Floats]:
    """S/N and flux inverse variance of each source per band of the frame.

    Returns
    -------
    snr, ivar : ndarray, shape (N, bands)
        The inverse variance in 1/nanomaggies^2; 0 where the center has no good pixel.
    """
    local = _local(frame, frame.x, frame.y)
    with np.errstate(divide="ignore", invalid="ignore"):
        ivar = np.where(frame.drawn.nea > 0, local / frame.drawn.nea, 0.0)
    index = [ALL_BANDS.index(band) for band in frame.bands]
    return frame.catalog["flux"][:, index] * np.sqrt(ivar), ivar


def _local(frame: Frame, x: Floats, y: Floats) -> Floats:
    """Median good inverse variance within 5 pixels, shape (N, bands)."""
    found = np.zeros((len(x), len(frame.bands)))
    for k, products in enumerate(frame.pixels.values()):
        for n, (px, py) in enumerate(zip(x, y, strict=True)):
            part = window(products.invvar, px, py, 5)
            good = part[part > 0]
            found[n, k] = np.median(good) if good.size > 8 else 0.0
    return found


def window(image: NDArray[np.float32], x: float, y: float, half: int) -> NDArray[np.float32]:
    """The part of an image within ``half`` pixels of a position, shape up to (2 half + 1, 2 half + 1)."""
    column, row = int(np.clip(round(x), 0, BRICK_PIXELS - 1)), int(np.clip(round(y), 0, BRICK_PIXELS - 1))
    return image[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]


def in_gaia(catalog: Catalog) -> NDArray[np.bool_]:
    """Stars brighter than G = 21 (taken as r), which the fitter knows beforehand."""
    return np.asarray((catalog["kind"] == "star") & (catalog["flux"][:, 1] > 10**0.6))
