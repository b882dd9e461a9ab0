"""Scores of every head on stamps of known truth, each beside the constant answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from galpipe.lvm.data import degraded_inputs, load_truth
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor

SEED = 77
"""Of the noise and gaps that restoration is scored with."""


def evaluate(predictor: Predictor, pack: Pack, training: pa.Table, batch: int = 32) -> dict[str, list[dict[str, Any]]]:
    """Score a model on a pack it was not trained on.

    Parameters
    ----------
    predictor : Predictor
    pack : Pack
        With truth.
    training : pyarrow.Table
        The training set's truth, from which the constant answers come.

    Returns
    -------
    dict
        Per head a list of scores (`galpipe.heads.base.Score` as plain values, with ``beats_constant``).
    """
    stamps = pack.stamps()
    heads = predictor.model.head_list()
    tables, seen = [], []
    for first in range(0, len(pack), batch):
        rows = np.arange(first, min(first + batch, len(pack)))
        some = stamps.take(rows)
        raw = predictor.raw(some, batch)
        truth = load_truth(pack, rows)
        harder = predictor.raw_inputs(degraded_inputs(pack, rows, SEED), some, batch)
        decoded: dict[str, Any] = {}
        for head in heads:
            decoded |= head.decode(raw.heads[head.name], raw.context)
            measured = head.measure(harder.heads[head.name], truth, harder.context)
            decoded |= {name: pa.array(values) for name, values in measured.items()}
        tables.append(pa.table(decoded))
        seen.append(rows)
    predicted = pa.concat_tables(tables)
    truth = load_truth(pack, np.concatenate(seen))
    result = {}
    for head in heads:
        scores = head.score(predicted, truth, training)
        result[head.name] = [asdict(score) | {"beats_constant": score.beats_constant} for score in scores]
    return result
