"""What a model costs: parameters and measured FLOPs per stamp, and from them the hours of GPUs that a pre-training would take.

FLOPs are counted by torch as a step runs on tensors without memory (two per multiply-add; matrix products, convolutions and attention,
nothing else). Hours follow from a GPU's peak rate and an assumed share of it, which no GPU here has measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from galpipe.errors import ConfigurationError
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.inputs import CONDITIONS, MODEL_BANDS, PADDED_SIZE, Inputs
from galpipe.lvm.model import GalaxyModel

STAMPS = 76_000_000
"""Stamps of the survey with z < 20 (the paper's sample)."""

PEAK = {"A100": 312e12, "H100": 989e12}
"""Dense bfloat16 FLOP/s of one GPU (SXM), from NVIDIA's data sheets."""

COUNTED = 2
"""Stamps in the counted step; the cost is linear in them."""


@dataclass(frozen=True)
class Cost:
    """Of one model.

    Parameters
    ----------
    parameters : dict
        Numbers by part: ``encoder``, ``decoder``, ``heads``, ``reconstruction``, ``total``.
    forward : float
        FLOPs per stamp of a pass with every head.
    pretraining : float
        FLOPs per stamp of a step of masked reconstruction, forward and backward.
    training : float
        FLOPs per stamp of a step with every head.
    """

    parameters: dict[str, int]
    forward: float
    pretraining: float
    training: float


@dataclass(frozen=True)
class Plan:
    """What a pre-training is assumed to be.

    Parameters
    ----------
    stamps, epochs : int
    gpus : int
        That work side by side.
    utilization : float
        Share of a GPU's peak rate that training reaches: an assumption.
    """

    stamps: int = STAMPS
    epochs: int = 10
    gpus: int = 8
    utilization: float = 0.3

    def __post_init__(self) -> None:
        if min(self.stamps, self.epochs, self.gpus) < 1 or not 0 < self.utilization <= 1:
            raise ConfigurationError("at least one stamp, epoch and GPU, and a utilization above 0 and to 1", repr(self))


@dataclass(frozen=True)
class Hours:
    """What a plan takes on one kind of GPU.

    Parameters
    ----------
    gpu : str
    rate : float
        Stamps per second and GPU, which the loader has to give as well.
    gpu_hours, hours : float
        Summed over GPUs, and by the clock.
    """

    gpu: str
    rate: float
    gpu_hours: float
    hours: float


def hours(flops: float, plan: Plan) -> list[Hours]:
    """Time of a plan at so many FLOPs per stamp, for each GPU of `PEAK`."""
    found = []
    for gpu, peak in PEAK.items():
        rate = peak * plan.utilization / flops
        total = plan.stamps * plan.epochs / rate / 3600
        found.append(Hours(gpu, rate, total, total / plan.gpus))
    return found


def measure_cost(settings: ModelSettings) -> Cost:
    """Count parameters and FLOPs of a model; needs next to no memory and time."""
    with torch.device("meta"):
        model = GalaxyModel(settings).train()
        shape = (COUNTED, len(MODEL_BANDS), PADDED_SIZE, PADDED_SIZE)
        inputs = Inputs(torch.empty(shape), torch.empty(shape), torch.empty(COUNTED, CONDITIONS), torch.empty(COUNTED))
        forward, training = _flops(model, inputs, reconstruct=False)
        _, pretraining = _flops(model, inputs, reconstruct=True)
    return Cost(_parameters(model), forward, pretraining, training)


def _flops(model: GalaxyModel, inputs: Inputs, *, reconstruct: bool) -> tuple[float, float]:
    """FLOPs per stamp of a forward pass, and of it and the backward pass."""
    with FlopCounterMode(display=False) as counter:
        if reconstruct:
            outputs = [model.reconstruct(inputs)]
        else:
            answers = model(inputs)
            outputs = [answers.embedding, *(value for raw in answers.heads.values() for value in raw.values())]
        forward = counter.get_total_flops()
        torch.stack([value.float().sum() for value in outputs if value.requires_grad]).sum().backward()  # type: ignore[no-untyped-call]
        return forward / COUNTED, counter.get_total_flops() / COUNTED


def _parameters(model: GalaxyModel) -> dict[str, int]:
    parts = {"encoder": 0, "decoder": 0, "heads": 0, "reconstruction": 0}
    for name, value in model.named_parameters():
        part = "decoder" if name.startswith("encoder.decoder.") else name.split(".")[0]
        parts[part] += value.numel()
    return parts | {"total": sum(parts.values())}
