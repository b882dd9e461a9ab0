"""What a model costs: parameters and measured FLOPs per stamp, and from them the hours of GPUs that a pre-training would take.

FLOPs are counted by torch as a step runs (two per multiply-add; matrix products, convolutions and attention,
nothing else). Hours follow from a GPU's peak rate and an assumed share of it, which no GPU here has measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from galpipe.errors import ConfigurationError
from galpipe.heads.base import head_class
from galpipe.lvm.backbone import STRIDES
from galpipe.lvm.encoder import APERTURES, Features, ModelSettings
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
    """Count parameters and FLOPs of a model; needs little memory and time."""
    with torch.device("meta"):
        model = GalaxyModel(replace(settings, heads=())).train()
        inputs = _inputs()
        forward, training = _flops(lambda: _tensors(model.encoder(inputs)))
        _, pretraining = _flops(lambda: [model.reconstruct(inputs)])
    # heads may compute what tensors without memory cannot; they are small
    heads = nn.ModuleList([head_class(name).build(settings) for name in settings.heads])
    features = _features(settings)
    own = _flops(lambda: [value for head in heads for value in head(features).values()]) if settings.heads else (0.0, 0.0)
    return Cost(_parameters(model, heads), forward + own[0], pretraining, training + own[1])


def _inputs() -> Inputs:
    shape = (COUNTED, len(MODEL_BANDS), PADDED_SIZE, PADDED_SIZE)
    return Inputs(torch.zeros(shape), torch.ones(shape), torch.zeros(COUNTED, CONDITIONS), torch.ones(COUNTED))


def _features(settings: ModelSettings) -> Features:
    """What heads get, of the right shapes."""
    sides = [PADDED_SIZE // stride for stride in STRIDES]
    scales = tuple(torch.zeros(COUNTED, dim, side, side) for dim, side in zip(settings.stage_dims, sides, strict=True))
    half = PADDED_SIZE // 2
    parts = (torch.zeros(COUNTED, settings.center), torch.zeros(COUNTED, settings.embedding))
    decoded = torch.zeros(COUNTED, settings.decoder, half, half)
    for tensor in (*scales, *parts, decoded):
        tensor.requires_grad_()
    return Features(scales, *parts, torch.zeros(COUNTED, len(APERTURES) * len(MODEL_BANDS)), decoded, _inputs())


def _tensors(features: Features) -> list[Tensor]:
    return [features.embedding, features.decoded, *features.scales]


def _flops(make: Callable[[], list[Tensor]]) -> tuple[float, float]:
    """FLOPs per stamp of making some outputs, and of that and the backward pass."""
    with FlopCounterMode(display=False) as counter:
        outputs = make()
        forward = counter.get_total_flops()
        torch.stack([value.float().sum() for value in outputs if value.requires_grad]).sum().backward()  # type: ignore[no-untyped-call]
        return forward / COUNTED, counter.get_total_flops() / COUNTED


def _parameters(model: GalaxyModel, heads: nn.Module) -> dict[str, int]:
    parts = {"encoder": 0, "decoder": 0, "heads": sum(value.numel() for value in heads.parameters()), "reconstruction": 0}
    for name, value in model.named_parameters():
        part = "decoder" if name.startswith("encoder.decoder.") else name.split(".")[0]
        parts[part] += value.numel()
    return parts | {"total": sum(parts.values())}
