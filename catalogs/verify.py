"""Check every total of a catalog against its source, and every shard against its hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogs.derive import healpix29
from catalogs.hats import CURRENT, manifest, version_folder
from catalogs.inventory import mixture, outcomes_files, shard_files
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, check_totals, count, read_outcomes, read_outcomes_meta
from catalogs.partitions import left_out
from catalogs.schema import HEALPIX
from catalogs.shard import pixel_counts, read_shard
from galpipe.commit import ASIDE
from galpipe.errors import BadData
from galpipe.fingerprint import sha256_file
from galpipe.layout import Layout
from galpipe.unit import Receipt, Unit

SUM_TOLERANCE = 0.02
"""How far the fractions of one question may be from adding up to 1 (float16 heads round)."""

_NEEDS_UNIT = ("ra", "dec", "flux_g", "mag_g", "shape_r", "pixscale")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    unit : str
        The brick; empty for the catalog as a whole.
    file : str
        Relative to the root.
    what : str
        Expected and found.
    """

    unit: str
    file: str
    what: str


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
    problems: list[Problem] = []
    shards, outcomes = dict(shard_files(layout, name)), dict(outcomes_files(layout, name))
    recorded = {receipt.unit: receipt for receipt in ledger.receipts("catalog", name)} if ledger else {}
    ids: list[NDArray[np.int64]] = []
    placed = 0
    made_by: list[tuple[str, str]] = []
    units = sorted(shards.keys() | outcomes.keys() | recorded.keys())
    for done, unit in enumerate(units, 1):
        books = _Books(layout, unit, shards.get(unit), outcomes.get(unit), recorded.get(unit) if ledger else None, ledger is not None)
        problems += books.problems()
        ids.append(books.ids)
        placed += books.placed
        made_by.append(books.made_by)
        if progress:
            progress(done, len(units))
    problems += _duplicates(ids, layout.relative(layout.catalog(name)))
    if mixed := mixture(made_by):
        problems.append(Problem("", layout.relative(layout.catalog(name)), f"expected shards of one model and configuration, got {mixed}"))
    problems += _left_over(layout, name)
    problems += _published(layout, name, placed)
    return problems


class _Books:
    """One brick's shard, outcomes and ledger row, side by side."""

    def __init__(
        self, layout: Layout, unit: Unit, shard: Path | None, outcomes: Path | None, receipt: Receipt | None, has_ledger: bool
    ) -> None:
        self.layout, self.unit, self.shard, self.outcomes = layout, unit, shard, outcomes
        self.receipt, self.has_ledger = receipt, has_ledger
        self.ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self.placed = 0
        self.made_by = ("", "")

    def _problem(self, path: Path | None, what: str) -> Problem:
        return Problem(str(self.unit), self.layout.relative(path) if path else "", what)

    def problems(self) -> list[Problem]:
        found = list(self._of_shard())
        found += self._of_outcomes()
        if self.has_ledger:
            found += self._of_ledger()
        return found

    def _of_shard(self) -> Iterator[Problem]:
        self.fingerprint = ""
        if self.shard is None:
            return
        try:
            table, meta = read_shard(self.shard)
        except BadData as error:
            yield self._problem(self.shard, str(error))
            return
        self.fingerprint, self.made_by = meta.fingerprint, (meta.model, meta.binding)
        self.ids = table["source_id"].drop_null().to_numpy()
        self.placed = table.num_rows - table[HEALPIX].null_count
        if meta.unit != self.unit:
            yield self._problem(self.shard, f"expected unit {self.unit} in the footer, got {meta.unit}")
        if meta.rows != table.num_rows:
            yield self._problem(self.shard, f"expected {meta.rows} rows by the footer, got {table.num_rows}")
        if dict(meta.pixels) != pixel_counts(table[HEALPIX]):
            yield self._problem(self.shard, "expected the footer's rows per pixel, got others")
        for what in _value_problems(table):
            yield self._problem(self.shard, what)

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
        if self.shard is not None and self.fingerprint and told.fingerprint != self.fingerprint:
            yield self._problem(self.outcomes, f"expected fingerprint {self.fingerprint} of the shard, got {told.fingerprint}")

    def _of_ledger(self) -> Iterator[Problem]:
        receipt = self.receipt
        if receipt is None:
            if self.shard is not None:
                yield self._problem(self.shard, "expected a ledger row, got none (rebuild the ledger)")
            return
        if receipt.status == "done" and receipt.path and self.shard is None:
            yield Problem(str(self.unit), receipt.path, f"expected the shard of {receipt.rows} rows that the ledger records, got no file")
        if self.shard is not None and receipt.status == "done" and receipt.content_hash:
            came = sha256_file(self.shard)
            if came != receipt.content_hash:
                yield self._problem(self.shard, f"expected sha256 {receipt.content_hash} by the ledger, got {came}")


