"""What a killed run left, put in order by the next one; called by whoever holds the root's lease."""

from __future__ import annotations

from pathlib import Path

from catalogs.ledger import Ledger
from catalogs.provenance import record_run
from catalogs.shard import read_shard_meta
from galpipe.commit import sweep_asides
from galpipe.errors import BadData
from galpipe.layout import Layout

RUNNING, KILLED = "running", "killed"


def sweep_catalog(layout: Layout, name: str) -> int:
    """Delete half-written files of a catalog that belong to no brick: bindings, provenance records, lists of runs.

    Returns
    -------
    int
        Entries that went.
    """
    folder = layout.catalog(name)
    return sum(sweep_asides(place) for place in (folder, layout.recipes(name), folder / "provenance", *folder.glob("provenance/*/")))


def close_run(layout: Layout, ledger: Ledger, name: str, run_id: str, status: str) -> None:
    """Note which rows a run made that did not come to its end, and how it ended.

    Parameters
    ----------
    layout : Layout
    ledger : Ledger
    name : str
    run_id, status : str

    Raises
    ------
    ResourceFailure
        If the disk or the ledger refuses; the next run will close it then.
    """
    identifiers = [found for unit in ledger.made_by(run_id, name) if (found := _made_from(layout.shard(unit, name))) is not None]
    if identifiers:
        record_run(layout, name, run_id, identifiers)
    ledger.end_run(run_id, status)


def _made_from(shard: Path) -> int | None:
    """Provenance id of a shard; None where it is gone or damaged, which the plan finds and has it made anew."""
    try:
        return read_shard_meta(shard).provenance_id
    except BadData:
        return None


def close_killed(layout: Layout, ledger: Ledger, name: str, own: str) -> list[str]:
    """Close the runs of a catalog that never ended: a run notes the rows it made only when it ends.

    Parameters
    ----------
    layout : Layout
    ledger : Ledger
    name : str
    own : str
        The run that is at work, which stays open.

    Returns
    -------
    list of str
        The runs that were closed.
    """
    closed = [run["run_id"] for run in ledger.runs(name) if run["status"] == RUNNING and run["run_id"] != own]
    for run_id in closed:
        close_run(layout, ledger, name, run_id, KILLED)
    return closed
