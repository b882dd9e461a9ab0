"""Hashes that chain stage by stage: a product's fingerprint hashes everything it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ALGORITHM_VERSIONS = {"fetch": 1, "cut": 2, "infer": 1, "catalog": 1, "publish": 1}
"""Raised by hand when a stage's code changes what it writes."""


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
    body = {"stage": stage, "algorithm_version": ALGORITHM_VERSIONS[stage], "inputs": inputs}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def files_fingerprint(checksums: Mapping[str, str], absent: Iterable[str]) -> str:
    """Hash of a brick's files: every wanted name with its sha256, or ``absent``."""
    return fingerprint("fetch", {**checksums, **dict.fromkeys(absent, "absent")})


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
