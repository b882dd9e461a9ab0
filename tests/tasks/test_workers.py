"""What comes back from workers, and what is done when nothing does."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import tasks.workers
from galpipe.config import Settings
from galpipe.errors import RemoteFailure, ResourceFailure
from galpipe.unit import Receipt, Unit
from tasks.context import RunContext
from tasks.workers import Arrivals, outcome_of

UNIT = Unit("dr9", "south", "0001m002")
CONTEXT = RunContext(Path("/nowhere"), "main", "run", Settings(), Path("/nowhere"), "hash", "0")


class FakeFuture:
    """A future that ended in a value or an error."""

    def __init__(self, ended: Receipt | BaseException) -> None:
        self.ended, self.released = ended, False

    def result(self) -> Receipt:
        if isinstance(self.ended, BaseException):
            raise self.ended
        return self.ended

    def release(self) -> None:
        self.released = True

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        call(self)


class FakeClient:
    """A client whose cluster has some workers and answers every submission with one future."""

    def __init__(self, ended: Receipt | BaseException | None = None, workers: int = 1) -> None:
        self.status, self.ended, self.workers, self.asked = "running", ended, workers, []  # type: ignore[var-annotated]

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {number: {"resources": {"GPU": 1}} for number in range(self.workers)}}

    def submit(self, work: Any, context: RunContext, unit: Unit, pure: bool, resources: Any) -> FakeFuture:
        assert not pure
        self.asked.append(resources)
        assert self.ended is not None
        return FakeFuture(self.ended)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.workers, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(tasks.workers, "NO_WORKER_SECONDS", 0.05)


def test_a_receipt_comes_through_and_its_future_is_released() -> None:
    future = FakeFuture(Receipt(UNIT, "cut", "done"))
    assert outcome_of(future, UNIT, "cut") == Receipt(UNIT, "cut", "done")
    assert future.released


def test_a_brick_that_kills_its_worker_is_its_own_failure() -> None:
    found = outcome_of(FakeFuture(RuntimeError("KilledWorker")), UNIT, "catalog")
    assert isinstance(found, Receipt)
    assert (found.status, found.stage) == ("resource", "catalog")
    assert "0001m002" in found.reason


def test_cancelled_work_means_that_the_cluster_is_gone() -> None:
    arrivals = Arrivals(FakeClient(CancelledError("lost")), Event())
    arrivals.submit(lambda context, unit: Receipt(unit, "cut", "done"), CONTEXT, UNIT, "cut")
    with pytest.raises(RemoteFailure, match="a Dask scheduler that keeps its work"):
        arrivals.get()


def test_only_prediction_asks_for_the_gpu_resource() -> None:
    client = FakeClient(Receipt(UNIT, "cut", "done"))
    arrivals = Arrivals(client, Event())
    for stage in ("cut", "catalog"):
        arrivals.submit(lambda context, unit: Receipt(unit, "cut", "done"), CONTEXT, UNIT, stage)
    assert client.asked == [None, {"GPU": 1}]


@pytest.mark.usefixtures("_impatient")
def test_waiting_goes_on_while_somebody_is_at_work() -> None:
    arrivals = Arrivals(FakeClient(workers=1), Event())
    for _ in range(10):
        with pytest.raises(queue.Empty):
            arrivals.get()


@pytest.mark.usefixtures("_impatient")
def test_waiting_ends_when_every_worker_has_gone() -> None:
    arrivals = Arrivals(FakeClient(workers=0), Event())
    with pytest.raises(RemoteFailure, match="a Dask worker with the resource GPU"):
        for _ in range(100):
            with suppress(queue.Empty):
                arrivals.get()


@pytest.mark.usefixtures("_impatient")
def test_waiting_ends_when_the_connection_is_closed() -> None:
    client = FakeClient()
    client.status = "closed"
    with pytest.raises(RemoteFailure, match="a connection that is closed"):
        Arrivals(client, Event()).get()


def test_a_stopped_run_takes_no_more_receipts() -> None:
    stop = Event()
    arrivals = Arrivals(FakeClient(), stop)
    arrivals.put(Receipt(UNIT, "fetch", "done"))
    assert arrivals.get().stage == "fetch"
    stop.set()
    with pytest.raises(ResourceFailure, match="it was stopped"):
        arrivals.get()
