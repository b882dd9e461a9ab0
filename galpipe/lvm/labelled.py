"""A task learned from any label file: linear on the frozen embedding, or with the last stage, or with the whole encoder trained on.

The galaxies of the file are split by group (`galpipe.labels.groups`): three fifths teach, a fifth calibrates, a fifth is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from galpipe.code_version import code_version
from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.supervised import Recipe
from galpipe.heads.bands import LEAST_VALID, SETS
from galpipe.heads.classes import Classes
from galpipe.labels.groups import Groups, group_rows
from galpipe.labels.labelset import Dropped, LabelSet
from galpipe.labels.target import Target, TargetSpec
from galpipe.lvm.encoder import LabelTask
from galpipe.lvm.inputs import MARGIN, MODEL_BANDS, Inputs, stamp_inputs
from galpipe.lvm.model import GalaxyModel, grown
from galpipe.lvm.predict import Predictor
from galpipe.lvm.taskfigures import figures, plain, task_text
from galpipe.lvm.tasklearn import Part, embeddings, fit_linear, train_on
from galpipe.lvm.weights import save_model
from galpipe.stamps.stampset import StampSet

Floats = NDArray[np.float64]
Tune = Literal["frozen", "partial", "full"]
Progress = Callable[[str, int, int], None]

TUNES: tuple[Tune, ...] = ("frozen", "partial", "full")

SCORED, CALIBRATED = 0.2, 0.25
"""Part of the groups that is scored, and of the others that calibrates."""

TUNING = Recipe(epochs=15, patience=4, rate=2e-4, decay=1e-2, batch=16)

ALL_BANDS = SETS - 1
BAND_SETS = (ALL_BANDS, *(ALL_BANDS & ~(1 << bit) for bit in range(len(MODEL_BANDS))))
"""Every band, and one taken away."""

FEWEST = 4
"""Galaxies that a part needs."""


@dataclass(frozen=True)
class Wanted:
    """What is to be learned.

    Parameters
    ----------
    name : str
        Of the task and its columns.
    target : TargetSpec
    tune : str
        ``frozen``, ``partial`` (the last stage and the embedding) or ``full``.
    seed : int
    recipe : Recipe
        Of ``partial`` and ``full``.

    Raises
    ------
    ConfigurationError
        If there is no such way to tune.
    """

    name: str
    target: TargetSpec
    tune: Tune = "frozen"
    seed: int = 0
    recipe: Recipe = TUNING

    def __post_init__(self) -> None:
        if self.tune not in TUNES:
            raise ConfigurationError(f"a way to tune among {', '.join(TUNES)}", repr(self.tune))


@dataclass(frozen=True)
class Parts:
    """A label set in three: to learn from, to calibrate on, to be scored on."""

    train: Part
    calibration: Part
    scored: Part

    def by_name(self) -> dict[str, Part]:
        """The three by what is done with them."""
        return {"train": self.train, "calibration": self.calibration, "scored": self.scored}


def learn_task(labels: LabelSet, wanted: Wanted, base: Predictor, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Learn a task and write a model that answers it.

    With a frozen encoder the new model is the old one with one head more; else its only head is the new one, because the others were
    trained for another encoder.

    Parameters
    ----------
    labels : LabelSet
    wanted : Wanted
    base : Predictor
        The model to begin from; not changed.
    out : Path
        The model folder to write.
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    dict
        Facts for the card: ``target``, ``classes``, ``rows`` of the parts, ``left_out`` and ``dropped`` rows, ``scores`` before and after
        calibration; plain values.

    Raises
    ------
    ConfigurationError, BadData
        If the request or the file makes it impossible; see `galpipe.labels.target.TargetSpec.apply`.
    """
    target = labels.target(wanted.target)
    if wanted.name in base.model.names:
        raise ConfigurationError("a task of a new name", f"{wanted.name!r}, which the model has", file=str(labels.path))
    groups = group_rows([labels])
    dropped = list(groups.dropped)
    parts = split(labels, target, (groups, wanted.name), dropped)
    _check(parts, target, labels)
    task = _task(wanted.name, target, parts)
    settings = base.model.settings
    settings = replace(settings, tasks=(*settings.tasks, task)) if wanted.tune == "frozen" else replace(settings, heads=(), tasks=(task,))
    # refuses names that make no columns before anything is learned
    Classes.of(task, settings)
    model = grown(base.model, settings)
    head = cast(Classes, model.head(wanted.name))
    if wanted.tune == "frozen":
        fit_linear(head, *embeddings(model.encoder, parts.train), wanted.seed)
    else:
        train_on(model, head, parts.train, (wanted.tune == "full", wanted.recipe, wanted.seed))
    asked = _answers(model, head, parts.scored)
    scores = {"before": figures(head, asked)}
    head.calibrate(_answers(model, head, parts.calibration))
    scores["after"] = figures(head, asked)
    facts = _facts(labels, wanted, target, parts) | {"dropped": [asdict(item) for item in dropped], "scores": scores}
    _save(out, model, facts, base, wanted)
    if progress is not None:
        progress(wanted.name, 1, 1)
    return facts


