"""One Prefect task per sky tile: its bricks are fetched by threads, cut and predicted as Dask futures, bounded in flight.

The stages overlap: while workers compute, the next bricks are downloaded. Every receipt goes to the ledger as it arrives,
written by this process only.
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

from distributed import Client

from galpipe.commit import remove_folder
from galpipe.errors import ResourceFailure
from galpipe.survey.releases import Release
from galpipe.survey.remote import Limiter
from galpipe.unit import Receipt, Unit
from tasks.catalog import predict_unit, record_without_rows
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tasks.renew import can_begin_at_catalog, renew_unit
from tasks.stage import stage
from tasks.workers import Arrivals, worker_count

_LOG = logging.getLogger(__name__)

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
    stop : threading.Event
        Set when the run cannot go on: no tile starts another brick.
    fetched : mapping of Unit to str
        Fingerprint of the files of bricks whose files are the same as before: they begin at the first stage that has work.
    """

    context: RunContext
    release: Release
    client: Client
    limiter: Limiter
    on_receipt: Callable[[Receipt], None]
    stop: Event
    fetched: Mapping[Unit, str] = field(default_factory=dict)

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
    arrivals: Arrivals
    last: dict[Unit, Receipt] = field(default_factory=dict)
    in_flight: int = 0

    def fetch_next(self) -> None:
        """Start downloads while the window has room."""
        while self.waiting and self.in_flight < self.engine.window:
            self.in_flight += 1
            self.pool.submit(self._fetch, self.waiting.popleft())

    def _fetch(self, unit: Unit) -> None:
        engine = self.engine
        fetched = engine.fetched.get(unit, "")
        try:
            late = bool(fetched) and can_begin_at_catalog(engine.context, unit, fetched)
        except OSError as error:
            _LOG.warning("%s begins with its files: %s", unit, error)
            late = False
        if late:
            self.arrivals.submit(partial(renew_unit, fetch=fetched), engine.context, unit, "catalog")
        else:
            self.arrivals.put(fetch_unit(engine.context, engine.release, unit, engine.limiter))

    def handle(self, receipt: Receipt) -> None:
        """Record a receipt and send its brick on, or take it out of flight."""
        engine = self.engine
        check_disk(receipt)
        self.last[receipt.unit] = receipt
        if receipt.status != "done":
            record_without_rows(engine.context, receipt)
        engine.on_receipt(receipt)
        # only what the ledger has seen is deleted, and by this process: a worker may be asked twice
        discard(engine.context, receipt)
        following = NEXT_STAGE.get(receipt.stage) if receipt.status == "done" else None
        if following == "cut":
            self.arrivals.submit(cut_unit, engine.context, receipt.unit, following)
        elif following == "catalog":
            self.arrivals.submit(renew_unit, engine.context, receipt.unit, following)
        else:
            self.in_flight -= 1

    def run(self) -> list[Receipt]:
        """Until every brick has its last receipt.

        Raises
        ------
        RemoteFailure
            If the cluster is gone.
        ResourceFailure
            If the run was stopped from outside this tile.
        """
        self.fetch_next()
        while self.in_flight:
            try:
                self.handle(self.arrivals.get())
            except queue.Empty:
                continue
            self.fetch_next()
        return list(self.last.values())


def check_disk(receipt: Receipt) -> None:
    """Stop where the disk took no more: every brick that follows would be fetched in vain. The brick stays to be done.

    Raises
    ------
    ResourceFailure
        Naming the brick and the file.
    """
    # a lost worker or a lack of memory names no file: those are the brick's own
    if receipt.status == "resource" and receipt.file:
        raise ResourceFailure("a disk that takes the run's products", receipt.reason, unit=str(receipt.unit), file=receipt.file)


def discard(context: RunContext, receipt: Receipt) -> None:
    """Delete what is not to be kept once it was used and recorded: files after the cut, stamps after the catalog."""
    settled = receipt.status in ("done", "no_work")
    if settled and receipt.stage in ("cut", "catalog") and not context.keep_bricks:
        remove_folder(context.layout.brick_folder(receipt.unit))
    if receipt.status == "done" and receipt.stage == "catalog" and not context.keep_stamps:
        remove_folder(context.layout.stamps(receipt.unit, context.settings.cut.name))


def process_units(engine: Engine, units: Sequence[Unit]) -> list[Receipt]:
    """Take bricks from the release to catalog shards.

    Returns
    -------
    list of Receipt
        The last receipt of each brick.

    Raises
    ------
    GalpipeError
        If the run cannot go on; bricks that were under way are done again by the next run.
    """
    pool = ThreadPoolExecutor(engine.context.settings.fetch.connections, thread_name_prefix="fetch")
    try:
        return _Pipeline(engine, deque(units), pool, Arrivals(engine.client, engine.stop)).run()
    except BaseException:
        engine.stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def predict_stores(context: RunContext, arrivals: Arrivals, units: Sequence[Unit], on_receipt: Callable[[Receipt], None]) -> None:
    """Predict units whose stores are already there, two per worker in flight.

    Parameters
    ----------
    context : RunContext
    arrivals : Arrivals
        Of the cluster to use.
    units : sequence of Unit
    on_receipt : callable
        Called with each receipt.

    Raises
    ------
    RemoteFailure, ResourceFailure
        If the cluster is gone or the run was stopped.
    """
    waiting, in_flight = deque(units), 0
    while waiting or in_flight:
        while waiting and in_flight < 2 * arrivals.workers:
            arrivals.submit(predict_unit, context, waiting.popleft(), "catalog")
            in_flight += 1
        try:
            receipt = arrivals.get()
        except queue.Empty:
            continue
        in_flight -= 1
        check_disk(receipt)
        if receipt.status != "done":
            record_without_rows(context, receipt)
        on_receipt(receipt)


@stage("tile", run_name="tile-{tile}")
def process_tile(engine: Engine, tile: int, units: Sequence[Unit]) -> dict[str, Any]:
    """One tile as Prefect sees it: a name, a state and a few counts."""
    receipts = process_units(engine, units)
    states = [receipt.status for receipt in receipts]
    return {"tile": tile, "bricks": len(units), **{state: states.count(state) for state in sorted(set(states))}}
