"""Training a network on few labels: validation chooses when to stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from galpipe.evaluate.linear import Floats

HELD = 0.2
"""Share of the labels that choose the epoch."""

FEWEST_HELD = 4

SETTLING = 256
"""Examples whose statistics batch normalization answers with."""

Watch = Callable[[int, int], None]
"""Called as ``watch(epoch, epochs)`` after each epoch."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    epochs, patience : int
        At most; and without a better validation loss until it stops.
    rate, decay : float
        Of AdamW; the rate falls as a cosine.
    batch : int
    half : bool
        Multiply in bfloat16; weights, gradients, batch statistics and losses stay float32.
    """

    epochs: int
    patience: int
    rate: float
    decay: float
    batch: int
    half: bool = False

    def work(self, labels: int) -> int:
        """Examples shown if nothing stops it early: what a training costs, in the same unit for every number of labels."""
        return self.epochs * labels


Forward = Callable[[Tensor, Tensor], Tensor]
"""Answers (K, C) of a batch of examples; the second argument is their rows, test rows counted after the training rows."""


Data = tuple[tuple[Tensor, Tensor], NDArray[np.generic], int]
"""Training and test examples, the training answers, and the number of classes (0: numbers)."""


@dataclass(frozen=True)
class Learner:
    """What is trained, and where its training begins.

    Parameters
    ----------
    network : nn.Module
    forward : callable
        Its answers.
    begin : callable, optional
        Called with training rows: sets the last layer to the best linear one for them, so that training goes on from there. What was
        learned before survives the first steps of fine-tuning only then (Kumar et al. 2022, ICLR, arXiv:2202.10054).
    """

    network: nn.Module
    forward: Forward
    begin: Callable[[NDArray[np.int64]], None] | None = None


def fit(learner: Learner, data: Data, run: tuple[Recipe, int], watch: Watch | None = None) -> Floats:
    """Train on flipped and turned examples, keep the epoch with the least validation loss, answer the test examples.

    A network that begins from a linear solution is trained again on all labels for as many epochs as validation found best; none,
    where the linear solution is.

    Parameters
    ----------
    learner : Learner
    data : Data
        Examples of shape (K, ..., P, P).
    run : tuple
        Recipe and seed.
    watch : callable, optional

    Returns
    -------
    ndarray
        Probabilities (M, C), or numbers (M,).
    """
    (train, test), answers, classes = data
    recipe, seed = run
    rng = np.random.default_rng([seed, 17])
    work = _Work(learner.network, _in_half(learner.forward) if recipe.half else learner.forward, train, _Scale(answers, classes), recipe)
    learned, held = _split(answers, classes, rng)
    before = copy.deepcopy(learner.network.state_dict()) if learner.begin else None
    if learner.begin:
        learner.begin(learned)
    epochs, kept = work.best((learned, held), rng, watch, begun=learner.begin is not None)
    if learner.begin and before is not None:
        learner.network.load_state_dict(before)
        every = np.arange(len(train))
        learner.begin(every)
        work.restart()
        for epoch in range(epochs):
            work.epoch(epoch, every, rng)
    else:
        learner.network.load_state_dict(kept)
    return work.scale.decoded(_answers(work.network, work.forward, test, np.arange(len(test)), offset=len(train)))


class _Work:
    """One network on its way."""

    def __init__(self, network: nn.Module, forward: Forward, train: Tensor, scale: _Scale, recipe: Recipe) -> None:
        self.network, self.forward, self.train, self.scale, self.recipe = network, forward, train, scale, recipe
        self.restart()

    def restart(self) -> None:
        """Forget the steps taken; the weights are left as they are."""
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.recipe.rate, weight_decay=self.recipe.decay)

    def epoch(self, number: int, rows: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Show each of the rows once."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * number / self.recipe.epochs)))
        self.network.train()
        order = rng.permutation(rows)
        for first in range(0, len(order), self.recipe.batch):
            part = order[first : first + self.recipe.batch]
            if len(part) < 2 <= len(order):
                continue  # batch normalization needs two
            _step(self.optimizer, self.scale.loss(self.forward(_turned(self.train[part], rng), torch.from_numpy(part)), part))
        _settle(self.network, self.forward, self.train, rows[:SETTLING])

    def loss(self, rows: NDArray[np.int64]) -> float:
        """Of rows that are not trained on."""
        return float(self.scale.loss(_answers(self.network, self.forward, self.train, rows), rows))

    def best(
        self, rows: tuple[NDArray[np.int64], NDArray[np.int64]], rng: np.random.Generator, watch: Watch | None, begun: bool
    ) -> tuple[int, dict[str, Tensor]]:
        """Train on the first rows until the loss of the second stops falling: the number of epochs with the least, and the weights then.

        No epoch is an answer only where the network began from something (``begun``).
        """
        learned, held = rows
        least, epochs, kept = self.loss(held) if begun else math.inf, 0, copy.deepcopy(self.network.state_dict())
        for epoch in range(self.recipe.epochs):
            self.epoch(epoch, learned, rng)
            loss = self.loss(held)
            if loss < least:
                least, epochs, kept = loss, epoch + 1, copy.deepcopy(self.network.state_dict())
            if watch is not None:
                watch(epoch + 1, self.recipe.epochs)
            if epoch + 1 - epochs > self.recipe.patience:
                break
        return epochs, kept


def _in_half(forward: Forward) -> Forward:
    def passed(examples: Tensor, rows: Tensor) -> Tensor:
        with torch.autocast(examples.device.type, torch.bfloat16):
            answers = forward(examples, rows)
        return answers.float()

    return passed


class _Scale:
    """Answers as targets: codes, or numbers brought to zero mean and unit spread."""

    def __init__(self, answers: NDArray[np.generic], classes: int) -> None:
        self.classes = classes
        values = np.asarray(answers, np.float64)
        self.mean, self.spread = (0.0, 1.0) if classes else (float(values.mean()), float(values.std()) or 1.0)
        self.targets = torch.from_numpy(values).long() if classes else torch.from_numpy((values - self.mean) / self.spread).float()

    def loss(self, answers: Tensor, rows: NDArray[np.int64]) -> Tensor:
        targets = self.targets[torch.from_numpy(rows)]
        return functional.cross_entropy(answers, targets) if self.classes else functional.mse_loss(answers[:, 0], targets)

    def decoded(self, answers: Tensor) -> Floats:
        if self.classes:
            return answers.double().softmax(dim=1).numpy()
        return answers[:, 0].double().numpy() * self.spread + self.mean


def _split(answers: NDArray[np.generic], classes: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from and rows that choose the epoch; of each class alike."""
    order = rng.permutation(len(answers))
    if classes:
        order = order[np.argsort(np.asarray(answers, np.int64)[order], kind="stable")]
    wanted = _held(len(order))
    held = order[np.unique(np.linspace(0, len(order) - 1, wanted).round().astype(np.int64))]
    rest = np.setdiff1d(order, held)
    return (rest, held) if len(rest) else (order, order)


