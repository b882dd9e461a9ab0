"""One Prefect task per sky tile: its bricks are fetched by threads, cut and predicted as Dask futures, bounded in flight.

The stages overlap: while workers compute, the next bricks are downloaded. Every receipt goes to the ledger as it arrives,
written by this process only.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future

from galpipe.survey.releases import Release
from galpipe.survey.remote import Limiter
from galpipe.unit import Receipt, Unit
from tasks.catalog import predict_unit, record_without_rows
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tasks.stage import stage

NEXT_STAGE = {"fetch": "cut", "cut": "catalog"}


@dataclass(frozen=True)
class Engine:
    """What a tile needs to do its work, shared by all tiles of a run.

    Parameters
    ----------
    context : RunContext
    release : Release
    client : distributed.Client
    limiter : Limiter
    on_receipt : callable
        Called with each receipt, from the tile's thread: ledger and progress.
    """

    context: RunContext
    release: Release
    client: Client
    limiter: Limiter
    on_receipt: Callable[[Receipt], None]

    @property
    def window(self) -> int:
        """Bricks in flight: enough that no worker waits, few enough that the disk holds them."""
        return 2 * worker_count(self.client) + self.context.settings.fetch.connections


@dataclass
class _Pipeline:
    """The bricks of one tile, each somewhere between fetch and catalog."""

    engine: Engine
    waiting: deque[Unit]
    pool: ThreadPoolExecutor
    events: queue.SimpleQueue[Receipt] = field(default_factory=queue.SimpleQueue)
    last: dict[Unit, Receipt] = field(default_factory=dict)
    in_flight: int = 0

    def fetch_next(self) -> None:
        """Start a download if the window has room."""
        while self.waiting and self.in_flight < self.engine.window:
            unit = self.waiting.popleft()
            self.in_flight += 1
            self.pool.submit(self._fetch, unit)

    def _fetch(self, unit: Unit) -> None:
        engine = self.engine
        self.events.put(fetch_unit(engine.context, engine.release, unit, engine.limiter))

    def submit(self, unit: Unit, next_stage: str) -> None:
        """Hand a brick to the workers; only the model's stage asks for the GPU resource."""
        client, context = self.engine.client, self.engine.context
        if next_stage == "cut":
            future = client.submit(cut_unit, context, unit, pure=False)
        else:
            future = client.submit(predict_unit, context, unit, pure=False, resources={"GPU": 1})
        future.add_done_callback(lambda done: self.events.put(_receipt_of(done, unit, next_stage)))

    def handle(self, receipt: Receipt) -> None:
        """Record a receipt and send its brick on, or take it out of flight."""
        self.last[receipt.unit] = receipt
        if receipt.status != "done":
            record_without_rows(self.engine.context, receipt)
        self.engine.on_receipt(receipt)
        next_stage = NEXT_STAGE.get(receipt.stage)
        if receipt.status == "done" and next_stage:
            self.submit(receipt.unit, next_stage)
        else:
            self.in_flight -= 1

    def run(self) -> list[Receipt]:
        """Until every brick has its last receipt."""
        self.fetch_next()
        while self.in_flight:
            self.handle(self.events.get())
            self.fetch_next()
        return list(self.last.values())


def _receipt_of(future: Future, unit: Unit, stage_name: str) -> Receipt:
    """The receipt a worker returned, or one that says how the worker died."""
    try:
        receipt: Receipt = future.result()
        return receipt
    except Exception as error:
        # KilledWorker (a brick that always ends its worker), CancelledError, lost scheduler
        return Receipt(unit, stage_name, "resource", reason=f"worker lost: {type(error).__name__}: {error}")
    finally:
        # a released future is not computed again when its worker dies later
        future.release()


def process_units(engine: Engine, units: Sequence[Unit]) -> list[Receipt]:
    """Take bricks from the release to catalog shards.

    Returns
    -------
    list of Receipt
        The last receipt of each brick.
    """
    with ThreadPoolExecutor(engine.context.settings.fetch.connections, thread_name_prefix="fetch") as pool:
        return _Pipeline(engine, deque(units), pool).run()


def predict_stores(context: RunContext, client: Client, units: Sequence[Unit], on_receipt: Callable[[Receipt], None]) -> None:
    """Predict units whose stores are already there, two per worker in flight.

    Parameters
    ----------
    context : RunContext
    client : distributed.Client
    units : sequence of Unit
    on_receipt : callable
        Called with each receipt.
    """
    waiting = deque(units)
    events: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
    in_flight = 0
    while waiting or in_flight:
        while waiting and in_flight < 2 * worker_count(client):
            unit = waiting.popleft()
            future = client.submit(predict_unit, context, unit, pure=False, resources={"GPU": 1})
            future.add_done_callback(lambda done, unit=unit: events.put(_receipt_of(done, unit, "catalog")))
            in_flight += 1
        receipt = events.get()
        in_flight -= 1
        if receipt.status != "done":
            record_without_rows(context, receipt)
        on_receipt(receipt)


def worker_count(client: Client) -> int:
    """Workers of a cluster, at least one."""
    return len(client.scheduler_info(n_workers=-1)["workers"]) or 1


@stage("tile", run_name="tile-{tile}")
def process_tile(engine: Engine, tile: int, units: Sequence[Unit]) -> dict[str, Any]:
    """One tile as Prefect sees it: a name, a state and a few counts."""
    receipts = process_units(engine, units)
    states = [receipt.status for receipt in receipts]
    return {"tile": tile, "bricks": len(units), **{state: states.count(state) for state in sorted(set(states))}}
