"""Calibration: stated uncertainties are made true on stamps that trained nothing, with every set of bands (science.md section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from galpipe.lvm.data import load_truth
from galpipe.lvm.inputs import MODEL_BANDS, stamp_inputs
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor
from galpipe.stamps.stampset import StampSet

BAND_SETS = ("grz", "rz", "gz", "gr")
"""With every band, and without each."""

BATCH = 32


def calibrate(predictor: Predictor, packs: Sequence[Pack]) -> dict[str, dict[str, float]]:
    """Set every head's constants; the model is changed.

    Parameters
    ----------
    predictor : Predictor
    packs : sequence of Pack
        With truth; of bricks that neither trained nor score.

    Returns
    -------
    dict
        Per head, what it measured before and after.
    """
    heads = predictor.model.head_list()
    found: dict[str, list[dict[str, NDArray[np.float64]]]] = {head.name: [] for head in heads}
    for pack in packs:
        stamps = pack.stamps()
        for bands in BAND_SETS:
            for first in range(0, len(pack), BATCH):
                rows = np.arange(first, min(first + BATCH, len(pack)))
                some = _only(stamps.take(rows), bands)
                raw = predictor.raw_inputs(stamp_inputs(some), some, BATCH)
                truth = load_truth(pack, rows)
                for head in heads:
                    found[head.name].append(head.calibration(raw.heads[head.name], truth, raw.context))
    return {head.name: head.calibrate(_joined(found[head.name])) for head in heads if packs}


def _only(stamps: StampSet, bands: str) -> StampSet:
    """Stamps in which the other bands are masked everywhere."""
    gone = [1 << index for index, band in enumerate(MODEL_BANDS) if band not in bands]
    return replace(stamps, mask=stamps.mask | np.uint8(sum(gone))) if gone else stamps


def _joined(parts: list[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    names = parts[0] if parts else {}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
