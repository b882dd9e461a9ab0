"""Named places inside every kind of write where a test may have the run killed, as ``kill -9`` would.

Four environment variables say where, and whom; without the first two a fault point does nothing.

``GALPIPE_FAULT``
    ``point`` or ``point:k``: the k-th time it is passed, by whichever process.
``GALPIPE_FAULT_DIR``
    A folder that counts the passes of every point, across processes. `passes` and `struck` read it.
``GALPIPE_FAULT_WHOM``
    ``both`` (the default: the whole process group), ``coordinator`` (the group's first process) or ``worker`` (the process that
    passes the point; if that is the coordinator, every process that `note_worker` noted). With ``disk`` nobody is killed: from the
    k-th pass on the write is refused, as by a disk that is full.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FAULT_POINTS = (
    "download.part",
    "download.verified",
    "file.written",
    "file.renamed",
    "folder.written",
    "folder.swapped",
    "folder.renamed",
    "ledger.before",
    "ledger.after",
    "publish.partition",
    "publish.metadata",
    "publish.pointer",
)
"""Every point at which `fault_point` is called."""

WHOM = ("both", "coordinator", "worker")
DISK = "disk"

FAULT, FOLDER, VICTIM = "GALPIPE_FAULT", "GALPIPE_FAULT_DIR", "GALPIPE_FAULT_WHOM"
_PASSES, _STRUCK, _WORKERS = "passes", "struck", "workers"


@dataclass(frozen=True)
class Pass:
    """One pass of a fault point.

    Parameters
    ----------
    point : str
    number : int
        How often the point had been passed, this time included.
    where : str
        The product that was being written, or the stage of the ledger's rows.
    """

    point: str
    number: int
    where: str

    @classmethod
    def parse(cls, line: str) -> Pass:
        """Read back a line of the log."""
        point, number, where = line.split(" ", 2)
        return cls(point, int(number), where)

    def __str__(self) -> str:
        return f"{self.point} {self.number} {self.where}"


def fault_point(name: str, where: str | Path = "") -> None:
    """End whom the environment names, if it names this point and pass.

    Parameters
    ----------
    name : str
        One of `FAULT_POINTS`.
    where : str or Path
        The product that is written, for the log of passes.

    Raises
    ------
    ValueError
        If the name is not in `FAULT_POINTS`.
    OSError
        If the environment asks for a full disk.
    """
    if name not in FAULT_POINTS:
        raise ValueError(f"fault point must be one of {FAULT_POINTS}, got {name!r}")
    folder, (wanted, _, count) = os.environ.get(FOLDER, ""), os.environ.get(FAULT, "").partition(":")
    if not folder and wanted != name:
        return
    passed = Pass(name, _count(Path(folder), name) if folder else 1, str(where))
    if folder:
        _append(Path(folder) / _PASSES, f"{passed}\n")
    whom, at = os.environ.get(VICTIM, WHOM[0]), int(count or 1)
    if wanted == name and (passed.number == at or (whom == DISK and passed.number > at)):
        if folder:
            _append(Path(folder) / _STRUCK, f"{passed}\n")
        if whom == DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))
        _kill(whom, folder)


def _count(folder: Path, name: str) -> int:
    # the offset after an append is this process's own, whoever else appends
    return _append(folder / name, ".")


def _append(path: Path, text: str) -> int:
    with path.open("ab", buffering=0) as handle:
        handle.write(text.encode())
        return handle.tell()


def _kill(whom: str, folder: str) -> None:
    leader = os.getpgrp()
    if whom == "both":
        os.killpg(leader, signal.SIGKILL)
    elif whom == "coordinator":
        os.kill(leader, signal.SIGKILL)
    elif whom != "worker":
        raise ValueError(f"{VICTIM} must be one of {WHOM}, got {whom!r}")
    elif os.getpid() != leader:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        for pid in _workers(folder):
            os.kill(pid, signal.SIGKILL)


def _workers(folder: str) -> Iterator[int]:
    for note in (Path(folder) / _WORKERS).glob("*"):
        with suppress(ProcessLookupError):
            # a number may be another process's by now
            if os.getpgid(int(note.name)) == os.getpgrp():
                yield int(note.name)


def note_worker() -> None:
    """Say that this process is a worker, to a coordinator that is to kill its workers; nothing where no fault is asked for."""
    folder = os.environ.get(FOLDER)
    if folder:
        notes = Path(folder) / _WORKERS
        notes.mkdir(exist_ok=True)
        (notes / str(os.getpid())).touch()


def passes(folder: Path) -> list[Pass]:
    """Every pass that a folder logged, in order."""
    return _read(folder / _PASSES)


def struck(folder: Path) -> Pass | None:
    """The pass at which the fault came first; None if it never did."""
    return next(iter(_read(folder / _STRUCK)), None)


def _read(path: Path) -> list[Pass]:
    return [Pass.parse(line) for line in path.read_text().splitlines()] if path.exists() else []
