"""Settings of a training from one file, a size and changes: ``[model]``, ``[train]``, ``[unlabelled]`` in TOML, ``KEY=VALUE`` on the line.

A size is a preset of the model with the training settings that go with it; every value may be set apart.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from galpipe.errors import ConfigurationError
from galpipe.lvm.encoder import ModelSettings

Kind = TypeVar("Kind")

MINI, BASE = "mini", "base"

PRESETS = {
    MINI: ModelSettings(),
    # SwinV2-B's stages (Liu et al. 2022, table 1)
    BASE: ModelSettings(
        dims=128,
        depths=(2, 2, 18, 2),
        attention_heads=(4, 8, 16, 32),
        stem=64,
        decoder=48,
        embedding=768,
        drop_path=0.2,
        pyramid=512,
    ),
}
"""Sizes of the model by name."""

LEARNING: dict[str, dict[str, Any]] = {MINI: {}, BASE: {"name": BASE, "batch": 64, "rate": 3e-4, "polish_rate": 1.5e-4}}
"""Training settings that go with a size, where a training has such a setting."""

MODEL, PRESET = "model", "preset"

_TABLES = {"TrainSettings": "train", "UnlabelledSettings": "unlabelled"}

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[int, ...]: "a list of whole numbers",
    tuple[str, ...]: "a list of texts",
}


def training_settings(kind: type[Kind], file: Path | None = None, changes: Sequence[str] = (), size: str = "") -> Kind:
    """Settings of a training: the size's, then the file's, then the changes.

    Parameters
    ----------
    kind : type
        `galpipe.lvm.train.TrainSettings` or `galpipe.lvm.unlabelled.UnlabelledSettings`.
    file : Path, optional
        TOML with ``[model]`` (a ``preset`` and any field of `ModelSettings`) and the training's table, ``[train]`` or ``[unlabelled]``.
    changes : sequence of str
        ``KEY=VALUE`` or ``model.KEY=VALUE``; lists as ``2,2,18,2``.
    size : str
        A preset; the same as ``model.preset=SIZE`` before all changes.

    Raises
    ------
    ConfigurationError
        If a table, key or size is unknown, or a value is not of its field's type.
    """
    own, model = _from_file(file, _TABLES[kind.__name__])
    if size:
        model[PRESET] = size
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigurationError("--set KEY=VALUE", repr(change))
        target = model if key.startswith(f"{MODEL}.") else own
        target[key.removeprefix(f"{MODEL}.")] = text
    preset = str(model.pop(PRESET, MINI))
    if preset not in PRESETS:
        raise ConfigurationError(f"a size among {sorted(PRESETS)}", repr(preset))
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    values = {key: value for key, value in LEARNING[preset].items() if key in known} | _typed(kind, own, "")
    made = ModelSettings(**(asdict(PRESETS[preset]) | _typed(ModelSettings, model, f"{MODEL}.")))
    return kind(**values, **{MODEL: made})


def _from_file(file: Path | None, table: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if file is None:
        return {}, {}
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("a readable TOML configuration", str(error), file=str(file)) from error
    allowed = {MODEL, *_TABLES.values()}
    if set(content) - allowed or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigurationError(f"tables {sorted(allowed)}", repr(sorted(content)), file=str(file))
    return dict(content.get(table, {})), dict(content.get(MODEL, {}))


def _typed(kind: type[Any], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    hints = {key: hint for key, hint in get_type_hints(kind).items() if hint in _WORDS}
    result = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigurationError(f"a setting among {sorted(prefix + name for name in hints)}", repr(prefix + key))
        try:
            result[key] = _value(hints[key], value)
        except ValueError as error:
            raise ConfigurationError(f"{prefix}{key} as {_WORDS[hints[key]]}", repr(value)) from error
    return result


def _value(hint: Any, value: Any) -> Any:
    """A value of TOML, or text of the command line, as a field's type; ValueError where it is none."""
    if hint in (tuple[int, ...], tuple[str, ...]):
        items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise ValueError(value)
        return tuple(_value(int if hint == tuple[int, ...] else str, item) for item in items)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (hint is int and isinstance(value, float)):
        raise ValueError(value)
    if hint is str and not isinstance(value, str):
        raise ValueError(value)
    return hint(value)
