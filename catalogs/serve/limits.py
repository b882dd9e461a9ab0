"""How much one request may ask for, and the ways in which a request is turned down."""

from __future__ import annotations

from dataclasses import dataclass

from galpipe.errors import ConfigurationError, GalpipeError


@dataclass(frozen=True)
class Limits:
    """What bounds a request.

    Parameters
    ----------
    radius : float
        Largest radius of a region, degrees.
    rows : int
        Most rows of an answer, and what it holds where the client sets no MAXREC.
    workers : int
        Requests that read at the same time; each has its own database connection.
    wait : float
        Seconds that a request waits for its turn.
    seconds : float
        Seconds after which a client is told that its request took too long.
    query_characters : int
        Longest query string.
    """

    radius: float = 1.0
    rows: int = 10_000
    workers: int = 4
    wait: float = 10.0
    seconds: float = 60.0
    query_characters: int = 4096


class UsageFault(ConfigurationError):
    """What the client sent cannot be served as written; its text may be shown to the client."""


class NotThere(GalpipeError):
    """What the client asked for is not here; its text may be shown to the client."""

    kind = "not_there"


class Busy(GalpipeError):
    """Too many requests at once, or one that takes too long; the client may come again."""

    kind = "busy"


def told(error: GalpipeError) -> str:
    """What a client is told of an error: never a file of this machine."""
    return f"expected {error.expected}, got {error.got}"
