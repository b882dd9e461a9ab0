"""Which code made a row."""

from __future__ import annotations

from galpipe.fingerprint import ALGORITHM_VERSIONS

VERSION = "0.1.0"
"""Also in pyproject.toml; a test compares them."""


def code_version() -> str:
    """The package's version and its algorithm versions: what a row depends on, whatever the commit."""
    versions = ".".join(f"{stage[0]}{number}" for stage, number in sorted(ALGORITHM_VERSIONS.items()))
    return f"{VERSION}+{versions}"
