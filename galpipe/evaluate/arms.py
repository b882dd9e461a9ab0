"""The pre-training objectives that are compared, each made of what the trainings themselves use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from galpipe.commit import write_bytes
from galpipe.errors import ConfigurationError
from galpipe.lvm.contrast import Paired, contrast
from galpipe.lvm.distill import Student, Taught, joint_task, real_batches, taught_loss
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.finetune import FIRST, SECOND, multi_task
from galpipe.lvm.loop import CHECKPOINT, LoopSettings, Task
from galpipe.lvm.mocksky import read_packs
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.pack import Pack
from galpipe.lvm.pretrain import Shown, masked
from galpipe.lvm.realset import PICTURE, RealSet, read_real
from galpipe.lvm.teacher import Lesson, Teacher, lessons, read_lesson, write_lesson

NONE = "none"

ASKED, ASKING = "imagenet-lesson", "imagenet-lesson.json"
"""In the work folder: what the untuned teacher says, and the processor time of asking it."""


@dataclass(frozen=True)
class Rates:
    """Batches and learning rate, those of `galpipe.lvm.train.TrainSettings`; the rate is tuned for no objective.

    Parameters
    ----------
    batch : int
        Stamps in a step of reconstruction or of mock truth.
    real_batch : int
        Real galaxies in a step of contrast or distillation.
    joint_batch : int
        Real stamps beside the mock ones: half as many galaxies, each again turned by quarters.
    rate : float
    """

    batch: int = 16
    real_batch: int = 32
    joint_batch: int = 16
    rate: float = 1.5e-3


@dataclass(frozen=True)
class Arm:
    """One objective, ready to learn.

    Parameters
    ----------
    model : GalaxyModel
    learner : nn.Module
        What the optimizer sees: the model, with what it is taught through.
    task : Task
    stamps : int
        Stamps in a step.
    what : str
        What it learns from, for the table.
    """

    model: GalaxyModel
    learner: nn.Module
    task: Task[Any]
    stamps: int
    what: str


@dataclass
class Material:
    """What arms learn from, read when one asks for it and then kept.

    Parameters
    ----------
    training : Path
        What `galpipe train --real` worked in.
    work : Path
        Keeps the untuned teacher's lesson.
    settings : ModelSettings
    rates : Rates
    seed : int
    bricks : int
        Mock bricks at most; 0 for all.
    """

    training: Path
    work: Path
    settings: ModelSettings
    rates: Rates
    seed: int
    bricks: int

    def model(self, heads: bool = False) -> GalaxyModel:
        """The random weights that every arm begins with; encoders are drawn before heads, so that they are the same with and without."""
        return new_model(self.settings if heads else replace(self.settings, heads=()), self.seed).to(device_of())

    def loop(self, batch: int) -> LoopSettings:
        """What the tasks take from a loop's settings."""
        return LoopSettings(steps=1, batch=batch, seed=self.seed)

    @cached_property
    def mock(self) -> Pack:
        """Mock stamps with their truth."""
        paths = sorted(path for path in (self.training / "packs" / "train").glob("*") if path.is_dir() and not path.name.startswith("."))
        if not paths:
            raise ConfigurationError("mock bricks of a training (packs/train)", "none", file=str(self.training))
        return read_packs(paths[: self.bricks or None])

    @cached_property
    def real(self) -> RealSet:
        """Real galaxies without the teacher's pictures, which only `_imagenet_lesson` needs."""
        return replace(self._whole_real(), pictures=np.zeros((0, 3, PICTURE, PICTURE), np.uint8))

    def _whole_real(self) -> RealSet:
        return read_real(_there(self.training / "real"))

    @cached_property
    def lesson(self) -> Lesson:
        """What the tuned teacher says."""
        return read_lesson(_there(self.training / "lesson"))

    @cached_property
    def imagenet_lesson(self) -> Lesson:
        """What the untuned teacher says: its features; the answers mean nothing."""
        place = self.work / ASKED
        if not place.exists():
            began = time.process_time()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                teacher = Teacher().eval()
            lesson = lessons(teacher, self._whole_real().pictures)
            # before the lesson, so that no lesson is without its cost
            write_bytes(self.work / ASKING, json.dumps({"seconds": time.process_time() - began}).encode())
            write_lesson(place, lesson)
        return read_lesson(place)


