"""Calibration: stated uncertainties are made true on stamps that trained nothing, with every set of bands (science.md section 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from galpipe.lvm.data import degraded_inputs, load_truth
from galpipe.lvm.inputs import MODEL_BANDS, Inputs, stamp_inputs
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor
from galpipe.stamps.stampset import StampSet

BATCH = 32

SEED = 78
"""Of the noise and gaps of degraded stamps."""

Gathered = dict[str, NDArray[np.float64]]


def calibrate(predictor: Predictor, packs: Sequence[Pack], names: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Set the heads' constants; the model is changed.

    Parameters
    ----------
    predictor : Predictor
    packs : sequence of Pack
        With truth; of bricks that neither trained nor score.
    names : sequence of str
        Heads; empty for all.

    Returns
    -------
    dict
        Per head what it measured before and after, for the card.
    """
    heads = [head for head in predictor.model.head_list() if not names or head.name in names]
    found: dict[str, list[Gathered]] = {head.name: [] for head in heads}
    for pack, rows, stamps, whole in _batches(packs):
        truth = load_truth(pack, rows)
        given: list[tuple[bool, Inputs]] = [(False, stamp_inputs(stamps))]
        if whole and any(head.calibrates_degraded for head in heads):
            given.append((True, degraded_inputs(pack, rows, SEED)))
        for degraded, inputs in given:
            raw = predictor.raw_inputs(inputs, stamps, BATCH)
            for head in heads:
                if head.calibrates_degraded == degraded:
                    found[head.name].append(head.calibration(raw.heads[head.name], truth, raw.context))
    facts = {head.name: head.calibrate(_joined(found[head.name])) for head in heads if found[head.name]}
    return {name: told for name, told in facts.items() if told}


def _batches(packs: Sequence[Pack]) -> Iterator[tuple[Pack, NDArray[np.int64], StampSet, bool]]:
    """Batches with every band; every fourth also without each of them, every eighth with each alone."""
    bands = range(len(MODEL_BANDS))
    for pack in packs:
        stamps = pack.stamps()
        for number, first in enumerate(range(0, len(pack), BATCH)):
            rows = np.arange(first, min(first + BATCH, len(pack)))
            some = stamps.take(rows)
            fewer = (*(combinations(bands, 1) if number % 4 == 0 else ()), *(combinations(bands, 2) if number % 8 == 0 else ()))
            for lost in ((), *fewer):
                yield pack, rows, replace(some, mask=some.mask | np.uint8(sum(1 << band for band in lost))), not lost


def _joined(parts: list[Gathered]) -> Gathered:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
