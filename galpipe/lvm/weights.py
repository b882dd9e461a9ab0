"""A model as a folder: ``model.safetensors``, ``card.json``, ``MODEL_CARD.md``. Nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from galpipe.commit import replace_folder
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.folder import CARD_FILE, FORMAT, TEXT_FILE, WEIGHTS_FILE, model_hash, read_card, shipped_folder
from galpipe.lvm.model import GalaxyModel

__all__ = [
    "CARD_FILE",
    "TEXT_FILE",
    "WEIGHTS_FILE",
    "LoadedModel",
    "load_model",
    "model_hash",
    "read_card",
    "save_model",
    "shipped_folder",
    "take_over",
]


METRIC = "encoder.metric"


@dataclass(frozen=True)
class LoadedModel:
    """A model and its card.

    Parameters
    ----------
    model : GalaxyModel
        On the CPU, float32, in evaluation mode.
    card : dict
        Content of ``card.json``.
    model_hash : str
        First 16 hexadecimal digits of the sha256 of the weights file.
    """

    model: GalaxyModel
    card: dict[str, Any]
    model_hash: str


def save_model(folder: Path, model: GalaxyModel, card: dict[str, Any], text: str) -> str:
    """Write a model's folder in one step; weights as float16.

    Parameters
    ----------
    folder : Path
    model : GalaxyModel
    card : dict
        JSON-ready facts; format, settings, head versions and the weights' sha256 are added.
    text : str
        The card for people, Markdown.

    Returns
    -------
    str
        The model's hash.
    """
    tensors = {name: _stored(name, value).contiguous().cpu() for name, value in model.state_dict().items()}
    with replace_folder(folder) as aside:
        save_file(tensors, aside / WEIGHTS_FILE)
        # safetensors writes for the owner only
        (aside / WEIGHTS_FILE).chmod(0o644)
        digest = sha256_file(aside / WEIGHTS_FILE)
        heads = {head.name: head.version for head in model.head_list()}
        whole = {"format": FORMAT, "settings": model.settings.as_dict(), "heads": heads, "sha256": digest} | card
        (aside / CARD_FILE).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
        (aside / TEXT_FILE).write_text(text)
    return digest[:16]


def _stored(name: str, value: torch.Tensor) -> torch.Tensor:
    # a batch norm's running variance may be beyond float16
    halved = value.is_floating_point() and not name.endswith(("running_mean", "running_var"))
    return value.detach().to(torch.float16) if halved else value.detach()


def take_over(model: GalaxyModel, folder: Path) -> tuple[int, int]:
    """Begin with another model's weights: every tensor of the same name and shape is taken, of heads only where their version is the same.

    Returns
    -------
    int, int
        Tensors that were taken, and that keep their random values.

    Raises
    ------
    ConfigurationError
        If there is no model in the folder, or nothing fits.
    BadData
        If the weights are not those of the card.
    """
    card = read_card(folder)
    path = folder / WEIGHTS_FILE
    digest = sha256_file(path)
    if digest != card["sha256"]:
        raise BadData(f"weights with sha256 {card['sha256']}", digest, file=str(path))
    stale = tuple(f"heads.{head.name}_head." for head in model.head_list() if card["heads"].get(head.name) != head.version)
    own = model.state_dict()
    stored = {name: value for name, value in load_file(path).items() if name in own and own[name].shape == value.shape}
    fitting = {name: value.to(own[name].dtype) for name, value in stored.items() if not name.startswith(stale or ("\0",))}
    if not fitting:
        raise ConfigurationError("weights of which something fits these settings", "none", file=str(path))
    model.load_state_dict(own | fitting)
    return len(fitting), len(own) - len(fitting)


def load_model(folder: Path | None = None) -> LoadedModel:
    """Read a model's folder.

    Parameters
    ----------
    folder : Path, optional
        None takes the weights that come with the package.

    Raises
    ------
    ConfigurationError
        If there is no model in the folder, or its heads are of another version than this code's.
    BadData
        If the weights are not those of the card, or do not fit the model.
    """
    place = folder or shipped_folder()
    card = read_card(place)
    path = place / WEIGHTS_FILE
    digest = sha256_file(path)
    if digest != card["sha256"]:
        raise BadData(f"weights with sha256 {card['sha256']}", digest, file=str(path))
    model = GalaxyModel(ModelSettings.from_dict(card["settings"]))
    here = {head.name: head.version for head in model.head_list()}
    if here != card["heads"]:
        raise ConfigurationError(f"heads {here}", f"{card['heads']}", file=str(place))
    try:
        # weights from before embeddings had a metric are measured in their own axes
        stored = {METRIC: model.encoder.metric} | load_file(path)
        model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in stored.items()})
    except (SafetensorError, RuntimeError) as error:
        raise BadData("weights that fit the card's settings", str(error)[:300], file=str(path)) from error
    return LoadedModel(model.eval(), card, digest[:16])
