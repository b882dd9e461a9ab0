"""Run the command line as a user does: another process, its standard output, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from galpipe.mock.server import MockServer

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.out)
        return result


def galpipe(arguments: Sequence[str | Path], environment: dict[str, str] | None = None) -> Ended:
    """Run ``galpipe`` in a process group of its own, so that a fault kills it and all that it started, and nothing else."""
    command = [sys.executable, "-m", "flows", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **(environment or {})}
    variables.pop("PREFECT_HOME", None)
    done = subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, start_new_session=True, check=False, timeout=280
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def rows_of(root: Path, name: str = "main") -> dict[str, bytes]:
    """Every shard and outcomes file of a catalog by its path, as bytes: equal rows are equal bytes."""
    folder = root / "catalog" / name
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.parquet"))
        if "provenance" not in path.parts
    }
    assert all(pq.read_metadata(folder / path) for path in found)
    return found


def arguments(server: MockServer, root: Path, region: str = "all", keep: str = "bricks,stamps") -> list[str | Path]:
    """A run of what a server has, without a report."""
    return ["run", "--release", server.url, "--as", "mock", "--region", region, "--root", root, "--keep", keep, "--no-report", "--json"]


def one_worker(folder: Path) -> Path:
    """A configuration for runs of one brick: a second worker would only load the model."""
    config = folder / "one-worker.toml"
    config.write_text("[cluster]\nworkers = 1\n")
    return config


def leftovers(root: Path) -> list[Path]:
    """Unfinished products below a root."""
    return list(root.rglob(".aside-*"))
