"""Check every total of a catalog against its source, every file against its hash, every value against the schema.

What is held in memory is one shard or partition, and a few numbers per brick: a release can be checked anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogs.inventory import mixture, outcomes_files, shard_files
from catalogs.ledger import Ledger
from catalogs.once import Once
from catalogs.orphans import orphans
from catalogs.outcomes import SCHEMA as OUTCOMES_SCHEMA
from catalogs.outcomes import OutcomesMeta, check_totals, count, read_outcomes, read_outcomes_meta
from catalogs.parquet import hash_schema
from catalogs.problem import Problem
from catalogs.provenance import read_inputs, record_path
from catalogs.published import VersionCheck
from catalogs.schema import HEALPIX
from catalogs.shard import ShardMeta, pixel_counts, read_shard
from catalogs.validity import schema_units, value_problems
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.layout import Layout
from galpipe.unit import STAMPS, Receipt, Unit

__all__ = ["Problem", "verify"]


def verify(layout: Layout, name: str, ledger: Ledger | None = None, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Check a catalog.

    Parameters
    ----------
    layout : Layout
    name : str
    ledger : Ledger, optional
        Also compare shards with what it recorded.
    progress : callable, optional
        Called with (bricks done, bricks).

    Returns
    -------
    list of Problem
        Empty when everything agrees. Nothing is changed.
    """
    shards, outcomes = dict(shard_files(layout, name)), dict(outcomes_files(layout, name))
    recorded = {receipt.unit: receipt for receipt in ledger.receipts("catalog", name)} if ledger else {}
    units = sorted(shards.keys() | outcomes.keys() | recorded.keys())
    whole = _Whole(layout, name)
    problems: list[Problem] = []
    for done, unit in enumerate(units, 1):
        books = _Books(whole, unit, shards.get(unit), outcomes.get(unit))
        problems += books.problems()
        if ledger:
            problems += books.of_ledger(recorded.get(unit))
        if progress:
            progress(done, len(units))
    if mixed := mixture(whole.made_by):
        problems.append(Problem("", layout.relative(layout.catalog(name)), f"expected shards of one model and configuration, got {mixed}"))
    problems += orphans(layout, name, shards.keys() | outcomes.keys(), whole.used, ledger)
    problems += whole.version.problems()
    return problems


