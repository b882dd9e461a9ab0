"""The deep baseline of detection: ResNet50 + Mask R-CNN of torchvision, from random weights, on the benchmark's training stamps.

The network is that of `galpipe.evaluate.maskrcnn_network`. Input: asinh units of g, r, z, scaled as the model's. Objects of S/N > 5 are
learned, those cut by the edge included; the threshold is where F1 is best on the training bricks' other stamps. Learned weights lie beside
the benchmark's packs, which no repository holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import nms

from galpipe.config import STAMP_SIZE
from galpipe.evaluate.detection import stamp_of
from galpipe.evaluate.maskrcnn_network import network
from galpipe.evaluate.objects import saved_listing
from galpipe.heads.detection import CLASSES
from galpipe.heads.objectlist import encode_runs
from galpipe.heads.objectmatch import IGNORED, match_boxes
from galpipe.heads.objectscore import best_threshold
from galpipe.lvm.data import load_pixels, turn_objects, turn_pixels
from galpipe.lvm.encoder import INPUT_SCALE
from galpipe.lvm.inputs import MARGIN
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import device_of
from galpipe.lvm.pack import Pack

WORK = "maskrcnn"
"""Folder of the checkpoint, in the folder of the benchmark's packs."""

OVERLAP = 0.5
"""IoU of boxes above which two detections are one object's."""

Batch = tuple[int, list[Tensor], list[dict[str, Tensor]]]


