"""Distillation: the encoder learns from real pixels what the teacher and people say of them, under astronomical augmentation.

The targets do not depend on how a galaxy lies, how large or bright it is drawn, or how sharp it is seen; so the embedding learns not to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from galpipe.config import SOFTENING
from galpipe.galaxyzoo import ANSWERS
from galpipe.heads.morphology import Morphology
from galpipe.labels.answers import SIZE, HumanAnswers, answer_loss, spread_weights
from galpipe.lvm.data import load_pixels
from galpipe.lvm.encoder import Features
from galpipe.lvm.finetune import Labelled, Phase, multi_task
from galpipe.lvm.inputs import MARGIN, MODEL_BANDS, PADDED_SIZE, Inputs, conditions, joined_inputs, turned_inputs
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.pack import Pack
from galpipe.lvm.ranks import rank, ranks
from galpipe.lvm.realset import RealSet
from galpipe.lvm.teacher import COMPONENTS, Lesson
from galpipe.lvm.warp import moved, observed

BAND_LOSS = 0.1
"""Probability that a view lacks a band."""

HUMAN = 0.7
"""Weight of people's answers where there are any; the teacher's have the rest."""

FEATURES = 1.0
"""Weight of the teacher's features beside the answers."""

ANSWERED = 0.6
"""Weight of the soft answers, in units of their cross entropy."""

VOTES = 0.5
"""Weight of people's votes through the morphology head."""

TURN = 0.5
"""Weight of the difference between a view's embedding and that of the same view turned by quarters."""


class Student(nn.Module):
    """A model with the two linear layers that it is taught through; they are thrown away afterwards."""

    def __init__(self, model: GalaxyModel, seed: int) -> None:
        super().__init__()
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Linear(model.settings.embedding, COMPONENTS)
            self.answers = nn.Linear(model.settings.embedding, SIZE)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor, Features]:
        """Features (N, `COMPONENTS`) and logits (N, `SIZE`), and what the encoder saw."""
        seen: Features = self.model.encoder(inputs)
        embedding = seen.embedding.float()
        return self.features(embedding), self.answers(embedding), seen


@dataclass(frozen=True)
class Taught:
    """A batch of views and what is to be learned of them; votes and groups as `galpipe.labels.mapping` has them."""

    inputs: Inputs
    features: Tensor
    values: Tensor
    weights: Tensor
    votes: Tensor
    groups: Tensor


def targets(real: RealSet, lesson: Lesson) -> HumanAnswers:
    """People's answers mixed with the teacher's, shape as both."""
    human, said = real.answers, lesson.answers
    share = HUMAN * (human.weights > 0)
    spread = spread_weights(share)
    values = spread * human.values + (1 - spread) * said.values
    weights = share * human.weights + (1 - share) * said.weights
    return HumanAnswers(values.astype(np.float32), weights.astype(np.float32))


def views(pack: Pack, rows: NDArray[np.int64], rng: np.random.Generator) -> Inputs:
    """Augmented inputs of some stamps; seeing and depth are not told, as with pictures."""
    pixels, valid = load_pixels(pack, rows)
    inside = slice(MARGIN, PADDED_SIZE - MARGIN)
    # the frame stays where it is: only the stamp turns within it
    stacked = torch.from_numpy(np.concatenate([pixels, valid.astype(np.float32)], axis=1)[:, :, inside, inside])
    turned = functional.pad(moved(stacked, stacked.shape[-1], rng), (MARGIN,) * 4)
    bands = len(MODEL_BANDS)
    measured = turned[:, bands:] > 0.99
    lost = rng.random(len(rows)) < BAND_LOSS
    for index in np.flatnonzero(lost):
        measured[index, rng.integers(bands)] = False
    softening = torch.tensor([SOFTENING[band] for band in MODEL_BANDS])[:, None, None]
    seen = torch.where(measured, observed(turned[:, :bands], softening, rng), torch.zeros(()))
    unknown = np.full((len(rows), bands), np.nan)
    numbers = conditions(unknown, unknown, measured.flatten(2).any(dim=2).numpy(), 0.262)
    return Inputs(seen, measured.float(), torch.from_numpy(numbers), torch.ones(len(rows)))


