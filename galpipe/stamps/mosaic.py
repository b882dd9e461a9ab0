"""Complete stamps that overrun their brick's frame with pixels of the neighbouring bricks.

Only near the poles does a stamp of a primary source leave its frame (`galpipe.survey.neighbours`). Frames of two bricks are different
tangent planes, turned against each other by up to their difference in RA, so the neighbours' pixels are resampled; those of the own frame
are not touched. Images go through a bicubic interpolation (a PSF is four pixels wide; pixel areas of two frames differ by less than
2e-5, so flux per pixel is conserved). Inverse variances are the least and mask bits the union of the pixels that take part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from reproject import reproject_interp
from scipy.ndimage import maximum_filter, minimum_filter

from galpipe.config import SOFTENING
from galpipe.stamps.flags import flag_plane
from galpipe.stamps.normalize import codec, encode, encode_invvar, in_range
from galpipe.survey.bricks import BRICK_PIXELS, Brick, brick_by_name, brick_wcs
from galpipe.survey.coadd import Box, read_band
from galpipe.survey.files import BrickFiles
from galpipe.survey.neighbours import inside_frame

if TYPE_CHECKING:
    from galpipe.stamps.cut import BandCut
    from galpipe.stamps.windows import Windows

SUPPORT = 2
"""Pixels on each side that a bicubic interpolation takes its value from."""

_AROUND = 12
"""Pixels read around what is resampled, so that the far ends of the interpolation do not matter."""


@dataclass(frozen=True)
class Strip:
    """A rectangle beyond a frame: 0-based frame pixel of its ``[0, 0]`` and its (height, width)."""

    x0: int
    y0: int
    shape: tuple[int, int]

    def wcs(self, area: Brick) -> WCS:
        """Projection of the rectangle's pixels."""
        return _shifted(brick_wcs(area), self.x0, self.y0)

    def overlap(self, x0: int, y0: int, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What the rectangle and a square at ``x0, y0`` share: slices of the rectangle and of the square; empty if nothing."""
        low = max(self.y0, y0), max(self.x0, x0)
        high = min(self.y0 + self.shape[0], y0 + size), min(self.x0 + self.shape[1], x0 + size)
        spans = [(first, max(first, last)) for first, last in zip(low, high, strict=True)]
        own = slice(spans[0][0] - self.y0, spans[0][1] - self.y0), slice(spans[1][0] - self.x0, spans[1][1] - self.x0)
        square = slice(spans[0][0] - y0, spans[0][1] - y0), slice(spans[1][0] - x0, spans[1][1] - x0)
        return own, square


@dataclass(frozen=True)
class _Source:
    """A neighbour over one strip: its files, and arrays of the strip's shape."""

    files: BrickFiles
    area: Brick
    depth: NDArray[np.float64]
    """Pixels to the nearest edge of the neighbour's frame."""
    box: Box
    """The part of the neighbour's frame that is read."""
    flags: NDArray[np.uint8]
    """Bit b: band b is bad in a pixel that takes part."""

    def has(self, band: str) -> bool:
        """Whether there are pixels of a band."""
        return self.files.path("image", band) is not None and self.files.path("invvar", band) is not None


@dataclass(frozen=True)
class Completion:
    """Pixels that neighbouring bricks have of the stamps of a brick.

    Parameters
    ----------
    windows : Windows
        Of all stamps, N.
    rows : ndarray of int64
        The stamps that overrun the frame.
    strips : tuple of (Strip, sources)
    area : Brick
    """

    windows: Windows
    rows: NDArray[np.int64]
    strips: tuple[tuple[Strip, tuple[_Source, ...]], ...]
    area: Brick

    def covered(self, bands: tuple[str, ...]) -> NDArray[np.bool_]:
        """Pixels beyond the frame that a neighbour has in at least one band, shape (N, S, S)."""
        size = self.windows.size
        found = np.zeros((len(self.windows.x0), size, size), bool)
        for strip, sources in self.strips:
            reach = np.zeros(strip.shape, bool)
            for source in sources:
                reach |= (source.depth >= SUPPORT) & any(source.has(band) for band in bands)
            for row, own, square in self._overlaps(strip):
                found[row][square] = reach[own]
        return found

    def _overlaps(self, strip: Strip) -> list[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        windows = self.windows
        return [(int(row), *strip.overlap(int(windows.x0[row]), int(windows.y0[row]), windows.size)) for row in self.rows]

    def fill(self, cut: BandCut, out: tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        """Fill in one band where a neighbour has it.

        Parameters
        ----------
        cut : BandCut
        out : image codes (N, B, S, S), inverse variance codes (N, B, S, S) and mask (N, S, S)
            As the own frame left them; changed in place beyond the frame only.

        Raises
        ------
        BadData
            If a neighbour's file does not read.
        """
        (image, invvar, mask), line, bit = out, codec(SOFTENING[cut.band]), np.uint8(1 << cut.index)
        for strip, sources in self.strips:
            flux, weight = _resampled(strip, self.area, [item for item in sources if item.has(cut.band)], cut)
            for row, own, square in self._overlaps(strip):
                transmission = np.float32(cut.transmission[row])
                here, known = flux[own] / transmission, np.isfinite(flux[own])
                codes = encode_invvar(weight[own] * transmission**2)
                image[row, cut.index][square] = encode(here, line)
                invvar[row, cut.index][square] = codes
                good = known & in_range(here, line) & (codes > 0)
                mask[row][square] = np.where(good, mask[row][square] & ~bit, mask[row][square] | bit)


def completion_of(files: BrickFiles, windows: Windows, bands: tuple[str, ...]) -> Completion | None:
    """What the neighbours' files have of a brick's stamps; None where no stamp overruns or there are no such files.

    Parameters
    ----------
    files : BrickFiles
        Of the brick, with those of its neighbours.
    windows : Windows
    bands : tuple of str
        Bands of the stamps, in order.

    Raises
    ------
    BadData
        If a neighbour's mask does not read.
    """
    others = [other for other in files.neighbours if other.bands]
    half, last = windows.size // 2, BRICK_PIXELS - 1
    held = [(start + half >= 0) & (start + half <= last) for start in (windows.x0, windows.y0)]
    ends = [start + windows.size - 1 for start in (windows.x0, windows.y0)]
    beyond = (windows.x0 < 0) | (windows.y0 < 0) | (ends[0] > last) | (ends[1] > last)
    rows = np.flatnonzero(beyond & held[0] & held[1])
    if not others or not len(rows):
        return None
    area = brick_by_name(files.unit.brick)
    strips = []
    for strip in _strips(windows, rows):
        found = [_source(strip, area, other, bands) for other in others]
        strips.append((strip, tuple(source for source in found if source is not None)))
    return Completion(windows, rows, tuple(strips), area)


def _strips(windows: Windows, rows: NDArray[np.int64]) -> list[Strip]:
    """Rectangles that together hold what the given stamps have beyond the frame: below and above whole, left and right beside it."""
    x0, y0, size, edge = windows.x0[rows], windows.y0[rows], windows.size, BRICK_PIXELS
    low_x, high_x, low_y, high_y = int(x0.min()), int(x0.max()) + size, int(y0.min()), int(y0.max()) + size
    spans = [
        (low_x, high_x, low_y, 0),
        (low_x, high_x, edge, high_y),
        (low_x, 0, max(low_y, 0), min(high_y, edge)),
        (edge, high_x, max(low_y, 0), min(high_y, edge)),
    ]
    return [Strip(left, bottom, (top - bottom, right - left)) for left, right, bottom, top in spans if right > left and top > bottom]


def _source(strip: Strip, area: Brick, files: BrickFiles, bands: tuple[str, ...]) -> _Source | None:
    """A neighbour over a strip; None where its frame does not reach."""
    other = brick_by_name(files.unit.brick)
    gx, gy = np.meshgrid(np.arange(strip.shape[1]), np.arange(strip.shape[0]))
    ra, dec = strip.wcs(area).all_pix2world(gx, gy, 0)
    depth = np.nan_to_num(inside_frame(other, ra, dec), nan=-np.inf)
    if not (depth >= SUPPORT).any():
        return None
    x, y = brick_wcs(other).all_world2pix(ra[depth >= SUPPORT], dec[depth >= SUPPORT], 0)
    spans = [(max(0, int(values.min()) - _AROUND), min(BRICK_PIXELS, int(values.max()) + _AROUND + 2)) for values in (y, x)]
    box = slice(*spans[0]), slice(*spans[1])
    bad, flags = np.zeros(strip.shape, np.uint8), flag_plane(files, bands, box)
    if flags is not None:
        for b in range(len(bands)):
            grown = maximum_filter((flags >> np.uint8(b)) & np.uint8(1), 2 * SUPPORT + 1)
            if grown.any():
                bad |= (_project(grown, (other, box), (area, strip), "nearest-neighbor") > 0).astype(np.uint8) << np.uint8(b)
    return _Source(files, other, depth, box, bad)


def _resampled(strip: Strip, area: Brick, sources: list[_Source], cut: BandCut) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Flux (nanomaggies per pixel, NaN where nobody has the band) and inverse variance (0 where bad) of a strip's pixels."""
    flux, weight = np.full(strip.shape, np.nan, np.float32), np.zeros(strip.shape, np.float32)
    if not sources:
        return flux, weight
    # the neighbour whose frame reaches furthest beyond a pixel
    depth = np.stack([source.depth for source in sources])
    nearest = np.where(depth.max(axis=0) >= SUPPORT, depth.argmax(axis=0), -1)
    for k, source in enumerate(sources):
        mine = nearest == k
        if not mine.any():
            continue
        plane, invvar = (_finite(read_band(source.files, product, cut.band, source.box)[0]) for product in ("image", "invvar"))
        frames = (source.area, source.box), (area, strip)
        flux[mine] = _project(plane[0], *frames, "bicubic")[mine]
        least = minimum_filter(np.where(plane[1], invvar[0], 0), 2 * SUPPORT + 1)
        good = (source.flags & np.uint8(1 << cut.index)) == 0
        weight[mine] = np.where(good, _project(least, *frames, "nearest-neighbor"), 0)[mine]
    return flux, np.nan_to_num(weight)


def _finite(plane: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    known = np.isfinite(plane)
    return np.where(known, plane, np.float32(0)).astype(np.float32), known


def _project(plane: NDArray[Any], source: tuple[Brick, Box], target: tuple[Brick, Strip], order: str) -> NDArray[np.float32]:
    """A part of one frame on a strip of another one; NaN beyond it."""
    (other, box), (area, strip) = source, target
    grid = _shifted(brick_wcs(other), box[1].start, box[0].start)
    values, _ = reproject_interp((plane.astype(np.float32), grid), strip.wcs(area), shape_out=strip.shape, order=order)
    return np.asarray(values, np.float32)


def _shifted(wcs: WCS, x0: int, y0: int) -> WCS:
    """The projection of a part of a frame whose ``[0, 0]`` is pixel ``x0, y0``."""
    wcs.wcs.crpix = wcs.wcs.crpix - [x0, y0]
    wcs.array_shape = None
    return wcs
