"""What changed since a region was processed, and why each brick that is not up to date is to be done again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from galpipe.survey.files import NEIGHBOUR, FileRecord
from galpipe.unit import Unit
from tasks.recipe import Recipe

Redo = Literal["brick", "inference", "heads"]
"""What is done again: the brick from its files on; the model on stamps that are there; the heads that differ."""

LISTED = 1000
"""Bricks listed by name under one cause."""

_ORDER: tuple[Redo, ...] = ("brick", "inference", "heads")

_WORDS: dict[str, tuple[str, Redo]] = {
    "never_done": ("never done", "brick"),
    "interrupted": ("begun by a run that did not finish it", "brick"),
    "failed_before": ("failed before, tried again", "brick"),
    "files_changed": ("files changed", "brick"),
    "cut_settings": ("cut settings changed", "brick"),
    "selection": ("selection changed", "brick"),
    "inference_settings": ("inference settings changed", "inference"),
    "encoder": ("encoder changed", "inference"),
    "head_added": ("new head", "heads"),
    "head_changed": ("head changed", "heads"),
    "head_removed": ("head removed", "heads"),
    "model": ("other model, same encoder and heads", "heads"),
    "algorithm": ("algorithm version raised", "brick"),
    "schema": ("meaning of columns changed", "inference"),
    "shard_missing": ("shard missing", "inference"),
    "shard_damaged": ("shard damaged", "inference"),
    "unknown": ("made by a recipe that is not on record", "brick"),
    "forced": ("up to date, but forced", "brick"),
}


@dataclass(frozen=True, order=True, slots=True)
class Cause:
    """One reason to do a brick again.

    Parameters
    ----------
    kind : str
        A key of the words above.
    what : str
        Which one: files, the head's name, settings old and new.
    """

    kind: str
    what: str = ""

    def __str__(self) -> str:
        words = _WORDS[self.kind][0]
        if self.kind.startswith("head_"):
            return f"{words} `{self.what}`"
        return f"{words} ({self.what})" if self.what else words

    @property
    def redo(self) -> Redo:
        """What this cause alone makes necessary."""
        if self.kind == "algorithm" and not self.what.startswith("cut "):
            return "inference"
        return _WORDS[self.kind][1]


@dataclass(frozen=True)
class Changes:
    """What is to do of a plan.

    Parameters
    ----------
    bricks : int
        Units in the plan.
    causes : mapping
        Why, for each unit that is not up to date, in the plan's order.
    fetched : mapping of Unit to str
        Fingerprint of the files of units that nothing asks to fetch again; of those up to date only where they were asked for.
    """

    bricks: int
    causes: Mapping[Unit, tuple[Cause, ...]] = field(default_factory=dict)
    fetched: Mapping[Unit, str] = field(default_factory=dict)

    @property
    def to_do(self) -> list[Unit]:
        """Units that are not up to date."""
        return list(self.causes)

    def of(self, *kinds: str) -> list[Unit]:
        """Units with a cause of one of these kinds."""
        return [unit for unit, causes in self.causes.items() if any(cause.kind in kinds for cause in causes)]

    @property
    def up_to_date(self) -> int:
        """Units that need no work."""
        return self.bricks - len(self.causes)

    def with_files(self, changed: Mapping[Unit, tuple[str, ...]]) -> Changes:
        """The same, with units whose files the release has otherwise now.

        Parameters
        ----------
        changed : mapping
            Names of the files by unit.
        """
        found = {unit: (files_changed(unit, names), *_no_force(self.causes.get(unit, ()))) for unit, names in changed.items()}
        causes = dict(sorted({**self.causes, **found}.items()))
        fetched = {unit: text for unit, text in self.fetched.items() if unit not in changed}
        return replace(self, causes=causes, fetched=fetched)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: bricks up to date, what is done again, and per cause how many bricks and which."""
        units: dict[Cause, list[Unit]] = defaultdict(list)
        redo: dict[str, int] = dict.fromkeys(_ORDER, 0)
        for unit, causes in self.causes.items():
            redo[min((cause.redo for cause in causes), key=_ORDER.index)] += 1
            for cause in causes:
                units[cause].append(unit)
        return {
            "up_to_date": self.up_to_date,
            "to_do": len(self.causes),
            "redo": redo,
            "causes": [_entry(cause, members) for cause, members in sorted(units.items(), key=lambda item: (-len(item[1]), item[0]))],
        }


def _no_force(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    return tuple(cause for cause in causes if cause.kind != "forced")


def _entry(cause: Cause, units: list[Unit]) -> dict[str, Any]:
    names = [str(unit) for unit in units[:LISTED]]
    return {"cause": cause.kind, "what": cause.what, "text": str(cause), "bricks": len(units), "redo": cause.redo, "units": names}


def files_changed(unit: Unit, names: Iterable[str]) -> Cause:
    """The cause that stands for files by name, said without the brick's: bricks of one fix are counted together."""
    return Cause("files_changed", ", ".join(sorted({_short(name, unit.brick) for name in names})))


def _short(name: str, brick: str) -> str:
    """``image-g`` for ``legacysurvey-0001m002-image-g.fits.fz``, ``tractor`` for ``tractor-0001m002.fits``; a neighbour's says so."""
    stem = name.split(".fits")[0].removeprefix("legacysurvey-")
    if brick in stem:
        return stem.replace(brick, "").strip("-").replace("--", "-")
    return stem.partition("-")[2] + " of a neighbour" if "-" in stem else stem


def product_of(record: FileRecord) -> str:
    """What a file is, as `files_changed` calls it."""
    product, _, other = record.product.partition(NEIGHBOUR)
    return f"{product}-{record.band}".rstrip("-") + (" of a neighbour" if other else "")


def differences(old: Recipe, new: Recipe) -> tuple[Cause, ...]:
    """What a later recipe has otherwise.

    Parameters
    ----------
    old, new : Recipe

    Returns
    -------
    tuple of Cause
        Empty for equal recipes.
    """
    found = [Cause("cut_settings", text) for text in _changed(old.cut, new.cut)]
    found += [Cause("selection", text) for text in _changed(old.selection, new.selection)]
    if old.batch != new.batch:
        found.append(Cause("inference_settings", f"batch {old.batch} to {new.batch}"))
    if old.model != new.model:
        found += _model(old, new)
    found += [Cause("algorithm", text) for text in _changed(old.versions, new.versions)]
    if old.schema != new.schema:
        found.append(Cause("schema", f"version {old.schema} to {new.schema}"))
    return tuple(found)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return ["; ".join(f"{key} {_brief(old.get(key))} to {_brief(new.get(key))}" for key in differing)] if differing else []


def _brief(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _model(old: Recipe, new: Recipe) -> list[Cause]:
    if old.encoder != new.encoder:
        return [Cause("encoder", f"model {old.model} to {new.model}")]
    found = [Cause("head_added", name) for name in new.heads if name not in old.heads]
    found += [Cause("head_changed", name) for name in new.heads if old.heads.get(name, new.heads[name]) != new.heads[name]]
    found += [Cause("head_removed", name) for name in old.heads if name not in new.heads]
    return found or [Cause("model", f"{old.model} to {new.model}")]
