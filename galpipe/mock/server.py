"""A small web server for a release on this machine, which can be told to misbehave.

It serves a mock release to the demonstration, and to tests every fault that a real server shows.
"""

from __future__ import annotations

import contextlib
import html
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

_BLOCK = 1 << 16
_PAGE = b"<!DOCTYPE html><html><body><h1>Down for maintenance</h1></body></html>\n"


@dataclass(frozen=True)
class Fault:
    """One way to misbehave, for the next ``times`` GET requests of a path.

    Parameters
    ----------
    kind : str
        ``status``: answer with `status` (and `retry_after`); ``stall``: send `after` bytes of the body, then nothing for
        `seconds`; ``cut``: close the connection after `after` bytes; ``html``: a web page instead of the file;
        ``truncate``: the first `after` bytes, as if they were all; ``flip``: one wrong bit in byte `after`.
    times : int
        How often; -1 is for ever.
    """

    kind: Literal["status", "stall", "cut", "html", "truncate", "flip"]
    times: int = 1
    status: int = 500
    retry_after: str = ""
    after: int = 0
    seconds: float = 30.0


@dataclass(frozen=True)
class Request:
    """One request that was answered."""

    method: str
    path: str
    range: str
    status: int
    sent: int
    user_agent: str


class MockServer:
    """Serve a folder on a free port of this machine, from a thread, inside a ``with`` block.

    Parameters
    ----------
    folder : Path
        The root of what is served.
    faults : mapping of str to sequence of Fault, optional
        By path relative to the root; used up in order.
    listing : bool
        Whether folders are shown as HTML indexes (as the survey's own server does) or refused.
    delay : float
        Seconds that every answer waits, to make requests overlap.
    """

    def __init__(self, folder: Path, faults: Mapping[str, Sequence[Fault]] | None = None, listing: bool = True, delay: float = 0.0) -> None:
        self.folder = Path(folder).resolve()
        self.listing, self.delay = listing, delay
        self.requests: list[Request] = []
        self.most_open = 0
        self.stopping = threading.Event()
        self._faults = {path: [[fault, fault.times] for fault in plan] for path, plan in (faults or {}).items()}
        self._open = 0
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the root, ending in ``/``."""
        if self._server is None:
            raise RuntimeError("expected a running server, got one that was not started")
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> MockServer:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        # threads that wait for the next request of a kept connection would go on answering
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()

    def sent(self, path: str) -> int:
        """Bytes of a file that went out, over all requests."""
        with self._lock:
            return sum(item.sent for item in self.requests if item.path == path and item.method == "GET")

    def gets(self, path: str) -> list[Request]:
        """The GET requests of a path, in order."""
        with self._lock:
            return [item for item in self.requests if item.path == path and item.method == "GET"]

    def next_fault(self, path: str) -> Fault | None:
        """Use up one fault of a path."""
        with self._lock:
            for entry in self._faults.get(path, []):
                fault, left = entry
                if isinstance(left, int) and left != 0 and isinstance(fault, Fault):
                    entry[1] = left - 1 if left > 0 else left
                    return fault
        return None

    def connected(self, connection: socket.socket, there: bool) -> None:
        """Remember which connections are open."""
        with self._lock:
            (self._connections.add if there else self._connections.discard)(connection)

    def enter(self) -> None:
        """Count a request that began."""
        with self._lock:
            self._open += 1
            self.most_open = max(self.most_open, self._open)

    def leave(self, request: Request) -> None:
        """Record a request that ended."""
        with self._lock:
            self._open -= 1
            self.requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no error of the server."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    owner: MockServer

    def setup(self) -> None:
        """Register the connection, so that the server can end it."""
        super().setup()
        self.owner.connected(self.connection, True)

    def finish(self) -> None:
        """Forget the connection."""
        self.owner.connected(self.connection, False)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: requests are kept in `MockServer.requests`."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.owner.enter()
        self.status, self.sent = 0, 0
        try:
            if self.owner.delay:
                self.owner.stopping.wait(self.owner.delay)
            fault = self.owner.next_fault(path) if method == "GET" else None
            self._respond(method, path, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            agent = self.headers.get("User-Agent", "")
            self.owner.leave(Request(method, path, self.headers.get("Range", ""), self.status, self.sent, agent))

    def _respond(self, method: str, path: str, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "status":
            extra = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._whole(fault.status, b"fault\n", "text/plain", extra, method)
        if fault is not None and fault.kind == "html":
            return self._whole(200, _PAGE, "text/html", {}, method)
        target = (self.owner.folder / path).resolve()
        if not target.is_relative_to(self.owner.folder) or not target.exists():
            return self._whole(404, b"not found\n", "text/plain", {}, method)
        if target.is_dir():
            if not self.owner.listing:
                return self._whole(403, b"no listing\n", "text/plain", {}, method)
            return self._whole(200, _index(target), "text/html", {}, method)
        return self._file(method, target, fault)

    def _whole(self, status: int, body: bytes, kind: str, extra: dict[str, str], method: str) -> None:
        self.status = status
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if method == "GET":
            self.wfile.write(body)

    def _file(self, method: str, target: Path, fault: Fault | None) -> None:
        state = target.stat()
        etag = f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
        modified = formatdate(state.st_mtime, usegmt=True)
        if self._is_known(etag, modified):
            self.status = 304
            self.send_response(304)
            self.send_header("ETag", etag)
            self.end_headers()
            return
        size = min(fault.after, state.st_size) if fault is not None and fault.kind == "truncate" else state.st_size
        start = self._start(etag, modified)
        headers = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes", "Content-Type": _kind(target)}
        if start >= size and start > 0:
            self._whole(416, b"", "text/plain", {"Content-Range": f"bytes */{size}"}, method)
            return
        self.status = 206 if start else 200
        self.send_response(self.status)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        for name, value in {**headers, "Content-Length": str(size - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if method == "GET":
            self._body(target, start, size, fault)

    def _is_known(self, etag: str, modified: str) -> bool:
        """Whether a conditional request names what is there; an ETag goes before a date (RFC 9110, section 13.2.2)."""
        asked = self.headers.get("If-None-Match")
        return asked == etag if asked is not None else self.headers.get("If-Modified-Since") == modified

    def _start(self, etag: str, modified: str) -> int:
        """First byte asked for; 0 where the file changed since (If-Range) or the range is of another form."""
        span = self.headers.get("Range", "").removeprefix("bytes=")
        first = span.partition("-")[0]
        same = self.headers.get("If-Range", etag) in (etag, modified)
        return int(first) if span.endswith("-") and first.isdigit() and same else 0

    def _body(self, target: Path, start: int, size: int, fault: Fault | None) -> None:
        stop = min(size, start + fault.after) if fault is not None and fault.kind in ("cut", "stall") else size
        position = start
        with target.open("rb") as handle:
            handle.seek(start)
            while position < stop:
                block = bytearray(handle.read(min(_BLOCK, stop - position)))
                if fault is not None and fault.kind == "flip" and position <= fault.after < position + len(block):
                    block[fault.after - position] ^= 0x10
                self.wfile.write(block)
                position += len(block)
                self.sent += len(block)
        if stop < size:
            self.wfile.flush()
            if fault is not None and fault.kind == "stall":
                self.owner.stopping.wait(fault.seconds)
            self.close_connection = True


def _kind(target: Path) -> str:
    return "application/x-gzip" if target.suffix == ".gz" else "application/octet-stream"


def _index(folder: Path) -> bytes:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    rows = "\n".join(f'<a href="{quote(name)}">{html.escape(name)}</a>' for name in names)
    text = f'<html><head><title>Index</title></head><body><pre><a href="../">Parent Directory</a>\n{rows}\n</pre></body></html>\n'
    return text.encode()
