"""Run a service on this machine until it is stopped."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from catalogs.serve.app import create_app
from catalogs.serve.service import Service
from galpipe.errors import ConfigurationError

CONNECTIONS = 64
"""Most connections at once; further ones are told to come again."""

IDLE_SECONDS = 5
STOP_SECONDS = 5


@dataclass(frozen=True)
class Address:
    """Where a service listens and who may reach it.

    Parameters
    ----------
    host : str
        Name or address of this machine.
    port : int
        0 takes a free one.
    public : bool
        Whether others than this machine may be able to reach it.
    base : str
        Address that is written into answers, where it is another one (behind a proxy).
    """

    host: str = "127.0.0.1"
    port: int = 8765
    public: bool = False
    base: str = ""

    def __post_init__(self) -> None:
        if not (self.public or is_loopback(self.host)):
            raise ConfigurationError(
                "an address that only this machine reaches, such as 127.0.0.1",
                f"{self.host!r}: whoever reaches it may read the whole catalog and its stamps; say --public if that is meant",
            )
        if self.base and not self.base.startswith(("http://", "https://")):
            raise ConfigurationError("an address that begins with http:// or https://", repr(self.base))

    def hosts(self) -> list[str]:
        """Names under which the service may be addressed."""
        return ["*"] if self.public else ["127.0.0.1", "localhost", "[::1]", self.host]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine as only itself sees it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(address: Address) -> socket.socket:
    """A socket that listens there.

    Raises
    ------
    ConfigurationError
        If the port is taken or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise ConfigurationError(f"a free port at {address.host} (--port 0 takes one)", f"{address.port}: {error}") from error


def url_of(listening: socket.socket) -> str:
    """The address of a socket as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def make_server(service: Service, address: Address) -> uvicorn.Server:
    """A server that is not running yet: ``server.run([listen(address)])`` runs it."""
    app: FastAPI = create_app(service, address.hosts(), address.base)
    config = uvicorn.Config(
        app,
        lifespan="off",
        server_header=False,
        access_log=False,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=4 * service.limits.query_characters,
    )
    return uvicorn.Server(config)
