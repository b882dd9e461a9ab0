"""Detection: every object of the stamp with box, mask, class and score, by a map of centers at half resolution.

Centers as in CenterNet (Zhou et al. 2019, arXiv:1904.07850): a heat map with the penalty-reduced focal loss, log distances to the
four box sides, a class. Masks: a pixel is an object's when its foreground score passes 0.5 and the center it points to is the nearest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.columns import Column
from galpipe.heads.base import FloatArray, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.heads.objectlist import STRIDE, THRESHOLD, Found, Tally, encode_runs, find, sky_anchor, to_sky
from galpipe.lvm.encoder import Features, ModelSettings

CLASSES = ("galaxy", "star")

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
        model = Tally()
        constant = Tally()
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
