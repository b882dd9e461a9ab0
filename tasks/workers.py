"""Bricks at the workers: handing them out, waiting for what comes back, noticing when nobody is there any more."""

from __future__ import annotations

import queue
import time
from asyncio import CancelledError as AsyncCancelled
from collections.abc import Callable
from concurrent.futures import CancelledError
from threading import Event

from distributed import Client, Future

from galpipe.errors import RemoteFailure, ResourceFailure
from galpipe.unit import Receipt, Unit
from tasks.context import RunContext

POLL_SECONDS = 10.0
"""How long to wait for a result before looking whether anybody is still at work."""

NO_WORKER_SECONDS = 300.0
"""How long a cluster may be without a worker that predicts, before the run gives up: a batch system needs time to start one."""

Work = Callable[[RunContext, Unit], Receipt]


class Stopped(ResourceFailure):
    """The run was stopped from elsewhere: not the reason, which another one tells."""


def predicting_workers(client: Client) -> int:
    """Workers that have the resource inference asks for."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return sum(bool(worker["resources"].get("GPU")) for worker in workers)


def worker_count(client: Client) -> int:
    """Workers of a cluster, at least one."""
    return len(client.scheduler_info(n_workers=-1)["workers"]) or 1


class Arrivals:
    """Receipts as they come in, from downloads and from workers.

    Parameters
    ----------
    client : distributed.Client
    stop : threading.Event
        Set when the run must not go on, from outside or by another tile.
    """

    def __init__(self, client: Client, stop: Event) -> None:
        self._client, self._stop = client, stop
        self._events: queue.SimpleQueue[Receipt | RemoteFailure] = queue.SimpleQueue()
        self._alone_since: float | None = None

    @property
    def workers(self) -> int:
        """Workers that are there now, at least one."""
        return worker_count(self._client)

    def put(self, receipt: Receipt) -> None:
        """A receipt that was made in this process."""
        self._events.put(receipt)

    def submit(self, work: Work, context: RunContext, unit: Unit, stage: str) -> None:
        """Hand a brick to the workers; only the model's stage asks for the GPU resource."""
        resources = {"GPU": 1} if stage == "catalog" else None
        future = self._client.submit(work, context, unit, pure=False, resources=resources)
        future.add_done_callback(lambda done: self._events.put(outcome_of(done, unit, stage)))

    def get(self) -> Receipt:
        """The next receipt.

        Raises
        ------
        queue.Empty
            If none came for `POLL_SECONDS` but somebody is at work.
        RemoteFailure
            If the scheduler is gone, or no worker has been there for `NO_WORKER_SECONDS`.
        Stopped
            If the run was stopped.
        """
        if self._stop.is_set():
            raise Stopped("the run to go on", "it was stopped: the lease was lost or another tile failed")
        try:
            found = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            self._look_around()
            raise
        self._alone_since = None
        if isinstance(found, RemoteFailure):
            raise found
        return found

    def _look_around(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise RemoteFailure("a Dask scheduler", f"a connection that is {self._client.status}")
        try:
            present = predicting_workers(self._client)
        except (OSError, TimeoutError) as error:
            raise RemoteFailure("a Dask scheduler that answers", f"{type(error).__name__}: {error}") from error
        if present:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > NO_WORKER_SECONDS:
            raise RemoteFailure("a Dask worker with the resource GPU", f"none for {NO_WORKER_SECONDS:.0f} s")


def outcome_of(future: Future, unit: Unit, stage: str) -> Receipt | RemoteFailure:
    """What became of a brick at the workers.

    Returns
    -------
    Receipt or RemoteFailure
        The worker's receipt; one that says how the worker died (a brick that always kills its worker must not end the run); or
        a failure of the whole cluster, after which nothing more should be handed out.
    """
    try:
        receipt: Receipt = future.result()
        return receipt
    except (CancelledError, AsyncCancelled) as error:
        # distributed cancels what is pending when the scheduler or the client is gone
        return RemoteFailure("a Dask scheduler that keeps its work", f"{type(error).__name__}: {error}", unit=str(unit))
    except Exception as error:
        return Receipt(unit, stage, "resource", reason=f"{unit}: worker lost: {type(error).__name__}: {error}")
    finally:
        # a released future is not computed again when its worker dies later
        future.release()
