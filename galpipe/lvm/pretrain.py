"""Masked-reconstruction pre-training (Xie et al. 2022, SimMIM, arXiv:2111.09886), on stamps without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galpipe.lvm.data import Batches
from galpipe.lvm.inputs import PADDED_SIZE, Inputs
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.pack import Pack

PATCH = 16
"""Pixels on a side of the masked squares."""

HIDDEN = 0.5
"""Share of the squares that are masked."""


def hide(inputs: Inputs, seed: tuple[int, ...]) -> tuple[Inputs, Tensor]:
    """Mask random squares; masked pixels leave the input before the stem, so no skip connection shows them.

    Parameters
    ----------
    inputs : Inputs
    seed : tuple of int
        Seed and step, and what else the masks depend on.

    Returns
    -------
    inputs : Inputs
        With the squares marked as not valid.
    asked : Tensor
        Shape (N, 3, P, P), 1 where a hidden pixel had been measured.
    """
    side = PADDED_SIZE // PATCH
    chance = np.random.default_rng([*seed, 5]).random((len(inputs), 1, side, side), dtype=np.float32)
    hidden = torch.from_numpy(chance < HIDDEN).repeat_interleave(PATCH, dim=2).repeat_interleave(PATCH, dim=3).to(inputs.valid)
    shown = 1 - hidden
    return Inputs(inputs.pixels * shown, inputs.valid * shown, inputs.conditions, inputs.sharpening), inputs.valid * hidden


Shown = tuple[Inputs, Inputs, Tensor]
"""A batch: whole, with squares hidden, and where pixels are asked for."""


def masked(model: GalaxyModel, pack: Pack, settings: LoopSettings) -> Task[Shown]:
    """Batches and loss of `pretrain`; L1 in asinh units."""
    batches = Batches(pack, settings.batch, settings.seed)
    device = next(model.parameters()).device

    def batch(step: int) -> Shown:
        whole = batches.unlabelled(step)
        return whole, *hide(whole, (settings.seed, step))

    def loss(content: Shown) -> dict[str, Tensor]:
        whole, shown, asked = content[0].to(device), content[1].to(device), content[2].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            filled = model.reconstruct(shown).float()
        error = (filled - whole.pixels).abs() * asked
        return {"reconstruction": error.sum() / asked.sum().clamp(min=1)}

    return Task("pretrain", batch, loss)


def pretrain(
    model: GalaxyModel, pack: Pack, settings: LoopSettings, folder: Path, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Teach encoder and decoder to fill hidden squares.

    Returns
    -------
    list of dict
        The loop's history.
    """
    return train(model, masked(model, pack, settings), settings, folder, progress)
