"""Pre-training objectives compared: one encoder, the same random weights, the same processor time, probed on real galaxies as it learns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from galpipe.code_version import code_version
from galpipe.commit import write_bytes
from galpipe.errors import ConfigurationError
from galpipe.evaluate.arms import ARMS, NONE, Arm, Material, Rates, asking_seconds, tuning_seconds
from galpipe.evaluate.probes import QUESTIONS, Probe, Question, prepare
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.loop import LoopSettings, optimizer_of, take_step

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Parts of the budget after which the embedding is probed."""

SCHEDULE = LoopSettings(steps=1000, warmup=50)
"""The learning rate follows the used share of the budget as it does the steps of a loop of this length."""

Progress = Callable[[str, int, int], None]
Scores = Callable[[torch.nn.Module], dict[str, dict[str, float]]]
"""Scores of an encoder by the name of the question."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Parameters
    ----------
    seconds : float
        Processor time of this process that each objective may learn for.
    arms : tuple of str
        Among `galpipe.evaluate.arms.ARMS`.
    seed : int
        Of weights, order and augmentation.
    seeds : int
        Draws of labels in each probe.
    bricks : int
        Mock bricks at most; 0 for all that are there.
    threads : int
        Torch threads.
    model : ModelSettings
    rates : Rates
        Batches and learning rate.
    questions : tuple of Question
    """

    seconds: float = 600.0
    arms: tuple[str, ...] = tuple(ARMS)
    seed: int = 1
    seeds: int = 5
    bricks: int = 6
    threads: int = 1
    model: ModelSettings = field(default_factory=ModelSettings)
    rates: Rates = field(default_factory=Rates)
    questions: tuple[Question, ...] = QUESTIONS

    def __post_init__(self) -> None:
        unknown = [name for name in self.arms if name not in ARMS]
        if unknown or not self.arms:
            raise ConfigurationError(f"arms among {', '.join(ARMS)}", repr(self.arms))
        if self.seconds <= 0 or self.seeds < 2 or self.threads < 1 or self.bricks < 0:
            found = f"{self.seconds} s, {self.seeds} seeds, {self.threads} threads, {self.bricks} bricks"
            raise ConfigurationError("a budget above 0 s, at least two seeds and one thread, and bricks from 0 on", found)

    def bound(self) -> dict[str, Any]:
        """What a finished arm must have been made with to count; JSON-ready."""
        values = asdict(self)
        del values["arms"]
        whole: dict[str, Any] = json.loads(json.dumps(values))
        return whole


@dataclass(frozen=True)
class Folders:
    """Where a comparison reads and writes.

    Parameters
    ----------
    training : Path
        What `galpipe train --real` worked in: ``packs/train``, ``real``, ``lesson``, ``lesson-teacher``.
    labels : Path
        Label files of the probes.
    work : Path
        Keeps one file per finished arm.
    """

    training: Path
    labels: Path
    work: Path


def compare_objectives(wanted: Comparison, folders: Folders, progress: Progress | None = None) -> dict[str, Any]:
    """Run every arm that has not been run, one after the other.

    Parameters
    ----------
    wanted : Comparison
    folders : Folders
    progress : callable, optional
        Called as ``progress(arm, seconds, budget)``.

    Returns
    -------
    dict
        ``arms`` (per arm what it learns from, steps, seconds, ``curve``), ``probes``, ``costs`` of the teacher, and the settings.

    Raises
    ------
    ConfigurationError
        If an arm in ``folders.work`` is of other settings, or what an arm needs is not there.
    """
    torch.set_num_threads(wanted.threads)
    missing = [name for name in wanted.arms if _finished(folders, name, wanted) is None]
    if missing:
        material = Material(folders.training, folders.work, wanted.model, wanted.rates, wanted.seed, wanted.bricks)
        probes = [prepare(folders.labels, question, wanted.seeds) for question in wanted.questions]
        for name in missing:
            _write(folders.work, name, run_arm(name, material, probes, wanted, progress) | {"bound": made_of(folders, wanted)})
    arms = {name: _finished(folders, name, wanted) or {} for name in wanted.arms}
    facts = {key: value for key, value in wanted.bound().items() if key != "questions"}
    probed = next(iter(arms.values()))["probes"]
    shown = {name: {key: value for key, value in arm.items() if key not in ("bound", "probes")} for name, arm in arms.items()}
    costs = {"tuning": tuning_seconds(folders.training), "asking": asking_seconds(folders.work)}
    return {"settings": facts, "probes": probed, "costs": costs, "arms": shown}


