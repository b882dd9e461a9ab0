"""Objects of a stamp: from raw maps to a list, masks as run lengths, positions on the sky, matching with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torchvision.ops import nms

from galpipe.heads.base import FloatArray, StampContext
from galpipe.lvm.inputs import float_column

STRIDE = 2
"""Pixels per cell of the map of centers."""

MAX_OBJECTS = 64
"""Most detections of one stamp."""

THRESHOLD = 0.4
"""Score from which on a peak is a detection: where completeness and purity meet on training bricks."""

OVERLAP = 0.6
"""IoU above which the weaker of two boxes is dropped."""

MATCH = 4.0
"""Pixels (1.05 arcsec) within which a detected center counts as the true one."""


@dataclass(frozen=True)
class Found:
    """Detections of one stamp in padded pixels, best first.

    Parameters
    ----------
    centers, boxes, scores, stars : ndarray
        Shapes (K, 2) x and y, (K, 4) x0 y0 x1 y1, (K,), (K,) probability of being a star.
    owner : ndarray
        int16, shape (P, P): index of the object that owns the pixel, -1 = none.
    """

    centers: FloatArray
    boxes: FloatArray
    scores: FloatArray
    stars: FloatArray
    owner: npt.NDArray[np.int16]


def _sigmoid(values: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -30, 30))), dtype=np.float32)


def find(maps: FloatArray, foreground: FloatArray, context: StampContext) -> Found:
    """Objects of one stamp from its raw maps, padded pixels."""
    heat = torch.from_numpy(_sigmoid(maps[0]))
    peak = functional.max_pool2d(heat[None, None], 3, stride=1, padding=1)[0, 0]
    rows, columns = torch.nonzero((heat == peak) & (heat > THRESHOLD), as_tuple=True)
    scores = heat[rows, columns]
    order = torch.argsort(scores, descending=True, stable=True)[: 2 * MAX_OBJECTS]
    row, column, score = rows[order].numpy(), columns[order].numpy(), scores[order].numpy()
    x = (column + np.clip(maps[1, row, column], 0, 1)) * STRIDE
    y = (row + np.clip(maps[2, row, column], 0, 1)) * STRIDE
    sides = np.exp(np.clip(maps[3:7, row, column], -0.7, 5.0)) - 0.5
    low, high = context.margin, context.margin + context.size - 1
    boxes = np.stack([x - sides[0], y - sides[1], x + sides[2], y + sides[3]], axis=1).astype(np.float32)
    inside = (x >= low - 0.5) & (x <= high + 0.5) & (y >= low - 0.5) & (y <= high + 0.5)
    boxes = np.clip(boxes, low, high)
    kept = np.flatnonzero(inside)
    kept = kept[nms(torch.from_numpy(boxes[kept]), torch.from_numpy(score[kept]), OVERLAP).numpy()][:MAX_OBJECTS]
    centers = np.stack([x, y], axis=1).astype(np.float32)[kept]
    owner = _owners(centers, boxes[kept], maps[8:10], foreground)
    return Found(centers, boxes[kept], score[kept], _sigmoid(maps[7, row, column])[kept], owner)


def _owners(centers: FloatArray, boxes: FloatArray, pointers: FloatArray, foreground: FloatArray) -> npt.NDArray[np.int16]:
    owner = np.full(foreground.shape, -1, dtype=np.int16)
    rows, columns = np.nonzero(foreground > 0)
    if not len(centers) or not len(rows):
        return owner
    toward_x = columns + 8 * pointers[0, rows // STRIDE, columns // STRIDE]
    toward_y = rows + 8 * pointers[1, rows // STRIDE, columns // STRIDE]
    distance = np.hypot(toward_x[None] - centers[:, :1], toward_y[None] - centers[:, 1:])
    outside = (columns[None] < boxes[:, :1]) | (columns[None] > boxes[:, 2:3]) | (rows[None] < boxes[:, 1:2]) | (rows[None] > boxes[:, 3:4])
    distance[outside] = np.inf
    nearest = distance.argmin(axis=0)
    reached = np.isfinite(distance[nearest, np.arange(len(rows))])
    owner[rows[reached], columns[reached]] = nearest[reached]
    return owner


def encode_runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Run lengths of a mask in row order, the first run being of False (possibly 0)."""
    flat = mask.ravel()
    if not len(flat):
        return []
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def decode_runs(runs: list[int], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask that `encode_runs` wrote."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(shape)


def sky_anchor(context: StampContext) -> npt.NDArray[np.float64]:
    """Per stamp ra and dec (deg) of the source and its place x and y in the stamp, shape (N, 4)."""
    rows = context.sources.num_rows
    middle = context.size // 2
    x = middle + np.nan_to_num(float_column(context.sources, "stamp_dx", rows))
    y = middle + np.nan_to_num(float_column(context.sources, "stamp_dy", rows))
    return np.stack([float_column(context.sources, "ra", rows), float_column(context.sources, "dec", rows), x, y], axis=1)


def to_sky(x: float, y: float, anchor: npt.NDArray[np.float64], pixscale: float) -> tuple[float, float]:
    """Ra and dec (deg) of a stamp pixel, by the tangent plane at the source (north up, east left)."""
    ra0, dec0 = np.deg2rad(anchor[0]), np.deg2rad(anchor[1])
    east, north = np.deg2rad(-(x - anchor[2]) * pixscale / 3600), np.deg2rad((y - anchor[3]) * pixscale / 3600)
    bottom = np.cos(dec0) - north * np.sin(dec0)
    ra = ra0 + np.arctan2(east, bottom)
    dec = np.arctan2(np.sin(dec0) + north * np.cos(dec0), np.hypot(east, bottom))
    return float(np.rad2deg(ra) % 360.0), float(np.rad2deg(dec))


class Tally:
    """Counts of matches over stamps."""

    def __init__(self) -> None:
        self.true = self.said = self.matched = self.right_class = 0
        self.iou = 0.0

    def add(self, objects: FloatArray, listed: npt.NDArray[np.float64]) -> None:
        """Match greedily, best detection first; ignored objects neither reward nor punish."""
        free = np.ones(len(objects), dtype=bool)
        self.true += int((objects[:, 7] == 0).sum())
        for item in listed:
            distance = np.hypot(objects[:, 0] - item[0], objects[:, 1] - item[1])
            distance[~free] = np.inf
            best = int(distance.argmin()) if len(distance) else -1
            near = best >= 0 and distance[best] <= max(MATCH, 0.15 * float(np.ptp(objects[best, [2, 4]])))
            if near:
                free[best] = False
            if near and objects[best, 7] > 0:
                continue
            self.said += 1
            if near:
                self.matched += 1
                self.right_class += int((item[6] > 0) == (objects[best, 6] > 0))
                self.iou += box_iou(item[2:6], objects[best, 2:6])

    @property
    def completeness(self) -> float:
        """Share of the true objects that were found."""
        return self.matched / max(self.true, 1)

    @property
    def purity(self) -> float:
        """Share of the listed objects that are true."""
        return self.matched / max(self.said, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of completeness and purity."""
        return 2 * self.matched / max(self.true + self.said, 1)

    @property
    def mean_iou(self) -> float:
        """Mean box overlap over the true objects, 0 where missed."""
        return self.iou / max(self.true, 1)

    @property
    def class_share(self) -> float:
        """Share of the true objects found with the right class."""
        return self.right_class / max(self.true, 1)


def box_iou(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1 with inclusive ends."""
    wide = min(float(one[2]), float(other[2])) - max(float(one[0]), float(other[0])) + 1
    high = min(float(one[3]), float(other[3])) - max(float(one[1]), float(other[1])) + 1
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = [(float(box[2]) - float(box[0]) + 1) * (float(box[3]) - float(box[1]) + 1) for box in (one, other)]
    return shared / max(sum(areas) - shared, 1e-9)
