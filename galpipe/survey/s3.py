"""A release in an S3 bucket, read as one behind a web server is: absent is recorded, cut downloads continue, versions are told apart.

Needs the extra ``s3``. Another endpoint than Amazon's is named by ``AWS_ENDPOINT_URL``, as for every program that uses boto3.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError

from galpipe.config import FetchSettings
from galpipe.errors import ConfigurationError, RemoteFailure
from galpipe.survey.http import user_agent
from galpipe.survey.sources import unless
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

BLOCK = 1 << 16
"""Bytes per piece of a body: what a cut connection loses at most."""

_ABSENT = ("NoSuchKey", "404")
_RETRIED = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable")


@dataclass(frozen=True)
class S3Source:
    """A release in a bucket.

    Parameters
    ----------
    base : str
        ``s3://bucket/prefix/``, ending in ``/``.
    settings : FetchSettings
        For what is read while planning, and whether requests are signed; downloads come with their own retries.
    """

    base: str
    settings: FetchSettings = field(default_factory=FetchSettings)
    _shared: _Shared = field(default_factory=lambda: _Shared(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not urlsplit(self.base).netloc:
            raise ConfigurationError("s3://bucket/prefix", repr(self.base))

    def url(self, path: str) -> str:
        """Address of a path."""
        return self.base + path

    def _key(self, path: str) -> dict[str, str]:
        parts = urlsplit(self.base, allow_fragments=False)
        return {"Bucket": parts.netloc, "Key": parts.path.lstrip("/") + path}

    def _ask(self, path: str, once: Callable[[Any], T]) -> T:
        client, limiter = self._shared.get(self.settings)

        def guarded() -> T:
            with _translated(self.url(path), self.settings.timeout):
                return once(client)

        return persist(self.url(path), guarded, lambda: 0, (self.settings, limiter))

    def read_small(self, path: str) -> bytes | None:
        """A file's content, or None if there is no such file.

        Raises
        ------
        RemoteFailure
            If the service fails after all retries or refuses.
        """

        def content(client: Any) -> bytes:
            return bytes(client.get_object(**self._key(path))["Body"].read())

        return self._ask(path, lambda client: _unless_absent(lambda: content(client)))

    def read_unless(self, path: str, known: RemoteState) -> Fresh:
        """A file's content, unless its validators are those that are known."""
        return unless(self.state(path), known, lambda: self.read_small(path))

    def list_names(self, folder: str) -> list[str] | None:
        """Names under a prefix, folders with a ``/`` at the end; None if nothing is there or the bucket is not listed."""
        where = self._key(folder.rstrip("/") + "/" if folder else "")
        bucket, prefix = where["Bucket"], where["Key"]

        def once(client: Any) -> list[str]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
            found: set[str] = set()
            for page in pages:
                found |= {item["Prefix"].removeprefix(prefix) for item in page.get("CommonPrefixes", [])}
                found |= {item["Key"].removeprefix(prefix) for item in page.get("Contents", [])}
            return sorted(found - {""})

        try:
            return self._ask(folder, once) or None
        except RemoteFailure as failure:
            # a public bucket that may be read but not listed: that is an answer, not a failure
            if "AccessDenied" in failure.got:
                return None
            raise

    def size(self, path: str) -> int | None:
        """A file's size in bytes, or None if it is absent or the service does not say."""
        told = self.state(path)
        return None if told is None else told.size

    def state(self, path: str) -> RemoteState | None:
        """Size and validators of a file, or None if it is absent or the service does not say."""

        def told(client: Any) -> RemoteState:
            answer = client.head_object(**self._key(path))
            return RemoteState(int(answer["ContentLength"]), *_validators(answer))

        # a HEAD has no body to say why; 403 is what a missing file gives where listing is refused
        return self._ask(path, lambda client: _unless_absent(lambda: told(client), "403"))

    def download(self, path: str, part: Path, settings: FetchSettings, limiter: Limiter) -> Downloaded | None:
        """Bring a file to ``part``, continuing what already lies there if it is of the same version; None if there is no such file.

        Raises
        ------
        RemoteFailure
            If the service fails after all retries or refuses; the partial file stays for the next attempt.
        ResourceFailure
            If the disk refuses the bytes.
        """
        client = self._shared.get(self.settings)[0]

        def once() -> Downloaded | None:
            with _translated(self.url(path), settings.timeout):
                return self._download_once(client, path, part)

        return persist(self.url(path), once, lambda: size_of(part), (settings, limiter))

    def _download_once(self, client: Any, path: str, part: Path) -> Downloaded | None:
        known, have, url = read_validator(part), size_of(part), self.url(path)
        resume = have > 0 and bool(known.etag) and known.url == url
        extra = {"Range": f"bytes={have}-", "IfMatch": known.etag} if resume else {}
        try:
            answer = _unless_absent(lambda: client.get_object(**self._key(path), **extra))
        except ClientError as error:
            if not resume or _code(error) not in ("PreconditionFailed", "InvalidRange", "412", "416"):
                raise
            told = client.head_object(**self._key(path))
            if (int(told["ContentLength"]), told.get("ETag")) == (have, known.etag):
                # the process died between the last byte and the rename
                return store(iter(()), part, have, known)
            forget(part)
            raise TryAgain(f"{_code(error)}: another version than the {have} bytes that are here") from error
        if answer is None:
            return None
        start = have if resume else 0
        done = store(answer["Body"].iter_chunks(BLOCK), part, start, Validator(*_validators(answer), url))
        if done.bytes != start + int(answer["ContentLength"]):
            forget(part)
            raise TryAgain(f"{done.bytes} bytes of {start + int(answer['ContentLength'])}")
        return done


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _validators(answer: dict[str, Any]) -> tuple[str, str]:
    """ETag and Last-Modified of an answer, as a web server writes them."""
    return answer.get("ETag", ""), _http_date(answer.get("LastModified"))


