"""One encoder pass feeds every head: how much the heads add, and what one pass per task would take."""

from __future__ import annotations

import torch

from flows.bench.figures import Figure, Size, in_turns
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.frozen import only_heads
from galpipe.lvm.inputs import CONDITIONS, MODEL_BANDS, PADDED_SIZE, SHARPENING, Inputs
from galpipe.lvm.model import device_of, new_model

BATCH = 32
SEED = 1


def run(size: Size) -> list[Figure]:
    """Time the model of this code's default sizes; its weights do not change its time."""
    device = device_of()
    model = new_model(ModelSettings(), SEED).to(device).eval()
    batches = [_inputs(BATCH).to(device)] * max(1, round(size.galaxies / BATCH))

    def whole() -> None:
        for batch in batches:
            model(batch)
        _wait(device)

    def encoder() -> None:
        for batch in batches:
            model.encoder(batch)
        _wait(device)

    # what separate networks of this size would do: every task encodes the stamps again
    alone = [only_heads(model, (name,)).to(device) for name in model.names]

    def apart() -> None:
        for one in alone:
            for batch in batches:
                one(batch)
        _wait(device)

    with torch.inference_mode():
        seconds = in_turns({"whole": whole, "encoder": encoder, "apart": apart}, size.repeats)
    stamps = BATCH * len(batches)
    return [
        Figure("heads_over_encoder", seconds["whole"] / seconds["encoder"], "ratio", "whole model over encoder and decoder alone"),
        Figure(
            "apart_over_whole", seconds["apart"] / seconds["whole"], "ratio", f"a pass per task, {len(alone)} of them, over one for all"
        ),
        Figure("whole_rate", stamps / seconds["whole"], "stamps/s", f"whole model, on {device}, {torch.get_num_threads()} threads"),
        Figure("encoder_rate", stamps / seconds["encoder"], "stamps/s", "encoder and decoder alone"),
    ]


def _inputs(count: int) -> Inputs:
    shape = (count, len(MODEL_BANDS), PADDED_SIZE, PADDED_SIZE)
    generator = torch.Generator().manual_seed(SEED)
    pixels = torch.randn(shape, generator=generator)
    return Inputs(pixels, torch.ones(shape), torch.zeros(count, CONDITIONS), torch.full((count,), SHARPENING))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
