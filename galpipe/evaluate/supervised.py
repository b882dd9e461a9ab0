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


def fit(network: nn.Module, forward: Forward, data: Data, run: tuple[Recipe, int], watch: Watch | None = None) -> Floats:
    """Train on flipped and turned examples, keep the epoch with the least validation loss, answer the test examples.

    Parameters
    ----------
    network : nn.Module
        What is trained.
    forward : callable
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
    passed = _in_half(forward) if recipe.half else forward
    scale = _Scale(answers, classes)
    learned, held = _split(answers, classes, rng)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    best, kept, waited = math.inf, copy.deepcopy(network.state_dict()), 0
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs)))
        network.train()
        order = rng.permutation(learned)
        for first in range(0, len(order), recipe.batch):
            rows = order[first : first + recipe.batch]
            if len(rows) < 2 <= len(order):
                continue  # batch normalization needs two
            _step(optimizer, scale.loss(passed(_turned(train[rows], rng), torch.from_numpy(rows)), rows))
        _settle(network, passed, train, learned[:SETTLING])
        loss = float(scale.loss(_answers(network, passed, train, held), held))
        waited += 1
        if loss < best:
            best, kept, waited = loss, copy.deepcopy(network.state_dict()), 0
        if watch is not None:
            watch(epoch + 1, recipe.epochs)
        if waited > recipe.patience:
            break
    network.load_state_dict(kept)
    asked = np.arange(len(test))
    return scale.decoded(_answers(network, passed, test, asked, offset=len(train)))


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
