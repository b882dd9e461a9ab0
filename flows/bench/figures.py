"""The figures this project is judged by: ratios of two times measured in one run, in turns, on one machine; most memory held."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from galpipe.errors import ConfigurationError


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Parameters
    ----------
    galaxies : int
        Stamps.
    repeats : int
        Measurements of each side, of which the median counts.
    bricks : str
        File of brick names, one a line, for a benchmark of bricks that changed; empty for some of the same kind.
    """

    galaxies: int = 250
    repeats: int = 3
    bricks: str = ""

    def __post_init__(self) -> None:
        if self.galaxies < 1 or self.repeats < 1:
            raise ConfigurationError("at least one stamp and one repeat", repr(self))


@dataclass(frozen=True)
class Figure:
    """One number.

    Parameters
    ----------
    name : str
    value : float
    unit : str
        ``ratio``, ``s``, ``GB`` or a rate.
    what : str
        What it is, in words.
    """

    name: str
    value: float
    unit: str
    what: str


@dataclass(frozen=True)
class Bench:
    """One benchmark: a module of this package with ``run(size) -> list of Figure``."""

    module: str
    about: str


BENCHES = {
    "heads": Bench(
        "flows.bench.heads", "time of the model with all its heads over that of its encoder alone; of a pass per task over one for all"
    ),
    "cut": Bench("flows.bench.cut", "time to cut stamps by reading a section for each over that by reading whole bands once"),
    "books": Bench("flows.bench.books", "sources lost or doubled over nine mock bricks across RA 0 and north and south, with hard cases"),
    "planning": Bench("flows.bench.planning", "time and memory to plan a rerun of a release of 366,898 bricks against a full ledger"),
    "publish": Bench(
        "flows.bench.publish", "bytes of a whole release published again after bricks changed, over those of the partitions that changed"
    ),
    "loader": Bench("flows.bench.loader", "time of shuffled, augmented training batches from stores over that of reading the stores"),
    "memory": Bench("flows.bench.memory", "most memory of a worker that cuts and predicts a brick of 20,000 sources"),
    "similar": Bench(
        "flows.bench.similar", "time of a look-alike search through every vector over one by the index, and the index's recall"
    ),
    "kills": Bench("flows.bench.kills", "kills of coordinator, worker and both that a run survives with equal rows, per stage"),
    "overhead": Bench("flows.bench.overhead", "wall time of the catalog stage of a brick over that of the bare model"),
}


def measure(name: str, size: Size) -> dict[str, Any]:
    """Run one benchmark.

    Returns
    -------
    dict
        ``bench``, ``about``, ``size``, ``machine`` and ``figures``, plain values.

    Raises
    ------
    ConfigurationError
        If there is no such benchmark.
    """
    if name not in BENCHES:
        raise ConfigurationError(f"a benchmark among {sorted(BENCHES)}", repr(name))
    found: list[Figure] = import_module(BENCHES[name].module).run(size)
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    return {
        "bench": name,
        "about": BENCHES[name].about,
        "size": asdict(size),
        "machine": machine,
        "figures": [asdict(item) for item in found],
    }


def in_turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side, measured in turns so that a slow minute of the machine falls on all of them.

    Parameters
    ----------
    sides : mapping
        What is timed, by name; each is called once before the first measurement.
    repeats : int
    """
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes() -> int:
    """The most memory this process ever held; what `resource` says of a child includes its parent's."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
