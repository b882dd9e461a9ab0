"""Polite, resumable HTTP: a bound on open requests, back-off, and downloads that continue where they were cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import httpx

from galpipe.config import FetchSettings
from galpipe.errors import RemoteFailure
from galpipe.survey.transfer import (
    Downloaded,
    Fresh,
    Limiter,
    RemoteState,
    TryAgain,
    Validator,
    forget,
    persist,
    read_validator,
    size_of,
    store,
)

T = TypeVar("T")

_ABSENT = (404, 410)
_RETRIED = (408, 425, 429)


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

    def get_unless(self, url: str, known: RemoteState) -> Fresh:
        """A small file's content, unless it is what is known already (RFC 9110, section 13).

        Raises
        ------
        RemoteFailure
            If the server fails after all retries or refuses.
        """
        conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
        headers = {name: value for name, value in conditions.items() if value}

        def once() -> Fresh:
            with self._open(url, headers) as answer:
                if answer.status_code in _ABSENT:
                    return Fresh("absent")
                if answer.status_code == 304:
                    return Fresh("same", b"", known)
                said = RemoteState(None, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))
                return Fresh("new", b"".join(answer.iter_raw()), said)

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

        return self._persist(url, once, lambda: size_of(part))

    def _persist(self, url: str, once: Callable[[], T], progress: Callable[[], int]) -> T:
        return persist(url, once, progress, (self.settings, self.limiter))

    @contextmanager
    def _open(self, url: str, headers: dict[str, str], method: str = "GET") -> Iterator[httpx.Response]:
        try:
            with self.client.stream(method, url, headers=headers) as answer:
                status = answer.status_code
                if status in _RETRIED or status >= 500:
                    raise TryAgain(f"HTTP {status}", retry_after(answer.headers.get("Retry-After")))
                if status >= 400 and status not in (*_ABSENT, 416) and not (method == "HEAD" and status in (403, 405)):
                    raise RemoteFailure("the file", f"HTTP {status}", file=url)
                if status in _ABSENT:
                    # a page nobody wants, but read to its end it leaves the connection usable
                    answer.read()
                yield answer
        except httpx.TimeoutException as error:
            raise TryAgain(f"nothing for {self.settings.timeout:g} s ({type(error).__name__})") from error
        except httpx.UnsupportedProtocol as error:
            raise RemoteFailure("an http or https address", str(error), file=url) from error
        except httpx.HTTPError as error:
            raise TryAgain(f"{type(error).__name__}: {error}") from error

    def _download_once(self, url: str, part: Path) -> Downloaded | None:
        known = read_validator(part)
        have = size_of(part)
        resume = have > 0 and bool(known.if_range) and known.url == url
        headers = {"Range": f"bytes={have}-", "If-Range": known.if_range} if resume else {}
        with self._open(url, headers) as answer:
            if answer.status_code in _ABSENT:
                return None
            start, total = _range_of(answer)
            if answer.status_code == 416 and total == have:
                # the process died between the last byte and the rename
                return store(iter(()), part, have, known)
            said = Validator(answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""), url)
            if answer.status_code == 416 or start not in (0, have) or (start and said.if_range != known.if_range):
                forget(part)
                raise TryAgain(f"HTTP {answer.status_code}: bytes from {start} of another version, asked for {have}")
            # as they come, not gathered to larger pieces: a cut would lose what was held back
            done = store(answer.iter_raw(), part, start, said)
        if total is not None and done.bytes != total:
            forget(part)
            raise TryAgain(f"{done.bytes} bytes of {total}")
        return done


def _range_of(answer: httpx.Response) -> tuple[int, int | None]:
    """First byte of an answer's body within the file, and the file's size if told."""
    if answer.status_code in (206, 416):
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(total) if total.isdigit() else None)
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None