def run_arm(name: str, material: Material, probes: Sequence[Probe], wanted: Comparison, progress: Progress | None = None) -> dict[str, Any]:
    """Teach one arm within the budget.

    Returns
    -------
    dict
        ``what``, ``steps``, ``seconds``, ``stamps_per_step``, ``curve``: per probe share, seconds, steps, mean loss terms since the last
        one and scores.
    """
    arm = ARMS[name](material)

    def scores(encoder: torch.nn.Module) -> dict[str, dict[str, float]]:
        return {probe.facts["name"]: probe.score(encoder) for probe in probes}

    if name == NONE:
        arm.learner.eval()
        curve = [{"share": 0.0, "seconds": 0.0, "steps": 0, "losses": {}, "scores": scores(arm.model.encoder)}]
    else:
        curve = learn(arm, wanted, scores, (lambda used: progress(name, round(used), round(wanted.seconds))) if progress else None)
    last = {key: curve[-1][key] for key in ("steps", "seconds")}
    facts = {"code": code_version(), "processor": torch.backends.cpu.get_cpu_capability(), "probes": [probe.facts for probe in probes]}
    return {"what": arm.what, "stamps_per_step": arm.stamps} | last | facts | {"curve": curve}


def learn(arm: Arm, wanted: Comparison, scores: Scores, progress: Callable[[float], None] | None = None) -> list[dict[str, Any]]:
    """Steps until the budget is used, ended by the one that uses it up; making batches counts, probes do not.

    Returns
    -------
    list of dict
        The curve, see `run_arm`.
    """
    schedule = LoopSettings(SCHEDULE.steps, rate=wanted.rates.rate, warmup=SCHEDULE.warmup)
    optimizer = optimizer_of(arm.learner, schedule)
    used, step, curve = 0.0, 0, []
    for share in SHARES:
        sums: dict[str, float] = {}
        first = step
        arm.learner.train()
        while used < share * wanted.seconds:
            began = time.process_time()
            # what a forward pass draws is a function of the step, as in `galpipe.lvm.loop`
            torch.manual_seed((wanted.seed << 32) + (step << 8))
            terms = arm.task.loss(arm.task.batch(step))
            place = min(int(used / wanted.seconds * schedule.steps), schedule.steps - 1)
            for name, value in take_step(arm.learner, optimizer, terms, (schedule, place)).items():
                sums[name] = sums.get(name, 0.0) + value
            step += 1
            used += time.process_time() - began
            if progress is not None:
                progress(used)
        arm.learner.eval()
        losses = {name: value / (step - first) for name, value in sums.items()}
        curve.append({"share": share, "seconds": used, "steps": step, "losses": losses, "scores": scores(arm.model.encoder)})
    return curve


def _place(work: Path, name: str) -> Path:
    return work / f"{name}.json"


def _write(work: Path, name: str, result: dict[str, Any]) -> None:
    write_bytes(_place(work, name), json.dumps(result, indent=1).encode())


def made_of(folders: Folders, wanted: Comparison) -> dict[str, Any]:
    """The settings, and what lies in the folders that an arm learns from and is probed on: names and sizes."""
    roots = (folders.training / "packs" / "train", folders.training / "real", folders.training / "lesson")
    files = sorted([*(file for root in roots for file in root.rglob("*") if file.is_file()), *folders.labels.glob("*.parquet")])
    return wanted.bound() | {"files": [f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in files]}


def _finished(folders: Folders, name: str, wanted: Comparison) -> dict[str, Any] | None:
    place, bound = _place(folders.work, name), made_of(folders, wanted)
    if not place.exists():
        return None
    result: dict[str, Any] = json.loads(place.read_text())
    if result.get("bound") != bound:
        differing = {key: value for key, value in bound.items() if result.get("bound", {}).get(key) != value}
        if "files" in differing:
            differing["files"] = f"{len(bound['files'])} in {folders.training} and {folders.labels}"
        raise ConfigurationError(f"an arm made with {differing}, or another --work folder", "one of other settings", file=str(place))
    return result
