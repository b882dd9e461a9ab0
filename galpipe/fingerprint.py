"""Hashes that chain stage by stage: a product's fingerprint hashes everything it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ALGORITHM_VERSIONS = {"fetch": 1, "cut": 5, "infer": 4, "catalog": 2, "publish": 4}
"""Raised by hand when a stage's code changes what it writes."""

_HOLE = "\x00hole"


def fingerprint(stage: str, inputs: Mapping[str, Any]) -> str:
    """Hash a stage's inputs.

    Parameters
    ----------
    stage : str
        A key of `ALGORITHM_VERSIONS`.
    inputs : mapping
        JSON-ready values; order does not matter.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    return hashlib.sha256(_text(stage, inputs).encode()).hexdigest()[:32]


def with_hole(stage: str, inputs: Mapping[str, Any], hole: str, version: int | None = None) -> Callable[[str], str]:
    """`fingerprint` of inputs in which one text is still open: what all bricks of a run share is written down once.

    Parameters
    ----------
    stage : str
        A key of `ALGORITHM_VERSIONS`.
    inputs : mapping
        The other inputs.
    hole : str
        Key of the open one.
    version : int, optional
        Of the stage's algorithm, where an earlier run's fingerprint is wanted; default is this code's.

    Returns
    -------
    callable
        ``with_hole(stage, rest, hole)(value) == fingerprint(stage, {**rest, hole: value})``.
    """
    before, after = _text(stage, {**inputs, hole: _HOLE}, version).split(json.dumps(_HOLE))
    start = hashlib.sha256(before.encode())

    def complete(value: str) -> str:
        digest = start.copy()
        digest.update((json.dumps(value) + after).encode())
        return digest.hexdigest()[:32]

    return complete


def _text(stage: str, inputs: Mapping[str, Any], version: int | None = None) -> str:
    body = {"stage": stage, "algorithm_version": ALGORITHM_VERSIONS[stage] if version is None else version, "inputs": inputs}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def files_fingerprint(checksums: Mapping[str, str], absent: Iterable[str]) -> str:
    """Hash of a brick's files: every wanted name with its sha256, or ``absent``."""
    return fingerprint("fetch", {**checksums, **dict.fromkeys(absent, "absent")})


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
