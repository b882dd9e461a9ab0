"""What a model's folder holds besides its tensors: where it lies, its card, its hash. Imports no torch, so that planning starts at once."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from galpipe.errors import ConfigurationError

WEIGHTS_FILE, CARD_FILE, TEXT_FILE = "model.safetensors", "card.json", "MODEL_CARD.md"

FORMAT = "galpipe-model-1"

SHIPPED = "mini"
"""Name of the folder under ``galpipe/lvm/weights`` that comes with the package."""


def shipped_folder() -> Path:
    """Where the weights that come with the package lie."""
    return Path(str(resources.files("galpipe.lvm"))) / "weights" / SHIPPED


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
