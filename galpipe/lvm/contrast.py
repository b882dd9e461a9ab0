"""Learning without labels from two views of each real galaxy that must embed alike (VICReg: Bardes, Ponce & LeCun 2022, arXiv:2105.04906).

VICReg keeps the embedding from collapsing by the variance and covariance of its own numbers, not by other galaxies in the batch, so that it
needs no large batches.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.lvm.distill import views
from galpipe.lvm.inputs import Inputs
from galpipe.lvm.loop import LoopSettings, Task
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.pack import Pack
from galpipe.lvm.ranks import rank, ranks

EXPANDED = 256
"""Length of the vectors in which views are compared."""

ALIKE, SPREAD, APART = 25.0, 25.0, 1.0
"""Weights of invariance, variance and covariance (Bardes et al. 2022).

The variance term is averaged over the two views, as in the code that its authors published.
"""

LEAST_SPREAD = 1.0
"""Standard deviation that each number must keep over the batch."""

Pair = tuple[Inputs, Inputs]


class Paired(nn.Module):
    """A model with the expander in whose output views are compared; the expander is thrown away afterwards."""

    def __init__(self, model: GalaxyModel, seed: int) -> None:
        super().__init__()
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.expander = nn.Sequential(
                nn.Linear(model.settings.embedding, EXPANDED), nn.BatchNorm1d(EXPANDED), nn.ReLU(), nn.Linear(EXPANDED, EXPANDED)
            )

    def forward(self, inputs: Inputs) -> Tensor:
        """Expanded embeddings, shape (N, `EXPANDED`)."""
        expanded: Tensor = self.expander(self.model.encoder(inputs).embedding.float())
        return expanded


def contrast(learner: Paired, pack: Pack, settings: LoopSettings) -> Task[Pair]:
    """Batches of two augmented views (`galpipe.lvm.distill.views`) of each stamp, and VICReg's three terms.

    Parameters
    ----------
    learner : Paired
    pack : Pack
        At least two stamps; truth is not read.
    settings : LoopSettings
    """
    count, size = len(pack), min(settings.batch, len(pack))
    device = next(learner.parameters()).device

    def batch(step: int) -> Pair:
        epoch, place = divmod(step, count // size)
        order = np.random.default_rng([settings.seed, 41, epoch]).permutation(count)
        rows = np.sort(order[place * size : (place + 1) * size])[rank() :: ranks()]
        one, other = (views(pack, rows, np.random.default_rng([settings.seed, 42, step, view])) for view in range(2))
        return one, other

    def loss(content: Pair) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            one, other = (learner(part.to(device)) for part in content)
        return vicreg(one.float(), other.float())

    return Task("contrast", batch, loss)


def vicreg(one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Loss terms of two views.

    Parameters
    ----------
    one, other : Tensor
        Shape (N, D), N at least 2.

    Returns
    -------
    dict
        ``alike``: mean squared difference of the views; ``spread``: how far each number's standard deviation lies below `LEAST_SPREAD`;
        ``apart``: squared covariances of different numbers, summed and divided by D; weighted.
    """
    parts = [item - item.mean(dim=0) for item in (one, other)]
    spread = torch.stack([functional.relu(LEAST_SPREAD - torch.sqrt(item.var(dim=0) + 1e-4)).mean() for item in parts]).mean()
    apart = torch.stack([_covariance(item) for item in parts]).sum()
    return {"alike": ALIKE * functional.mse_loss(one, other), "spread": SPREAD * spread, "apart": APART * apart}


def _covariance(centred: Tensor) -> Tensor:
    """Squared off-diagonal elements of the covariance, summed, over D."""
    matrix = centred.T @ centred / (len(centred) - 1)
    return ((matrix**2).sum() - (matrix.diagonal() ** 2).sum()) / matrix.shape[0]