class _Whole:
    """What the shards of a catalog have in common, gathered one by one."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name
        self.once, self.version, self.units = Once(), VersionCheck(layout, name), schema_units()
        self.used: set[int] = set()
        self.made_by: list[tuple[str, str]] = []


class _Books:
    """One brick's shard, outcomes, provenance and ledger row, side by side."""

    def __init__(self, whole: _Whole, unit: Unit, shard: Path | None, outcomes: Path | None) -> None:
        self.whole, self.unit, self.shard, self.outcomes = whole, unit, shard, outcomes
        self.ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self.meta: ShardMeta | None = None

    def _problem(self, path: Path | None, what: str) -> Problem:
        return Problem(str(self.unit), self.whole.layout.relative(path) if path else "", what)

    def problems(self) -> Iterator[Problem]:
        """All but the ledger's."""
        if self.shard is not None:
            for what in self._of_shard(self.shard):
                yield self._problem(self.shard, what)
        yield from self._of_outcomes()

    def _of_shard(self, path: Path) -> Iterator[str]:
        try:
            table, meta = read_shard(path)
        except BadData as error:
            yield str(error)
            return
        self.meta, self.ids = meta, table["source_id"].drop_null().to_numpy()
        self.whole.made_by.append((meta.model, meta.binding))
        if meta.unit != self.unit:
            yield f"expected unit {self.unit} in the footer, got {meta.unit}"
        if meta.rows != table.num_rows:
            yield f"expected {meta.rows} rows by the footer, got {table.num_rows}"
        if dict(meta.pixels) != pixel_counts(table[HEALPIX]):
            yield "expected the footer's rows per pixel, got others"
        if (came := _content_hash(path, meta.schema_hash)) != meta.content_hash:
            yield f"expected content {meta.content_hash} by the footer, got {came}"
        yield from value_problems(table, self.whole.units)
        yield from self._of_provenance(table, meta)
        yield from self.whole.once.problems(self.unit, path, self.ids)
        self.whole.version.add(self.unit, path, table, meta.content_hash)

    def _of_provenance(self, table: pa.Table, meta: ShardMeta) -> Iterator[str]:
        self.whole.used.add(meta.provenance_id)
        strangers = sorted(set(pc.unique(table["provenance_id"]).to_pylist()) - {meta.provenance_id})
        if strangers:
            yield f"expected provenance_id {meta.provenance_id} of the footer in every row, got {strangers[:3]} too"
        layout, name = self.whole.layout, self.whole.name
        if not record_path(layout, name, meta.provenance_id).exists():
            yield f"expected a record of provenance_id {meta.provenance_id}, got none"
            return
        try:
            told = read_inputs(layout, name, meta.provenance_id)
        except (BadData, ConfigurationError) as error:
            yield str(error)
            return
        if told.get("unit") != str(self.unit):
            yield f"expected the provenance record of {self.unit}, got that of {told.get('unit')}"
        if meta.model and told.get("model") != meta.model:
            yield f"expected model {meta.model} in the provenance record, got {told.get('model')}"

    def _of_outcomes(self) -> Iterator[Problem]:
        if self.outcomes is None:
            if self.shard is not None:
                yield self._problem(self.shard, "expected an outcomes file beside the shard, got none")
            return
        try:
            told, table = read_outcomes_meta(self.outcomes), read_outcomes(self.outcomes)
            check_totals(table, len(self.ids), self.unit)
        except BadData as error:
            yield self._problem(self.outcomes, str(error))
            return
        if told.unit != self.unit:
            yield self._problem(self.outcomes, f"expected unit {self.unit} in the footer, got {told.unit}")
        if (came := _content_hash(self.outcomes, hash_schema(OUTCOMES_SCHEMA))) != told.content_hash:
            yield self._problem(self.outcomes, f"expected content {told.content_hash} by the footer, got {came}")
        if dict(told.counts) != count(table):
            yield self._problem(self.outcomes, f"expected the footer's counts {dict(told.counts)}, got {count(table)}")
        yield from self._agreement(told, table)

    def _agreement(self, told: OutcomesMeta, table: pa.Table) -> Iterator[Problem]:
        predicted = table.filter(pc.equal(table["status"], "predicted"))["source_id"].to_numpy()
        if len(np.setxor1d(predicted, self.ids)):
            yield self._problem(self.outcomes, "expected the shard's ids among the predicted outcomes, got others")
        if self.shard is not None and told.status != "done":
            yield self._problem(
                self.shard, f"expected no shard, as the brick ended as {told.status}: {told.reason}; got one of an earlier run"
            )
        if self.meta is not None and told.fingerprint != self.meta.fingerprint:
            yield self._problem(self.outcomes, f"expected fingerprint {self.meta.fingerprint} of the shard, got {told.fingerprint}")

    def of_ledger(self, receipt: Receipt | None) -> Iterator[Problem]:
        """What the ledger says otherwise."""
        if receipt is None:
            if self.shard is not None:
                yield self._problem(self.shard, "expected a ledger row, got none (galpipe ledger rebuild)")
            return
        if self.outcomes is None and self.unit.release != STAMPS:
            file = self.whole.layout.outcomes(self.unit, self.whole.name)
            yield self._problem(file, f"expected the outcomes of a brick that the ledger records as {receipt.status}, got no file")
        if receipt.status != "done":
            return
        if receipt.path and self.shard is None:
            yield Problem(str(self.unit), receipt.path, f"expected the shard of {receipt.rows} rows that the ledger records, got no file")
        if self.shard is not None and receipt.content_hash:
            came = sha256_file(self.shard)
            if came != receipt.content_hash:
                yield self._problem(self.shard, f"expected sha256 {receipt.content_hash} by the ledger, got {came}")


def _content_hash(path: Path, schema_hash: str) -> str:
    """The content hash of a file that `catalogs.parquet.write_parquet` wrote, from its bytes: all before the footer, and the schema."""
    with path.open("rb") as handle:
        handle.seek(-8, 2)
        left = handle.tell() - int.from_bytes(handle.read(4), "little")
        handle.seek(0)
        content = hashlib.sha256()
        while left > 0 and (block := handle.read(min(left, 1 << 20))):
            content.update(block)
            left -= len(block)
    content.update(schema_hash.encode())
    return content.hexdigest()
