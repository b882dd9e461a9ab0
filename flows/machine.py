"""What this machine offers and what a run would use, one check at a time. Starts nothing, changes nothing."""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import psutil
from packaging.requirements import Requirement

from galpipe.config import Settings
from galpipe.errors import GalpipeError
from galpipe.fingerprint import sha256_file
from galpipe.layout import Layout

State = Literal["ok", "warn", "fail"]

PYTHON = ((3, 11), (3, 14))
"""First version that works, first that does not."""

BREAKING = ("fastapi", "sqlalchemy", "dask", "distributed", "prefect", "numpy", "zarr")
"""Packages of which another version is known to break a run; of the others it is a warning."""

LEAST_MEMORY, LEAST_DISK, LEAST_SHM = 4e9, 5e9, 64e6
"""Bytes below which a run is likely to be refused room."""

SHARED_FILE_SYSTEMS = ("nfs", "lustre", "gpfs", "fuse", "cifs", "smb", "9p")

ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Check:
    """One finding.

    Parameters
    ----------
    name : str
    state : str
        ``ok``, ``warn`` (a run works, with a drawback) or ``fail`` (a run will not work).
    text : str
        What was found and would be used.
    """

    name: str
    state: State
    text: str

    def as_dict(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)


def examine(root: Path, settings: Settings) -> list[Check]:
    """Every check, in the order in which a run would meet what is checked; one that breaks is itself a finding.

    Parameters
    ----------
    root : Path
    settings : Settings
    """
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", python),
        ("packages", packages),
        ("processor", processor),
        ("memory", memory),
        ("shared memory", shared_memory),
        ("disk", lambda: disk(root)),
        ("file system", lambda: file_system(root)),
        ("gpu", gpu),
        ("cluster", lambda: cluster(settings)),
        ("prefect", lambda: prefect(root)),
        ("model", lambda: model(settings, root)),
        ("postgresql", postgresql),
        ("real files", real_files),
    ]
    return [_safely(name, check) for name, check in checks]