def _there(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigurationError(f"a folder {folder.name} of a training with --real", "none", file=str(folder))
    return folder


def asking_seconds(work: Path) -> float | None:
    """Processor seconds of asking a teacher about every real galaxy; None where it was not asked. A tuned one takes as long."""
    place = work / ASKING
    return float(json.loads(place.read_text())["seconds"]) if place.exists() else None


def tuning_seconds(training: Path) -> float | None:
    """Seconds by the clock that the teacher's own loop took; None where its checkpoint is not kept."""
    place = training / "lesson-teacher" / f"teacher-{CHECKPOINT}" / "state.json"
    return float(json.loads(place.read_text())["history"][-1]["seconds"]) if place.exists() else None


def _none(material: Material) -> Arm:
    model = material.model()
    return Arm(model, model, Task("none", lambda step: step, lambda content: {}), 0, "nothing: random weights")


def _reconstruction(material: Material) -> Arm:
    """Real and mock stamps in turn, step by step."""
    model, loop = material.model(), material.loop(material.rates.batch)
    parts = [masked(model, pack, loop) for pack in (material.real.pack, material.mock)]

    def batch(step: int) -> Shown:
        return parts[step % 2].batch(step // 2)

    task = Task("reconstruction", batch, parts[0].loss)
    return Arm(model, model, task, loop.batch, "hidden squares of real and mock stamps")


def _contrast(material: Material) -> Arm:
    loop = material.loop(material.rates.real_batch)
    learner = Paired(material.model(), material.seed)
    learner.to(device_of())
    return Arm(learner.model, learner, contrast(learner, material.real.pack, loop), loop.batch, "two views of each real galaxy (VICReg)")


def _truth(material: Material) -> Arm:
    model, loop = material.model(heads=True), material.loop(material.rates.batch)
    return Arm(model, model, multi_task(model, material.mock, loop, FIRST), loop.batch, "mock truth, every head")


def _distillation(material: Material) -> Arm:
    learner, real = _student(material), material.rates.real_batch
    batches = real_batches(material.real, material.lesson, real, material.seed)
    task = Task("distillation", batches.batch, lambda content: taught_loss(learner, content))
    return Arm(learner.model, learner, task, real, "teacher tuned on people's labels, and those labels")


def _imagenet(material: Material) -> Arm:
    learner, real = _student(material), material.rates.real_batch
    batches = real_batches(material.real, material.imagenet_lesson, real, material.seed)

    def loss(content: Taught) -> dict[str, Tensor]:
        return {"teacher": taught_loss(learner, content)["teacher"]}

    task = Task("imagenet-distillation", batches.batch, loss)
    return Arm(learner.model, learner, task, real, "features of the untuned ImageNet teacher")


def _joint(material: Material) -> Arm:
    learner, loop, share = _student(material, heads=True), material.loop(material.rates.batch), material.rates.joint_batch
    task = joint_task(learner, (material.mock, (material.real, material.lesson), share), loop, SECOND)
    return Arm(learner.model, learner, task, loop.batch + share, "distillation and mock truth in every step")


def _student(material: Material, heads: bool = False) -> Student:
    learner = Student(material.model(heads), material.seed)
    learner.to(device_of())
    return learner


ARMS: dict[str, Callable[[Material], Arm]] = {
    NONE: _none,
    "reconstruction": _reconstruction,
    "contrast": _contrast,
    "truth": _truth,
    "distillation": _distillation,
    "imagenet-distillation": _imagenet,
    "joint": _joint,
}
"""Objectives by name."""
