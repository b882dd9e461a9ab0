"""What the files of a root prove about its bricks, without a ledger: receipts as the run would have recorded them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.inventory import outcomes_files, shard_files
from catalogs.outcomes import OutcomesMeta, read_outcomes_meta
from catalogs.provenance import read_inputs, record_path
from catalogs.shard import ShardMeta, read_shard_meta
from galpipe.errors import BadData
from galpipe.fingerprint import files_fingerprint, sha256_file
from galpipe.layout import Layout
from galpipe.stamps.store import store_fingerprint, store_summary
from galpipe.survey.files import load_brick_files
from galpipe.survey.unknown import words
from galpipe.unit import Receipt, Unit

_LOG = logging.getLogger(__name__)

NOT_FETCHED = "stamps"
"""Release name of stamps that came as files."""


def is_there(layout: Layout, name: str) -> bool:
    """Whether a catalog has any file that proves something."""
    return next(outcomes_files(layout, name), None) is not None


def receipts(layout: Layout, name: str) -> Iterator[Receipt]:
    """Receipts of a catalog's bricks, by what lies in its folder.

    A brick whose shard and outcomes disagree was cut off between them, and counts as not done; so does one of which a file does not
    read, with a warning that names it. What was fetched follows from a shard's provenance record; for a brick without rows from its
    kept files, where they were kept. A failure beside the good shard of an earlier run has left no file: only the ledger knew of it.
    """
    shards = dict(shard_files(layout, name))
    for unit, path in outcomes_files(layout, name):
        try:
            found = list(_of_brick(layout, name, path, shards.get(unit)))
        except BadData as error:
            _LOG.warning("counted as not done: %s", error)
        else:
            yield from found


def _of_brick(layout: Layout, name: str, outcomes: Path, shard: Path | None) -> Iterator[Receipt]:
    told = read_outcomes_meta(outcomes)
    if told.status != "done" or (shard is None and not told.counts.get("predicted", 0)):
        yield from _without_rows(layout, told)
    elif shard is not None:
        meta = read_shard_meta(shard)
        if (meta.rows, meta.fingerprint) == (told.counts.get("predicted", 0), told.fingerprint):
            yield from _with_rows(layout, name, shard, meta, dict(told.counts))


def _with_rows(layout: Layout, name: str, shard: Path, meta: ShardMeta, counts: dict[str, int]) -> Iterator[Receipt]:
    if meta.unit.release != NOT_FETCHED and record_path(layout, name, meta.provenance_id).exists():
        made_from = read_inputs(layout, name, meta.provenance_id)
        yield _fetched(layout, meta.unit, made_from["files"], tuple(made_from["absent"]))
    yield from _cut(layout, meta.unit)
    counts["detections"] = _detections(shard)
    relative = layout.relative(shard)
    yield Receipt(meta.unit, "catalog", "done", relative, meta.rows, sha256_file(shard), meta.fingerprint, counts=counts)


def _detections(shard: Path) -> int:
    """Objects found in a shard's stamps; a model of one task finds none."""
    if "n_detections" not in pq.read_schema(shard).names:
        return 0
    return int(pc.sum(pq.read_table(shard, columns=["n_detections"], partitioning=None)["n_detections"]).as_py() or 0)


def _without_rows(layout: Layout, told: OutcomesMeta) -> Iterator[Receipt]:
    # nothing to do is found out by the cut, and settled there; an older galpipe did not say which stage failed
    stage = told.stage or ("cut" if told.status == "no_work" else "catalog")
    files = load_brick_files(layout.brick_folder(told.unit), told.unit)
    if files is not None and stage != "fetch":
        yield _fetched(layout, told.unit, files.checksums, files.absent)
    if stage == "catalog":
        yield from _cut(layout, told.unit)
    yield Receipt(told.unit, stage, told.status, "", 0, "", told.fingerprint, told.file, told.reason)


def _fetched(layout: Layout, unit: Unit, checksums: dict[str, str], absent: tuple[str, ...]) -> Receipt:
    kept = load_brick_files(layout.brick_folder(unit), unit)
    whole = kept is not None and (kept.checksums, kept.absent) == (checksums, absent)
    return Receipt(
        unit,
        "fetch",
        "done",
        path=layout.relative(layout.brick_folder(unit)),
        rows=len(checksums),
        fingerprint=files_fingerprint(checksums, absent),
        reason=f"absent: {', '.join(absent)}" if absent else "",
        counts=kept.counts() | {"bytes": kept.size} if kept is not None and whole else {},
    )


def cut_receipt(layout: Layout, unit: Unit, path: Path) -> Receipt:
    """What a store of stamps says of itself.

    Raises
    ------
    BadData
        If it does not read.
    """
    stored = store_summary(path)
    return Receipt(
        unit,
        "cut",
        "done",
        path=layout.relative(path),
        rows=stored["rows"],
        content_hash=stored["content_hash"],
        fingerprint=stored["fingerprint"],
        reason=words(stored["attrs"].get("unknown", {})),
        counts=stored["counts"],
    )


def _cut(layout: Layout, unit: Unit) -> Iterator[Receipt]:
    """The stamps of a brick, where they were kept."""
    for path in layout.stamps_of(unit)[:1]:
        if not store_fingerprint(path):
            return
        yield cut_receipt(layout, unit, path)
