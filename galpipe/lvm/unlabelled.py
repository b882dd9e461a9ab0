"""Pre-training on stamps that lie in stores and files, without labels, by masked reconstruction: `galpipe train --unlabelled PATH`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from galpipe.code_version import code_version
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.inputs import Inputs
from galpipe.lvm.loop import LoopSettings, Progress, Task, train
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.order import OrderSettings
from galpipe.lvm.pretrain import hide
from galpipe.lvm.ranks import rank, ranks, wait_for_all
from galpipe.lvm.shards import Refused, Shards, find_shards
from galpipe.lvm.stream import LanePart, Place, StampStream
from galpipe.lvm.train import Places
from galpipe.lvm.weights import read_card, save_model, take_over

REFUSED_FILE = "refused-{rank}.jsonl"
"""In the work folder: one line for every stamp that was refused, as a rank met it."""

NAMED = 20
"""Refused stamps that the card names."""


@dataclass(frozen=True)
class UnlabelledSettings:
    """Everything that the weights depend on, besides the stamps.

    Parameters
    ----------
    name, version : str
        Of the model.
    seed : int
    epochs : int
        Times that every stamp is seen.
    steps : int
        Batches instead of whole epochs; 0 for epochs.
    batch : int
        Stamps per step over all GPUs.
    lanes : int
        See `galpipe.lvm.order.OrderSettings`; the number of GPUs must divide it, and it the batch.
    buffer : int
        Stamps that are shuffled together, over all GPUs.
    rate : float
        Largest learning rate.
    warmup, checkpoint : int
        Steps until it is reached, and between checkpoints.
    workers : int
        Loader processes per GPU; 0 reads in a thread. Changes no result.
    threads : int
        Torch threads.
    model : ModelSettings
        Heads are left out.
    """

    name: str = "unlabelled"
    version: str = "1"
    seed: int = 1
    epochs: int = 1
    steps: int = 0
    batch: int = 64
    lanes: int = 8
    buffer: int = 4096
    rate: float = 5e-4
    warmup: int = 200
    checkpoint: int = 200
    workers: int = 0
    threads: int = 2
    model: ModelSettings = field(default_factory=ModelSettings)

    def order(self) -> OrderSettings:
        """The stream's order."""
        return OrderSettings(self.batch, self.lanes, self.buffer, self.seed)

    def loop(self, steps: int) -> LoopSettings:
        """The training loop's settings, for epochs of so many steps."""
        return LoopSettings(
            self.steps or self.epochs * steps, self.batch, self.rate, self.warmup, seed=self.seed, checkpoint=self.checkpoint
        )


@dataclass(frozen=True)
class Hidden:
    """Part of a batch that this rank has.

    Parameters
    ----------
    whole, shown : Inputs
        The stamps, and what of them is not masked.
    asked : Tensor
        Shape (N, 3, P, P), 1 where a hidden pixel had been measured.
    weight : float
        See `StampStream.weight`.
    """

    whole: Inputs
    shown: Inputs
    asked: Tensor
    weight: float


def hidden_batch(stream: StampStream, step: int) -> Hidden:
    """The batch of a step with its masks, lane by lane, so that no stamp's mask depends on the number of ranks."""
    parts = stream.batch(step)
    weight = stream.weight(step)
    if not parts:
        # the end of an epoch has nothing for this rank, which still takes part in the sums
        parts = [LanePart(part.lane, part.inputs.rows(0, 1)) for part in stream.batch(step - 1)[:1]]
    seed = stream.order.settings.seed
    hidden = [hide(part.inputs, (seed, step, part.lane)) for part in parts]
    return Hidden(
        _together([part.inputs for part in parts]), _together([item[0] for item in hidden]), torch.cat([item[1] for item in hidden]), weight
    )


