"""Multi-task training: every head and the encoder together, on mock stamps of known truth."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from galpipe.heads.base import Outputs
from galpipe.lvm.data import Batches, Degradation
from galpipe.lvm.inputs import Inputs
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.pack import Pack

WEIGHTS = {"morphology": 0.2, "parameters": 1.0, "detection": 0.5, "restoration": 1.5}
"""Factors of the heads' losses; 1 for a head that is not listed."""

Labelled = tuple[Inputs, dict[str, Outputs]]


def finetune(
    model: GalaxyModel,
    pack: Pack,
    settings: LoopSettings,
    folder: Path,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train every head at once.

    Returns
    -------
    list of dict
        The loop's history, one loss per head.
    """
    batches = Batches(pack, settings.batch, settings.seed, Degradation())
    device = next(model.parameters()).device
    for head in model.head_list():
        head.prepare(pack.sources)

    def batch(step: int) -> Labelled:
        inputs, truth = batches.labelled(step)
        return inputs, {head.name: head.targets(truth) for head in model.head_list()}

    def loss(content: Labelled) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            answers = model(content[0].to(device))
        terms = {}
        for head in model.head_list():
            targets = {key: value.to(device) for key, value in content[1][head.name].items()}
            terms[head.name] = WEIGHTS.get(head.name, 1.0) * head.loss(answers.heads[head.name], targets)
        return terms

    return train(model, Task("finetune", batch, loss), settings, folder, progress)
