"""A lease: the right of one coordinator to work on a catalog, kept in the ledger's database.

It ends by release, by expiry, or at once when the process that holds it is dead on this host.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from galpipe.errors import ConfigurationError, ResourceFailure

ROOT_LEASE = "the root folder"
"""Name of the lease that every run takes, and whoever removes what runs made."""


_LOG = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Time between two looks at a lease that another holds."""


def lease_table(metadata: sa.MetaData) -> sa.Table:
    """The table ``leases``."""
    return sa.Table(
        "leases",
        metadata,
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("born", sa.Float, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )


def _born(pid: int) -> float | None:
    """When a process of this host started; None if there is none."""
    try:
        process = psutil.Process(pid)
        # one that was killed and whose parent has not looked yet writes no more
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _stale(held: sa.RowMapping) -> bool:
    if held["expires"] < time.time():
        return True
    if held["host"] != socket.gethostname():
        return False
    # a pid is used again after a restart, so the start must agree too
    born = _born(held["pid"])
    return born is None or abs(born - held["born"]) > 2.0


class Held(ConfigurationError):
    """Another coordinator is at work."""


def patiently(take: Callable[[], Lease], wait: float) -> Lease:
    """Take a lease; while another coordinator holds it, say so and try again.

    Parameters
    ----------
    take : callable
        Takes the lease or raises `Held`.
    wait : float
        Seconds after which to give up; 0 to try once.

    Raises
    ------
    Held
        If it is still held then.
    """
    until, told = time.monotonic() + wait, False
    while True:
        try:
            return take()
        except Held as held:
            left = until - time.monotonic()
            if left <= 0:
                raise
            if not told:
                _LOG.warning("%s: waiting for it to end, for %.0f s at most", held.got, left)
                told = True
            time.sleep(min(POLL_SECONDS, left))


@dataclass(frozen=True)
class Lease:
    """A lease in hand; use it in a ``with`` block and `renew` it before it expires.

    Parameters
    ----------
    engine : sqlalchemy.Engine
    table : sqlalchemy.Table
    name, owner : str
        Catalog, and the run that holds it.
    seconds : float
        Time to expiry after `acquire` and each `renew`.
    """

    engine: sa.Engine
    table: sa.Table
    name: str
    owner: str
    seconds: float

    @classmethod
    def acquire(cls, engine: sa.Engine, table: sa.Table, name: str, owner: str, seconds: float) -> Lease:
        """Take the lease of a catalog.

        Raises
        ------
        Held
            If another coordinator holds it; the message names its host, process and expiry.
        """
        lease = cls(engine, table, name, owner, seconds)
        fresh = lease._values()
        with engine.connect() as connection:
            held = connection.execute(sa.select(table).where(table.c.name == name)).mappings().first()
        if held is None:
            try:
                with engine.begin() as connection:
                    connection.execute(sa.insert(table).values(**fresh))
                return lease
            except IntegrityError:
                # another was a moment earlier
                return cls.acquire(engine, table, name, owner, seconds)
        if not _stale(held):
            until = time.strftime("%H:%M:%S", time.localtime(held["expires"]))
            got = f"run {held['owner']!r} at work on it (host {held['host']}, process {held['pid']}, lease until {until})"
            raise Held(f"{name!r} to be free", got)
        # compare and swap: of two that see a stale lease, one takes it
        same = (table.c.name == name) & (table.c.owner == held["owner"]) & (table.c.expires == held["expires"])
        with engine.begin() as connection:
            taken = connection.execute(sa.update(table).where(same).values(**fresh)).rowcount
        return lease if taken else cls.acquire(engine, table, name, owner, seconds)

    def _values(self) -> dict[str, Any]:
        pid = os.getpid()
        return {
            "name": self.name,
            "owner": self.owner,
            "host": socket.gethostname(),
            "pid": pid,
            "born": _born(pid) or 0.0,
            "expires": time.time() + self.seconds,
        }

    def renew(self) -> None:
        """Put off the expiry.

        Raises
        ------
        ResourceFailure
            If the lease was lost: another coordinator is at work now.
        """
        mine = (self.table.c.name == self.name) & (self.table.c.owner == self.owner)
        with self.engine.begin() as connection:
            kept = connection.execute(sa.update(self.table).where(mine).values(expires=time.time() + self.seconds)).rowcount
        if not kept:
            raise ResourceFailure(f"the lease of catalog {self.name!r} in the hands of run {self.owner!r}", "it was taken over")

    def release(self) -> None:
        """Give the lease back; without effect if it was lost."""
        mine = (self.table.c.name == self.name) & (self.table.c.owner == self.owner)
        with self.engine.begin() as connection:
            connection.execute(sa.delete(self.table).where(mine))

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
