"""Which models there are: the one that comes with the package, and those under a root's ``models/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galpipe.errors import ConfigurationError
from galpipe.lvm.folder import CARD_FILE, read_card, shipped_folder

SHIPPED = "shipped"
"""The name that settings use for the model in the package."""


@dataclass(frozen=True)
class ModelEntry:
    """One model on disk.

    Parameters
    ----------
    name : str
        What ``[infer] model`` and ``--model`` take.
    folder : Path
    model_hash : str
    card : dict
    """

    name: str
    folder: Path
    model_hash: str
    card: dict[str, Any]


def model_folder(name: str, models: Path) -> Path:
    """The folder of a model.

    Parameters
    ----------
    name : str
        ``shipped``, ``NAME/VERSION`` under ``models``, or a folder.
    models : Path
        The root's ``models`` folder.

    Raises
    ------
    ConfigurationError
        If there is no such model.
    """
    if name == SHIPPED:
        return shipped_folder()
    for folder in (models / name, Path(name)):
        if (folder / CARD_FILE).exists():
            return folder.absolute()
    raise ConfigurationError(f"a model: 'shipped', NAME/VERSION under {models}, or a folder with {CARD_FILE}", repr(name))


def list_models(models: Path) -> list[ModelEntry]:
    """Every model that a run under a root could use, the shipped one first."""
    folders = {SHIPPED: shipped_folder()} if (shipped_folder() / CARD_FILE).exists() else {}
    folders |= {path.parent.relative_to(models).as_posix(): path.parent for path in sorted(models.glob(f"*/*/{CARD_FILE}"))}
    entries = []
    for name, folder in folders.items():
        card = read_card(folder)
        entries.append(ModelEntry(name, folder, str(card["sha256"])[:16], card))
    return entries
