"""Write aside, then rename: the only way a product appears under its name.

Named fault points lie between the steps, so that a test can kill the process inside each kind of write:
``GALPIPE_FAULT=point`` or ``GALPIPE_FAULT=point:k`` (the k-th time it is passed, counted across processes by
``GALPIPE_FAULT_DIR``) ends the whole process group as ``kill -9`` would.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galpipe.errors import ResourceFailure

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

ASIDE = ".aside-"
"""Marks unfinished products; whatever carries it may be deleted when no run is at work."""


def fault_point(name: str) -> None:
    """End the process group here when the environment asks for it.

    Raises
    ------
    ValueError
        If the name is not in `FAULT_POINTS`.
    """
    if name not in FAULT_POINTS:
        raise ValueError(f"fault point must be one of {FAULT_POINTS}, got {name!r}")
    wanted, _, count = os.environ.get("GALPIPE_FAULT", "").partition(":")
    if wanted == name and _passes(name) == int(count or 1):
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _passes(name: str) -> int:
    folder = os.environ.get("GALPIPE_FAULT_DIR")
    if not folder:
        return 1
    log = Path(folder) / name
    with log.open("ab") as handle:
        handle.write(b".")
    return log.stat().st_size


def _aside(final: Path) -> Path:
    return final.parent / f"{ASIDE}{final.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_file(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _full_disk(final: Path, error: OSError) -> ResourceFailure:
    return ResourceFailure("room to write the product", f"{error.strerror or error}", file=str(final))


@contextmanager
def replace_file(final: Path) -> Iterator[Path]:
    """Yield a path beside ``final`` to write to; rename it over ``final`` when the block ends well.

    Raises
    ------
    ResourceFailure
        If the operating system refuses the write (disk full, quota, permission).
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(final)
    try:
        yield aside
        _fsync_file(aside)
        fault_point("file.written")
        os.replace(aside, final)
        fsync_folder(final.parent)
        fault_point("file.renamed")
    except OSError as error:
        raise _full_disk(final, error) from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replace_folder(final: Path) -> Iterator[Path]:
    """Yield a new folder to fill; put it in the place of ``final`` when the block ends well.

    An old folder of that name is moved aside first, because POSIX cannot replace a folder that is not empty. A process
    that dies between the two renames leaves no product: the unit is done again, nothing half-made is ever read.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(final)
    old = final.parent / f"{aside.name}.old"
    try:
        aside.mkdir()
        yield aside
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                _fsync_file(path)
        fault_point("folder.written")
        if final.exists():
            os.rename(final, old)
        fault_point("folder.swapped")
        os.rename(aside, final)
        fsync_folder(final.parent)
        fault_point("folder.renamed")
    except OSError as error:
        raise _full_disk(final, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_bytes(final: Path, data: bytes) -> None:
    """Replace a file's content in one step."""
    with replace_file(final) as aside:
        aside.write_bytes(data)


def sweep_asides(folder: Path, older_than: float = 0.0) -> int:
    """Delete what killed writers left in a folder (not below it); returns how many entries went.

    Parameters
    ----------
    folder : Path
        Need not exist.
    older_than : float
        Seconds since an entry was last written to: 0 only where no other writer can be at work (the run's lease says so).
    """
    newest = time.time() - older_than
    entries = [path for path in folder.glob(f"{ASIDE}*") if path.lstat().st_mtime <= newest]
    for path in entries:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(entries)
