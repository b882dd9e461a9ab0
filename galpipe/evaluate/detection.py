"""Detection measured on stamps of known truth: F1, completeness, purity, average precision, masks, classes (science contract, section 6).

Truth: objects whose r-band S/N is above 5 count; those of 3 to 5 or cut by the stamp's edge are ignored, both ways. A detection is an
object's where their boxes overlap by IoU 0.5 (`galpipe.heads.objectmatch`). Magnitudes are of the r flux within the object's own pixels
(truth: of the noiseless image; detections: of the stamp), so that every method's are made alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galpipe.config import SOFTENING, SURVEY_PIXSCALE
from galpipe.evaluate.objects import Listing
from galpipe.heads.objectmatch import IGNORED, match_boxes, match_centers
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.pack import Pack
from galpipe.stamps.normalize import codec, decode

Doubles = npt.NDArray[np.float64]

RED = MODEL_BANDS.index("r")
MAGNITUDES = (-np.inf, 18.0, 20.0, 21.0, 22.0, 23.0, np.inf)
"""Edges of bins, r within the object's pixels."""

SEPARATIONS = (0.0, 2.0, 4.0, 8.0, np.inf)
"""Edges of bins, arcsec to the nearest other object (of the truth with S/N > 3; of the method's own list)."""

COMPACT = 10.0
"""Pixels on the longer side of a box up to which an object is compact."""

RANKED = 200
"""Bootstrap draws of the average precision, which sorts every candidate."""


@dataclass(frozen=True)
class Stamp:
    """The truth of one stamp, in stamp pixels."""

    objects: npt.NDArray[np.float32]
    segments: npt.NDArray[np.uint8]
    clean: npt.NDArray[np.float32]
    """Noiseless r flux, shape (S, S)."""
    noisy: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Counted:
    """Counts of one method over N stamps.

    Parameters
    ----------
    names : tuple of str
        Of the columns.
    table : ndarray
        Shape (N, C).
    ranking : ndarray
        Shape (R, 3): score, right (1 or 0), stamp of every candidate that is not ignored.
    """

    names: tuple[str, ...]
    table: Doubles
    ranking: Doubles

    def column(self, names: Iterable[str]) -> Doubles:
        """Sum of some columns, shape (N,)."""
        return np.asarray(self.table[:, [self.names.index(name) for name in names]].sum(axis=1), dtype=np.float64)


def stamp_of(pack: Pack, row: int) -> Stamp:
    """The truth of one stamp of a pack."""
    if pack.clean is None or pack.segments is None or pack.objects is None or pack.object_start is None:
        raise ValueError("expected a pack with truth, got one without")
    line = codec(SOFTENING["r"])
    good = np.bitwise_and(np.asarray(pack.mask[row]), np.uint8((1 << RED) | (1 << 7))) == 0
    noisy = np.where(good, decode(np.asarray(pack.image[row, RED]), line), np.float32(0))
    objects = np.asarray(pack.objects[pack.object_start[row] : pack.object_start[row + 1]])
    return Stamp(objects, np.asarray(pack.segments[row]), decode(np.asarray(pack.clean[row, RED]), line), noisy)


def count(pack: Pack, listings: Iterable[Listing]) -> Counted:
    """Match every stamp's listing with its truth."""
    rows, ranking = [], []
    for row, listing in enumerate(listings):
        stamp = stamp_of(pack, row)
        rows.append(stamp_counts(stamp, listing))
        answers = match_boxes(listing.boxes, listing.centers, stamp.objects)
        judged = answers != IGNORED
        ranking.append(np.stack([listing.scores[judged], answers[judged] >= 0, np.full(int(judged.sum()), row)], axis=1))
    names = tuple(rows[0]) if rows else ()
    table = np.array([list(item.values()) for item in rows], dtype=np.float64)
    return Counted(names, table, np.concatenate(ranking).astype(np.float64) if ranking else np.zeros((0, 3)))


