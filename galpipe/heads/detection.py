"""Detection: every object of the stamp with box, mask, class and score, by a map of centers at half resolution.

Centers as in CenterNet (Zhou et al. 2019, arXiv:1904.07850): a heat map with the penalty-reduced focal loss, log distances to the
four box sides, a class. Boxes learn at the nine cells around a center, by their sides and by generalized IoU (Rezatofighi et al. 2019,
arXiv:1902.09630), and say how well they fit. Scores are calibrated (`galpipe.heads.objectscore`). Masks: a pixel is an object's when its
foreground score passes 0.5 and the center it points to is the nearest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from galpipe.columns import Column
from galpipe.heads.base import FloatArray, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.heads.objectlist import STRIDE, UNCALIBRATED, Found, Tally, candidates, distinct, encode_runs, find, sky_anchor, to_sky
from galpipe.heads.objectmatch import IGNORED, match_boxes
from galpipe.heads.objectscore import FEATURES, Scoring, expected_error, fit_scoring
from galpipe.lvm.encoder import Features, ModelSettings

CLASSES = ("galaxy", "star")

MAPS = 11
"""Channels of the maps: heat, place x y, log sides l t r b, class, pointer x y, quality."""

AROUND = 0.3
"""Weight in the losses of boxes and classes of a cell beside a center's: a peak may lie one cell off."""

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
    version = 2
    coefficients: Tensor
    threshold: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Conv2d(settings.decoder, 32, 3, padding=1), nn.GELU())
        # 1 heat, 2 place within the cell, 4 log sides, 1 class, 2 pointer, 1 quality, 4 foreground (one per pixel of the cell)
        self.last = nn.Conv2d(32, MAPS + 4, 1)
        nn.init.constant_(self.last.bias[:1], -4.0)  # type: ignore[index]
        nn.init.constant_(self.last.bias[3:7], 1.5)  # type: ignore[index]
        self.register_buffer("coefficients", torch.tensor(UNCALIBRATED.coefficients, dtype=torch.float32))
        self.register_buffer("threshold", torch.tensor([UNCALIBRATED.threshold], dtype=torch.float32))

    @classmethod
    def build(cls, settings: ModelSettings) -> Detection:
        """Make the head."""
        return cls(settings)

    def forward(self, features: Features) -> Outputs:
        """``maps`` of shape (N, 11, P/2, P/2) and ``foreground`` of shape (N, P, P)."""
        raw = self.last(self.hidden(features.decoded))
        raw = raw.float()
        return {"maps": raw[:, :MAPS], "foreground": functional.pixel_shuffle(raw[:, MAPS:], STRIDE)[:, 0]}

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
        """Focal loss of the centers; box, class and quality of the cells around them; foreground; pointers."""
        maps, wanted = outputs["maps"], targets["maps"]
        count = (wanted[:, 2] >= 1).sum().clamp(min=1)
        focal = center_loss(maps[:, 0], wanted[:, 0], wanted[:, 1] > 0) / count
        scored = targets["foreground"] < 2
        pixels = functional.binary_cross_entropy_with_logits(
            outputs["foreground"], targets["foreground"].clamp(max=1).float(), reduction="none"
        )
        pixels = (pixels * scored).sum() / scored.sum().clamp(min=1)
        owned = torch.isfinite(targets["pointers"])
        error = torch.where(owned, maps[:, 8:10] - torch.where(owned, targets["pointers"], 0.0), 0.0).abs()
        pointer = error.sum() / owned.sum().clamp(min=1)
        return focal + box_loss(maps, wanted) + 2.0 * pixels + 0.2 * pointer

    def columns(self) -> tuple[Column, ...]:
        """How many, and the list."""
        text = f"Objects found in the stamp (score over {self.scoring().threshold:.2f})"
        listed = (
            "Objects found, best first: center and box in stamp pixels, position, score (chance that it is an object of S/N > 5 with this"
            " box at IoU 0.5), class, mask run lengths within the box"
        )
        return (
            Column("n_detections", pa.int16(), "", text, 1.0, "mock only"),
            Column("detections", pa.list_(DETECTION), "", listed, 1.0, "mock only"),
        )

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Peaks to objects, with positions on the sky."""
        rows = []
        centers = sky_anchor(context)
        for index in range(len(outputs["maps"])):
            found = find(outputs["maps"][index], outputs["foreground"][index], context, (index, self.scoring()))
            rows.append([_record(found, k, centers[index], context) for k in range(len(found.scores))])
        counts = pa.array([len(row) for row in rows], pa.int16())
        return {"n_detections": counts, "detections": pa.array(rows, pa.list_(DETECTION))}

    def scoring(self) -> Scoring:
        """How candidates are scored, as calibrated."""
        return Scoring(self.coefficients.detach().cpu().numpy().astype(np.float64), float(self.threshold[0]))

    def calibration(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """Features of every candidate, whether it is a true object, and how many true objects each stamp has."""
        features, right, full, true = [], [], [], []
        for index, objects in enumerate(truth.objects):
            listed = candidates(outputs["maps"][index], outputs["foreground"][index], context, index)
            kept = distinct(listed, UNCALIBRATED.scores(listed.features))
            listed = listed.take(kept)
            answers = match_boxes(listed.boxes, listed.centers, objects)
            judged = answers != IGNORED
            every = bool((context.valid[index].max(axis=(1, 2)) > 0).all())
            features.append(listed.features[judged])
            right.append(answers[judged] >= 0)
            full.append(np.full(int(judged.sum()), every))
            true.append((objects[:, 7] == 0).sum() if every else 0)
        table = np.concatenate(features)
        gathered = {f"feature_{name}": table[:, column] for column, name in enumerate(FEATURES)}
        gathered |= {"right": np.concatenate(right).astype(np.float64), "full": np.concatenate(full).astype(np.float64)}
        return gathered | {"true": np.array(true, dtype=np.float64)}

    def calibrate(self, gathered: dict[str, npt.NDArray[np.float64]]) -> dict[str, float]:
        """Coefficients of the score, fitted on all stamps, and the threshold of the best F1 on those with every band."""
        features = np.stack([gathered[f"feature_{name}"] for name in FEATURES], axis=1)
        right, full, true = gathered["right"], gathered["full"] > 0, float(gathered["true"].sum())
        if not right.any() or right.all():
            return {}
        before = UNCALIBRATED.scores(features[full])
        scoring = fit_scoring(features, right, true, full)
        after = scoring.scores(features[full])
        self.coefficients.copy_(torch.from_numpy(scoring.coefficients))
        self.threshold.fill_(scoring.threshold)
        result = {"threshold": scoring.threshold}
        for name, scores, threshold in (("before", before, UNCALIBRATED.threshold), ("after", after, scoring.threshold)):
            said = scores >= threshold
            result[f"f1_{name}"] = 2 * float(right[full][said].sum()) / max(float(said.sum()) + true, 1.0)
            result[f"calibration_error_{name}"] = expected_error(scores, right[full])
        return result

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


def box_loss(maps: Tensor, wanted: Tensor) -> Tensor:
    """Places, sides and generalized IoU of the boxes, class, and how well the box fits, over the weighted cells around centers."""
    cells = wanted[:, 2] > 0
    picked, answers = maps.permute(0, 2, 3, 1)[cells], wanted.permute(0, 2, 3, 1)[cells]
    weight = answers[:, 2] / answers[:, 2].sum().clamp(min=1)
    place = (picked[:, 1:3] - answers[:, 3:5]).abs().sum(dim=1)
    sides = (picked[:, 3:7] - answers[:, 5:9]).abs().sum(dim=1)
    kind = functional.binary_cross_entropy_with_logits(picked[:, 7], answers[:, 9], reduction="none")
    boxes, true = cell_boxes(picked[:, 1:7]), cell_boxes(answers[:, 3:9])
    # what the box reaches, not how sure it is, so no gradient
    fits = quality_target(boxes.detach(), true)
    quality = functional.binary_cross_entropy_with_logits(picked[:, 10], fits, reduction="none")
    overlap = generalized_box_iou_loss(boxes, true, reduction="none")
    return ((0.2 * place + 0.15 * sides + 0.5 * overlap + 0.5 * kind + 0.3 * quality) * weight).sum()


def cell_boxes(values: Tensor) -> Tensor:
    """Edges x0 y0 x1 y1, in pixels from the cell's corner, of place (cells) and log sides, shape (K, 6)."""
    center, sides = values[:, :2].clamp(-4, 5) * STRIDE, torch.exp(values[:, 2:].clamp(-2.0, 5.5))
    return torch.cat([center - sides[:, :2], center + sides[:, 2:]], dim=1)