@dataclass(frozen=True)
class BaselineSettings:
    """What the baseline's weights depend on, besides the stamps.

    Parameters
    ----------
    epochs : int
    batch : int
    rate : float
        Largest learning rate (AdamW, warm-up, cosine: `galpipe.lvm.loop`).
    seed : int
    """

    epochs: int = 8
    batch: int = 4
    rate: float = 3e-4
    seed: int = 1

    def loop(self, stamps: int) -> LoopSettings:
        """The training loop over so many stamps; five checkpoints an epoch."""
        per_epoch = max(stamps // min(self.batch, stamps), 1)
        often = max(per_epoch // 5, 1)
        return LoopSettings(self.epochs * per_epoch, self.batch, self.rate, warmup=100, seed=self.seed, checkpoint=often)


def stamp_image(pack: Pack, row: int) -> npt.NDArray[np.float32]:
    """A stamp as the network sees it, padded frame: shape (3, P, P), zero where not valid."""
    pixels, valid = load_pixels(pack, np.array([row]))
    return np.asarray(np.where(valid[0], pixels[0], 0) * INPUT_SCALE, dtype=np.float32)


def example(pack: Pack, row: int, turn: int) -> tuple[Tensor, dict[str, Tensor]]:
    """One stamp, turned, and its objects as torchvision wants them: half-open boxes, labels from 1, masks.

    Parameters
    ----------
    pack : Pack
        With truth.
    row : int
    turn : int
        See `galpipe.lvm.data.turn_pixels`.
    """
    stamp = stamp_of(pack, row)
    frame = np.zeros((STAMP_SIZE + 2 * MARGIN,) * 2, dtype=np.uint8)
    inside = slice(MARGIN, MARGIN + STAMP_SIZE)
    frame[inside, inside] = stamp.segments
    codes = [code for code in np.unique(stamp.segments).tolist() if 0 < code < 255 and code <= len(stamp.objects)]
    own = stamp.objects[np.array(codes, dtype=np.int64) - 1].copy()
    own[:, :6] += MARGIN
    own = turn_objects(own, turn)
    segments = turn_pixels(frame, turn)
    masks = np.stack([segments == code for code in codes]) if codes else np.zeros((0, *frame.shape), bool)
    # the frame is left out again: the network sees stamps at their own size (a turn keeps pixel 80, and so moves the frame by one)
    first = MARGIN
    image = turn_pixels(stamp_image(pack, row), turn)[:, first : first + STAMP_SIZE, first : first + STAMP_SIZE]
    masks = masks[:, first : first + STAMP_SIZE, first : first + STAMP_SIZE]
    boxes = np.clip(own[:, 2:6] - first + np.array([0, 0, 1, 1]), 0, STAMP_SIZE)
    shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & masks.any(axis=(1, 2))
    target = {
        "boxes": torch.from_numpy(boxes[shown].astype(np.float32)),
        "labels": torch.from_numpy(1 + (own[shown, 6] > 0).astype(np.int64)),
        "masks": torch.from_numpy(masks[shown].astype(np.uint8)),
    }
    return torch.from_numpy(np.ascontiguousarray(image)), target


def train_baseline(pack: Pack, settings: BaselineSettings, folder: Path, progress: Progress | None = None) -> MaskRCNN:
    """Train; an interrupted call goes on from its last checkpoint, with the same result.

    Parameters
    ----------
    pack : Pack
        The training stamps.
    settings : BaselineSettings
    folder : Path
        Keeps ``maskrcnn-checkpoint/`` (safetensors and JSON).
    progress : callable, optional
        Called as ``progress("maskrcnn", step, steps)``.

    Raises
    ------
    ConfigurationError
        If the checkpoint is of other settings.
    """
    model = network(settings.seed)
    device = device_of()
    model.to(device)
    loop = settings.loop(len(pack))
    size = min(settings.batch, len(pack))

    def batch(step: int) -> Batch:
        epoch, place = divmod(step, max(len(pack) // size, 1))
        order = np.random.default_rng([settings.seed, 1, epoch]).permutation(len(pack))
        turns = np.random.default_rng([settings.seed, 2, step]).integers(8, size=size)
        rows = order[place * size : (place + 1) * size]
        made = [example(pack, int(row), int(turn)) for row, turn in zip(rows, turns, strict=True)]
        return step, [image for image, _ in made], [target for _, target in made]

    def loss(content: Batch) -> dict[str, Tensor]:
        step, images, targets = content
        # which proposals are sampled depends on the step alone, so that a resumed run repeats itself
        torch.manual_seed(settings.seed * 1_000_003 + step)
        moved = [{name: value.to(device) for name, value in target.items()} for target in targets]
        terms: dict[str, Tensor] = model([image.to(device) for image in images], moved)
        return terms

    folder.mkdir(parents=True, exist_ok=True)
    train(model, Task("maskrcnn", batch, loss, {"stamps": len(pack)}), loop, folder, progress)
    return model


def detections(model: nn.Module, pack: Pack, batch: int = 8) -> Iterator[list[dict[str, Any]]]:
    """What the network finds in every stamp: dictionaries as in the catalog's column ``detections``, best first."""
    device = next(model.parameters()).device
    inside = slice(MARGIN, MARGIN + STAMP_SIZE)
    model.eval()
    for first in range(0, len(pack), batch):
        images = [torch.from_numpy(stamp_image(pack, row)[:, inside, inside].copy()) for row in range(first, min(first + batch, len(pack)))]
        with torch.inference_mode():
            answers = model([image.to(device) for image in images])
        for answer in answers:
            # torchvision lists an object once per class; the likelier class is kept
            best = nms(answer["boxes"], answer["scores"], OVERLAP)
            yield _records({name: value[best].cpu().numpy() for name, value in answer.items()})


def _records(answer: dict[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    found = []
    for index in range(len(answer["scores"])):
        x0, y0, x1, y1 = np.clip(np.round(answer["boxes"][index] - np.array([0, 0, 1, 1])), 0, STAMP_SIZE - 1).astype(int)
        x1, y1 = max(x0, x1), max(y0, y1)
        mask = answer["masks"][index, 0, y0 : y1 + 1, x0 : x1 + 1] > 0.5
        box = {"x0": x0, "y0": y0, "x1": x1, "y1": y1}
        place = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "ra": None, "dec": None}
        said = {"score": float(answer["scores"][index]), "class": CLASSES[int(answer["labels"][index]) - 1]}
        found.append({**place, **{name: float(value) for name, value in box.items()}, **said, "area": int(mask.sum())})
        found[-1]["mask_rle"] = encode_runs(mask)
    return found


def choose_threshold(model: nn.Module, pack: Pack) -> float:
    """Score from which on F1 is best on stamps that trained nothing."""
    scores, right, true = [], [], 0.0
    for row, listed in enumerate(detections(model, pack)):
        objects = stamp_of(pack, row).objects
        listing = saved_listing(listed, 0.0, STAMP_SIZE)
        answers = match_boxes(listing.boxes, listing.centers, objects)
        scores.append(listing.scores[answers != IGNORED])
        right.append((answers[answers != IGNORED] >= 0).astype(np.float64))
        true += float((objects[:, 7] == 0).sum())
    return best_threshold(np.concatenate(scores), np.concatenate(right), true)[0] if scores else 0.5
