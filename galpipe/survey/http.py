"""Polite, resumable HTTP: a bound on open requests, back-off, and downloads that continue where they were cut."""

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
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx

from galpipe.commit import fault_point
from galpipe.config import FetchSettings
from galpipe.errors import RemoteFailure, ResourceFailure

T = TypeVar("T")

CHUNK = 1 << 20
LONGEST_WAIT = 300.0
"""Seconds: no back-off and no Retry-After makes a request wait longer."""

_ABSENT = (404, 410)
_RETRIED = (408, 425, 429)


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


class _TryAgain(Exception):
    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def user_agent() -> str:
    """``galpipe/<version>``."""
    try:
        return f"galpipe/{version('galpipe')}"
    except PackageNotFoundError:
        return "galpipe/0"


def make_client(settings: FetchSettings) -> httpx.Client:
    """A client for one server; safe to share between threads."""
    timeout = httpx.Timeout(settings.timeout, pool=None)
    limits = httpx.Limits(max_connections=settings.connections, max_keepalive_connections=settings.connections)
    # identity: hashes are of the files as stored, so nothing may unpack them on the way
    headers = {"User-Agent": user_agent(), "Accept-Encoding": "identity"}
    return httpx.Client(timeout=timeout, limits=limits, headers=headers, follow_redirects=True)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as an HTTP date; None if it says nothing."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def validator_path(part: Path) -> Path:
    """Where the `Validator` of a partial file is kept."""
    return part.with_name(part.name + ".json")


def read_validator(part: Path) -> Validator:
    """The validator of a partial file; an empty one if there is none."""
    try:
        return Validator(**json.loads(validator_path(part).read_text()))
    except (OSError, ValueError, TypeError):
        return Validator()


@dataclass(frozen=True)
class Transport:
    """Requests to one server under one policy.

    Parameters
    ----------
    client : httpx.Client
    settings : FetchSettings
        Retries, time-out and back-off.
    limiter : Limiter
        Shared with every other transport of the run.
    """

    client: httpx.Client
    settings: FetchSettings
    limiter: Limiter

    def get(self, url: str) -> bytes | None:
        """A small file's content; None if there is no such file.

        Raises
        ------
        RemoteFailure
            If the server fails after all retries or refuses.
        """

        def once() -> bytes | None:
            with self._open(url, {}) as answer:
                if answer.status_code in _ABSENT:
                    return None
                return b"".join(answer.iter_raw())

        return self._persist(url, once, lambda: 0)

    def state(self, url: str) -> RemoteState | None:
        """Size and validators of a file by HEAD; None if there is no such file or the server does not answer HEAD."""

        def once() -> RemoteState | None:
            with self._open(url, {}, "HEAD") as answer:
                if answer.status_code != 200:
                    return None
                length = answer.headers.get("Content-Length", "")
                size = int(length) if length.isdigit() else None
                return RemoteState(size, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))

        return self._persist(url, once, lambda: 0)

    def download(self, url: str, part: Path) -> Downloaded | None:
        """Bring a file to ``part``, continuing what already lies there if it is of the same version.

        Returns
        -------
        Downloaded or None
            None if there is no such file.

        Raises
        ------
        RemoteFailure
            If the server fails after all retries or refuses; the partial file stays for the next attempt.
        ResourceFailure
            If the disk refuses the bytes.
        """

        def once() -> Downloaded | None:
            return self._download_once(url, part)

        return self._persist(url, once, lambda: part.stat().st_size if part.exists() else 0)

    def _persist(self, url: str, once: Callable[[], T], progress: Callable[[], int]) -> T:
        """Try until it works; a try that got further than any before it does not count."""
        tried, best = 0, progress()
        while True:
            try:
                with self.limiter.slot():
                    return once()
            except _TryAgain as failure:
                reached = progress()
                tried, best = (1, reached) if reached > best else (tried + 1, best)
                if tried > self.settings.retries:
                    raise RemoteFailure("the file", f"{failure} after {tried} tries", file=url) from failure
                # full jitter would lose the doubling; a quarter keeps threads from knocking together
                wait = self.settings.back_off * 2 ** (tried - 1) * (1 + random.random() / 4)
                if failure.after is not None:
                    wait = max(wait, failure.after)
                    self.limiter.pause(min(failure.after, LONGEST_WAIT))
                time.sleep(min(wait, LONGEST_WAIT))

    @contextmanager
    def _open(self, url: str, headers: dict[str, str], method: str = "GET") -> Iterator[httpx.Response]:
        try:
            with self.client.stream(method, url, headers=headers) as answer:
                status = answer.status_code
                if status in _RETRIED or status >= 500:
                    raise _TryAgain(f"HTTP {status}", retry_after(answer.headers.get("Retry-After")))
                if status >= 400 and status not in (*_ABSENT, 416) and not (method == "HEAD" and status in (403, 405)):
                    raise RemoteFailure("the file", f"HTTP {status}", file=url)
                if status in _ABSENT:
                    # a page nobody wants, but read to its end it leaves the connection usable
                    answer.read()
                yield answer
        except httpx.TimeoutException as error:
            raise _TryAgain(f"nothing for {self.settings.timeout:g} s ({type(error).__name__})") from error
        except httpx.UnsupportedProtocol as error:
            raise RemoteFailure("an http or https address", str(error), file=url) from error
        except httpx.HTTPError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error

    def _download_once(self, url: str, part: Path) -> Downloaded | None:
        known = read_validator(part)
        have = part.stat().st_size if part.exists() else 0
        resume = have > 0 and bool(known.if_range) and known.url == url
        headers = {"Range": f"bytes={have}-", "If-Range": known.if_range} if resume else {}
        with self._open(url, headers) as answer:
            if answer.status_code in _ABSENT:
                return None
            start, total = _range_of(answer)
            if answer.status_code == 416 and total == have:
                # the process died between the last byte and the rename
                return _store(iter(()), part, have, known)
            said = Validator(answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""), url)
            if answer.status_code == 416 or start not in (0, have) or (start and said.if_range != known.if_range):
                forget(part)
                raise _TryAgain(f"HTTP {answer.status_code}: bytes from {start} of another version, asked for {have}")
            # as they come, not gathered to larger pieces: a cut would lose what was held back
            done = _store(answer.iter_raw(), part, start, said)
        if total is not None and done.bytes != total:
            forget(part)
            raise _TryAgain(f"{done.bytes} bytes of {total}")
        return done


def _range_of(answer: httpx.Response) -> tuple[int, int | None]:
    """First byte of an answer's body within the file, and the file's size if told."""
    if answer.status_code in (206, 416):
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(total) if total.isdigit() else None)
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def forget(part: Path) -> None:
    """Drop a partial file and its validator."""
    part.unlink(missing_ok=True)
    validator_path(part).unlink(missing_ok=True)


def _store(chunks: Iterator[bytes], part: Path, start: int, said: Validator) -> Downloaded:
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
            digest.update(chunk)
            fault_point("download.part")
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