def _value_problems(table: pa.Table) -> Iterator[str]:
    """Positions, ranges, sums and units of a shard."""
    ra, dec = (np.array(table[name].cast(pa.float64()).to_numpy()) for name in ("ra", "dec"))
    if not healpix29(ra, dec).equals(table[HEALPIX].combine_chunks()):
        yield f"expected {HEALPIX} of (ra, dec), got others"
    for item in table.schema:
        fraction = item.name.endswith("_fraction") or item.name.startswith("valid_frac_")
        if fraction and pa.types.is_floating(item.type):
            extremes = pc.min_max(table[item.name]).as_py()
            if extremes["min"] is not None and not -1e-3 <= extremes["min"] <= extremes["max"] <= 1 + 1e-3:
                yield f"expected {item.name} from 0 to 1, got {extremes['min']:.4g} to {extremes['max']:.4g}"
    for question, answers in _questions(table.schema.names).items():
        values = np.array([table[name].cast(pa.float64()).to_numpy() for name in answers])
        # a NaN or null answer leaves its row out: the question was not asked
        bad = int((np.abs(values.sum(axis=0) - 1) > SUM_TOLERANCE).sum())
        if bad:
            yield f"expected the fractions of {question} to add up to 1, got other sums in {bad} rows"
    for name in _NEEDS_UNIT:
        if name in table.schema.names and b"unit" not in (table.schema.field(name).metadata or {}):
            yield f"expected a unit in the metadata of {name}, got none"


def _questions(names: list[str]) -> Mapping[str, list[str]]:
    """Fraction columns by question, ``{question}_{answer}_fraction``; a question is what has ``{question}_proportion_asked``."""
    asked = [name.removesuffix("_proportion_asked") for name in names if name.endswith("_proportion_asked")]
    fractions = {question: [name for name in names if name.startswith(f"{question}_") and name.endswith("_fraction")] for question in asked}
    return {question: answers for question, answers in fractions.items() if answers}


def _duplicates(ids: list[NDArray[np.int64]], file: str) -> list[Problem]:
    every = np.concatenate(ids) if ids else np.zeros(0, np.int64)
    values, times = np.unique(every, return_counts=True)
    repeated = values[times > 1]
    if not len(repeated):
        return []
    return [Problem("", file, f"expected each source_id once, got {len(repeated)} of them more often, first {int(repeated[0])}")]


def _left_over(layout: Layout, name: str) -> list[Problem]:
    found = [*layout.catalog(name).rglob(f"{ASIDE}*"), *layout.hats(name).glob(f"{ASIDE}*")]
    return [Problem("", layout.relative(path), "expected no unfinished product while no run is at work, got one") for path in sorted(found)]


def _published(layout: Layout, name: str, placed: int) -> list[Problem]:
    """The current version's own totals, and against the shards if they have not changed since."""
    if not (layout.hats(name) / CURRENT).exists():
        return []
    folder = version_folder(layout, name)
    told, file = manifest(folder), layout.relative(layout.hats(name) / folder.name)
    files = sorted(folder.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"))
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    problems = []
    if rows != told["rows"]:
        problems.append(Problem("", file, f"expected {told['rows']} published rows, got {rows}"))
    gone = left_out(told.get("resolved", {}))
    if rows != placed - gone:
        less = f", less {gone} that other bricks have" if gone else ""
        what = f"expected {placed - gone} rows, those of the shards that have a position{less}, got {rows} (publish again?)"
        problems.append(Problem("", file, what))
    return problems
