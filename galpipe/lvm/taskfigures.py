"""How well a task of a label file is answered, per set of bands, on galaxies that taught and calibrated nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from galpipe.evaluate.scores import macro_auc, r2, rmse
from galpipe.heads.bands import name_of
from galpipe.heads.classes import INTERVAL, Classes, expected_calibration_error

Floats = NDArray[np.float64]
Figures = dict[str, dict[str, float]]


def figures(head: Classes, gathered: dict[str, Floats]) -> Figures:
    """Figures by set of bands, with the head's constants as they are.

    Parameters
    ----------
    head : Classes
    gathered : dict
        As `Classes.calibrate` takes it.

    Returns
    -------
    dict
        Per set of bands ``galaxies``, and of classes ``auc`` (one against the rest, mean), ``accuracy``, ``log_loss`` and ``ece``; of a
        number ``r2``, ``rmse`` (in its labels' unit) and ``coverage`` of the interval. NaN becomes None in the card.
    """
    result: Figures = {}
    for bands in np.unique(gathered["bands"]).astype(int):
        here = gathered["bands"] == bands
        answer, truth = gathered["answer"][here], gathered["truth"][here]
        careful = float(head.careful[bands])
        own = _of_classes(answer / careful, truth.astype(np.int64)) if head.classes else _of_number(answer[:, 0], truth, careful)
        if not head.classes:
            own["rmse"] *= head.task.unit
        result[name_of(int(bands))] = {"galaxies": float(len(truth))} | own
    return result


def _of_classes(logits: Floats, codes: NDArray[np.int64]) -> dict[str, float]:
    logs = log_softmax(logits, axis=1)
    chances = np.exp(logs)
    return {
        "auc": macro_auc(codes, chances),
        "accuracy": float((chances.argmax(axis=1) == codes).mean()),
        "log_loss": float(-logs[np.arange(len(codes)), codes].mean()),
        "ece": expected_calibration_error(chances, codes),
    }


def _of_number(values: Floats, truth: Floats, half_width: float) -> dict[str, float]:
    return {"r2": r2(truth, values), "rmse": rmse(truth, values), "coverage": float((np.abs(values - truth) <= half_width).mean())}


def task_text(name: str, facts: dict[str, Any]) -> str:
    """The part of ``MODEL_CARD.md`` that tells of a task."""
    rows = facts["rows"]
    what = "classes " + ", ".join(facts["classes"]) if facts["classes"] else f"a number with its {INTERVAL:.0%} interval"
    left = ", ".join(f"{reason}: {count}" for reason, count in facts["left_out"].items()) or "none"
    lines = [
        f"## Task {name}",
        "",
        f"- Learned from `{facts['target']}` of `{facts['file']}` ({facts['route']}), encoder {facts['tune']}: {what}.",
        f"- Galaxies: {rows['train']} taught, {rows['calibration']} calibrated, {rows['scored']} are scored below; none is in two parts.",
        f"- Rows left out: {left}; without an image that can be read: {len(facts['dropped'])}.",
        "",
    ]
    first = next(iter(facts["scores"]["after"].values()))
    lines += ["| bands | calibration | " + " | ".join(first) + " |", "|" + "---|" * (len(first) + 2)]
    for when, sets in facts["scores"].items():
        lines += [f"| {bands} | {when} | " + " | ".join(_cell(value) for value in own.values()) + " |" for bands, own in sets.items()]
    return "\n".join([*lines, ""])


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value == round(value) and value > 1 else f"{value:.3f}"


def plain(value: Any) -> Any:
    """A value as a card holds it: NaN as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