def _safely(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        # a doctor that dies of what it should find helps nobody
        return Check(name, "fail", f"{type(error).__name__}: {error}")


def python() -> Check:
    """The interpreter."""
    low, high = PYTHON
    good = low <= sys.version_info[:2] < high
    text = f"{sys.version.split()[0]} at {sys.executable}"
    wanted = f", expected {'.'.join(map(str, low))} or newer, before {'.'.join(map(str, high))}"
    return Check("python", "ok" if good else "fail", text if good else text + wanted)


def packages() -> Check:
    """Installed versions against what pyproject asks for."""
    try:
        wanted = [Requirement(text) for text in requires("galpipe") or []]
    except PackageNotFoundError:
        return Check("packages", "fail", "galpipe is not installed here: pip install --constraint constraints.txt --editable .")
    needed = [item for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    state: State = "ok"
    notes = []
    for item, found in ((item, _version(item.name)) for item in needed):
        if found and item.specifier.contains(found, prereleases=True):
            continue
        notes.append(f"{item.name} {found or 'missing'}, expected {item.specifier}")
        state = "fail" if not found or item.name in BREAKING else max(state, "warn", key=("ok", "warn", "fail").index)
    pins = ", ".join(f"{name} {_version(name)}" for name in ("prefect", "dask", "torch", "zarr", "hats"))
    return Check("packages", state, "; ".join(notes) or f"all {len(needed)} as asked: {pins}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def processor() -> Check:
    """Cores."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("processor", "ok" if usable > 1 else "warn", f"{usable} of {os.cpu_count()} cores usable")


def memory() -> Check:
    """Memory that a run may take."""
    found = psutil.virtual_memory()
    return Check("memory", "ok" if found.available > LEAST_MEMORY else "warn", f"{_gb(found.available)} free of {_gb(found.total)}")


def shared_memory() -> Check:
    """Free room in ``/dev/shm``, which containers often keep at 64 MB."""
    place = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if not place.exists():
        return Check("shared memory", "warn", "no /dev/shm")
    free = shutil.disk_usage(place).free
    return Check("shared memory", "ok" if free > LEAST_SHM else "warn", f"{_gb(free)} free in /dev/shm")


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def existing(path: Path) -> Path:
    """The nearest folder that exists, from a path upward."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def disk(root: Path) -> Check:
    """Free room at the root; one brick of three bands takes about 60 MB of files and 20 MB of stamps."""
    free = shutil.disk_usage(existing(root)).free
    text = f"{_gb(free)} free at {root.absolute()}, room for about {int(free // 80e6)} bricks with files and stamps kept"
    return Check("disk", "ok" if free > LEAST_DISK else "warn", text)


def file_system(root: Path) -> Check:
    """Whether the root's file system does what write-aside-and-rename, linked versions and the ledger need."""
    folder, lacking = existing(root), []
    try:
        with tempfile.TemporaryDirectory(prefix=".aside-doctor-", dir=folder) as place:
            for what, attempt in _attempts(Path(place)):
                try:
                    attempt()
                except (OSError, sqlite3.Error) as error:
                    lacking.append(f"{what} ({error})")
    except OSError as error:
        return Check("file system", "fail", f"cannot write at {folder}: {error}")
    if lacking:
        return Check("file system", "fail", f"{folder} lacks {', '.join(lacking)}")
    kind = _kind(folder)
    shared = kind.startswith(SHARED_FILE_SYSTEMS)
    note = "; SQLite is fragile on shared file systems: keep the ledger in PostgreSQL or the root on a local disk" if shared else ""
    return Check(
        "file system", "warn" if shared else "ok", f"{folder} ({kind}): write, rename, replace, symlink, hard link, lock, SQLite{note}"
    )


def _attempts(place: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is tried, in order; each uses what the one before it left."""
    file, other, link = place / "file", place / "other", place / "link"
    yield "write", lambda: file.write_bytes(b"1")
    yield "rename", lambda: os.rename(file, other)
    yield "replace", lambda: _replace(lambda path: path.write_bytes(b"2"), file, other)
    yield "hard link", lambda: os.link(other, place / "hard")
    yield "symlink", lambda: link.symlink_to("other")
    yield "symlink replace", lambda: _replace(lambda path: path.symlink_to("hard"), place / "new", link)
    yield "lock", lambda: _lock(other)
    yield "SQLite with write-ahead log", lambda: _sqlite(place / "probe.sqlite")


def _replace(make: Callable[[Path], object], aside: Path, final: Path) -> None:
    make(aside)
    os.replace(aside, final)


def _lock(path: Path) -> None:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        connection.execute("CREATE TABLE probe (x)")
        connection.commit()
    finally:
        connection.close()
    if mode != "wal":
        raise sqlite3.OperationalError(f"journal mode {mode}")


def _kind(folder: Path) -> str:
    mounts = [item for item in psutil.disk_partitions(all=True) if folder.is_relative_to(item.mountpoint)]
    return max(mounts, key=lambda item: len(item.mountpoint)).fstype if mounts else "unknown"


def gpu() -> Check:
    """GPUs that torch sees, and whether Dask can give each a worker."""
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", "ok", f"none: the model runs on the processor (torch {torch.__version__})")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if find_spec("dask_cuda") is None:
        return Check("gpu", "warn", f"{', '.join(names)}; dask_cuda is missing, so workers share them: pip install 'galpipe[gpu-cu12]'")
    try:
        importlib.import_module("dask_cuda")
    except Exception as error:
        # its CUDA bindings raise their own kinds
        return Check("gpu", "warn", f"{', '.join(names)}; dask_cuda does not import: {type(error).__name__}: {error}")
    return Check("gpu", "ok", f"{', '.join(names)}; dask_cuda {_version('dask-cuda')}")


def cluster(settings: Settings) -> Check:
    """The Dask cluster that a run would use."""
    from tasks.cluster import default_workers, gpu_count

    wanted = settings.cluster
    if wanted.address:
        place = urlsplit(wanted.address)
        try:
            socket.create_connection((place.hostname or "", place.port or 8786), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            return Check("cluster", "fail", f"no Dask scheduler answers at {wanted.address}: {error}")
        return Check("cluster", "ok", f"existing scheduler at {wanted.address}")
    gpus = gpu_count()
    if gpus and find_spec("dask_cuda") is not None:
        return Check("cluster", "ok", f"LocalCUDACluster, {wanted.workers or gpus} workers, one per GPU")
    return Check("cluster", "ok", f"LocalCluster, {wanted.workers or default_workers()} workers of {wanted.memory} at most")


def prefect(root: Path) -> Check:
    """Which Prefect API flows would talk to; an embedded one is not started."""
    address = os.environ.get("PREFECT_API_URL", "")
    if not address:
        return Check("prefect", "ok", f"embedded server, database under {Layout(root).prefect_home}; PREFECT_API_URL is not set")
    try:
        answer = httpx.get(f"{address.rstrip('/')}/health", timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return Check("prefect", "fail", f"PREFECT_API_URL={address} does not answer: {error}")
    return Check("prefect", "ok" if answer.is_success else "fail", f"server at {address}, health {answer.status_code}")


def model(settings: Settings, root: Path) -> Check:
    """The model that a run would use: there, whole, trained."""
    from galpipe.lvm.registry import model_folder
    from galpipe.lvm.weights import WEIGHTS_FILE, read_card

    try:
        folder = model_folder(settings.infer.model, Layout(root).models)
        card = read_card(folder)
    except GalpipeError as error:
        return Check("model", "fail", str(error))
    path = folder / WEIGHTS_FILE
    digest = sha256_file(path) if path.exists() else "none"
    name = f"{card.get('name', settings.infer.model)} {card.get('version', '')}".strip()
    if digest != card["sha256"]:
        return Check("model", "fail", f"{name}: weights {digest[:16]}, the card says {str(card['sha256'])[:16]} ({path})")
    trained = is_trained(card)
    text = f"{name}, {digest[:16]}, {path.stat().st_size / 1e6:.1f} MB, heads {', '.join(card.get('heads', {}))}"
    return Check("model", "ok" if trained else "warn", text + ("" if trained else "; its card has no scores: untrained"))


def is_trained(card: dict[str, Any]) -> bool:
    """Whether a model's card tells what the model reached."""
    return bool(card.get("scores"))


def postgresql() -> Check:
    """PostgreSQL programs, which only tests of a ledger or a Prefect server on PostgreSQL need."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([os.environ.get("PATH", ""), *places])
    found = [shutil.which(program, path=path) for program in ("initdb", "pg_ctl")]
    driver = "psycopg is here" if find_spec("psycopg") else "no psycopg"
    programs = f"{found[1]}" if all(found) else "no programs here"
    return Check("postgresql", "ok", f"{programs}, {driver} (not needed: the ledger is SQLite unless told otherwise)")


def real_files() -> Check:
    """Real survey files for the tests, and labels."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("GALPIPE_SHARED_DATA") or beside)
    return Check("real files", "ok", str(folder) if folder.is_dir() else f"not here ({folder}): tests on real files are skipped")
