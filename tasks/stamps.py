"""Stamps that already exist: files to stamp stores, so that the same line serves them as bricks.

The unit is the brick that a stamp's position lies in, or a bucket of the content hash where no position is known. A store keeps
what it had: the same file read again replaces itself, other files are added.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from galpipe.errors import BadData
from galpipe.stamps.cut import CutResult, outcomes_table
from galpipe.stamps.external import ExternalSettings, read_stamps
from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.stamps.store import read_store, store_fingerprint, write_store
from galpipe.unit import NO_REGION, Receipt, Unit
from tasks.chain import chain, files_fingerprint
from tasks.context import RunContext

RELEASE = "stamps"
HELD = 2000
"""Stamps held in memory before they are written."""


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as given, folders as the files in them (hidden ones left out), sorted, each once."""
    found: set[Path] = set()
    for path in paths:
        inside = [item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")] if path.is_dir() else [path]
        found.update(inside)
    return sorted(found)


def unit_of(brickname: str | None, source_id: int) -> Unit:
    """The unit that a stamp belongs to."""
    return Unit(RELEASE, NO_REGION, brickname or f"nopos-{source_id % 256:02x}")


def ingest(context: RunContext, files: Sequence[Path]) -> Iterator[Receipt | Unit]:
    """Read files into stores.

    Yields
    ------
    Receipt or Unit
        A receipt for each file or stamp that is refused, as soon as it is met; a unit each time its store was written.
    """
    waiting: dict[Unit, list[StampSet]] = defaultdict(list)
    held = 0
    for found in read_stamps(files, ExternalSettings(context.settings.cut)):
        if isinstance(found, BadData):
            yield refusal(found)
            continue
        for unit, part in _by_unit(found):
            waiting[unit].append(part)
        held += len(found)
        if held >= HELD:
            yield from _write(context, waiting)
            held = 0
    yield from _write(context, waiting)


def refusal(error: BadData) -> Receipt:
    """A refused file, under a unit of its own so that the ledger keeps one row for it."""
    label = hashlib.sha256(error.file.encode()).hexdigest()[:12]
    return Receipt(Unit(RELEASE, NO_REGION, f"refused-{label}"), "cut", "bad_data", file=error.file, reason=str(error))


def _by_unit(found: StampSet) -> Iterator[tuple[Unit, StampSet]]:
    rows: dict[Unit, list[int]] = defaultdict(list)
    names, ids = found.sources["brickname"].to_pylist(), found.sources["source_id"].to_pylist()
    for row, (name, source) in enumerate(zip(names, ids, strict=True)):
        rows[unit_of(name, source)].append(row)
    for unit, indices in rows.items():
        yield unit, found.take(indices)


def _write(context: RunContext, waiting: dict[Unit, list[StampSet]]) -> Iterator[Unit]:
    for unit, parts in sorted(waiting.items()):
        path = context.layout.stamps(unit, context.settings.cut.name)
        if store_fingerprint(path):
            parts = [read_store(path).stamps, *parts]
        merged = _latest(concatenate(parts))
        checksums = {f"{source:016x}": "content" for source in merged.sources["source_id"].to_pylist()}
        merged = replace(merged, attrs={**merged.attrs, "unit": str(unit), "checksums": checksums, "absent": []})
        fingerprint = chain(files_fingerprint(checksums, ()), context).cut
        if store_fingerprint(path) != fingerprint:
            outcomes = outcomes_table(merged.sources, np.full(len(merged), "", dtype=object))
            write_store(path, CutResult(merged, outcomes), fingerprint)
        yield unit
    waiting.clear()


def _latest(stamps: StampSet) -> StampSet:
    """Each stamp once (the last one read), sorted by id so that the order of files does not show."""
    ids = stamps.sources["source_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    last = np.append(ids[order][1:] != ids[order][:-1], True) if len(order) else np.zeros(0, bool)
    return stamps.take(order[last])
