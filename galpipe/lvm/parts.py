"""The parts of a model that answer, each with a hash of its own: what a new model has in common with another. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from galpipe.errors import BadData
from galpipe.lvm.folder import WEIGHTS_FILE, read_card

_CHUNK = 1 << 20
_LONGEST_HEADER = 100_000_000
_NOT_THE_ENCODER = ("heads", "tasks", "drop_path")
"""Model settings that say nothing of a trained encoder's answers."""


@dataclass(frozen=True)
class ModelParts:
    """Hashes of what a model answers with; what only pre-training uses is in none.

    Parameters
    ----------
    encoder : str
        Of the encoder's tensors and sizes: the same hash gives the same embedding.
    heads : mapping of str to str
        By head, in the model's order: of its tensors, version and settings.
    """

    encoder: str
    heads: Mapping[str, str] = field(default_factory=dict)


def model_parts(folder: Path) -> ModelParts:
    """Hash the parts of a model's weights file.

    Parameters
    ----------
    folder : Path
        With ``card.json`` and ``model.safetensors``.

    Raises
    ------
    ConfigurationError
        If there is no card.
    BadData
        If the weights are not in the safetensors format.
    """
    card = read_card(folder)
    settings, versions = card["settings"], card["heads"]
    prefixes = {"encoder": "encoder.", **{f"head {name}": f"heads.{name}_head." for name in versions}}
    digests = _hash_tensors(folder / WEIGHTS_FILE, prefixes)
    sizes = {key: value for key, value in settings.items() if key not in _NOT_THE_ENCODER}
    made_of: list[Any] = [*settings["heads"], *settings.get("tasks", ())]
    specs = dict(zip(versions, made_of, strict=True))
    heads = {name: _hash_of(digests[f"head {name}"], [name, version, specs[name]]) for name, version in versions.items()}
    return ModelParts(_hash_of(digests["encoder"], sizes), heads)


def _hash_of(tensors: str, settings: Any) -> str:
    return hashlib.sha256((tensors + json.dumps(settings, sort_keys=True)).encode()).hexdigest()[:16]


def _hash_tensors(path: Path, prefixes: Mapping[str, str]) -> dict[str, str]:
    """sha256 by key over the tensors whose names begin with its prefix: names, types, shapes and bytes, in the order of names."""
    digests = {key: hashlib.sha256() for key in prefixes}
    try:
        with path.open("rb") as handle:
            tensors, start = _header(handle)
            for name in sorted(tensors):
                owner = next((key for key, prefix in prefixes.items() if name.startswith(prefix)), None)
                if owner is None:
                    continue
                entry = tensors[name]
                digests[owner].update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
                first, last = entry["data_offsets"]
                for chunk in _bytes_of(handle, start + first, last - first):
                    digests[owner].update(chunk)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise BadData("weights in the safetensors format", f"{type(error).__name__}: {error}", file=str(path)) from error
    return {key: digest.hexdigest() for key, digest in digests.items()}


def _header(handle: BinaryIO) -> tuple[dict[str, Any], int]:
    """Tensors by name and where their bytes begin: 8 bytes of length, little-endian, then JSON (huggingface/safetensors, Format)."""
    (length,) = struct.unpack("<Q", handle.read(8))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    tensors: dict[str, Any] = json.loads(handle.read(length))
    tensors.pop("__metadata__", None)
    return tensors, 8 + length


def _bytes_of(handle: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    handle.seek(start)
    while size > 0:
        chunk = handle.read(min(_CHUNK, size))
        if not chunk:
            raise ValueError(f"the file ends {size} bytes early")
        yield chunk
        size -= len(chunk)