def _http_date(when: datetime | None) -> str:
    return "" if when is None else format_datetime(when.astimezone(UTC), usegmt=True)


def _unless_absent(call: Callable[[], T], *also: str) -> T | None:
    """What a call returns; None where the service says that there is no such file."""
    try:
        return call()
    except ClientError as error:
        if _code(error) in (*_ABSENT, *also):
            return None
        raise


@contextmanager
def _translated(url: str, timeout: float) -> Iterator[None]:
    """Turn the library's errors into ours: those that another try may mend, and those that it cannot."""
    try:
        yield
    except ClientError as error:
        reason = f"HTTP {_status(error)} {_code(error)}"
        if _status(error) >= 500 or _status(error) == 429 or _code(error) in _RETRIED:
            raise TryAgain(reason) from error
        if _status(error) == 403:
            reason += " (no right to read it, or no such file in a bucket that may not be listed)"
        raise RemoteFailure("the file", reason, file=url) from error
    except (HTTPClientError, ResponseStreamingError, IncompleteReadError) as error:
        raise TryAgain(f"{type(error).__name__} (time-out {timeout:g} s): {error}") from error
    except BotoCoreError as error:
        raise RemoteFailure("the file", f"{type(error).__name__}: {error}", file=url) from error


class _Shared:
    """The client of a source, made when first used; left behind when the source travels to another process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[Any, Limiter] | None = None

    def get(self, settings: FetchSettings) -> tuple[Any, Limiter]:
        with self._lock:
            if self._made is None:
                self._made = (_client(settings), Limiter(settings.connections))
            return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Shared, ())


def _client(settings: FetchSettings) -> Any:
    """A client that signs with the credentials that boto3 finds (environment, profile, machine role), or not at all."""
    try:
        session = boto3.session.Session()
        signed = settings.credentials == "auto" and session.get_credentials() is not None
        config = Config(
            connect_timeout=settings.timeout,
            read_timeout=settings.timeout,
            max_pool_connections=settings.connections,
            # retries are ours: the library's would not continue a partial file
            retries={"total_max_attempts": 1},
            user_agent_extra=user_agent(),
            response_checksum_validation="when_required",
            signature_version=None if signed else UNSIGNED,
        )
        # a bucket's own region is found by redirect
        return session.client("s3", config=config, region_name=session.region_name or "us-east-1")
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError("settings that boto3 understands", f"{type(error).__name__}: {error}") from error
