"""One head more on a frozen encoder: the way to add a task that mock truth can teach (docs/new-task.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galpipe.code_version import code_version
from galpipe.errors import ConfigurationError
from galpipe.heads.base import Outputs, head_class
from galpipe.lvm.calibrate import calibrate
from galpipe.lvm.data import Batches, Degradation
from galpipe.lvm.evaluate import evaluate
from galpipe.lvm.inputs import Inputs
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import GalaxyModel, grown
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.taskfigures import plain
from galpipe.lvm.weights import save_model


@dataclass(frozen=True)
class Lessons:
    """Stamps with truth; no brick is in two of them.

    Parameters
    ----------
    train : Pack
    calibration, held : sequence of Pack
        To calibrate on and to score on; may be empty.
    """

    train: Pack
    calibration: Sequence[Pack] = ()
    held: Sequence[Pack] = ()


@dataclass(frozen=True)
class Folders:
    """Where checkpoints are kept, so that an interrupted call goes on, and the model folder to write."""

    work: Path
    out: Path


def learn_head(
    name: str, base: Predictor, lessons: Lessons, settings: LoopSettings, folders: Folders, progress: Progress | None = None
) -> dict[str, Any]:
    """Train a head on a model's frozen encoder and write the model with it; the other heads answer as before.

    Parameters
    ----------
    name : str
        As `galpipe.heads.base.head_class` takes it, such as ``concentration:Concentration``.
    base : Predictor
        The model to begin from; not changed.
    lessons : Lessons
    settings : LoopSettings
    folders : Folders
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    dict
        Facts for the card: ``history``, ``calibration`` and ``scores`` per held pack; plain values.

    Raises
    ------
    ConfigurationError
        If there is no such head, or the model has one of its name.
    """
    if head_class(name).name in base.model.names:
        raise ConfigurationError("a head of a new name", f"{head_class(name).name!r}, which the model has")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        # a model of this head alone, so that no other head is run, calibrated or scored
        alone = grown(base.model, replace(base.model.settings, heads=(name,), tasks=()))
    own = alone.names[0]
    history = train(alone.head(own), _task(alone, lessons.train, settings), settings, folders.work, progress)
    predictor = Predictor(alone, base.card, base.model_hash, torch.device("cpu"))
    calibration = calibrate(predictor, lessons.calibration) if lessons.calibration else {}
    scores = [evaluate(predictor, pack, lessons.train.sources)[own] for pack in lessons.held]
    facts = {"head": name, "settings": asdict(settings), "stamps": len(lessons.train), "history": history, "code": code_version()}
    facts |= {"calibration": calibration.get(own, {}), "scores": scores}
    whole = grown(base.model, replace(base.model.settings, heads=(*base.model.settings.heads, name)))
    whole.head(own).load_state_dict(alone.head(own).state_dict())
    kept = {key: value for key, value in base.card.items() if key not in ("format", "settings", "heads", "sha256")}
    began = {"name": base.card.get("name", ""), "version": base.card.get("version", ""), "hash": base.model_hash}
    card = kept | {"name": own, "version": "1", "began": began, "added": dict(kept.get("added", {})) | {own: plain(facts)}}
    save_model(folders.out, whole, card, _text(own, facts, began))
    return facts


def _task(model: GalaxyModel, pack: Pack, settings: LoopSettings) -> Task[tuple[Inputs, Outputs]]:
    """Batches and loss of the model's only head; the encoder sees augmented and degraded stamps, and learns nothing."""
    head = model.head_list()[0]
    head.prepare(pack.sources)
    batches = Batches(pack, settings.batch, settings.seed, Degradation())
    model.requires_grad_(False)
    head.requires_grad_(True)

    def batch(step: int) -> tuple[Inputs, Outputs]:
        inputs, truth = batches.labelled(step)
        return inputs, head.targets(truth)

    def loss(content: tuple[Inputs, Outputs]) -> dict[str, Tensor]:
        with torch.no_grad():
            features = model.encoder(content[0])
        return {head.name: head.loss(head(features), content[1])}

    return Task(f"head-{head.name}", batch, loss)


def _text(name: str, facts: dict[str, Any], began: dict[str, str]) -> str:
    lines = [
        f"# {name} 1",
        "",
        f"Began from {began['name']} {began['version']} ({began['hash']}); encoder and every other head are that model's.",
        "",
        f"- Head `{facts['head']}`, {facts['settings']['steps']} steps of {facts['settings']['batch']} stamps out of {facts['stamps']}.",
        "",
        "| figure | model | constant | constant is | n |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(score) for scores in facts["scores"] for score in scores]
    return "\n".join([*lines, ""])


def _row(score: dict[str, Any]) -> str:
    value = f"{score['value']:.3f} {score['unit']}".strip()
    return f"| {score['name']} | {value} | {score['constant']:.3f} | {score['constant_is']} | {score['count']} |"
