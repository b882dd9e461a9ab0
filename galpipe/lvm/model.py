"""The galaxy model: one encoder pass, every head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.errors import ConfigurationError
from galpipe.heads.base import Head, Outputs, head_class
from galpipe.heads.classes import Classes
from galpipe.lvm.encoder import Encoder, Features, ModelSettings
from galpipe.lvm.inputs import MODEL_BANDS, Inputs


@dataclass(frozen=True)
class Answers:
    """Raw outputs of a batch.

    Parameters
    ----------
    embedding : Tensor
        Shape (N, E).
    heads : dict
        Raw outputs by head name.
    """

    embedding: Tensor
    heads: dict[str, Outputs]


class GalaxyModel(nn.Module):
    """Encoder, reconstruction for pre-training, and the heads and label tasks that the settings name."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings)
        self.reconstruction = nn.Conv2d(settings.decoder, 4 * len(MODEL_BANDS), 3, padding=1)
        heads = [head_class(name).build(settings) for name in settings.heads]
        heads += [Classes.of(task, settings) for task in settings.tasks]
        self.names = tuple(head.name for head in heads)
        if len(set(self.names)) != len(self.names):
            raise ConfigurationError("heads of different names", f"{self.names}")
        self.heads = nn.ModuleDict({_key(head.name): head for head in heads})

    def forward(self, inputs: Inputs, names: Sequence[str] | None = None) -> Answers:
        """Answers of every head, or of those named, from exactly one encoder pass."""
        features: Features = self.encoder(inputs)
        # a finished model answers as it would from the embeddings that a catalog keeps
        kept = features if self.training else Features.of_embedding(as_stored(features.embedding))
        wanted = self.names if names is None else names
        answers = {name: self.heads[_key(name)](features if self.head(name).needs_pixels else kept) for name in wanted}
        return Answers(features.embedding, answers)

    def from_embedding(self, embedding: Tensor, names: Sequence[str]) -> Answers:
        """Answers of heads that need no pixels.

        Parameters
        ----------
        embedding : Tensor
            Shape (N, E), as catalogs keep it.
        names : sequence of str
        """
        kept = Features.of_embedding(as_stored(embedding))
        return Answers(embedding, {name: self.heads[_key(name)](kept) for name in names})

    def reconstruct(self, inputs: Inputs) -> Tensor:
        """The image behind masked inputs, shape (N, 3, P, P), asinh units."""
        features: Features = self.encoder(inputs)
        return functional.pixel_shuffle(self.reconstruction(features.decoded), 2)

    def head(self, name: str) -> Head:
        """One head."""
        return cast(Head, self.heads[_key(name)])

    def head_list(self) -> list[Head]:
        """All heads, in the order of the settings."""
        return [self.head(name) for name in self.names]


def as_stored(embedding: Tensor) -> Tensor:
    """An embedding rounded to the float16 that catalogs keep."""
    return embedding.to(torch.float16).float()


def _key(name: str) -> str:
    # a head may be called like an attribute of every module ("parameters")
    return f"{name}_head"


def new_model(settings: ModelSettings, seed: int) -> GalaxyModel:
    """A model with random weights that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GalaxyModel(settings)


def grown(base: GalaxyModel, settings: ModelSettings) -> GalaxyModel:
    """A copy with other heads on the CPU: every tensor that both have is taken over, new heads keep their random weights."""
    model = GalaxyModel(settings)
    own, old = model.state_dict(), base.state_dict()
    model.load_state_dict(own | {name: value.detach().cpu() for name, value in old.items() if name in own})
    return model.eval()


def device_of(name: str = "auto") -> torch.device:
    """``auto`` takes the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
