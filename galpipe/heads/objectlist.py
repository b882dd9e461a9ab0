"""Objects of a stamp: from raw maps to a list, masks as run lengths, positions on the sky, matching with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torchvision.ops import nms

from galpipe.heads.base import FloatArray, StampContext
from galpipe.heads.objectscore import FEATURES, Scoring, covered_shares, sigmoid, uncalibrated
from galpipe.lvm.inputs import float_column

STRIDE = 2
"""Pixels per cell of the map of centers."""

MAX_OBJECTS = 64
"""Most detections of one stamp."""

THRESHOLD = 0.4
"""Score from which on a peak is a detection until calibration says better."""

LEAST_HEAT = 0.05
"""Heat from which on a peak is a candidate."""

OVERLAP = 0.6
"""IoU above which the weaker of two boxes is dropped."""

MATCH = 4.0
"""Pixels (1.05 arcsec) within which a detected center counts as the true one."""

UNCALIBRATED = uncalibrated(THRESHOLD)


@dataclass(frozen=True)
class Candidates:
    """Peaks of one stamp in padded pixels, strongest first.

    Parameters
    ----------
    centers, boxes, stars : ndarray
        Shapes (K, 2) x and y, (K, 4) x0 y0 x1 y1 (whole pixels, ends inclusive), (K,) probability of being a star.
    features : ndarray
        Shape (K, F), see `galpipe.heads.objectscore.FEATURES`.
    """

    centers: FloatArray
    boxes: FloatArray
    stars: FloatArray
    features: npt.NDArray[np.float64]

    def take(self, rows: npt.NDArray[np.int64]) -> Candidates:
        """Some of them."""
        return Candidates(self.centers[rows], self.boxes[rows], self.stars[rows], self.features[rows])


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


def candidates(maps: FloatArray, foreground: FloatArray, context: StampContext, index: int = 0) -> Candidates:
    """Peaks of one stamp's raw maps that lie in the stamp, strongest first.

    Parameters
    ----------
    maps : ndarray
        Shape (11, P/2, P/2).
    foreground : ndarray
        Shape (P, P), logits.
    context : StampContext
    index : int
        The stamp's place in the context.
    """
    heat = torch.from_numpy(sigmoid(maps[0]))
    peak = functional.max_pool2d(heat[None, None], 3, stride=1, padding=1)[0, 0]
    rows, columns = torch.nonzero((heat == peak) & (heat > LEAST_HEAT), as_tuple=True)
    order = torch.argsort(heat[rows, columns], descending=True, stable=True)[: 2 * MAX_OBJECTS]
    row, column = rows[order].numpy(), columns[order].numpy()
    x = (column + np.clip(maps[1, row, column], -1, 2)) * STRIDE
    y = (row + np.clip(maps[2, row, column], -1, 2)) * STRIDE
    low, high = context.margin, context.margin + context.size - 1
    inside = (x >= low - 0.5) & (x <= high + 0.5) & (y >= low - 0.5) & (y <= high + 0.5)
    row, column, x, y = row[inside], column[inside], x[inside], y[inside]
    sides = np.exp(np.clip(maps[3:7, row, column], -0.7, 5.0)) - 0.5
    # whole pixels, as the truth's: the nearest ones
    boxes = np.clip(np.round(np.stack([x - sides[0], y - sides[1], x + sides[2], y + sides[3]], axis=1)), low, high).astype(np.float32)
    pull = np.hypot(column * STRIDE + 8 * maps[8, row, column] - x, row * STRIDE + 8 * maps[9, row, column] - y)
    side = np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2] + 1, 1, None).prod(axis=1))
    pixel = np.clip(np.round(np.stack([y, x])), low, high).astype(np.int64)
    features = {
        "constant": np.ones(len(x)),
        "heat": np.clip(maps[0, row, column], -6, 6),
        "quality": np.clip(maps[10, row, column], -6, 6),
        "size": np.log(side / 10),
        "pull": np.minimum(2 * pull / side, 2.0),
        "inside": covered_shares(boxes),
        "foreground": np.clip(foreground[pixel[0], pixel[1]], -12, 12) / 4,
        "missing": (context.valid[index][:, pixel[0], pixel[1]] == 0).sum(axis=0),
    }
    table = np.stack([features[name] for name in FEATURES], axis=1).astype(np.float64)
    return Candidates(np.stack([x, y], axis=1).astype(np.float32), boxes, sigmoid(maps[7, row, column]), table)


def distinct(listed: Candidates, scores: FloatArray) -> npt.NDArray[np.int64]:
    """Candidates that are left when of two that overlap the weaker is dropped, best first."""
    boxes = torch.from_numpy(listed.boxes + np.array([0, 0, 1, 1], dtype=np.float32))
    return np.asarray(nms(boxes, torch.from_numpy(scores), OVERLAP).numpy(), dtype=np.int64)


def find(maps: FloatArray, foreground: FloatArray, context: StampContext, how: tuple[int, Scoring] = (0, UNCALIBRATED)) -> Found:
    """Objects of one stamp from its raw maps, padded pixels.

    Parameters
    ----------
    maps, foreground, context
        As `candidates`.
    how : tuple
        The stamp's place in the context, and how candidates are scored.
    """
    index, scoring = how
    listed = candidates(maps, foreground, context, index)
    scores = scoring.scores(listed.features)
    above = np.flatnonzero(scores >= scoring.threshold)
    listed, scores = listed.take(above), scores[above]
    kept = distinct(listed, scores)[:MAX_OBJECTS]
    listed = listed.take(kept)
    owner = _owners(listed.centers, listed.boxes, maps[8:10], foreground)
    return Found(listed.centers, listed.boxes, scores[kept], listed.stars, owner)


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
