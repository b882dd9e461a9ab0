"""Multi-task training: every head and the encoder together, on mock stamps of known truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from galpipe.heads.base import Outputs
from galpipe.lvm.data import Batches, Degradation
from galpipe.lvm.inputs import Inputs
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.pack import Pack


@dataclass(frozen=True)
class Phase:
    """One stretch of the multi-task training.

    Parameters
    ----------
    name : str
        Of its checkpoints.
    weights : mapping
        Factors of the heads' losses; 1 for a head that is not listed.
    degradation : Degradation
    """

    name: str
    weights: Mapping[str, float]
    degradation: Degradation


FIRST = Phase("finetune", {"morphology": 0.2, "detection": 0.5, "restoration": 1.5}, Degradation())
"""Pixels first: votes are noisy, and their gradients drown the others' while features are still forming."""

SECOND = Phase("polish", {"morphology": 1.0, "parameters": 1.5, "detection": 0.5, "restoration": 2.0}, Degradation(unknown=0.25))
"""Votes count in full; a quarter of the stamps come without seeing and depth."""

Labelled = tuple[Inputs, dict[str, Outputs]]


def multi_task(model: GalaxyModel, pack: Pack, settings: LoopSettings, phase: Phase) -> Task[Labelled]:
    """Batches and loss of `finetune`; the heads learn their constants from the pack."""
    batches = Batches(pack, settings.batch, settings.seed, phase.degradation)
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
            terms[head.name] = phase.weights.get(head.name, 1.0) * head.loss(answers.heads[head.name], targets)
        return terms

    return Task(phase.name, batch, loss)


def finetune(
    model: GalaxyModel,
    pack: Pack,
    settings: LoopSettings,
    folder: Path,
    phase: Phase = FIRST,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train every head at once.

    Returns
    -------
    list of dict
        The loop's history, one loss per head.
    """
    return train(model, multi_task(model, pack, settings, phase), settings, folder, progress)
