"""Heads taught anew on a finished encoder: what a head's new architecture needs, without touching the others' answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from galpipe.lvm.data import Degradation
from galpipe.lvm.finetune import Phase, finetune
from galpipe.lvm.frozen import only_heads
from galpipe.lvm.loop import LoopSettings, Progress
from galpipe.lvm.model import GalaxyModel
from galpipe.lvm.pack import Pack

REFIT = Phase("refit", {}, Degradation(blur=0.7, unknown=0.15))
"""More blurred stamps than elsewhere: sharpening is what restored images are for."""


def refit(
    model: GalaxyModel, names: Sequence[str], pack: Pack, settings: LoopSettings, folder: Path, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Train some heads of a model in place; its encoder and its other heads stay bit by bit as they are.

    Parameters
    ----------
    model : GalaxyModel
        As `galpipe.lvm.weights.take_over` left it, say.
    names : sequence of str
        Heads to teach.
    pack : Pack
        With truth.
    settings : LoopSettings
    folder : Path
        Keeps the checkpoint.
    progress : callable, optional

    Returns
    -------
    list of dict
        The loop's history.
    """
    small = only_heads(model, names).to(next(model.parameters()).device)
    for name, value in small.named_parameters():
        value.requires_grad_(name.startswith("heads."))
    history = finetune(small, pack, settings, folder, REFIT, progress)
    taught = {name: value for name, value in small.state_dict().items() if name.startswith("heads.")}
    model.load_state_dict(model.state_dict() | taught)
    return history