def _together(parts: Sequence[Inputs]) -> Inputs:
    names = ("pixels", "valid", "conditions", "sharpening")
    return Inputs(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def reconstruction_loss(model: GalaxyModel, batch: Hidden, precision: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Mean over stamps of the mean absolute error of each one's hidden pixels, asinh units.

    A stamp counts once whatever part of it was measured, so that the mean over ranks is that of the whole batch.
    """
    device = next(model.parameters()).device
    whole, shown, asked = batch.whole.to(device), batch.shown.to(device), batch.asked.to(device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        filled = model.reconstruct(shown).float()
    error = ((filled - whole.pixels).abs() * asked).sum(dim=(1, 2, 3)) / asked.sum(dim=(1, 2, 3)).clamp(min=1)
    return {"reconstruction": error.mean() * batch.weight}


def pretrain_stream(
    model: GalaxyModel,
    stream: StampStream,
    settings: LoopSettings,
    folder: Path,
    progress: Progress | None = None,
    precision: torch.dtype = torch.bfloat16,
) -> list[dict[str, float]]:
    """Teach encoder and decoder on a stream; goes on in the middle of an epoch.

    Parameters
    ----------
    model : GalaxyModel
    stream : StampStream
    settings : LoopSettings
    folder : Path
        Keeps the checkpoint.
    progress : callable, optional
    precision : torch.dtype
        Of the network's products.

    Returns
    -------
    list of dict
        The loop's history.
    """
    data = {"shards": stream.shards.digest(), "order": asdict(stream.order.settings)}
    task: Task[Hidden] = Task(
        "unlabelled", lambda step: hidden_batch(stream, step), lambda batch: reconstruction_loss(model, batch, precision), data
    )
    return train(model, task, settings, folder, progress)


def train_unlabelled(
    settings: UnlabelledSettings, paths: Sequence[Path], places: Places, progress: Progress | None = None
) -> dict[str, Any]:
    """Pre-train an encoder on the stamps under some paths and write a model folder without heads.

    Parameters
    ----------
    settings : UnlabelledSettings
    paths : sequence of Path
        See `galpipe.lvm.shards.find_shards`.
    places : Places
        Where checkpoints and the lists of refused stamps are kept, what model to begin from, and the folder to write. ``galpipe train
        --start`` trains heads on it.
    progress : callable, optional

    Returns
    -------
    dict
        The card's training facts.
    """
    torch.set_num_threads(settings.threads)
    settings, work = replace(settings, model=replace(settings.model, heads=())), places.work
    work.mkdir(parents=True, exist_ok=True)
    shards = find_shards(paths)
    model = new_model(settings.model, settings.seed).to(device_of())
    began = take_over(model, places.start)[0] if places.start is not None else 0
    log = work / REFUSED_FILE.format(rank=rank())
    place = Place(rank(), ranks(), settings.workers)
    with log.open("a") as lines, StampStream(shards, settings.order(), place, lambda item: _note(lines, item)) as stream:
        history = pretrain_stream(model, stream, settings.loop(stream.steps), work, progress)
        steps = stream.steps
    # every rank has written its list by the time the first reads them
    wait_for_all()
    refused = _all_refused(work, shards)
    facts = {
        "settings": asdict(settings),
        "history": history,
        "steps_per_epoch": steps,
        "shards": len(shards.found),
        "stamps": sum(shards.rows),
        "data": shards.digest(),
        "refused": len(refused),
        "refused_named": [asdict(item) for item in refused[:NAMED]],
        "began": f"{read_card(places.start)['sha256'][:16]}: {began} tensors taken over" if places.start is not None else "",
        "ranks": ranks(),
        "code": code_version(),
    }
    if not rank():
        card = {"name": settings.name, "version": settings.version, "training": facts}
        save_model(places.out, model, card, _card_text(card, settings))
    return facts


def _note(lines: TextIO, item: Refused) -> None:
    lines.write(json.dumps(asdict(item)) + "\n")
    lines.flush()


def _all_refused(work: Path, shards: Shards) -> list[Refused]:
    """Every refused stamp of these shards once; an ended run may have met one twice, or have written half a line."""
    paths = {shard.path for shard in shards.found}
    found = set(shards.refused)
    for log in work.glob(REFUSED_FILE.format(rank="*")):
        for line in log.read_text().splitlines():
            try:
                item = Refused(**json.loads(line))
            except (ValueError, TypeError):
                continue
            if item.file in paths:
                found.add(item)
    return sorted(found, key=lambda item: (item.file, item.row))


def _card_text(card: dict[str, Any], settings: UnlabelledSettings) -> str:
    facts = card["training"]
    last = facts["history"][-1] if facts["history"] else {}
    net = settings.model.encoder or f"SwinV2 of {settings.model.dims} channels, depths {settings.model.depths}"
    lines = [
        f"# {card['name']} {card['version']}",
        "",
        f"An encoder without heads ({net}): it gives embeddings, no answers. `galpipe train --start FOLDER` trains heads on it.",
        "",
        f"- Data: {facts['stamps']} stamps without labels in {facts['shards']} stores and files (digest {facts['data']}),"
        f" {facts['refused']} refused.",
        f"- Masked reconstruction, {last.get('step', 0)} steps of {settings.batch} stamps ({facts['steps_per_epoch']} make an epoch),"
        f" seed {settings.seed}, {facts['ranks']} rank(s), {last.get('seconds', 0) / 60:.0f} minutes, code {facts['code']}.",
        f"- Mean error of hidden pixels at the end: {last.get('reconstruction', float('nan')):.4f} in asinh units.",
        "",
        "It was scored on nothing else.",
        "",
    ]
    return "\n".join(lines)
