"""The main job: a region of a release to catalog shards, then one publication.

A release is cut into sky tiles (HEALPix order 4, about 200 bricks at most), each one Prefect task; two tiles are open at a time,
so that the downloads of one run beside the computing of the other.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows.planning import plan_of
from flows.progress import ProgressBoard
from flows.request import OpenRun, RunRequest
from flows.summary import Summary
from galpipe.survey.releases import Release
from galpipe.survey.remote import Limiter
from galpipe.unit import Receipt, Unit
from tasks.changes import Changes
from tasks.cluster import connect, peak_memory
from tasks.plan import fetch_again, find_changes, note_changed, sweep, tile_of
from tasks.publish import publish_catalog
from tasks.remote import ask_source
from tasks.report import with_report
from tasks.tile import Engine, process_tile
from tasks.workers import Stopped

OPEN_TILES = 2


_TILES: Any = ThreadPoolTaskRunner(max_workers=OPEN_TILES)
"""Prefect's types of its own runners and its flow decorator do not agree."""


@flow(
    name="survey",
    flow_run_name="survey-{region}",
    task_runner=_TILES,
    retries=0,
    persist_result=False,
)
def survey(
    release: str, region: str, root: str = "galpipe-data", name: str = "main", options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Process a region of a release and publish the catalog.

    Parameters
    ----------
    release : str
        A known name, a folder or a URL.
    region : str
        ``cone:RA,DEC,DEG``, ``box:RA1,RA2,DEC1,DEC2``, ``bricks:A,B``, ``moc:FILE`` or ``all``.
    root, name : str
        Where everything lies, and the catalog's name.
    options : dict, optional
        Further fields of `flows.request.RunRequest` (``alias``, ``publish``, ``force``, ``keep``, ``settings``, ``quiet``).

    Returns
    -------
    dict
        The run's summary, as ``--json`` prints it.
    """
    request = RunRequest.build(release, region, (root, name), options or {})
    source, plan = plan_of(request)
    with request.open_run() as run:
        context, ledger = run.context, run.ledger
        summary = Summary(context.run_id, len(plan.units))
        changes = find_changes(context, ledger, plan.units, settled=request.check_remote)
        if request.check_remote:
            noted = partial(note_changed, ledger, context.run_id, context.name)
            answer = ask_source(context, source, changes.fetched, remember=noted, own_lists=request.check_files or None)
            changes = changes.with_files(answer.changed)
            fetch_again(context, answer.changed)
            summary.remote = answer.as_dict()
        # what was refused may have been mended, and what was cut off may have been fixed meanwhile
        fetch_again(context, changes.of("failed_before", *(("interrupted",) if request.check_remote else ())))
        units = changes.to_do
        if request.force:
            fetch_again(context, units)
        summary.note_missing(source.name, plan.missing)
        summary.notes.update(dict.fromkeys(plan.notes, len(plan.units)))
        summary.up_to_date, summary.changes = changes.up_to_date, changes.as_dict()
        if units:
            sweep(context, units)
            _process(request, run, (source, changes), summary)
            # of workers that died while their brick went on elsewhere
            sweep(context, units)
        summary.check()
        if request.publish:
            summary.publication = publish_catalog(context)
        result = summary.finish(context, ledger)
    return with_report(context, result) if request.report else result


def _process(request: RunRequest, run: OpenRun, source_and_changes: tuple[Release, Changes], summary: Summary) -> None:
    (source, changes), context = source_and_changes, run.context
    units = changes.to_do
    started, counting = time.monotonic(), threading.Lock()
    bars = dict.fromkeys(("fetch", "cut", "catalog"), len(units))
    reached: dict[Unit, int] = {}
    with ProgressBoard(bars, request.quiet) as board, connect(context) as client:

        def on_receipt(receipt: Receipt) -> None:
            run.ledger.record([receipt], context.run_id, context.name)
            with counting:  # tiles run in threads
                summary.add(receipt)
            # a brick that began late or ended early takes its place in the other bars too
            place = list(bars).index(receipt.stage)
            first = reached.get(receipt.unit, 0)
            reached[receipt.unit] = place + 1
            for stage_name in list(bars)[first : place + 1 if receipt.status == "done" else None]:
                board.advance(stage_name)

        limiter = Limiter(context.settings.fetch.connections)
        engine = Engine(context, source, client, limiter, on_receipt, run.stop, changes.fetched)
        tiles: dict[int, list[Unit]] = defaultdict(list)
        for unit in units:
            tiles[tile_of(unit)].append(unit)
        _all([process_tile.submit(engine, tile, members) for tile, members in sorted(tiles.items())])
        summary.peak_memory = peak_memory(client)
    summary.seconds = time.monotonic() - started


def _all(tiles: Sequence[PrefectFuture[Any]]) -> None:
    """Wait for every tile, so that none works on a closed cluster; then raise what the first one that failed by itself raised."""
    failures: list[Exception] = []
    for tile in tiles:
        try:
            tile.result()
        except Exception as error:
            failures.append(error)
    if failures:
        raise next((error for error in failures if not isinstance(error, Stopped)), failures[0])
