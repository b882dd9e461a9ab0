"""Stamps that already exist: files to stamp stores, so that the same line serves them as bricks.

The unit is the brick that a stamp's position lies in, or a bucket of the content hash where no position is known. A store keeps
what it had: a file read again replaces itself, changed or not, other files are added.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from galpipe.commit import recover_folder
from galpipe.errors import BadData
from galpipe.stamps.external import ExternalSettings, read_stamps
from galpipe.stamps.result import CutResult, outcomes_table
from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.stamps.store import read_store, store_files, store_fingerprint, write_store
from galpipe.unit import NO_REGION, STAMPS, Receipt, Unit
from tasks.chain import chain, files_fingerprint
from tasks.context import RunContext

RELEASE = STAMPS
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


def ingest(context: RunContext, files: Sequence[Path], refused: Collection[Unit] = ()) -> Iterator[Receipt | Unit]:
    """Read files into stores.

    Parameters
    ----------
    context : RunContext
    files : sequence of Path
    refused : collection of Unit
        Units of earlier refusals that the ledger still has.

    Yields
    ------
    Receipt or Unit
        A receipt for each file or stamp that is refused, as soon as it is met, and for each store that is damaged; a unit each
        time its store was written; a receipt that says ``done`` for each unit of ``refused`` that went well now.
    """
    ingestion = _Ingestion(context, frozenset(refused))
    for path in files:
        bad = set()
        for found in read_stamps([path], ExternalSettings(context.settings.cut)):
            if isinstance(found, BadData):
                bad.add(found.file)
                yield refusal(found)
                continue
            ingestion.add(found)
            if ingestion.held >= HELD:
                yield from ingestion.write()
        if str(path) not in bad:
            ingestion.well.append(str(path))
    yield from ingestion.write()
    yield from ingestion.withdraw()


def refused_unit(file: str) -> Unit:
    """The unit that stands for a refused file, so that the ledger keeps one row for it."""
    return Unit(RELEASE, NO_REGION, f"refused-{hashlib.sha256(file.encode()).hexdigest()[:12]}")


def refusal(error: BadData) -> Receipt:
    """A refused file, under a unit of its own."""
    return Receipt(refused_unit(error.file), "cut", "bad_data", file=error.file, reason=str(error))


@dataclass
class _Ingestion:
    """Stamps on their way from files to stores."""

    context: RunContext
    refused: frozenset[Unit]
    waiting: dict[Unit, list[StampSet]] = field(default_factory=dict)
    held: int = 0
    well: list[str] = field(default_factory=list)
    """Files, and rows of lists, that were read well and are not yet in a store."""
    homes: dict[str, Unit] = field(default_factory=dict)
    """Unit that each file's stamp went to."""
    damaged: set[Unit] = field(default_factory=set)

    def add(self, found: StampSet) -> None:
        """Take in stamps that were read."""
        for unit, part in _by_unit(found):
            self.waiting.setdefault(unit, []).append(part)
            names = part.sources["file"].to_pylist()
            self.homes |= dict.fromkeys(names, unit)
            self.well += names
        self.held += len(found)

    def write(self) -> Iterator[Receipt | Unit]:
        """Bring everything that waits into its store, beside what the store has."""
        for unit, parts in sorted(self.waiting.items()):
            try:
                present = _stored(self.context, unit)
                _store(self.context, unit, _latest(concatenate([present, *parts] if present is not None else parts)))
            except BadData as error:
                names = {name for part in parts for name in part.sources["file"].to_pylist()}
                self.well = [name for name in self.well if name not in names]
                self.homes = {name: home for name, home in self.homes.items() if name not in names}
                yield from self._damage(unit, error)
                continue
            yield unit
            if unit in self.refused:
                yield Receipt(unit, "cut", "done")
        for name in dict.fromkeys(self.well):
            if refused_unit(name) in self.refused:
                yield Receipt(refused_unit(name), "cut", "done", file=name)
        self.waiting, self.held, self.well = {}, 0, []

    def withdraw(self) -> Iterator[Receipt | Unit]:
        """Take a changed file's earlier stamp out of other units' stores: another content or position is another unit."""
        for unit, path in _stores(self.context):
            try:
                names = store_files(path)
                stale = [name for name in names if name is not None and self.homes.get(name, unit) != unit]
                if stale:
                    present = read_store(path).stamps
                    kept = [row for row, name in enumerate(names) if name not in stale]
                    _store(self.context, unit, present.take(kept))
                    yield unit
            except BadData as error:
                yield from self._damage(unit, error)

    def _damage(self, unit: Unit, error: BadData) -> Iterator[Receipt]:
        """A store that cannot be read is left as it is: nothing else has the earlier files' stamps."""
        if unit not in self.damaged:
            self.damaged.add(unit)
            yield Receipt(unit, "cut", "bad_data", file=error.file, reason=f"{error}; delete it and give all its files again")


def _stores(context: RunContext) -> list[tuple[Unit, Path]]:
    """Every store of stamps from files, sorted."""
    sample = context.layout.stamps(unit_of(None, 0), context.settings.cut.name)
    found = sorted(sample.parent.parent.glob(f"*/[!.]*{sample.suffix}"))
    return [(Unit(RELEASE, NO_REGION, path.stem), path) for path in found]


def _by_unit(found: StampSet) -> Iterator[tuple[Unit, StampSet]]:
    rows: dict[Unit, list[int]] = defaultdict(list)
    names, ids = found.sources["brickname"].to_pylist(), found.sources["source_id"].to_pylist()
    for row, (name, source) in enumerate(zip(names, ids, strict=True)):
        rows[unit_of(name, source)].append(row)
    for unit, indices in rows.items():
        yield unit, found.take(indices)


def _stored(context: RunContext, unit: Unit) -> StampSet | None:
    """The stamps that a unit's store has; None where there is no store."""
    path = context.layout.stamps(unit, context.settings.cut.name)
    # what a killed run had moved aside is the only copy of earlier files' stamps; the run's lease keeps other writers away
    recover_folder(path)
    return read_store(path).stamps if path.exists() else None


def _store(context: RunContext, unit: Unit, stamps: StampSet) -> None:
    path = context.layout.stamps(unit, context.settings.cut.name)
    checksums = {f"{source:016x}": "content" for source in stamps.sources["source_id"].to_pylist()}
    stamps = replace(stamps, attrs={**stamps.attrs, "unit": str(unit), "checksums": checksums, "absent": []})
    fingerprint = chain(files_fingerprint(checksums, ()), context).cut
    # a file that was renamed changes no pixel, but its next content must be known as its successor
    if store_fingerprint(path) != fingerprint or store_files(path) != stamps.sources["file"].to_pylist():
        outcomes = outcomes_table(stamps.sources, np.full(len(stamps), "", dtype=object))
        write_store(path, CutResult(stamps, outcomes), fingerprint)


def _latest(stamps: StampSet) -> StampSet:
    """Each stamp once and each file once (the last one read), sorted by id so that the order of files does not show."""
    files, ids = stamps.sources["file"].to_pylist(), stamps.sources["source_id"].to_pylist()
    last = {name: source for name, source in zip(files, ids, strict=True) if name is not None}
    rows = {source: row for row, (name, source) in enumerate(zip(files, ids, strict=True)) if last.get(name, source) == source}
    return stamps.take([rows[source] for source in sorted(rows)])
