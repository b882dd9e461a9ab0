"""The large vision model: a SwinV2 encoder (timm), or another timm encoder, behind a convolutional stem, and a light decoder.

SwinV2: Liu et al. 2022, arXiv:2111.09883. The decoder is a feature pyramid (Lin et al. 2017, arXiv:1612.03144) that ends at half the
input's resolution, where the stem's features join it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn import functional

from galpipe.config import SOFTENING
from galpipe.errors import ConfigurationError
from galpipe.lvm.backbone import TimmStages, layout
from galpipe.lvm.hyperbolic import sinh
from galpipe.lvm.inputs import CONDITIONS, MODEL_BANDS, PADDED_SIZE, Inputs

APERTURES = (4, 8, 16, 32)
"""Radii in pixels of the central apertures whose fluxes go in beside the pixels."""

INPUT_SCALE = 0.5
"""Factor from asinh units to the stem's input."""

BRIGHTEST = 12.0
"""asinh units above which a pixel's flux is not followed (1,000 nanomaggies in r)."""


@dataclass(frozen=True)
class LabelTask:
    """A task learned from a label file, answered from the embedding by `galpipe.heads.classes`.

    Parameters
    ----------
    name : str
        Begins the names of its columns: lower case letters, digits and underscores.
    classes : tuple of str
        In the order of the answers; empty for a number.
    zero, unit : float
        Of a number: mean and spread of its labels, in which the head answers.
    """

    name: str
    classes: tuple[str, ...] = ()
    zero: float = 0.0
    unit: float = 1.0


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the model; part of the model card.

    Parameters
    ----------
    dims : int
        Channels of the first stage; doubled at each of the next three.
    depths, attention_heads : tuple of int
        Blocks and attention heads of each stage.
    window : int
        Attention window in tokens; divides 40, 20, 10 and 5.
    stem : int
        Channels at half resolution.
    decoder : int
        Channels of the decoded features.
    embedding : int
        Length of the embedding.
    heads : tuple of str
        Names of the downstream tasks, each a module of `galpipe.heads` or of the Python path (`galpipe.heads.base.head_class`).
    encoder : str
        Name of a timm encoder that takes the place of the SwinV2 stages; ``dims``, ``depths``, ``attention_heads`` and ``window`` then
        mean nothing. Empty for SwinV2 of those sizes.
    drop_path : float
        Stochastic depth in training: the share of skipped blocks at the encoder's end.
    pyramid : int
        Channels of the decoder's coarse maps, twice those of its fine ones.
    tasks : tuple of LabelTask
        Tasks learned from label files, beside them.
    """

    dims: int = 32
    depths: tuple[int, ...] = (1, 1, 2, 1)
    attention_heads: tuple[int, ...] = (2, 4, 8, 8)
    window: int = 5
    stem: int = 24
    decoder: int = 24
    embedding: int = 192
    heads: tuple[str, ...] = ("morphology", "parameters", "detection", "restoration", "domain")
    encoder: str = ""
    drop_path: float = 0.0
    pyramid: int = 96
    tasks: tuple[LabelTask, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise ConfigurationError("drop_path from 0 to below 1", repr(self.drop_path))
        if self.encoder:
            # an encoder that does not fit is refused here, not when the model is made
            layout(self.encoder)
            return
        if len(self.depths) != 4 or len(self.attention_heads) != 4:
            raise ConfigurationError("four stages in depths and attention_heads", f"{self.depths}, {self.attention_heads}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSettings:
        """Read back what `as_dict` wrote."""
        try:
            tidy: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            tidy["tasks"] = tuple(LabelTask(**{**item, "classes": tuple(item["classes"])}) for item in tidy.get("tasks", ()))
            return cls(**tidy)
        except TypeError as error:
            raise ConfigurationError("model settings of this version", str(error)) from error

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels at strides 4, 8, 16 and 32."""
        if self.encoder:
            return layout(self.encoder).dims
        return tuple(self.dims * 2**stage for stage in range(4))

    @property
    def center(self) -> int:
        """Length of the vector of central features."""
        return sum(self.stage_dims)


