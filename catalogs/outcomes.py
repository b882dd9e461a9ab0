"""What became of every source of a brick: predicted, filtered (which rule) or failed (why).

A brick that failed or is absent has an outcomes file too: no rows, its status and reason in the footer. With these files the
ledger can be rebuilt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.parquet import read_footer, write_parquet
from galpipe.commit import Replace, replace_file
from galpipe.errors import BadData
from galpipe.survey.selection import REPEATED
from galpipe.unit import Status, Unit

STATUSES = ("predicted", "filtered", "failed")

_REASON = "Rule that filtered it, or why it failed; empty if predicted, 'edge' if predicted just beyond its brick's edge"

SCHEMA = pa.schema(
    [
        pa.field("release", pa.int32()),
        pa.field("brickid", pa.int32()),
        pa.field("objid", pa.int32()),
        pa.field("source_id", pa.int64()),
        pa.field("ra", pa.float64(), metadata={"unit": "deg"}),
        pa.field("dec", pa.float64(), metadata={"unit": "deg"}),
        pa.field("status", pa.string(), metadata={"description": "predicted, filtered or failed"}),
        pa.field("reason", pa.string(), metadata={"description": _REASON}),
    ]
)


@dataclass(frozen=True)
class OutcomesMeta:
    """The footer of an outcomes file.

    Parameters
    ----------
    unit : Unit
    status : Status
        How the brick as a whole ended.
    file, reason : str
        The file concerned and why, for a status other than ``done``.
    fingerprint : str
    stage : str
        The stage that ended the brick, for a status other than ``done``.
    counts : dict
        ``sources``, ``predicted``, ``filtered``, ``failed`` and ``<status>:<reason>``; filled in by `write_outcomes`.
    content_hash : str
        sha256 of the rows as encoded; filled in by `write_outcomes`.
    """

    unit: Unit
    status: Status = "done"
    file: str = ""
    reason: str = ""
    fingerprint: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    content_hash: str = field(default="", compare=False)
    stage: str = ""


def empty() -> pa.Table:
    """Outcomes without a row, for a brick whose sources were never read."""
    return SCHEMA.empty_table()


def finish(cut: pa.Table, predicted: Collection[int], failed: Mapping[int, str] | None = None, unit: Unit | None = None) -> pa.Table:
    """Close the books of a brick: every selected source was predicted or failed.

    Parameters
    ----------
    cut : pyarrow.Table
        One row per source of the Tractor table, from the cut: identity, position, ``status`` (selected, filtered, failed)
        and ``reason``.
    predicted : collection of int
        source_id of the rows in the shard.
    failed : mapping, optional
        source_id of selected sources that the model could not answer, with the reason.
    unit : Unit, optional
        Named in errors.

    Returns
    -------
    pyarrow.Table
        Schema `SCHEMA`, same rows and order.

    Raises
    ------
    BadData
        If a selected source is in neither or both, or a source that was not selected is in one.
    """
    failed = failed or {}
    ids = [int(value) for value in cut["source_id"].to_pylist()]
    status = cut["status"].to_pylist()
    reason = [text or "" for text in cut["reason"].to_pylist()]
    # by row, not by id: a row that was left out may repeat the id of one that was not
    rows = {source: row for row, (source, state) in enumerate(zip(ids, status, strict=True)) if state == "selected"}
    _check_books(set(rows), set(predicted), set(failed), str(unit or ""))
    for source, row in rows.items():
        status[row], reason[row] = ("failed", failed[source]) if source in failed else ("predicted", reason[row])
    columns = {name: cut[name] if name in cut.column_names else pa.nulls(cut.num_rows, SCHEMA.field(name).type) for name in SCHEMA.names}
    columns |= {"status": pa.array(status, pa.string()), "reason": pa.array(reason, pa.string())}
    return pa.table([pc.cast(columns[item.name], item.type) for item in SCHEMA], schema=SCHEMA)


def _check_books(selected: set[int], predicted: set[int], failed: set[int], unit: str) -> None:
    both, strangers, lost = predicted & failed, (predicted | failed) - selected, selected - predicted - failed
    if both or strangers or lost:
        got = f"{len(both)} in both, {len(strangers)} not selected, {len(lost)} in neither, first {sorted(both | strangers | lost)[:3]}"
        raise BadData(f"each of {len(selected)} selected sources predicted or failed", got, unit=unit)


def count(outcomes: pa.Table) -> dict[str, int]:
    """Totals of an outcomes table: by status, and by status and reason."""
    totals = {"sources": outcomes.num_rows} | dict.fromkeys(STATUSES, 0)
    pairs = outcomes.select(["status", "reason"]).group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")])
    counted = (pairs[name].to_pylist() for name in ("status", "reason", "count_all"))
    for status, reason, rows in sorted(zip(*counted, strict=True)):
        totals[status] = totals.get(status, 0) + rows
        if reason:
            totals[f"{status}:{reason}"] = rows
    return totals


def check_totals(outcomes: pa.Table, shard_rows: int, unit: Unit, sources: int | None = None) -> None:
    """Sources in must equal outcomes out, and predicted outcomes the shard's rows.

    Parameters
    ----------
    outcomes : pyarrow.Table
        From `finish`.
    shard_rows : int
    unit : Unit
    sources : int, optional
        Rows of the Tractor table by its own header, counted before anything was done with them.

    Raises
    ------
    BadData
        If a status is unknown, a source is listed twice (but for rows that were left out because they repeat another) or a total
        differs.
    """
    unknown = sorted(set(outcomes["status"].to_pylist()) - set(STATUSES))
    if unknown:
        raise BadData(f"outcomes among {STATUSES}", f"{unknown}", unit=str(unit))
    if sources is not None and sources != outcomes.num_rows:
        raise BadData(f"{sources} outcomes, one for each row of the Tractor table", f"{outcomes.num_rows}", unit=str(unit))
    once = outcomes.filter(pc.invert(pc.is_in(outcomes["reason"], pa.array(sorted(REPEATED)))))
    distinct = len(np.unique(once["source_id"].to_numpy()))
    if distinct != once.num_rows:
        raise BadData("one outcome per source", f"{once.num_rows - distinct} repeated", unit=str(unit))
    predicted = pc.sum(pc.equal(outcomes["status"], "predicted")).as_py() or 0
    if predicted != shard_rows:
        raise BadData(f"{predicted} shard rows, the predicted outcomes", f"{shard_rows}", unit=str(unit))


def write_outcomes(path: Path, table: pa.Table, meta: OutcomesMeta, replace_by: Replace = replace_file) -> dict[str, int]:
    """Replace a brick's outcomes file in one step.

    Parameters
    ----------
    path : Path
        From `galpipe.layout.Layout.outcomes`.
    table : pyarrow.Table
        From `finish`, or `empty`.
    meta : OutcomesMeta
    replace_by : callable, optional
        From `galpipe.commit.replace_together`.

    Returns
    -------
    dict
        The counts, as in the footer.
    """
    counts = count(table)
    body: dict[str, Any] = {
        "unit": str(meta.unit),
        "status": meta.status,
        "file": meta.file,
        "reason": meta.reason,
        "fingerprint": meta.fingerprint,
        "stage": meta.stage,
        "counts": counts,
    }
    write_parquet(path, table.cast(SCHEMA), body, replace_by)
    return counts


def read_outcomes_meta(path: Path) -> OutcomesMeta:
    """The footer of an outcomes file.

    Raises
    ------
    BadData
        If the file is not one.
    """
    footer = read_footer(path)
    try:
        unit = Unit.parse(footer["unit"])
        told = (footer["file"], footer["reason"], footer["fingerprint"], footer["counts"], footer["content_hash"])
        meta = OutcomesMeta(unit, cast(Status, footer["status"]), *told, footer.get("stage", ""))
        total = footer["counts"]["sources"]
    except KeyError as error:
        raise BadData("the footer of an outcomes file", f"no {error}", file=str(path)) from error
    if total != footer["rows_in_file"]:
        raise BadData(f"{total} rows", f"{footer['rows_in_file']}", unit=str(unit), file=str(path))
    return meta


def read_outcomes(path: Path) -> pa.Table:
    """Rows of an outcomes file.

    Raises
    ------
    BadData
        If the file does not read.
    """
    try:
        return pq.read_table(path, partitioning=None).replace_schema_metadata(None)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable outcomes file", str(error), file=str(path)) from error
