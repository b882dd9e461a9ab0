"""Detection: every object of the stamp with box, mask, class and score, by a map of centers at half resolution.

Centers as in CenterNet (Zhou et al. 2019, arXiv:1904.07850): a heat map with the penalty-reduced focal loss, log distances to the
four box sides, a class. Masks: a pixel is an object's when its foreground score passes 0.5 and the center it points to is the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import nms

from galpipe.columns import Column
from galpipe.heads.base import FloatArray, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.lvm.encoder import Features, ModelSettings
from galpipe.lvm.inputs import float_column

STRIDE = 2
"""Pixels per cell of the map of centers."""

MAX_OBJECTS = 64
"""Most detections of one stamp."""

THRESHOLD = 0.3
"""Score from which on a peak is a detection."""

OVERLAP = 0.6
"""IoU above which the weaker of two boxes is dropped."""

CLASSES = ("galaxy", "star")

MATCH = 4.0
"""Pixels (1.05 arcsec) within which a detected center counts as the true one."""

DETECTION = pa.struct(
    [
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("score", pa.float32()),
        ("class", pa.string()),
        ("area", pa.int32()),
        ("mask_rle", pa.list_(pa.uint16())),
    ]
)
"""One detection: center and box in stamp pixels, position, score, class, mask as run lengths (see `encode_runs`)."""


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


class Detection(Head):
    """Maps of centers, box sides, class, foreground and pointers to the own center."""

    name = "detection"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Conv2d(settings.decoder, 32, 3, padding=1), nn.GELU())
        # 1 heat, 2 place within the cell, 4 log sides, 1 class, 2 pointer, 4 foreground (one per pixel of the cell)
        self.last = nn.Conv2d(32, 14, 1)
        nn.init.constant_(self.last.bias[:1], -4.0)  # type: ignore[index]
        nn.init.constant_(self.last.bias[3:7], 1.5)  # type: ignore[index]

    @classmethod
    def build(cls, settings: ModelSettings) -> Detection:
        """Make the head."""
        return cls(settings)

    def forward(self, features: Features) -> Outputs:
        """``maps`` of shape (N, 10, P/2, P/2) and ``foreground`` of shape (N, P, P)."""
        raw = self.last(self.hidden(features.decoded))
        raw = raw.float()
        return {"maps": raw[:, :10], "foreground": functional.pixel_shuffle(raw[:, 10:], STRIDE)[:, 0]}

    def targets(self, truth: Truth) -> Outputs:
        """Heat, ignored cells, and per-cell answers with the places where they hold."""
        made = [_stamp_targets(objects, segments) for objects, segments in zip(truth.objects, truth.segments, strict=True)]
        maps = np.stack([item for item, _ in made])
        segments = truth.segments
        foreground = np.where(segments == 255, 2, segments > 0).astype(np.uint8)
        foreground[~truth.known] = 2
        maps[:, 1][~truth.known[:, ::STRIDE, ::STRIDE]] = 1.0
        pointers = np.stack([item for _, item in made])
        return {"maps": torch.from_numpy(maps), "foreground": torch.from_numpy(foreground), "pointers": torch.from_numpy(pointers)}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Focal loss of the centers, L1 of places, sides and pointers, cross entropy of class and foreground."""
        maps, wanted = outputs["maps"], targets["maps"]
        centers = wanted[:, 2] > 0
        count = centers.sum().clamp(min=1)
        focal = center_loss(maps[:, 0], wanted[:, 0], wanted[:, 1] > 0) / count
        picked = maps.permute(0, 2, 3, 1)[centers]
        answers = wanted.permute(0, 2, 3, 1)[centers]
        place = (picked[:, 1:3] - answers[:, 3:5]).abs().sum() / count
        sides = (picked[:, 3:7] - answers[:, 5:9]).abs().sum() / count
        kind = functional.binary_cross_entropy_with_logits(picked[:, 7], answers[:, 9], reduction="sum") / count
        scored = targets["foreground"] < 2
        pixels = functional.binary_cross_entropy_with_logits(
            outputs["foreground"], targets["foreground"].clamp(max=1).float(), reduction="none"
        )
        pixels = (pixels * scored).sum() / scored.sum().clamp(min=1)
        owned = torch.isfinite(targets["pointers"])
        error = torch.where(owned, maps[:, 8:10] - torch.where(owned, targets["pointers"], 0.0), 0.0).abs()
        pointer = error.sum() / owned.sum().clamp(min=1)
        return focal + 0.2 * place + 0.3 * sides + 0.5 * kind + 2.0 * pixels + 0.2 * pointer

    def columns(self) -> tuple[Column, ...]:
        """How many, and the list."""
        text = f"Objects found in the stamp (score over {THRESHOLD})"
        listed = "Objects found, best first: center and box in stamp pixels, position, score, class, mask run lengths within the box"
        return (
            Column("n_detections", pa.int16(), "", text, 1.0, "mock only"),
            Column("detections", pa.list_(DETECTION), "", listed, 1.0, "mock only"),
        )

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Peaks to objects, with positions on the sky."""
        rows = []
        centers = sky_anchor(context)
        for index in range(len(outputs["maps"])):
            found = find(outputs["maps"][index], outputs["foreground"][index], context)
            rows.append([_record(found, k, centers[index], context) for k in range(len(found.scores))])
        counts = pa.array([len(row) for row in rows], pa.int16())
        return {"n_detections": counts, "detections": pa.array(rows, pa.list_(DETECTION))}

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Completeness, purity and F1 of centers, class accuracy, mean IoU of boxes; the constant answer is the central object alone."""
        model = _Tally()
        constant = _Tally()
        margin = (truth.known.shape[-1] - 152) // 2
        typical = _typical_half_box(truth)
        for objects, found in zip(truth.objects, predicted["detections"].to_pylist(), strict=True):
            listed = np.array([[d["x"], d["y"], d["x0"], d["y0"], d["x1"], d["y1"], d["class"] == "star"] for d in found]).reshape(-1, 7)
            listed[:, :6] += margin
            model.add(objects, listed)
            middle = truth.known.shape[-1] / 2
            constant.add(objects, np.array([[middle, middle, middle - typical, middle - typical, middle + typical, middle + typical, 0.0]]))
        said = "the central object alone, median box, galaxy"
        return [
            Score("completeness, S/N > 5, within 4 px", "", model.completeness, constant.completeness, True, model.true, said),
            Score("purity", "", model.purity, constant.purity, True, model.said, said),
            Score("F1", "", model.f1, constant.f1, True, model.true, said),
            Score("mean box IoU over true objects (0 where missed)", "", model.mean_iou, constant.mean_iou, True, model.true, said),
            Score("class right over true objects (0 where missed)", "", model.class_share, constant.class_share, True, model.true, said),
        ]