def quality_target(boxes: Tensor, true: Tensor) -> Tensor:
    """IoU of boxes with their true ones, shape (K,)."""
    low, high = torch.maximum(boxes[:, :2], true[:, :2]), torch.minimum(boxes[:, 2:], true[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (true[:, 2:] - true[:, :2]).prod(dim=1)
    return shared / (areas - shared).clamp(min=1e-6)


def _stamp_targets(objects: FloatArray, segments: npt.NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """Maps (10, P/2, P/2): heat, ignored, weight, place x y, log sides l t r b, class; pointers (2, P/2, P/2), NaN = none.

    The weight is 1 at a center, `AROUND` at the eight cells around it, 0 elsewhere; of two objects the nearer one has a cell.
    """
    side = segments.shape[0] // STRIDE
    maps = np.zeros((10, side, side), dtype=np.float32)
    grid = np.arange(side, dtype=np.float32)
    apart = np.full((side, side), np.inf, dtype=np.float32)
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
        sides = np.log(np.maximum([x - x0 + 0.5, y - y0 + 0.5, x1 - x + 0.5, y1 - y + 0.5], 0.5))
        for row in range(max(cell[1] - 1, 0), min(cell[1] + 2, side)):
            for column in range(max(cell[0] - 1, 0), min(cell[0] + 2, side)):
                own = (column, row) == cell
                distance = 0.0 if own else float(np.hypot(x / STRIDE - column - 0.5, y / STRIDE - row - 0.5))
                if distance > apart[row, column]:
                    continue
                apart[row, column] = distance
                maps[2:, row, column] = [1.0 if own else AROUND, x / STRIDE - column, y / STRIDE - row, *sides, star]
    # a center never hides behind an ignored neighbor
    maps[1][maps[2] >= 1] = 0.0
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
    x0, y0, x1, y1 = (int(value) for value in box)
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
