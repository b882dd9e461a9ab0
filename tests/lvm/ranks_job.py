"""What a rank of a test does: pre-train a tiny model on a stream for some steps.

``python -m tests.lvm.ranks_job STORES WORK STEPS [KILL]``
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from galpipe.lvm.finetune import finetune
from galpipe.lvm.loop import LoopSettings
from galpipe.lvm.model import GalaxyModel, new_model
from galpipe.lvm.order import OrderSettings
from galpipe.lvm.ranks import in_ranks, rank, ranks
from galpipe.lvm.shards import find_shards
from galpipe.lvm.stream import Place, StampStream
from galpipe.lvm.unlabelled import pretrain_stream
from tests.lvm.toy import TINY, toy_pack

ORDER = OrderSettings(8, 4, 16, seed=5)


def train(stores: Path, work: Path, steps: int, kill: int = 0) -> GalaxyModel:
    """Train, or end as ``kill -9`` would after some step."""

    def progress(_: str, done: int, __: int) -> None:
        if done == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    model = new_model(TINY, 1)
    with StampStream(find_shards([stores]), ORDER, Place(rank(), ranks())) as stream:
        pretrain_stream(model, stream, LoopSettings(steps, 8, 3e-3, warmup=2, checkpoint=2), work, progress, torch.float32)
    return model


if __name__ == "__main__":
    with in_ranks():
        made = train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int((*sys.argv, "0")[4]))
        save_file(made.state_dict(), Path(sys.argv[2]) / f"rank-{rank()}.safetensors")
        # every head at once: what pre-training used is unused now, and the other way round
        finetune(made, toy_pack(5), LoopSettings(2, 4, 3e-3, warmup=1, checkpoint=2), Path(sys.argv[2]))
        save_file(made.state_dict(), Path(sys.argv[2]) / f"heads-{rank()}.safetensors")