class _Tally:
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
        return self.matched / max(self.true, 1)

    @property
    def purity(self) -> float:
        return self.matched / max(self.said, 1)

    @property
    def f1(self) -> float:
        return 2 * self.matched / max(self.true + self.said, 1)

    @property
    def mean_iou(self) -> float:
        return self.iou / max(self.true, 1)

    @property
    def class_share(self) -> float:
        return self.right_class / max(self.true, 1)


def box_iou(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1 with inclusive ends."""
    wide = min(float(one[2]), float(other[2])) - max(float(one[0]), float(other[0])) + 1
    high = min(float(one[3]), float(other[3])) - max(float(one[1]), float(other[1])) + 1
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = [(float(box[2]) - float(box[0]) + 1) * (float(box[3]) - float(box[1]) + 1) for box in (one, other)]
    return shared / max(sum(areas) - shared, 1e-9)


def center_loss(logits: Tensor, heat: Tensor, ignored: Tensor) -> Tensor:
    """Penalty-reduced focal loss, summed (CenterNet, equation 1, alpha 2, beta 4)."""
    chance = torch.sigmoid(logits)
    hit = (heat >= 0.999) & ~ignored
    positive = functional.logsigmoid(logits) * (1 - chance) ** 2 * hit
    negative = functional.logsigmoid(-logits) * chance**2 * (1 - heat) ** 4 * (~hit & ~ignored)
    return -(positive.sum() + negative.sum())


def _stamp_targets(objects: FloatArray, segments: npt.NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """Maps (10, P/2, P/2): heat, ignored, is center, place x y, log sides l t r b, class; pointers (2, P/2, P/2), NaN = none."""
    side = segments.shape[0] // STRIDE
    maps = np.zeros((10, side, side), dtype=np.float32)
    grid = np.arange(side, dtype=np.float32)
    for x, y, x0, y0, x1, y1, star, ignore in objects:
        cell = (int(np.floor(x / STRIDE)), int(np.floor(y / STRIDE)))
        if not (0 <= cell[0] < side and 0 <= cell[1] < side):
            continue
        size = float(np.sqrt(max((x1 - x0 + 1) * (y1 - y0 + 1), 1.0))) / STRIDE
        spread = float(np.clip(size / 8, 0.7, 3.0))
        bump = np.exp(-((grid[None, :] - cell[0]) ** 2 + (grid[:, None] - cell[1]) ** 2) / (2 * spread**2))
        if ignore:
            maps[1] = np.maximum(maps[1], bump > 0.3)
            continue
        maps[0] = np.maximum(maps[0], bump)
        maps[2:, cell[1], cell[0]] = [
            1.0,
            x / STRIDE - cell[0],
            y / STRIDE - cell[1],
            *np.log(np.maximum([x - x0 + 0.5, y - y0 + 0.5, x1 - x + 0.5, y1 - y + 0.5], 0.5)),
            star,
        ]
    # a center never hides behind an ignored neighbor
    maps[1][maps[2] > 0] = 0.0
    return maps, _pointers(objects, segments[::STRIDE, ::STRIDE])


def _pointers(objects: FloatArray, coarse: npt.NDArray[np.uint8]) -> FloatArray:
    """From each owned cell to its object's center, in units of 8 px; NaN where nobody owns the cell."""
    result = np.full((2, *coarse.shape), np.nan, dtype=np.float32)
    owned = (coarse > 0) & (coarse <= len(objects))
    if owned.any():
        rows, columns = np.nonzero(owned)
        own = objects[coarse[owned].astype(int) - 1]
        result[0][owned] = (own[:, 0] - columns * STRIDE) / 8
        result[1][owned] = (own[:, 1] - rows * STRIDE) / 8
    return result


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


def _record(found: Found, index: int, anchor: npt.NDArray[np.float64], context: StampContext) -> dict[str, object]:
    x, y = (float(value) - context.margin for value in found.centers[index])
    box = found.boxes[index]
    x0, y0, x1, y1 = (int(value) for value in (np.floor(box[0]), np.floor(box[1]), np.ceil(box[2]), np.ceil(box[3])))
    mask = found.owner[y0 : y1 + 1, x0 : x1 + 1] == index
    place = to_sky(x, y, anchor, context.pixscale) if np.isfinite(anchor[:2]).all() else (None, None)
    return {
        "x": x,
        "y": y,
        "ra": place[0],
        "dec": place[1],
        **{name: value - context.margin for name, value in zip(("x0", "y0", "x1", "y1"), (x0, y0, x1, y1), strict=True)},
        "score": float(found.scores[index]),
        "class": CLASSES[int(found.stars[index] > 0.5)],
        "area": int(mask.sum()),
        "mask_rle": encode_runs(mask),
    }


def _typical_half_box(truth: Truth) -> float:
    sizes = [float(np.ptp(item[[2, 4]])) for objects in truth.objects for item in objects if item[7] == 0]
    return float(np.median(sizes)) / 2 if sizes else 5.0