def _held(labels: int) -> int:
    # of very few labels half: a network must have something to learn from
    return max(1, min(max(FEWEST_HELD, round(HELD * labels)), labels // 2))


def _turned(examples: Tensor, rng: np.random.Generator) -> Tensor:
    """Each example flipped or turned by a multiple of 90 degrees."""
    turns = rng.integers(8, size=len(examples))
    found = []
    for example, turn in zip(examples, turns, strict=True):
        turned = torch.rot90(example, int(turn) % 4, dims=(-2, -1))
        found.append(turned.flip(-1) if turn >= 4 else turned)
    return torch.stack(found)


def _settle(network: nn.Module, forward: Forward, examples: Tensor, rows: NDArray[np.int64]) -> None:
    """Give batch normalization the statistics of the weights as they are now.

    Its running means lag tens of steps behind. With few labels that is many epochs, in which the validation loss tells of the lag alone
    and the first epoch, where nothing is learned, looks best.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers or len(rows) < 2:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    network.train()
    with torch.no_grad():
        for part in np.array_split(rows, max(1, -(-len(rows) // 64))):
            forward(examples[part], torch.from_numpy(part))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _answers(network: nn.Module, forward: Forward, examples: Tensor, rows: NDArray[np.int64], offset: int = 0) -> Tensor:
    network.eval()
    with torch.no_grad():
        parts = [forward(examples[part], torch.from_numpy(part + offset)) for part in np.array_split(rows, max(1, -(-len(rows) // 64)))]
    return torch.cat(parts).float()
