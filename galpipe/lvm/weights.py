"""A model as a folder: ``model.safetensors``, ``card.json``, ``MODEL_CARD.md``. Nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from galpipe.commit import replace_folder
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.model import GalaxyModel

WEIGHTS_FILE, CARD_FILE, TEXT_FILE = "model.safetensors", "card.json", "MODEL_CARD.md"

FORMAT = "galpipe-model-1"

SHIPPED = "mini"
"""Name of the folder under ``galpipe/lvm/weights`` that comes with the package."""


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


def shipped_folder() -> Path:
    """Where the weights that come with the package lie."""
    return Path(str(resources.files("galpipe.lvm"))) / "weights" / SHIPPED


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
    tensors = {name: _half(value).contiguous().cpu() for name, value in model.state_dict().items()}
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


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to(torch.float16) if value.is_floating_point() else value.detach()


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
        stored = load_file(path)
        model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in stored.items()})
    except (SafetensorError, RuntimeError) as error:
        raise BadData("weights that fit the card's settings", str(error)[:300], file=str(path)) from error
    return LoadedModel(model.eval(), card, digest[:16])


def read_card(folder: Path) -> dict[str, Any]:
    """The content of a model's ``card.json``.

    Raises
    ------
    ConfigurationError
        If there is none, or it is of another format.
    """
    path = folder / CARD_FILE
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError("a model folder with a card", str(error), file=str(path)) from error
    if card.get("format") != FORMAT:
        raise ConfigurationError(f"a model of format {FORMAT}", repr(card.get("format")), file=str(path))
    return card


def model_hash(folder: Path | None = None) -> str:
    """The hash that catalogs record, from the card alone."""
    return str(read_card(folder or shipped_folder())["sha256"])[:16]
