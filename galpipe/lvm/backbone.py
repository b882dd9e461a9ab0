"""Any timm encoder as the stages of the model: features at strides 4, 8, 16 and 32 from the padded stamp."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from galpipe.errors import ConfigurationError
from galpipe.lvm.inputs import PADDED_SIZE

STRIDES = (4, 8, 16, 32)
"""Input pixels per cell of the four scales."""

CHANNELS_LAST = "NHWC"


@dataclass(frozen=True)
class Layout:
    """Where a timm encoder has its four scales.

    Parameters
    ----------
    indices : tuple of int
        timm's ``out_indices`` of the four.
    dims : tuple of int
        Their channels.
    """

    indices: tuple[int, ...]
    dims: tuple[int, ...]


@lru_cache(maxsize=32)
def layout(name: str) -> Layout:
    """The scales of a timm encoder; its weights are not made for that.

    Parameters
    ----------
    name : str
        As in ``timm.list_models()``, such as ``convnext_tiny``.

    Raises
    ------
    ConfigurationError
        If timm has no such encoder, or it has no features at these strides, or does not take images of `PADDED_SIZE`.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 5, 0.5)
        raise ConfigurationError(f"an encoder of timm{', such as ' + ', '.join(near) if near else ''}", repr(name))
    whole = _described(name)
    strides: list[int] = whole.feature_info.reduction()
    if not set(STRIDES) <= set(strides):
        raise ConfigurationError(f"an encoder with features at strides {STRIDES}", f"{name} with {tuple(strides)}")
    # of two features at one stride the later has seen more
    places = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
    indices: list[int] = list(whole.feature_info.out_indices)
    chosen = Layout(tuple(indices[place] for place in places), tuple(int(whole.feature_info.channels()[place]) for place in places))
    _check_shapes(name, chosen)
    return chosen


def _described(name: str) -> Any:
    """The encoder without memory for its weights."""
    try:
        with torch.device("meta"):
            return _create(name, 3, {})
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        raise ConfigurationError("an encoder that timm builds with features_only", f"{name}: {_first_line(error)}") from error


def _create(name: str, channels: int, options: dict[str, Any]) -> Any:
    common = {"pretrained": False, "features_only": True, "in_chans": channels} | options
    try:
        # encoders with attention are built for one size of image
        return timm.create_model(name, img_size=PADDED_SIZE, **common)
    except TypeError:
        return timm.create_model(name, **common)


def _check_shapes(name: str, chosen: Layout) -> None:
    try:
        with torch.device("meta"):
            made = _create(name, 3, {"out_indices": chosen.indices}).eval()
            maps = made(torch.empty(1, 3, PADDED_SIZE, PADDED_SIZE))
    except (RuntimeError, NotImplementedError, AssertionError, ValueError, TypeError) as error:
        raise ConfigurationError(f"an encoder of images of {PADDED_SIZE} pixels", f"{name}: {_first_line(error)}") from error
    got = [tuple(_first_axis(made, map_).shape[1:]) for map_ in maps]
    wanted = [(dim, PADDED_SIZE // stride, PADDED_SIZE // stride) for dim, stride in zip(chosen.dims, STRIDES, strict=True)]
    if got != wanted:
        raise ConfigurationError(f"features of shapes {wanted}", f"{name} with {got}")


def _first_axis(made: Any, map_: Tensor) -> Tensor:
    """Channels behind the batch axis, whichever way the encoder has them."""
    said = getattr(made, "output_fmt", "NCHW")
    return map_.permute(0, 3, 1, 2) if getattr(said, "value", said) == CHANNELS_LAST else map_


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class TimmStages(nn.Module):
    """A timm encoder with random weights, giving the four scales.

    Parameters
    ----------
    name : str
        Of the encoder.
    channels : int
        Of its input.
    drop_path : float
        Stochastic depth (Huang et al. 2016, arXiv:1603.09382); the share of skipped blocks at the end.
    """

    def __init__(self, name: str, channels: int, drop_path: float) -> None:
        super().__init__()
        options: dict[str, Any] = {"out_indices": layout(name).indices} | ({"drop_path_rate": drop_path} if drop_path else {})
        try:
            self.net = _create(name, channels, options)
        except TypeError as error:
            raise ConfigurationError("an encoder with drop paths, or drop_path = 0", f"{name}: {_first_line(error)}") from error

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Four maps, shapes (N, C_k, P / 4 / 2**k, P / 4 / 2**k)."""
        return tuple(_first_axis(self.net, map_).contiguous() for map_ in self.net(images))
