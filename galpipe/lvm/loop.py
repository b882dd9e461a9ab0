"""The training loop: one optimizer, a cosine schedule, checkpoints in safetensors and JSON from which an interrupted run goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from galpipe.commit import replace_folder
from galpipe.errors import ConfigurationError
from galpipe.lvm.ranks import averaged, check_same, rank

Batch = TypeVar("Batch")
Progress = Callable[[str, int, int], None]

CHECKPOINT = "checkpoint"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class LoopSettings:
    """One training run.

    Parameters
    ----------
    steps, batch : int
    rate : float
        Largest learning rate.
    warmup : int
        Steps until it is reached; then it falls as a cosine to a hundredth.
    decay : float
        Weight decay (AdamW).
    clip : float
        Largest norm of the gradient.
    seed : int
    checkpoint : int
        Steps between checkpoints.
    """

    steps: int
    batch: int = 32
    rate: float = 1e-3
    warmup: int = 50
    decay: float = 0.02
    clip: float = 2.0
    seed: int = 1
    checkpoint: int = 200


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What is learned.

    Parameters
    ----------
    name : str
        Shown in the progress and bound to the checkpoint.
    batch : callable
        The batch of a step; called in another thread, one step ahead.
    loss : callable
        Loss terms of a batch by name; their sum is minimized, averaged over ranks (`galpipe.lvm.ranks`).
    data : mapping
        JSON-ready: what the batches are made of. A checkpoint of other data is refused.
    """

    name: str
    batch: Callable[[int], Batch]
    loss: Callable[[Batch], dict[str, Tensor]]
    data: Mapping[str, Any] = field(default_factory=dict)


def train(
    model: nn.Module, task: Task[Batch], settings: LoopSettings, folder: Path, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Train in place; goes on from the checkpoint in ``folder`` if there is one of the same settings.

    Parameters
    ----------
    model : nn.Module
    task : Task
    settings : LoopSettings
    folder : Path
        Keeps ``<task>-checkpoint/`` and ``<task>-log.jsonl``.
    progress : callable, optional
        Called as ``progress(task, step, steps)``.

    Returns
    -------
    list of dict
        Mean loss terms between checkpoints, with step and seconds.

    Raises
    ------
    ConfigurationError
        If the checkpoint is of other settings.
    """
    optimizer = optimizer_of(model, settings)
    place = folder / f"{task.name}-{CHECKPOINT}"
    first, history = _resume(place, model, optimizer, {"settings": asdict(settings), "data": dict(task.data)})
    check_same(first, "first step")
    model.train()
    loss = averaged(model, task.loss)
    sums: dict[str, float] = {}
    start = time.monotonic() - (history[-1]["seconds"] if history else 0.0)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(task.batch, first)
        for step in range(first, settings.steps):
            batch = coming.result()
            coming = pool.submit(task.batch, step + 1)
            # what a forward pass draws (dropped paths) is a function of the step too
            torch.manual_seed((settings.seed << 32) + (step << 8) + rank())
            for name, value in take_step(model, optimizer, loss(batch), (settings, step)).items():
                sums[name] = sums.get(name, 0.0) + value
            if (step + 1) % settings.checkpoint == 0 or step + 1 == settings.steps:
                count = step % settings.checkpoint + 1
                history.append({"step": step + 1, "seconds": round(time.monotonic() - start, 1)} | {k: v / count for k, v in sums.items()})
                sums = {}
                state = {"settings": asdict(settings), "data": dict(task.data), "step": step + 1, "history": history}
                if not rank():
                    _save(place, model, optimizer, state)
            if progress is not None and not rank():
                progress(task.name, step + 1, settings.steps)
    model.eval()
    return history


def optimizer_of(model: nn.Module, settings: LoopSettings) -> torch.optim.AdamW:
    """The optimizer of every training here."""
    return torch.optim.AdamW(_groups(model, settings.decay), lr=settings.rate, betas=(0.9, 0.98))


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, terms: dict[str, Tensor], when: tuple[LoopSettings, int]
) -> dict[str, float]:
    """One step down the sum of some loss terms, at the learning rate of a place in the schedule; the terms as numbers.

    Parameters
    ----------
    model : nn.Module
    optimizer : torch.optim.Optimizer
    terms : dict
        Loss terms by name. Where their gradient is not finite the step is left out.
    when : tuple of LoopSettings and int
        The schedule and the step in it.
    """
    settings, step = when
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, settings)
    total = torch.stack(list(terms.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    if torch.isfinite(norm):
        optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


def rate_at(step: int, settings: LoopSettings) -> float:
    """Learning rate of a step."""
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only."""
    trained = [value for value in model.parameters() if value.requires_grad]
    return [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]


def _save(place: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    tensors = {f"model.{name}": value.contiguous().cpu() for name, value in model.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": entry[name].contiguous().cpu() for name in MOMENTS}
        tensors[f"optimizer.{index}.step"] = torch.as_tensor(entry["step"]).reshape(1).cpu()
    with replace_folder(place) as aside:
        save_file(tensors, aside / "state.safetensors")
        (aside / "state.json").write_text(json.dumps(state))


def _resume(
    place: Path, model: nn.Module, optimizer: torch.optim.Optimizer, wanted: Mapping[str, Any]
) -> tuple[int, list[dict[str, float]]]:
    if not (place / "state.json").exists():
        return 0, []
    state = json.loads((place / "state.json").read_text())
    for what, value in wanted.items():
        # checkpoints from before data were named have none
        if state.get(what, {}) != value:
            raise ConfigurationError(f"a checkpoint of {what} {value}", repr(state.get(what, {})), file=str(place))
    tensors = load_file(place / "state.safetensors")
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    whole = optimizer.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            entries.setdefault(int(index), {})[key] = value.reshape(()) if key == "step" else value
    optimizer.load_state_dict({"state": entries, "param_groups": whole["param_groups"]})
    return int(state["step"]), list(state["history"])
