"""Runs for a hundred kills: the survey flow's own code, from a process that has everything imported, without Prefect's server.

A run of the command line takes seven seconds of computing to import torch, Prefect and Dask, and as long again for the server.
Here a clean process imports everything once and forks one coordinator per run; the coordinator's Dask workers are processes of
their own, forked too. Only Prefect is left out: its tasks are called as the functions they are, tiles in threads.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from galpipe import faults
from galpipe.errors import RemoteFailure

_PRELOADED = ("flows.survey", "distributed.nanny", "distributed.worker")
_FORKED_WORKERS = "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"

PATIENCE = 300.0
"""Seconds after which a run counts as hung."""


@dataclass(frozen=True)
class RunArguments:
    """One run, as `flows.survey.survey` takes it.

    Parameters
    ----------
    release, region : str
    root : Path
    options : dict
    environment : dict
        Variables of the run and of its workers.
    """

    release: str
    region: str
    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Parameters
    ----------
    status : int
        Exit status; -9 if the coordinator was killed.
    result : dict
        The run's summary; of a run that failed, ``kind``, ``error`` and ``file``; empty if it was killed.
    log : str
        What it wrote to its terminal.
    """

    status: int
    result: dict[str, Any]
    log: str


class Coordinator:
    """A run under way, a child of the warm process.

    Parameters
    ----------
    warm : Connection
        To the warm process.
    place : Path
        Folder of its log and result.
    pid : int
    """

    def __init__(self, warm: Connection[Any, Any], place: Path, pid: int) -> None:
        self._warm, self._place, self.pid = warm, place, pid

    def wait(self) -> Ended:
        """Wait for the coordinator's end; its orphaned workers may still be about.

        Raises
        ------
        RemoteFailure
            If it does not end in `PATIENCE` seconds.
        """
        self._warm.send(self.pid)
        status = self._warm.recv()
        if status is None:
            self.end()
            raise RemoteFailure(f"a run that ends within {PATIENCE:.0f} s", self.log()[-2000:], file=str(self._place))
        path = self._place / "result.json"
        return Ended(status, json.loads(path.read_text()) if path.exists() else {}, self.log())

    def log(self) -> str:
        """What the run wrote to its terminal so far."""
        path = self._place / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def end(self) -> None:
        """Kill whatever is left of the run: its process group is its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class WarmProcess:
    """The process from which runs are forked.

    Parameters
    ----------
    model : Path
        Folder of the model that the runs use, loaded once.
    """

    def __init__(self, model: Path) -> None:
        self._warm, theirs = multiprocessing.Pipe()
        # a fresh process: whatever threads this one has must not be forked
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, model))
        self._process.start()
        theirs.close()

    def start(self, arguments: RunArguments, place: Path) -> Coordinator:
        """Start a run; its log and result come to lie in ``place``."""
        place.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "log"):
            (place / name).unlink(missing_ok=True)
        self._warm.send((arguments, place))
        return Coordinator(self._warm, place, self._warm.recv())

    def run(self, arguments: RunArguments, place: Path) -> Ended:
        """Start a run and wait for its end."""
        return self.start(arguments, place).wait()

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._warm.close()
        self._process.join()


def _serve(asked: Connection[Any, Any], model: Path) -> None:
    """Body of the warm process: forks a coordinator for each pair of arguments, waits for one whose number comes."""
    os.environ |= {_FORKED_WORKERS: "fork", "OMP_NUM_THREADS": "1"}
    for module in _PRELOADED:
        import_module(module)
    _warm_up(model)
    fork, runs = multiprocessing.get_context("fork"), {}
    with suppress(EOFError):
        while True:
            order = asked.recv()
            if isinstance(order, tuple):
                run = fork.Process(target=_coordinate, args=order)
                run.start()
                runs[run.pid] = run
                asked.send(run.pid)
            else:
                run = runs.pop(order)
                run.join(PATIENCE)
                asked.send(run.exitcode)


def _warm_up(model: Path) -> None:
    """Fill the caches that every run would fill again: the names of bricks, the model."""
    from galpipe.lvm.weights import model_hash
    from galpipe.survey.bricks import brickids_of
    from tasks import catalog

    brickids_of(["0001m002"])
    catalog._load(model, model_hash(model), 1)


def _coordinate(arguments: RunArguments, place: Path) -> None:
    """Body of a coordinator's process."""
    os.setsid()
    terminal = os.open(place / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    os.environ |= {**arguments.environment, "PREFECT_HOME": str(place / "prefect")}
    try:
        status, result = 0, _survey(arguments)
    except Exception as error:
        told = {"kind": getattr(error, "kind", "error"), "error": f"{type(error).__name__}: {error}", "file": getattr(error, "file", "")}
        status, result = 1, {"status": "failed", **told}
    (place / "result.json").write_text(json.dumps(result))
    # no atexit handlers of the process that this one was forked from
    os._exit(status)


def _survey(arguments: RunArguments) -> dict[str, Any]:
    module: Any = import_module("flows.survey")
    connect = module.connect
    for name, value in list(vars(module).items()):
        if hasattr(value, "fn") and hasattr(value, "submit"):
            setattr(module, name, _Plain(value.fn))

    @contextmanager
    def noted(*given: Any) -> Iterator[Any]:
        with connect(*given) as client:
            if os.environ.get(faults.FOLDER):
                client.register_plugin(_noting_plugin())
            yield client

    module.connect = noted
    survey = getattr(module.survey, "fn", module.survey)
    answer: dict[str, Any] = survey(arguments.release, arguments.region, str(arguments.root), "main", arguments.options)
    return answer


class _Plain:
    """A Prefect task as the function it is."""

    def __init__(self, function: Any) -> None:
        self._function = getattr(function, "_function", function)
        self._threads = ThreadPoolExecutor(2)

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)

    def submit(self, *given: Any) -> Future[Any]:
        """Call it in a thread."""
        return self._threads.submit(self._function, *given)


def _noting_plugin() -> Any:
    from distributed import WorkerPlugin

    class Noting(WorkerPlugin):
        """Has every worker, those that take a dead one's place too, say that it is one."""

        def setup(self, worker: object) -> None:
            faults.note_worker()

    return Noting()
