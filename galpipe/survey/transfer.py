"""What every transfer shares, whatever the protocol: a bound on open requests, retries, partial files that are continued."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from galpipe.commit import fault_point
from galpipe.config import FetchSettings
from galpipe.errors import RemoteFailure, ResourceFailure

T = TypeVar("T")

CHUNK = 1 << 20
LONGEST_WAIT = 300.0
"""Seconds: no back-off and no Retry-After makes a request wait longer."""


class Limiter:
    """A bound on the requests open at a time, shared by every thread of a run.

    Parameters
    ----------
    connections : int
        Requests open at a time.
    """

    def __init__(self, connections: int) -> None:
        self._slots = threading.BoundedSemaphore(connections)
        self._lock = threading.Lock()
        self._not_before = 0.0

    def pause(self, seconds: float) -> None:
        """Let no thread start a request for some time: the server asked for it."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the slots."""
        with self._slots:
            while (wait := self._not_before - time.monotonic()) > 0:
                time.sleep(wait)
            yield


@dataclass(frozen=True)
class Downloaded:
    """What came: the bytes' hash and number, and what the server said of them."""

    sha256: str
    bytes: int
    etag: str
    last_modified: str
    url: str


@dataclass(frozen=True)
class Validator:
    """What ties a partial file to one version of the remote one; kept beside the ``.part`` file."""

    etag: str = ""
    last_modified: str = ""
    url: str = ""

    @property
    def if_range(self) -> str:
        """Value for If-Range; empty when the server gave nothing that identifies a version (weak ETags do not)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


@dataclass(frozen=True)
class RemoteState:
    """What a source says of a file without sending it; None or empty where it does not say."""

    size: int | None
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True)
class Fresh:
    """Answer to a conditional request.

    Parameters
    ----------
    status : str
        ``same`` as what is known, ``new`` content, or ``absent``.
    content : bytes
        Of a new file.
    state : RemoteState
        Validators to ask with the next time.
    """

    status: Literal["same", "new", "absent"]
    content: bytes = b""
    state: RemoteState = RemoteState(None)


class TryAgain(Exception):
    """A try that failed in a way that another may mend; ``after`` is the seconds that the far side asked for."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def persist(url: str, once: Callable[[], T], progress: Callable[[], int], policy: tuple[FetchSettings, Limiter]) -> T:
    """Try until it works; a try that got further than any before it does not count.

    Parameters
    ----------
    url : str
        For messages.
    once : callable
        One try; raises `TryAgain` to be called again.
    progress : callable
        Bytes that are here already.
    policy : FetchSettings and Limiter
        Retries and back-off; a slot is held during each try.

    Raises
    ------
    RemoteFailure
        After all retries.
    """
    settings, limiter = policy
    tried, best = 0, progress()
    while True:
        try:
            with limiter.slot():
                return once()
        except TryAgain as failure:
            reached = progress()
            tried, best = (1, reached) if reached > best else (tried + 1, best)
            if tried > settings.retries:
                raise RemoteFailure("the file", f"{failure} after {tried} tries", file=url) from failure
            # full jitter would lose the doubling; a quarter keeps threads from knocking together
            wait = settings.back_off * 2 ** (tried - 1) * (1 + random.random() / 4)
            if failure.after is not None:
                wait = max(wait, failure.after)
                limiter.pause(min(failure.after, LONGEST_WAIT))
            time.sleep(min(wait, LONGEST_WAIT))


def size_of(part: Path) -> int:
    """Bytes of a partial file; 0 if there is none."""
    return part.stat().st_size if part.exists() else 0


def validator_path(part: Path) -> Path:
    """Where the `Validator` of a partial file is kept."""
    return part.with_name(part.name + ".json")


def read_validator(part: Path) -> Validator:
    """The validator of a partial file; an empty one if there is none."""
    try:
        return Validator(**json.loads(validator_path(part).read_text()))
    except (OSError, ValueError, TypeError):
        return Validator()


def forget(part: Path) -> None:
    """Drop a partial file and its validator."""
    part.unlink(missing_ok=True)
    validator_path(part).unlink(missing_ok=True)


def store(chunks: Iterator[bytes], part: Path, start: int, said: Validator) -> Downloaded:
    """Write a body into a partial file from byte ``start`` on; hash the whole file."""
    digest = hashlib.sha256()
    with full_disk(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        # unbuffered: what was received is on file when the process dies, and can be continued
        handle: BinaryIO = part.open("r+b" if start else "wb", buffering=0)
    with handle:
        if start:
            for chunk in iter(lambda: handle.read(CHUNK), b""):
                digest.update(chunk)
        else:
            with full_disk(part):
                validator_path(part).write_text(json.dumps(asdict(said)))
        for chunk in chunks:
            with full_disk(part):
                write_all(handle, chunk)
                fault_point("download.part", part)
            digest.update(chunk)
        return Downloaded(digest.hexdigest(), handle.tell(), said.etag, said.last_modified, said.url)


def write_all(handle: BinaryIO, data: bytes) -> None:
    """Write to an unbuffered file, which may take only part of the bytes at a time."""
    view = memoryview(data)
    while view:
        view = view[handle.write(view) :]


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a ResourceFailure."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            forget(path)
        raise ResourceFailure("room to write the file", f"{error.strerror or error}", file=str(path)) from error
