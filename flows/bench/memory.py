"""Memory of a crowded brick: the most that a worker holds while it cuts and predicts 20,000 sources."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flows.bench.crowded import write_crowded
from flows.bench.figures import Figure, Size
from galpipe.errors import ResourceFailure
from galpipe.layout import Layout
from galpipe.unit import Unit

SOURCES = 20_000
"""Rows of the brick's Tractor table: the survey's average is 6,000 to 8,000."""

UNIT = Unit("crowded", "south", "1126p222")
GIGABYTE = 1e9
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def run(size: Size) -> list[Figure]:
    """Cut all 20,000 sources, and predict the given number of galaxies out of as many.

    Raises
    ------
    ResourceFailure
        If a stage does not end well.
    """
    cut_all = _stages(SOURCES, ("cut",))["cut"]
    some = _stages(min(size.galaxies, SOURCES), ("cut", "catalog"))
    return [
        Figure("cut_all_gigabytes", cut_all["peak"] / GIGABYTE, "GB", f"cut, {cut_all['rows']} of {SOURCES} sources selected"),
        Figure("cut_gigabytes", some["cut"]["peak"] / GIGABYTE, "GB", f"cut, {some['cut']['rows']} of {SOURCES} sources selected"),
        Figure("catalog_gigabytes", some["catalog"]["peak"] / GIGABYTE, "GB", f"predict {some['catalog']['rows']} of {SOURCES} sources"),
    ]


def _stages(selected: int, stages: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What stages of a brick of `SOURCES` tell, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        root = Path(place)
        write_crowded(Layout(root).brick_folder(UNIT), UNIT, SOURCES, selected / SOURCES)
        return {stage: _told(root, stage) for stage in stages}


def _told(root: Path, stage: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "flows.bench.peak", str(root), str(UNIT), stage, "galaxies-z20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    told: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"status": "error", "reason": done.stderr[-2000:]}
    if told["status"] != "done":
        raise ResourceFailure(f"the stage {stage} of a crowded brick to end well", told["reason"], unit=str(UNIT))
    return told
