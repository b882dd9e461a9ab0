"""Detection in images larger than a stamp: overlapping tiles, each object from the tile whose center is nearest.

A tile keeps what lies nearer to its own center than to another tile's, and a strip of `SLACK` pixels beyond, because two tiles may put
the same object on either side of their border. Detections of different tiles that are the same object are then joined: the one
nearer to its tile's center stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.spatial import cKDTree

from galpipe.config import SOFTENING, STAMP_SIZE, SURVEY_PIXSCALE
from galpipe.heads.detection import CLASSES, Detection
from galpipe.heads.objectlist import MATCH, Found, encode_runs, find
from galpipe.lvm.field import SkyField
from galpipe.lvm.predict import Predictor
from galpipe.stamps.normalize import codec, encode, in_range
from galpipe.stamps.stampset import FILLED, StampSet

Progress = Callable[[str, int, int], None]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

STEP = 96
"""Pixels between tiles at most: whatever is nearest to a tile's center is 28 pixels or more from its edge."""

SLACK = 4.0
"""Pixels beyond a tile's own area from which it still lists objects."""

WIDE = 0.25
"""Of a box's side: how far apart two tiles may put the center of the same large object."""

SCHEMA = pa.schema(
    [
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        *((name, pa.int32()) for name in ("x0", "y0", "x1", "y1")),
        ("score", pa.float32()),
        ("class", pa.string()),
        ("star_probability", pa.float32()),
        ("area", pa.int32()),
        ("mask_rle", pa.list_(pa.uint16())),
        *((f"flux_{band}", pa.float32()) for band in ("g", "r", "z")),
        ("truncated", pa.bool_()),
        ("tile", pa.int32()),
    ]
)
"""One object: center (0-based pixels of the image) and position, box (ends inclusive), score, class, pixels of its own mask and their
run lengths within the box (`galpipe.heads.objectlist.encode_runs`), flux in those pixels (nanomaggies; null without the band),
whether its box ends at the edge of its tile inside the image, tile number."""


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of an image lie: first pixels along x and y, and the image's shape (rows, columns)."""

    x0: Rows
    y0: Rows
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.x0) * len(self.y0)

    def corner(self, tile: int) -> tuple[int, int]:
        """First pixel x, y of a tile."""
        row, column = divmod(tile, len(self.x0))
        return int(self.x0[column]), int(self.y0[row])

    def beyond(self, tile: int, x: Doubles, y: Doubles) -> Doubles:
        """Pixels by which places lie beyond the tile's own area, shape (K,); negative inside."""
        row, column = divmod(tile, len(self.x0))
        return np.maximum(_beyond(self.x0, column, x), _beyond(self.y0, row, y))


def tiling(shape: tuple[int, int]) -> Tiling:
    """Tiles that cover an image, evenly spread, at most `STEP` apart."""
    return Tiling(_corners(shape[1]), _corners(shape[0]), shape)


