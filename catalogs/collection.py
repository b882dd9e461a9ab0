"""What a catalog's name stands for: one configuration and one model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galpipe.commit import write_bytes
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout


@dataclass(frozen=True)
class Binding:
    """What every shard of a catalog shares.

    Parameters
    ----------
    settings : mapping
        Settings that change rows (cut, selection, heads), JSON-ready.
    model : str
        Name and version, for people.
    model_hash : str
        Hash of the weights and card.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    model_hash: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back (tuples become lists)."""
        body = {"settings": dict(self.settings), "model": self.model, "model_hash": self.model_hash}
        plain: dict[str, Any] = json.loads(json.dumps(body, sort_keys=True))
        return plain


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read_binding(layout: Layout, name: str) -> Binding | None:
    """The binding of a catalog; None for a name that is not in use.

    Raises
    ------
    BadData
        If ``collection.json`` does not read.
    """
    path = layout.collection(name)
    if not path.exists():
        return None
    try:
        body = json.loads(path.read_text())
        return Binding(body["settings"], body["model"], body["model_hash"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData("a readable collection.json", f"{type(error).__name__}: {error}", file=str(path)) from error


def bind(layout: Layout, name: str, wanted: Binding, *, switch: bool = False) -> Path:
    """Bind a catalog's name, or check that it is bound to the same.

    Parameters
    ----------
    layout : Layout
    name : str
    wanted : Binding
    switch : bool
        Replace another binding; the shards that differ are then done again by the run.

    Returns
    -------
    Path
        ``collection.json``.

    Raises
    ------
    ConfigurationError
        If the name is bound to something else and ``switch`` is not given; the message lists what differs.
    """
    path, bound = layout.collection(name), read_binding(layout, name)
    if bound is not None and bound.as_dict() != wanted.as_dict() and not switch:
        old, new = _flat(bound.as_dict()), _flat(wanted.as_dict())
        differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        expected = ", ".join(f"{key} = {old.get(key)!r}" for key in differing)
        got = ", ".join(repr(new.get(key)) for key in differing) + " (use another --name, or switch on purpose)"
        raise ConfigurationError(f"catalog {name!r} with {expected}", got, file=str(path))
    if bound is None or bound.as_dict() != wanted.as_dict():
        write_bytes(path, (json.dumps(wanted.as_dict(), indent=1, sort_keys=True) + "\n").encode())
    return path
