"""Where a release lies: a folder on this machine or an HTTP tree, read in the same way."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

import httpx

from galpipe.commit import fault_point
from galpipe.config import FetchSettings
from galpipe.errors import RemoteFailure
from galpipe.survey.http import Transport, make_client
from galpipe.survey.transfer import CHUNK, Downloaded, Fresh, Limiter, RemoteState, full_disk, write_all


class Source(Protocol):
    """A tree of files. Paths are relative to `base`, with ``/`` between parts."""

    @property
    def base(self) -> str:
        """The folder or address of the tree's root."""

    def read_small(self, path: str) -> bytes | None:
        """A file's content, or None if there is no such file."""

    def read_unless(self, path: str, known: RemoteState) -> Fresh:
        """A file's content, unless its validators are those that are known."""

    def list_names(self, folder: str) -> list[str] | None:
        """Names in a folder, folders with a ``/`` at the end; None if there is no such folder or no listing."""

    def size(self, path: str) -> int | None:
        """A file's size in bytes, or None if it is absent or unknown."""

    def state(self, path: str) -> RemoteState | None:
        """Size and validators of a file, or None if it is absent or unknown."""

    def download(self, path: str, part: Path, settings: FetchSettings, limiter: Limiter) -> Downloaded | None:
        """Bring a file to ``part``; None if there is no such file."""


@dataclass(frozen=True)
class FolderSource:
    """A release on this machine's disk; it is only ever read.

    Parameters
    ----------
    base : str
        The tree's root folder.
    """

    base: str

    def _path(self, path: str) -> Path:
        return Path(self.base) / path

    def read_small(self, path: str) -> bytes | None:
        """A file's content, or None if there is no such file."""
        try:
            return self._path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise RemoteFailure("a readable file", f"{error.strerror or error}", file=str(self._path(path))) from error

    def read_unless(self, path: str, known: RemoteState) -> Fresh:
        """A file's content, unless its validators are those that are known."""
        return unless(self.state(path), known, lambda: self.read_small(path))

    def list_names(self, folder: str) -> list[str] | None:
        """Names in a folder, sorted, folders with a ``/`` at the end; None if there is no such folder."""
        try:
            return sorted(entry.name + ("/" if entry.is_dir() else "") for entry in self._path(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def size(self, path: str) -> int | None:
        """A file's size in bytes, or None if it is absent."""
        found = self._path(path)
        return found.stat().st_size if found.is_file() else None

    def state(self, path: str) -> RemoteState | None:
        """Size and validators of a file, or None if it is absent."""
        found = self._path(path)
        return RemoteState(found.stat().st_size, *_validators(found.stat())) if found.is_file() else None

    def download(self, path: str, part: Path, settings: FetchSettings, limiter: Limiter) -> Downloaded | None:
        """Copy a file to ``part``; None if there is no such file.

        Raises
        ------
        RemoteFailure
            If the file cannot be read.
        ResourceFailure
            If the disk refuses the bytes.
        """
        origin, digest = self._path(path), hashlib.sha256()
        if not origin.is_file():
            return None
        with limiter.slot():
            try:
                state = origin.stat()
                source = origin.open("rb")
            except OSError as error:
                raise RemoteFailure("a readable file", f"{error.strerror or error}", file=str(origin)) from error
            with full_disk(part):
                part.parent.mkdir(parents=True, exist_ok=True)
                target = part.open("wb", buffering=0)
            with source, target:
                for chunk in iter(lambda: source.read(CHUNK), b""):
                    with full_disk(part):
                        write_all(target, chunk)
                        fault_point("download.part", part)
                    digest.update(chunk)
                written = target.tell()
        return Downloaded(digest.hexdigest(), written, *_validators(state), str(origin))


def unless(told: RemoteState | None, known: RemoteState, read: Callable[[], bytes | None]) -> Fresh:
    """A conditional request to a source that knows none: ask for the validators, then for the content if they are others."""
    if told is not None and told.etag and told.etag == known.etag:
        return Fresh("same", b"", known)
    content = None if told is None else read()
    return Fresh("absent") if told is None or content is None else Fresh("new", content, told)


def _validators(state: os.stat_result) -> tuple[str, str]:
    """ETag and Last-Modified of a file on disk, as web servers make them."""
    return f'"{state.st_mtime_ns:x}-{state.st_size:x}"', formatdate(state.st_mtime, usegmt=True)


_HREF = re.compile(r"""href\s*=\s*["']([^"'?#]+)["']""", re.IGNORECASE)


@dataclass(frozen=True)
class HttpSource:
    """A release behind a web server.

    Parameters
    ----------
    base : str
        Address of the tree's root, ending in ``/``.
    settings : FetchSettings
        For what is read while planning; downloads come with their own.
    """

    base: str
    settings: FetchSettings = field(default_factory=FetchSettings)
    _shared: _Shared = field(default_factory=lambda: _Shared(), repr=False, compare=False)

    def _transport(self, settings: FetchSettings | None = None, limiter: Limiter | None = None) -> Transport:
        mine = self._shared.get(self.settings)
        return Transport(mine[0], settings or self.settings, limiter or mine[1])

    def url(self, path: str) -> str:
        """Address of a path."""
        return self.base + quote(path)

    def read_small(self, path: str) -> bytes | None:
        """A file's content, or None if there is no such file; RemoteFailure as `Transport.get`."""
        return self._transport().get(self.url(path))

    def read_unless(self, path: str, known: RemoteState) -> Fresh:
        """A file's content by one conditional request; RemoteFailure as `Transport.get_unless`."""
        return self._transport().get_unless(self.url(path), known)

    def list_names(self, folder: str) -> list[str] | None:
        """Names in an HTML index, folders with a ``/`` at the end; None if the server shows none."""
        address = folder.rstrip("/") + "/" if folder else ""
        try:
            page = self._transport().get(self.url(address))
        except RemoteFailure as failure:
            # a server without listings says 403 to a folder: that is an answer, not a failure
            if "HTTP 403" in failure.got:
                return None
            raise
        if page is None:
            return None
        names = {unquote(link) for link in _HREF.findall(page.decode("utf-8", "replace"))}
        plain = {name.removeprefix("./") for name in names if not name.startswith(("/", "..", "http:", "https:"))}
        return sorted(name for name in plain if name and "/" not in name.rstrip("/"))

    def size(self, path: str) -> int | None:
        """A file's size in bytes, or None if it is absent or the server does not say."""
        told = self.state(path)
        return None if told is None else told.size

    def state(self, path: str) -> RemoteState | None:
        """Size and validators of a file, or None if it is absent or the server does not say."""
        return self._transport().state(self.url(path))

    def download(self, path: str, part: Path, settings: FetchSettings, limiter: Limiter) -> Downloaded | None:
        """Bring a file to ``part``; see `Transport.download`."""
        return self._transport(settings, limiter).download(self.url(path), part)


class _Shared:
    """The client of a source, made when first used; left behind when the source travels to another process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[httpx.Client, Limiter] | None = None

    def get(self, settings: FetchSettings) -> tuple[httpx.Client, Limiter]:
        with self._lock:
            if self._made is None:
                self._made = (make_client(settings), Limiter(settings.connections))
            return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Shared, ())