def stamp_counts(stamp: Stamp, listing: Listing) -> dict[str, float]:
    """Everything that is counted in one stamp, by name; the same names for every stamp."""
    kept = listing.kept
    boxes, centers, objects = listing.boxes[:kept], listing.centers[:kept], stamp.objects
    answers, near = match_boxes(boxes, centers, objects), match_centers(centers, objects)
    counted = objects[:, 7] == 0
    hit, close = np.isin(np.arange(len(objects)), answers), np.isin(np.arange(len(objects)), near)
    small = counted & (np.ptp(objects[:, [2, 4]], axis=1) < COMPACT) & (np.ptp(objects[:, [3, 5]], axis=1) < COMPACT)
    small_said = (boxes[:, 2] - boxes[:, 0] < COMPACT) & (boxes[:, 3] - boxes[:, 1] < COMPACT)
    found = np.flatnonzero(answers >= 0)
    typed = found[np.isfinite(listing.stars[found])]
    result = {
        "true": counted.sum(),
        "hit": hit.sum(),
        "said": (answers != IGNORED).sum(),
        "centers hit": close.sum(),
        "centers said": (near != IGNORED).sum(),
        "compact": small.sum(),
        "compact hit": (small & hit).sum(),
        "compact centers hit": (small & close).sum(),
        "compact said": ((answers != IGNORED) & small_said).sum(),
        "compact right": ((answers >= 0) & small_said).sum(),
        "compact centers said": ((near != IGNORED) & small_said).sum(),
        "compact centers right": ((near >= 0) & small_said).sum(),
        "typed": len(typed),
        "typed right": ((listing.stars[typed] > 0.5) == (objects[answers[typed], 6] > 0)).sum(),
        "mask overlap": sum(_mask_iou(listing.owner == k, stamp.segments == answers[k] + 1) for k in found),
    }
    magnitudes = _magnitudes(stamp.segments.astype(np.int64), stamp.clean, len(objects))
    own = _magnitudes(listing.owner.astype(np.int64) + 1, stamp.noisy, kept)
    result |= _binned("magnitude", MAGNITUDES, (magnitudes, counted, hit), (own, answers))
    result |= _binned("separation", SEPARATIONS, (_separations(objects[:, :2]), counted, hit), (_separations(centers), answers))
    return {name: float(value) for name, value in result.items()}


def _mask_iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum()) / max(float((one | other).sum()), 1.0)


def _magnitudes(owner: npt.NDArray[np.int64], flux: npt.NDArray[np.float32], count_: int) -> Doubles:
    """Magnitude in r of the flux in each object's pixels; infinite where there is none."""
    total = np.bincount(owner.ravel(), flux.ravel().astype(np.float64), minlength=count_ + 1)[1 : count_ + 1]
    return np.where(total > 0, 22.5 - 2.5 * np.log10(np.maximum(total, 1e-9)), np.inf)


def _separations(centers: npt.NDArray[np.floating]) -> Doubles:
    """Arcsec to the nearest other center; infinite where there is none."""
    away = np.hypot(centers[:, None, 0] - centers[None, :, 0], centers[:, None, 1] - centers[None, :, 1])
    np.fill_diagonal(away, np.inf)
    return np.asarray(away.min(axis=1, initial=np.inf) * SURVEY_PIXSCALE, dtype=np.float64)


def _binned(
    what: str,
    edges: tuple[float, ...],
    true: tuple[Doubles, npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    said: tuple[Doubles, npt.NDArray[np.int64]],
) -> dict[str, int]:
    result = {}
    places = [np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2) for values in (true[0], said[0])]
    for index in range(len(edges) - 1):
        inside, listed = places[0] == index, (places[1] == index) & (said[1] != IGNORED)
        result[f"{what} {index} true"] = int((inside & true[1]).sum())
        result[f"{what} {index} hit"] = int((inside & true[1] & true[2]).sum())
        result[f"{what} {index} said"] = int(listed.sum())
        result[f"{what} {index} right"] = int((listed & (said[1] >= 0)).sum())
    return result


def average_precision(ranking: Doubles, true: Doubles, weights: Doubles) -> Doubles:
    """Area under the precision envelope against recall, for each row of weights.

    Parameters
    ----------
    ranking : ndarray
        Shape (R, 3), see `Counted`.
    true : ndarray
        Shape (N,): true objects per stamp.
    weights : ndarray
        Shape (B, N): how often each stamp is drawn.

    Returns
    -------
    ndarray
        Shape (B,).
    """
    order = np.argsort(-ranking[:, 0], kind="stable")
    right, stamp = ranking[order, 1], ranking[order, 2].astype(np.int64)
    result = []
    for row in weights:
        weight = row[stamp]
        gained = weight * right
        precision = np.cumsum(gained) / np.maximum(np.cumsum(weight), 1e-12)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        result.append(float((gained * envelope).sum()) / max(float(row @ true), 1e-12))
    return np.array(result)
