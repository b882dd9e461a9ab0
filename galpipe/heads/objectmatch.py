"""Which detections are true objects, by the overlap of boxes (science contract, section 4).

Best detection first; each true object once. A detection that is no counted object is ignored, neither right nor wrong, where it sits on
an object that is ignored (S/N 3 to 5, or cut by the stamp's edge): half of its box inside the other's box, or the centers within
`NEAR` pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FALSE, IGNORED = -1, -2
"""Answers of `match_boxes` besides rows of objects."""

IOU = 0.5
NEAR = 4.0
"""Pixels (1.05 arcsec)."""

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


def overlaps(boxes: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Intersection over union, and intersection over the first box's area, both of shape (K, M); inclusive ends."""
    low, high = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    areas = [np.clip(item[:, 2:] - item[:, :2] + 1, 1e-6, None).prod(axis=1) for item in (boxes, others)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared), shared / areas[0][:, None]


def match_boxes(boxes: Floats, centers: Floats, objects: Floats, least: float = IOU) -> Rows:
    """Answer of each detection: row of its true object, `FALSE` or `IGNORED`.

    Parameters
    ----------
    boxes : ndarray
        Shape (K, 4), x0 y0 x1 y1, ends inclusive, best first.
    centers : ndarray
        Shape (K, 2), x and y.
    objects : ndarray
        Shape (M, 8): x, y, x0, y0, x1, y1, is_star, ignore.
    least : float
        Intersection over union from which on boxes are the same object's.
    """
    iou, share = overlaps(boxes, objects[:, 2:6])
    close = np.hypot(centers[:, :1] - objects[None, :, 0], centers[:, 1:] - objects[None, :, 1]) <= NEAR
    passing = (iou >= least, (iou >= least) | (share >= 0.5) | close)
    return _greedy(iou, passing, objects[:, 7] > 0)


def match_centers(centers: Floats, objects: Floats) -> Rows:
    """The same by distance: within `NEAR` pixels, the nearest free object first."""
    away = np.hypot(centers[:, :1] - objects[None, :, 0], centers[:, 1:] - objects[None, :, 1])
    inside = (centers[:, None, :] >= objects[None, :, 2:4]).all(axis=2) & (centers[:, None, :] <= objects[None, :, 4:6]).all(axis=2)
    return _greedy(-away, (away <= NEAR, (away <= NEAR) | inside), objects[:, 7] > 0)


def _greedy(liking: Floats, passing: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], ignored: npt.NDArray[np.bool_]) -> Rows:
    """Give each detection the free counted object it likes best; ``passing`` says which pairs may count, and which excuse."""
    counts, excuses = passing[0] & ~ignored[None, :], passing[1] & ignored[None, :]
    answers = np.full(len(liking), FALSE, dtype=np.int64)
    free = np.ones(len(ignored), dtype=bool)
    for row in range(len(liking)):
        able = counts[row] & free
        if able.any():
            answers[row] = int(np.where(able, liking[row], -np.inf).argmax())
            free[answers[row]] = False
        elif excuses[row].any():
            answers[row] = IGNORED
    return answers
