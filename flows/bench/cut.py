"""All stamps of a brick from whole-band reads, against a section read for each stamp."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from flows.bench.brick import mock_brick
from flows.bench.figures import Figure, Size, in_turns
from galpipe.stamps.cut import cut_brick
from galpipe.stamps.windows import Windows
from galpipe.survey.bricks import BRICK_PIXELS
from galpipe.survey.coadd import read_band
from galpipe.survey.files import BrickFiles

PRODUCTS = ("image", "invvar")
"""What both sides read in every band."""

Cut = dict[tuple[str, str], NDArray[np.floating]]


def run(size: Size) -> list[Figure]:
    """Cut the same windows out of the same files both ways; the pixels must agree.

    Raises
    ------
    RuntimeError
        If they do not.
    """
    with mock_brick(size.galaxies) as brick:
        settings = brick.settings
        stamps = cut_brick(brick.files, settings.cut, settings.selection).stamps
        rows = min(len(stamps), size.galaxies)
        x0, y0 = (stamps.sources[name].to_numpy().astype(np.int64)[:rows] for name in ("stamp_x0", "stamp_y0"))
        windows = Windows(x0, y0, settings.cut.size, (BRICK_PIXELS, BRICK_PIXELS))
        first, second = whole_bands(brick.files, windows), sections(brick.files, windows)
        differing = [key for key in first if not np.array_equal(first[key], second[key])]
        if differing:
            raise RuntimeError(f"whole-band and section reads differ in {differing}")
        sides = {"whole": lambda: whole_bands(brick.files, windows), "sections": lambda: sections(brick.files, windows)}
        seconds = in_turns(sides, size.repeats)
    what = f"{rows} stamps, {len(brick.files.bands)} bands, {' and '.join(PRODUCTS)}"
    return [
        Figure("sections_over_whole", seconds["sections"] / seconds["whole"], "ratio", f"section reads over whole-band reads; {what}"),
        Figure("whole_seconds", seconds["whole"], "s", "whole bands, all stamps at once"),
        Figure("sections_seconds", seconds["sections"], "s", "a section per stamp, each file opened once"),
    ]


def whole_bands(files: BrickFiles, windows: Windows) -> Cut:
    """Stamps by decoding each band once, shape (N, S, S) per product and band; zero outside the frame."""
    outside = windows.outside()
    cut: Cut = {}
    for product, band in ((product, band) for product in PRODUCTS for band in files.bands):
        plane, _ = read_band(files, product, band)
        cut[product, band] = np.where(outside, 0, windows.gather(plane)).astype(np.float32)
    return cut


def sections(files: BrickFiles, windows: Windows) -> Cut:
    """The same by decoding only the tiles under each stamp."""
    return {(product, band): _sections(files, (product, band), windows) for product in PRODUCTS for band in files.bands}


def _sections(files: BrickFiles, which: tuple[str, str], windows: Windows) -> NDArray[np.float32]:
    out = np.zeros((len(windows.x0), windows.size, windows.size), np.float32)
    rows, columns = windows.shape
    with fits.open(files.folder / _name(files, which), memmap=True) as hdus:
        section = next(hdu for hdu in hdus if len(getattr(hdu, "shape", ())) == 2).section
        for index, (x, y) in enumerate(zip(windows.x0.tolist(), windows.y0.tolist(), strict=True)):
            left, right, low, high = max(x, 0), min(x + windows.size, columns), max(y, 0), min(y + windows.size, rows)
            if left < right and low < high:
                out[index, low - y : high - y, left - x : right - x] = section[low:high, left:right]
    return out


def _name(files: BrickFiles, which: tuple[str, str]) -> str:
    path = files.path(*which)
    if path is None:
        raise RuntimeError(f"{files.unit} has no {which}")
    return path.name