@dataclass(frozen=True)
class Features:
    """What one encoder pass gives to every head.

    Parameters
    ----------
    scales : tuple of Tensor
        Four maps, shapes (N, C_k, P / 4 / 2**k, P / 4 / 2**k).
    center : Tensor
        Shape (N, sum of C_k): the maps around the source's pixel, side by side.
    embedding : Tensor
        Shape (N, E).
    photometry : Tensor
        Shape (N, 12): asinh of central aperture fluxes, band by band.
    decoded : Tensor
        Shape (N, D, P / 2, P / 2).
    inputs : Inputs
        What the encoder saw.
    """

    scales: tuple[Tensor, ...]
    center: Tensor
    embedding: Tensor
    photometry: Tensor
    decoded: Tensor
    inputs: Inputs

    @classmethod
    def of_embedding(cls, embedding: Tensor) -> Features:
        """What is known of stamps without pixels: for heads that need none.

        Parameters
        ----------
        embedding : Tensor
            Shape (N, E). Everything else is of length 0.
        """
        none = embedding.new_zeros((len(embedding), 0))
        return cls((), none, embedding, none, none, Inputs(none, none, none, none))


class ConvStem(nn.Module):
    """Two strided convolutions in the place of timm's patch embedding; keeps the half-resolution map for the decoder."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * len(MODEL_BANDS), settings.stem, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(settings.stem, settings.stem, 3, padding=1)
        self.second = nn.Conv2d(settings.stem, settings.dims, 4, stride=2, padding=1)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Maps of shapes (N, stem, P/2, P/2) and (N, dims, P/4, P/4)."""
        stacked = torch.cat([inputs.pixels * INPUT_SCALE, inputs.valid], dim=1)
        half = functional.gelu(self.first(stacked))
        half = half + functional.gelu(self.mix(half))
        return half, self.second(half)


class FullStem(nn.Module):
    """What feeds a timm encoder with a stem of its own: a map at full resolution, and the half-resolution map for the decoder."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * len(MODEL_BANDS), settings.stem, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(settings.stem, settings.stem, 3, padding=1)
        self.full = nn.Conv2d(2 * len(MODEL_BANDS), settings.stem, 3, padding=1)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Maps of shapes (N, stem, P/2, P/2) and (N, stem, P, P)."""
        stacked = torch.cat([inputs.pixels * INPUT_SCALE, inputs.valid], dim=1)
        half = functional.gelu(self.first(stacked))
        return half + functional.gelu(self.mix(half)), self.full(stacked)