def _corners(length: int) -> Rows:
    room = max(length - STAMP_SIZE, 0)
    return np.asarray(np.round(np.linspace(0, room, 1 + -(-room // STEP))), dtype=np.int64)


def _beyond(corners: Rows, index: int, places: Doubles) -> Doubles:
    middles = corners + (STAMP_SIZE - 1) / 2
    low = (middles[index - 1] + middles[index]) / 2 if index > 0 else -np.inf
    high = (middles[index] + middles[index + 1]) / 2 if index + 1 < len(middles) else np.inf
    return np.asarray(np.maximum(low - places, places - high), dtype=np.float64)


def tile_stamps(image: SkyField, tiles: Tiling, numbers: list[int]) -> StampSet:
    """Some tiles as stamps; what lies beyond the image is marked as filled."""
    shape = (len(numbers), len(image.bands), STAMP_SIZE, STAMP_SIZE)
    codes, mask = np.zeros(shape, np.int16), np.zeros((shape[0], *shape[2:]), np.uint8)
    for place, number in enumerate(numbers):
        x0, y0 = tiles.corner(number)
        part = slice(y0, y0 + STAMP_SIZE), slice(x0, x0 + STAMP_SIZE)
        high, wide = image.flux[0][part].shape
        for index, band in enumerate(image.bands):
            line = codec(SOFTENING[band])
            flux = image.flux[index][part]
            codes[place, index] = encode(np.zeros(1), line)
            codes[place, index, :high, :wide] = encode(flux, line)
            bad = ~image.valid[index][part] | ~in_range(flux, line)
            mask[place, :high, :wide] |= np.where(bad, np.uint8(1 << index), np.uint8(0))
        mask[place, high:] |= FILLED
        mask[place, :, wide:] |= FILLED
    facts = {name: np.full(len(numbers), value, np.float32) for name, value in image.conditions.items()}
    table = pa.table({"tile": np.array(numbers, np.int32), **facts})
    softening = tuple(SOFTENING[band] for band in image.bands)
    return StampSet(codes, np.zeros(shape, np.uint8), mask, table, image.bands, SURVEY_PIXSCALE, softening)


def detect(predictor: Predictor, image: SkyField, batch: int = 32, progress: Progress | None = None) -> pa.Table:
    """Every object of an image, once.

    Parameters
    ----------
    predictor : Predictor
        With a detection head.
    image : SkyField
    batch : int
        Tiles per pass.
    progress : callable, optional
        Called as ``progress("tiles", done, total)``.

    Returns
    -------
    pyarrow.Table
        `SCHEMA`, best first.
    """
    tiles = tiling(image.shape)
    records: list[dict[str, Any]] = []
    for first in range(0, len(tiles), batch):
        numbers = list(range(first, min(first + batch, len(tiles))))
        for number, found in zip(numbers, _found(predictor, tile_stamps(image, tiles, numbers), batch), strict=True):
            records += _records(image, tiles, number, found)
        if progress is not None:
            progress("tiles", numbers[-1] + 1, len(tiles))
    kept = [records[row] for row in _joined(records)]
    if image.wcs is not None and kept:
        ra, dec = image.wcs.all_pix2world([item["x"] for item in kept], [item["y"] for item in kept], 0)
        for item, east, north in zip(kept, ra.tolist(), dec.tolist(), strict=True):
            item["ra"], item["dec"] = east % 360.0, north
    kept.sort(key=lambda item: (-item["score"], item["tile"], item["x"]))
    return pa.Table.from_pylist([{name: item.get(name) for name in SCHEMA.names} for item in kept], schema=SCHEMA)


def _found(predictor: Predictor, stamps: StampSet, batch: int) -> Iterator[Found]:
    head = cast(Detection, predictor.model.head("detection"))
    raw = predictor.raw(stamps, batch)
    outputs, context = raw.heads["detection"], raw.context
    margin = context.margin
    inside = slice(margin, margin + context.size)
    for index in range(len(stamps)):
        found = find(outputs["maps"][index], outputs["foreground"][index], context, (index, head.scoring()))
        yield Found(found.centers - margin, found.boxes - margin, found.scores, found.stars, found.owner[inside, inside])


def _records(image: SkyField, tiles: Tiling, tile: int, found: Found) -> list[dict[str, Any]]:
    """What a tile lists of its own area and the strip around it."""
    corner = np.array(tiles.corner(tile))
    x, y = (found.centers.astype(np.float64) + corner).T if len(found.scores) else (np.zeros(0), np.zeros(0))
    beyond = tiles.beyond(tile, x, y)
    away = np.abs(found.centers - (STAMP_SIZE - 1) / 2).max(axis=1, initial=0)
    high, wide = image.shape
    part = slice(int(corner[1]), int(corner[1]) + STAMP_SIZE), slice(int(corner[0]), int(corner[0]) + STAMP_SIZE)
    listed = []
    for index in np.flatnonzero((beyond < SLACK) & (x < wide - 0.5) & (y < high - 0.5)):
        box = np.minimum(found.boxes[index].astype(int), np.tile([wide - 1, high - 1] - corner, 2))
        own = found.owner == index
        mask = own[box[1] : box[3] + 1, box[0] : box[2] + 1]
        cut = ((box[:2] <= 0) & (corner > 0)) | ((box[2:] >= STAMP_SIZE - 1) & (corner + STAMP_SIZE < [wide, high]))
        inside = own[: image.flux[0][part].shape[0], : image.flux[0][part].shape[1]]
        fluxes = {f"flux_{band}": float(image.flux[k][part][inside].sum()) for k, band in enumerate(image.bands)}
        ends = dict(zip(("x0", "y0", "x1", "y1"), (box + np.tile(corner, 2)).tolist(), strict=True))
        star = float(found.stars[index])
        listed.append(
            {"x": float(x[index]), "y": float(y[index]), "ra": None, "dec": None, **ends, "score": float(found.scores[index])}
            | {"class": CLASSES[int(star > 0.5)], "star_probability": star, "area": int(mask.sum()), "mask_rle": encode_runs(mask)}
            | fluxes
            | {"truncated": bool(cut.any()), "tile": tile, "beyond": max(float(beyond[index]), 0.0), "away": float(away[index])}
        )
    return listed


def _joined(records: list[dict[str, Any]]) -> list[int]:
    if not records:
        return []
    places = np.array([[item["x"], item["y"]] for item in records])
    sides = np.array([np.sqrt((item["x1"] - item["x0"] + 1.0) * (item["y1"] - item["y0"] + 1.0)) for item in records])
    rank = np.array([[item["beyond"], item["away"]] for item in records])
    return join(places, sides, np.array([item["tile"] for item in records]), rank).tolist()


def join(places: Doubles, sides: Doubles, tiles: Rows, rank: Doubles) -> Rows:
    """Rows that stay when of the same object in different tiles one detection is kept.

    Parameters
    ----------
    places : ndarray
        Shape (K, 2), centers in pixels of the image.
    sides : ndarray
        Shape (K,), sides of the boxes, pixels.
    tiles : ndarray
        Shape (K,).
    rank : ndarray
        Shape (K, 2): pixels beyond the own tile's area (0 inside), then pixels from its center; the smaller stays.
    """
    order = np.lexsort((rank[:, 1], rank[:, 0]))
    pairs = cKDTree(places).query_pairs(max(MATCH, WIDE * STAMP_SIZE), output_type="ndarray")
    away = np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T)
    limit = np.maximum(MATCH, WIDE * np.minimum(sides[pairs[:, 0]], sides[pairs[:, 1]]))
    same = pairs[(tiles[pairs[:, 0]] != tiles[pairs[:, 1]]) & (away <= limit)]
    rivals: dict[int, list[int]] = {}
    for one, other in same.tolist():
        rivals.setdefault(one, []).append(other)
        rivals.setdefault(other, []).append(one)
    kept = np.zeros(len(places), dtype=bool)
    for row in order.tolist():
        kept[row] = not any(kept[rival] for rival in rivals.get(row, ()))
    return np.flatnonzero(kept)