def split(labels: LabelSet, target: Target, how: tuple[Groups, str], dropped: list[Dropped]) -> Parts:
    """Rows with an answer and an image by part; a galaxy that is there twice falls into one part.

    Parameters
    ----------
    labels : LabelSet
    target : Target
    how : tuple
        Groups of the set's rows, and a text: another text, another split.
    dropped : list of Dropped
        Gathers rows that turn out to have no stamp.
    """
    groups, salt = how
    there = groups.numbers[0][target.rows] >= 0
    scored = groups.split(SCORED, f"{salt} scored")[0][target.rows]
    calibration = groups.split(CALIBRATED, f"{salt} calibration")[0][target.rows] & ~scored
    values = np.asarray(target.values, np.float64)
    chosen = (there & ~scored & ~calibration, there & calibration, there & scored)
    return Parts(*(Part(labels, target.rows[mask], values[mask], dropped) for mask in chosen))


def _check(parts: Parts, target: Target, labels: LabelSet) -> None:
    for name, part in parts.by_name().items():
        if len(part) < FEWEST:
            raise BadData(f"at least {FEWEST} galaxies in the part {name}", f"{len(part)} of {len(target.rows)}", file=str(labels.path))
    answers = parts.train.answers
    missing = [name for code, name in enumerate(target.names) if not (answers == code).any()]
    if missing or len(np.unique(answers)) < 2:
        raise BadData("galaxies of every class to learn from", f"none of {missing or 'a second answer'}", file=str(labels.path))


def _task(name: str, target: Target, parts: Parts) -> LabelTask:
    if target.kind == "class":
        return LabelTask(name, target.names)
    answers = parts.train.answers
    return LabelTask(name, (), float(answers.mean()), float(answers.std()))


def _answers(model: GalaxyModel, head: Classes, part: Part) -> dict[str, Floats]:
    """Raw answers, truths and sets of bands, for `Classes.calibrate`; every galaxy once for each of `BAND_SETS`."""
    answers, found, bands = [], [], []
    for truth, stamps in part.stamps():
        for wanted in BAND_SETS:
            some = replace(stamps, mask=stamps.mask | np.uint8(_bits(stamps, ALL_BANDS & ~wanted)))
            inputs = stamp_inputs(some)
            with torch.inference_mode():
                answers.append(head(model.encoder(inputs))["answer"].double().numpy())
            found.append(truth if head.classes else (truth - head.task.zero) / head.task.unit)
            bands.append(_sets(inputs))
    return {"answer": np.concatenate(answers), "truth": np.concatenate(found), "bands": np.concatenate(bands)}


def _bits(stamps: StampSet, gone: int) -> int:
    """Mask bits of a stamp set for bands of the model that are taken away."""
    away = {band for bit, band in enumerate(MODEL_BANDS) if gone >> bit & 1}
    return sum(1 << place for place, band in enumerate(stamps.bands) if band in away)


def _sets(inputs: Inputs) -> Floats:
    inside = slice(MARGIN, inputs.valid.shape[-1] - MARGIN)
    used = inputs.valid[:, :, inside, inside].mean(dim=(2, 3)).numpy() >= LEAST_VALID
    return np.asarray((used << np.arange(used.shape[1])).sum(axis=1), np.float64)


def _facts(labels: LabelSet, wanted: Wanted, target: Target, parts: Parts) -> dict[str, Any]:
    return {
        "target": wanted.target.column,
        "classes": list(target.names),
        "tune": wanted.tune,
        "file": labels.path.name,
        "route": labels.route,
        "rows": {name: len(part) for name, part in parts.by_name().items()},
        "per_class": target.counts(),
        "left_out": target.left_out,
    }


def _save(out: Path, model: GalaxyModel, facts: dict[str, Any], base: Predictor, wanted: Wanted) -> None:
    """Write the model's folder; with a frozen encoder the old card stays true, and the task stands beside it."""
    card = dict(base.card) if wanted.tune == "frozen" else {}
    old = {"name": base.card.get("name", ""), "version": base.card.get("version", ""), "hash": base.model_hash}
    # the base's own entries of a card are written anew
    kept = {name: value for name, value in card.items() if name not in ("format", "settings", "heads", "sha256")}
    tasks = dict(kept.get("tasks", {})) | {wanted.name: plain(facts) | {"code": code_version()}}
    whole = kept | {"name": wanted.name, "version": "1", "began": old, "tasks": tasks}
    began = f"Began from {old['name']} {old['version']} ({old['hash']})."
    what = (
        "Its encoder and every other head are that model's."
        if wanted.tune == "frozen"
        else "The encoder was trained on, so the heads of that model are not in it."
    )
    text = "\n".join([f"# {wanted.name} 1", "", f"{began} {what}", "", *(task_text(name, own) for name, own in tasks.items())])
    save_model(out, model, whole, text)
