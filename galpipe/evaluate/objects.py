"""What each method finds in stamps, in one form: the model, sep, or results that were saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from galpipe.heads.detection import CLASSES, Detection
from galpipe.heads.objectlist import Found, decode_runs, find
from galpipe.heads.objectscore import Scoring
from galpipe.heads.sep_baseline import extract, search_plane
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor
from galpipe.stamps.stampset import StampSet

FloatArray = npt.NDArray[np.float32]

LOWEST = 0.02
"""Score from which on the model's candidates enter the average precision."""


@dataclass(frozen=True)
class Listing:
    """Objects that a method lists in one stamp, best first; positions in stamp pixels.

    Parameters
    ----------
    centers, boxes, scores : ndarray
        Shapes (K, 2), (K, 4) with inclusive ends, (K,); all candidates, for the average precision.
    stars : ndarray
        Shape (K,), probability of being a star; NaN where the method does not say.
    kept : int
        The first so many are the method's detections.
    owner : ndarray
        int16, shape (S, S): which detection owns the pixel, -1 = none.
    """

    centers: FloatArray
    boxes: FloatArray
    scores: FloatArray
    stars: FloatArray
    kept: int
    owner: npt.NDArray[np.int16]


def model_listings(predictor: Predictor, pack: Pack, batch: int = 32) -> Iterator[Listing]:
    """What the model's detection head finds."""
    head = cast(Detection, predictor.model.head("detection"))
    scoring = head.scoring()
    lower = Scoring(scoring.coefficients, min(LOWEST, scoring.threshold))
    stamps = pack.stamps()
    for first in range(0, len(pack), batch):
        some = stamps.take(np.arange(first, min(first + batch, len(pack))))
        raw = predictor.raw(some, batch)
        outputs, context = raw.heads["detection"], raw.context
        inside = slice(context.margin, context.margin + context.size)
        for index in range(len(some)):
            found, every = (find(outputs["maps"][index], outputs["foreground"][index], context, (index, how)) for how in (scoring, lower))
            yield _listing(every, len(found.scores), found.owner[inside, inside], context.margin)


def _listing(every: Found, kept: int, owner: npt.NDArray[np.int16], margin: int) -> Listing:
    return Listing(every.centers - margin, every.boxes - margin, every.scores, every.stars, kept, owner)


def sep_listings(stamps: StampSet) -> Iterator[Listing]:
    """What sep finds at its usual threshold; the score is the peak's S/N, squeezed to 0 to 1; no classes."""
    for index in range(len(stamps)):
        plane = search_plane(stamps, index)
        found = None if plane is None else extract(plane[1], plane[2])
        if found is None:
            yield empty_listing(stamps.size)
            continue
        listed = found.objects
        peak = listed["peak"] / found.noise
        order = np.argsort(-peak, kind="stable")
        place = np.full(len(listed) + 1, -1, dtype=np.int16)
        place[order + 1] = np.arange(len(listed))
        centers = np.stack([listed["x"], listed["y"]], axis=1)[order].astype(np.float32)
        boxes = np.stack([listed[name] for name in ("xmin", "ymin", "xmax", "ymax")], axis=1)[order].astype(np.float32)
        scores = (peak[order] / (10 + peak[order])).astype(np.float32)
        yield Listing(centers, boxes, scores, np.full(len(listed), np.nan, np.float32), len(listed), place[found.segments])


def empty_listing(size: int) -> Listing:
    """Nothing found."""
    blank = np.zeros((0, 4), np.float32)
    return Listing(blank[:, :2], blank, blank[:, 0], blank[:, 0], 0, np.full((size, size), -1, np.int16))


def saved_listing(detections: list[dict[str, Any]], threshold: float, size: int) -> Listing:
    """One stamp of saved results: dictionaries as in the catalog's column ``detections``, best first."""
    if not detections:
        return empty_listing(size)
    boxes = np.array([[item[name] for name in ("x0", "y0", "x1", "y1")] for item in detections], np.float32)
    scores = np.array([item["score"] for item in detections], np.float32)
    kept = int((scores >= threshold).sum())
    owner = np.full((size, size), -1, np.int16)
    # from the weakest to the strongest, so that the strongest owns what they share
    for index in range(kept - 1, -1, -1):
        x0, y0, x1, y1 = boxes[index].astype(int)
        mask = decode_runs(detections[index]["mask_rle"], (y1 - y0 + 1, x1 - x0 + 1))
        owner[y0 : y1 + 1, x0 : x1 + 1][mask] = index
    stars = np.array([float(item["class"] == CLASSES[1]) for item in detections], np.float32)
    centers = np.array([[item["x"], item["y"]] for item in detections], np.float32)
    return Listing(centers, boxes, scores, stars, kept, owner)