class Photometry(nn.Module):
    """Central aperture fluxes from the input pixels themselves, masked pixels replaced by the aperture's mean."""

    disks: Tensor
    softening: Tensor

    def __init__(self) -> None:
        super().__init__()
        grid = torch.arange(PADDED_SIZE, dtype=torch.float32) - PADDED_SIZE // 2
        radius = torch.sqrt(grid[:, None] ** 2 + grid[None, :] ** 2)
        disks = torch.stack([(radius <= limit).float() for limit in APERTURES]).reshape(len(APERTURES), -1)
        self.register_buffer("disks", disks, persistent=False)
        self.register_buffer("softening", torch.tensor([SOFTENING[band] for band in MODEL_BANDS]), persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """Shape (N, 12): asinh(10 flux) / 4 with flux in nanomaggies; zero where the aperture has no valid pixel."""
        flux = sinh(inputs.pixels.clamp(-BRIGHTEST, BRIGHTEST)) * self.softening[:, None, None]
        measured = flux.flatten(2) @ self.disks.T
        share = (inputs.valid.flatten(2) @ self.disks.T) / self.disks.sum(dim=1)
        corrected = torch.where(share > 0, measured / share.clamp(min=0.05), torch.zeros_like(measured))
        return (torch.asinh(10.0 * corrected) / 4.0).flatten(1)


class Decoder(nn.Module):
    """From the four scales and the stem's map to features at half resolution."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        one, two, three, four = settings.stage_dims
        wide, narrow = settings.pyramid, settings.pyramid // 2
        self.lateral = nn.ModuleList(
            [nn.Conv2d(four, wide, 1), nn.Conv2d(three, wide, 1), nn.Conv2d(two, wide, 1), nn.Conv2d(one, narrow, 1)]
        )
        self.smooth = nn.ModuleList(
            [nn.Conv2d(wide, wide, 3, padding=1), nn.Conv2d(wide, narrow, 3, padding=1), nn.Conv2d(narrow, narrow, 3, padding=1)]
        )
        self.to_half = nn.Conv2d(narrow, 4 * settings.decoder, 1)
        self.skip = nn.Conv2d(settings.stem, settings.decoder, 1)
        self.last = nn.Conv2d(settings.decoder, settings.decoder, 3, padding=1)

    def forward(self, scales: tuple[Tensor, ...], half: Tensor) -> Tensor:
        """Shape (N, decoder, P/2, P/2)."""
        top = self.lateral[0](scales[3])
        top = functional.gelu(self.smooth[0](_double(top) + self.lateral[1](scales[2])))
        top = functional.gelu(self.smooth[1](_double(top) + self.lateral[2](scales[1])))
        top = functional.gelu(self.smooth[2](_double(top) + self.lateral[3](scales[0])))
        joined = functional.pixel_shuffle(self.to_half(top), 2) + self.skip(half)
        joined = functional.gelu(joined)
        return joined + functional.gelu(self.last(joined))


def full_precision(values: Tensor) -> torch.autocast:
    """A block in which half-precision training computes in float32: magnitudes need more than bfloat16's three digits."""
    # tensors without memory, of which FLOPs are counted, know no autocast of their own
    device = "cpu" if values.is_meta else values.device.type
    return torch.autocast(device, enabled=False)


def _double(map_: Tensor) -> Tensor:
    return functional.interpolate(map_, scale_factor=2.0, mode="nearest")


def _center(map_: Tensor) -> Tensor:
    """Mean of the cells that touch the source's pixel."""
    side = map_.shape[-1]
    first, count = ((side - 2) // 2, 2) if side % 2 == 0 else (side // 2, 1)
    return map_[:, :, first : first + count, first : first + count].mean(dim=(2, 3))


class Encoder(nn.Module):
    """Stem, encoder stages, pooled embedding and decoder: everything that is shared by the heads."""

    metric: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        # names of parameters and the order in which they are drawn are those of the shipped weights
        self.stem: nn.Module = FullStem(settings) if settings.encoder else ConvStem(settings)
        self.is_swin = not settings.encoder
        self.stages: nn.Module = TimmStages(settings.encoder, settings.stem, settings.drop_path) if settings.encoder else _swin(settings)
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for dim in settings.stage_dims])
        self.photometry = Photometry()
        numbers = CONDITIONS + len(APERTURES) * len(MODEL_BANDS)
        self.film = nn.Sequential(
            nn.Linear(numbers, 64), nn.GELU(), nn.Linear(64, 2 * (settings.stem if settings.encoder else settings.dims))
        )
        self.embed = nn.Sequential(
            nn.Linear(settings.center + settings.stage_dims[3] + numbers, settings.embedding), nn.GELU(), nn.LayerNorm(settings.embedding)
        )
        self.decoder = Decoder(settings)
        # set once, after training (`galpipe.lvm.metric`); the last name, so that older weights' tensors are drawn as they were
        self.register_buffer("metric", torch.eye(settings.embedding))

    def forward(self, inputs: Inputs) -> Features:
        """One pass."""
        half, start = self.stem(inputs)
        with full_precision(inputs.pixels):
            photometry = self.photometry(inputs)
            numbers = torch.cat([inputs.conditions, photometry], dim=1)
            scale, shift = self.film(numbers).chunk(2, dim=1)
        scales = self._scales(start * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
        with full_precision(inputs.pixels):
            center = torch.cat([_center(map_.float()) for map_ in scales], dim=1)
            embedding = self.embed(torch.cat([center, scales[3].float().mean(dim=(2, 3)), numbers], dim=1)) @ self.metric
        return Features(scales, center, embedding, photometry, self.decoder(scales, half), inputs)

    def _scales(self, start: Tensor) -> tuple[Tensor, ...]:
        if not self.is_swin:
            found = [map_.permute(0, 2, 3, 1) for map_ in self.stages(functional.gelu(start))]
        else:
            found, hidden = [], start.permute(0, 2, 3, 1)
            for stage in cast(nn.Sequential, self.stages):
                hidden = stage(hidden)
                found.append(hidden)
        return tuple(norm(map_).permute(0, 3, 1, 2).contiguous() for norm, map_ in zip(self.norms, found, strict=True))


def _swin(settings: ModelSettings) -> nn.Module:
    """Stages of a SwinV2 encoder; what comes before them is the stem's."""
    swin = SwinTransformerV2(
        img_size=PADDED_SIZE,
        patch_size=4,
        num_classes=0,
        embed_dim=settings.dims,
        depths=settings.depths,
        num_heads=settings.attention_heads,
        window_size=settings.window,
        drop_path_rate=settings.drop_path,
    )
    return cast(nn.Module, swin.layers)
