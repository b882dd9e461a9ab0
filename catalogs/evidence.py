"""What the files of a root prove about its bricks, without a ledger: receipts as the run would have recorded them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catalogs.inventory import outcomes_files, shard_files
from catalogs.outcomes import OutcomesMeta, read_outcomes_meta
from catalogs.provenance import read_inputs, record_path
from catalogs.shard import ShardMeta, read_shard_meta
from galpipe.fingerprint import files_fingerprint, sha256_file
from galpipe.layout import Layout
from galpipe.survey.files import load_brick_files
from galpipe.unit import Receipt, Unit

NOT_FETCHED = "stamps"
"""Release name of stamps that came as files."""


def is_there(layout: Layout, name: str) -> bool:
    """Whether a catalog has any file that proves something."""
    return next(outcomes_files(layout, name), None) is not None


def receipts(layout: Layout, name: str) -> Iterator[Receipt]:
    """Receipts of a catalog's bricks, by what lies in its folder.

    A brick whose shard and outcomes disagree was cut off between them, and counts as not done. What was fetched follows from a
    shard's provenance record; for a brick without rows from its kept files, where they were kept.

    Raises
    ------
    BadData
        If a file does not read.
    """
    shards = dict(shard_files(layout, name))
    for unit, path in outcomes_files(layout, name):
        told, shard = read_outcomes_meta(path), shards.get(unit)
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
    relative = layout.relative(shard)
    yield Receipt(meta.unit, "catalog", "done", relative, meta.rows, sha256_file(shard), meta.fingerprint, counts=counts)


def _without_rows(layout: Layout, told: OutcomesMeta) -> Iterator[Receipt]:
    files = load_brick_files(layout.brick_folder(told.unit), told.unit)
    if files is not None:
        yield _fetched(layout, told.unit, files.checksums, files.absent)
    # nothing to do is found out by the cut, and settled there
    stage = "cut" if told.status == "no_work" else "catalog"
    yield Receipt(told.unit, stage, told.status, "", 0, "", told.fingerprint, told.file, told.reason, dict(told.counts))


def _fetched(layout: Layout, unit: Unit, checksums: dict[str, str], absent: tuple[str, ...]) -> Receipt:
    return Receipt(
        unit,
        "fetch",
        "done",
        path=layout.relative(layout.brick_folder(unit)),
        rows=len(checksums),
        fingerprint=files_fingerprint(checksums, absent),
        reason=f"absent: {', '.join(absent)}" if absent else "",
    )
