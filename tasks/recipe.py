"""Recipes: everything but the files that a catalog's shards are made by, kept on record, so that a later run can say what changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from catalogs.schema import SCHEMA_VERSION
from galpipe.commit import write_bytes
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import ALGORITHM_VERSIONS, fingerprint
from galpipe.lvm.parts import ModelParts, model_parts
from tasks.chain import Chain, Shared, chains_of
from tasks.context import RunContext

STAGES = ("cut", "infer", "catalog")
"""Stages whose algorithm versions are part of a recipe; files are told apart by their sha256."""


@dataclass(frozen=True)
class Recipe:
    """How a brick's files become rows.

    Parameters
    ----------
    cut, selection : mapping
        Settings in plain values.
    batch : int
        Stamps per pass of the model.
    model : str
        The model's hash.
    encoder : str
        Hash of its encoder.
    heads : mapping of str to str
        Hash by head.
    schema : int
    versions : mapping of str to int
        Algorithm version by stage.
    """

    cut: Mapping[str, Any]
    selection: Mapping[str, Any]
    batch: int
    model: str
    encoder: str
    heads: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
    versions: Mapping[str, int] = field(default_factory=lambda: {stage: ALGORITHM_VERSIONS[stage] for stage in STAGES})

    def to_json(self) -> str:
        """One text per recipe; `from_json` reads it back."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read back what `to_json` wrote.

        Raises
        ------
        BadData
            If the text is not such a record.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise BadData("a recipe's record", f"{type(error).__name__}: {error}") from error

    def chains(self) -> Callable[[str], Chain]:
        """Fingerprints of what this recipe makes of files, as `tasks.chain.chains`."""
        return chains_of(Shared(self.cut, self.selection, self.batch, self.model, self.schema, self.versions))


def recipe_of(context: RunContext) -> Recipe:
    """The recipe of a run."""
    settings, parts = context.settings, parts_of(context)
    cut, selection = asdict(settings.cut), settings.selection.identity()
    recipe = Recipe(cut, selection, settings.infer.batch, context.model_hash, parts.encoder, parts.heads)
    # as JSON gives it back: tuples are lists
    return Recipe.from_json(recipe.to_json())


def parts_of(context: RunContext) -> ModelParts:
    """The parts of a run's model, read once per process; where its folder cannot be read, the whole model counts as its encoder."""
    return _parts(context.model_folder, context.model_hash)


@cache
def _parts(folder: Path, model_hash: str) -> ModelParts:
    # the hash is part of the key: a folder whose weights changed is another model
    try:
        return model_parts(folder)
    except (BadData, ConfigurationError):
        return ModelParts(model_hash)


def shard_parts(context: RunContext, links: Chain) -> dict[str, Any]:
    """What a shard's columns are made by, for its footer: ``heads`` by name, and ``pixels`` for everything else.

    Parameters
    ----------
    context : RunContext
    links : Chain
        Of the brick.
    """
    parts = parts_of(context)
    shared = {"cut": links.cut, "encoder": parts.encoder, "batch": context.settings.infer.batch, "schema": SCHEMA_VERSION}
    return {"pixels": fingerprint("infer", shared | {"catalog": ALGORITHM_VERSIONS["catalog"]}), "heads": dict(parts.heads)}


def remember_recipe(context: RunContext) -> None:
    """Put a run's recipe on record, once."""
    text = recipe_of(context).to_json()
    path = context.layout.recipes(context.name) / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        write_bytes(path, text.encode())


def known_recipes(context: RunContext) -> list[Recipe]:
    """Recipes on record, newest first; a record that does not read is passed over, it only explains."""
    folder = context.layout.recipes(context.name)
    found = sorted(folder.glob("*.json"), key=lambda path: (-path.stat().st_mtime_ns, path.name)) if folder.is_dir() else []
    recipes = []
    for path in found:
        try:
            recipes.append(Recipe.from_json(path.read_text()))
        except (OSError, UnicodeDecodeError, BadData):
            continue
    return recipes
