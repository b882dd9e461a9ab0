"""One training on several GPUs or processes, as torchrun starts them: who this process is, and what the processes do together.

A rank is a process with a share of every batch; gradients are averaged over ranks. Outside torchrun there is one rank and nothing here
does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from galpipe.errors import ConfigurationError

PATIENCE = timedelta(hours=2)
"""Longest that a rank waits for another: making mock bricks takes that of rank 0."""


def join_ranks() -> None:
    """Meet the other processes of a torchrun; nothing happens outside one, or the second time.

    Raises
    ------
    ConfigurationError
        If there are more ranks on this machine than GPUs, where there are GPUs.
    """
    if distributed.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        if local >= torch.cuda.device_count():
            raise ConfigurationError(f"at most {torch.cuda.device_count()} ranks, one per GPU", f"local rank {local}")
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if on_gpus else "gloo", timeout=PATIENCE)


@contextmanager
def in_ranks() -> Iterator[None]:
    """Run the block together with the other processes of a torchrun, alone outside one."""
    join_ranks()
    try:
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def ranks() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Run the block on rank 0, then on the others, which find its products made."""
    if rank():
        distributed.barrier()
    yield
    # a failure on rank 0 ends torchrun, and so the others' wait
    if ranks() > 1 and not rank():
        distributed.barrier()


def wait_for_all() -> None:
    """Go on when every rank has come here."""
    if ranks() > 1:
        distributed.barrier()


def check_same(value: int, what: str) -> None:
    """Every rank must have come to the same number.

    Raises
    ------
    ConfigurationError
        If not: the ranks do not see the same files.
    """
    if ranks() == 1:
        return
    found: list[Any] = [None] * ranks()
    distributed.all_gather_object(found, value)
    if len(set(found)) > 1:
        raise ConfigurationError(f"the same {what} on all ranks (one shared folder of checkpoints)", repr(found))


class _LossModule(nn.Module):
    """A loss as a module that holds the model's parameters: what averaging over ranks can be wrapped around."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self.loss(batch)


def averaged(model: nn.Module, loss: Callable[[Any], dict[str, Tensor]]) -> Callable[[Any], dict[str, Tensor]]:
    """The loss such that its gradients are averaged over ranks; the very same function where there is one rank."""
    if ranks() == 1:
        return loss
    # which heads a phase trains is known to its loss only
    return DistributedDataParallel(_LossModule(model, loss), find_unused_parameters=True)
