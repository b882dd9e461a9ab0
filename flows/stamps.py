"""The same line for stamps that already exist: files to rows, by the same model, stores and catalog."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from flows.progress import ProgressBoard
from flows.request import OpenRun, RunRequest
from flows.summary import Summary
from galpipe.errors import ConfigurationError
from galpipe.unit import Receipt, Unit
from tasks.cluster import connect, peak_memory
from tasks.plan import store_is_current, sweep
from tasks.publish import publish_catalog
from tasks.report import with_report
from tasks.stamps import RELEASE, expand, ingest
from tasks.tile import predict_stores
from tasks.workers import Arrivals


@flow(name="stamps", retries=0, persist_result=False)
def stamps_flow(files: list[str], root: str = "galpipe-data", name: str = "main", options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Predict stamps from files and publish the catalog.

    Parameters
    ----------
    files : list of str
        FITS cubes, npz, Stein-layout HDF5, images, or folders of them.
    root, name : str
    options : dict, optional
        As `flows.survey.survey`.

    Returns
    -------
    dict
        The run's summary.
    """
    paths = expand([Path(file) for file in files])
    if not paths:
        raise ConfigurationError("at least one file", "none")
    request = RunRequest.build(RELEASE, "files", (root, name), options or {})
    with request.open_run() as run:
        context, ledger = run.context, run.ledger
        summary = Summary(context.run_id)
        started = time.monotonic()
        _process(request, run, paths, summary)
        summary.seconds = time.monotonic() - started
        summary.check()
        if request.publish:
            summary.publication = publish_catalog(context)
        result = summary.finish(context, ledger)
    return with_report(context, result) if request.report else result


def _process(request: RunRequest, run: OpenRun, paths: list[Path], summary: Summary) -> None:
    context, ledger = run.context, run.ledger

    def on_receipt(receipt: Receipt) -> None:
        ledger.record([receipt], context.run_id, context.name)
        summary.add(receipt)

    units: dict[Unit, None] = {}
    refused = [receipt.unit for receipt in ledger.failures(context.name) if (receipt.unit.release, receipt.stage) == (RELEASE, "cut")]
    for found in ingest(context, paths, refused):
        if isinstance(found, Receipt):
            on_receipt(found)
        else:
            units[found] = None
    made = ledger.done("catalog", context.name, RELEASE)
    waiting = [unit for unit in units if context.force or not store_is_current(context, unit, made)]
    summary.bricks, summary.up_to_date = len(units), len(units) - len(waiting)
    if not waiting:
        return
    sweep(context, waiting)
    with (
        ProgressBoard({"catalog": len(waiting)}, request.quiet) as board,
        connect(context) as client,
    ):

        def count(receipt: Receipt) -> None:
            on_receipt(receipt)
            board.advance("catalog")

        predict_stores(context, Arrivals(client, run.stop), waiting, count)
        summary.peak_memory = peak_memory(client)
    # of workers that died while their unit went on elsewhere
    sweep(context, waiting)