def real_batches(real: RealSet, lesson: Lesson, batch: int, seed: int, pairs: bool = False) -> Task[Taught]:
    """Batches of `distill`, without a loss: see `taught_loss`.

    With ``pairs``, the second half of a batch shows the first half's very views, turned by quarters.
    """
    wanted = targets(real, lesson)
    votes, groups = tree_votes(real)
    count = len(real.pack)
    size = max(min(batch // 2 if pairs else batch, count), 1)

    def make(step: int) -> Taught:
        epoch, place = divmod(step, count // size)
        order = np.random.default_rng([seed, 31, epoch]).permutation(count)
        rows = np.sort(order[place * size : (place + 1) * size])[rank() :: ranks()]
        inputs = views(real.pack, rows, np.random.default_rng([seed, 32, step]))
        if pairs:
            inputs = joined_inputs(inputs, turned_inputs(inputs, 1 + step % 3))
            rows = np.concatenate([rows, rows])
        arrays = (lesson.features[rows], wanted.values[rows], wanted.weights[rows], votes[rows], groups[rows])
        return Taught(inputs, *(torch.from_numpy(item) for item in arrays))

    return Task("distill", make, lambda content: {})


def tree_votes(real: RealSet) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """People's votes in the tree of Galaxy Zoo DECaLS and the groups of answers that they do not tell apart, both (N, 34)."""
    count = len(real.pack)
    votes = np.zeros((count, len(ANSWERS)), np.float32)
    groups = np.tile(np.arange(len(ANSWERS)), (count, 1))
    for mapped, rows in zip(real.votes, real.voted, strict=True):
        votes[rows], groups[rows] = mapped.counts, mapped.leaders
    return votes, groups


def taught_loss(student: Student, content: Taught, voters: bool = False, pairs: bool = False) -> dict[str, Tensor]:
    """Loss terms of a batch of views; with ``voters``, also of the morphology head on people's votes; with ``pairs``, of turning them."""
    device = next(student.parameters()).device
    morphology: dict[str, Tensor] = {}
    with torch.autocast(device.type, torch.bfloat16):
        features, logits, seen = student(content.inputs.to(device))
        if voters:
            morphology = student.model.head("morphology")(seen)
    close = functional.smooth_l1_loss(features.float(), content.features.to(device))
    said = answer_loss(logits.float(), content.values.to(device), content.weights.to(device))
    terms = {"teacher": FEATURES * close, "answers": ANSWERED * said}
    if pairs:
        terms["turn"] = TURN * turn_loss(seen.embedding.float())
    if voters:
        targets = {"votes": content.votes.to(device), "groups": content.groups.to(device)}
        terms["votes"] = VOTES * student.model.head("morphology").loss(morphology, targets)
    return terms


def turn_loss(embedding: Tensor) -> Tensor:
    """How far views and their turned copies (the second half of the rows) are apart, over how far galaxies are apart.

    Zero for a single galaxy, which says nothing of that.
    """
    one, other = embedding.chunk(2)
    if len(one) < 2:
        return embedding.sum() * 0
    apart = one.detach().var(dim=0, unbiased=False).mean()
    return functional.mse_loss(one, other) / (apart + 1e-6)


def distill(
    student: Student, real: tuple[RealSet, Lesson], settings: LoopSettings, folder: Path, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Teach encoder and embedding from real galaxies alone.

    Returns
    -------
    list of dict
        The loop's history.
    """
    batches = real_batches(*real, settings.batch, settings.seed)
    task = Task("distill", batches.batch, lambda content: taught_loss(student, content))
    return train(student, task, settings, folder, progress)


def joint(
    student: Student,
    data: tuple[Pack, tuple[RealSet, Lesson], int],
    settings: LoopSettings,
    folder: Path,
    phase: Phase,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Every head on mock stamps, and the embedding on real galaxies, in every step; arguments as `joint_task`.

    Returns
    -------
    list of dict
        The loop's history.
    """
    return train(student, joint_task(student, data, settings, phase), settings, folder, progress)


def joint_task(
    student: Student, data: tuple[Pack, tuple[RealSet, Lesson], int], settings: LoopSettings, phase: Phase
) -> Task[tuple[Labelled, Taught]]:
    """Batches and loss of `joint`.

    Parameters
    ----------
    student : Student
    data : tuple
        Mock stamps with truth, real galaxies with their lesson, and how many of the latter each step takes.
    settings : LoopSettings
        Its ``batch`` counts the mock stamps.
    """
    pack, real, share = data
    mock = multi_task(student.model, pack, settings, phase)
    batches = real_batches(*real, share, settings.seed, pairs=True)
    voters = "morphology" in student.model.settings.heads
    if voters:
        morphology = cast(Morphology, student.model.head("morphology"))
        for mapped in real[0].votes:
            morphology.learned_from(mapped)

    def batch(step: int) -> tuple[Labelled, Taught]:
        return mock.batch(step), batches.batch(step)

    def loss(content: tuple[Labelled, Taught]) -> dict[str, Tensor]:
        return mock.loss(content[0]) | taught_loss(student, content[1], voters, pairs=True)

    return Task(phase.name, batch, loss)
