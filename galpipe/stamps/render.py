"""Pictures of stamps for people: the viewer's fixed stretch, mosaics, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from galpipe.stamps.stretch import PLANES, SCALES, M, Q, lupton_values


def to_rgb(flux: NDArray[np.floating], bands: Sequence[str] = ("g", "r", "z")) -> NDArray[np.uint8]:
    """Color image by the published ``dr2_rgb`` (Lupton asinh; reference section 6), the same stretch for every stamp.

    Parameters
    ----------
    flux : ndarray, shape (B, H, W)
        Nanomaggies per 0.262 arcsec pixel, row 0 at the bottom (south).
    bands : sequence of str
        Band of each plane; z is red (i where there is no z), r green, g blue, an absent band black.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        Row 0 at the top (north), as pictures have it.
    """
    planes = {band: np.nan_to_num(np.asarray(plane, np.float32)) for band, plane in zip(bands, flux, strict=True)}
    if "z" not in planes and "i" in planes:
        planes["z"] = planes["i"] * np.float32(SCALES["i"] / SCALES["z"])
    shown = {index: np.float32(SCALES[band]) * planes[band] + np.float32(M) for band, index in PLANES.items() if band in planes}
    height, width = np.asarray(flux).shape[-2:]
    if not shown:
        return np.zeros((height, width, 3), np.uint8)
    return np.rint(lupton_values(shown, Q)[::-1] * 255).astype(np.uint8)


def mosaic(pictures: Sequence[NDArray[np.uint8]], columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """Pictures of one size side by side on white.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (H, W, 3)
    columns : int
        Pictures per row.
    gap : int
        White pixels between them.

    Returns
    -------
    ndarray of uint8, shape (rows * (H + gap) - gap, columns * (W + gap) - gap, 3)

    Raises
    ------
    ValueError
        If there are no pictures, or their shapes differ.
    """
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or columns < 1:
        raise ValueError(f"a mosaic needs pictures of one shape and at least one column, got shapes {sorted(shapes)}, {columns} columns")
    height, width, _ = shapes.pop()
    rows = -(-len(pictures) // columns)
    out = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = (index // columns) * (height + gap), (index % columns) * (width + gap)
        out[y : y + height, x : x + width] = picture
    return out


def draw_boxes(
    picture: NDArray[np.uint8], boxes: NDArray[np.floating], labels: Sequence[str] = (), color: tuple[int, int, int] = (90, 255, 120)
) -> NDArray[np.uint8]:
    """A picture with boxes on it.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        Row 0 at the top, as `to_rgb` gives it.
    boxes : ndarray, shape (K, 4)
        x0, y0, x1, y1 in stamp pixels (row 0 at the bottom; pixel centers are whole numbers).
    labels : sequence of str
        Text of each box; may be empty.
    color : tuple of int

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    top = picture.shape[0] - 1
    for index, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4)):
        corners = (min(x0, x1), top - max(y0, y1), max(x0, x1), top - min(y0, y1))
        pen.rectangle(corners, outline=color)
        if index < len(labels):
            pen.text((corners[0] + 2, max(0.0, corners[1] - 11)), labels[index], fill=color)
    return np.asarray(image, np.uint8).copy()


def enlarge(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """A picture with every pixel repeated, shape (H * factor, W * factor, 3)."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def label(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A picture with one line of text in its upper left corner, shape (H, W, 3)."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    pen.text((4, 3), text, fill=(0, 0, 0))
    pen.text((3, 2), text, fill=(255, 255, 255))
    return np.asarray(image, np.uint8).copy()


def png(picture: NDArray[np.uint8]) -> bytes:
    """PNG bytes of a picture, shape (H, W, 3)."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
