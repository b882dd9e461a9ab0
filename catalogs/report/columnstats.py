"""Every column of a catalog in one pass: counts, nulls, extremes with the galaxies that have them, and a random sample of rows.

Memory is that of one batch, the sample and the extremes, whatever the catalog holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogs.extent import floats
from catalogs.maps import ASKED
from galpipe.unit import Unit

Floats = NDArray[np.float64]

SAMPLE = 20_000
"""Rows that histograms are drawn from: all of a smaller catalog."""
EXTREMES = 4
"""Galaxies shown at each end of a column."""
MOST_TEXTS = 200
"""Distinct texts of a column that are counted; those that appear later are counted together."""
OTHERS = "(others)"


@dataclass(frozen=True)
class Pick:
    """A galaxy at an end of a column; its brick is None for a stamp that came without one."""

    value: float
    source_id: int
    unit: Unit | None


@dataclass
class ColumnFacts:
    """What one column holds.

    Parameters
    ----------
    rows, known : int
        Rows; those with a value that is neither null nor NaN.
    low, high, total : float
        Smallest, largest and sum of a number's values; NaN, NaN and 0 where there is none.
    texts : Counter
        Of a column of texts: rows by text.
    lowest, highest : list of Pick
        The galaxies at the ends, the outermost first; empty for columns that were not asked for.
    """

    rows: int = 0
    known: int = 0
    low: float = float("nan")
    high: float = float("nan")
    total: float = 0.0
    texts: Counter[str] = field(default_factory=Counter)
    lowest: list[Pick] = field(default_factory=list)
    highest: list[Pick] = field(default_factory=list)

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return self.rows - self.known

    @property
    def mean(self) -> float:
        """Mean of the values that are known."""
        return self.total / self.known if self.known else float("nan")


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type has a number per row."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


class ColumnSums:
    """Adds up batches of rows.

    Parameters
    ----------
    schema : pyarrow.Schema
    picked : collection of str
        Columns whose extreme galaxies are wanted.
    seed : int
        Of the sample: the same seed and rows give the same sample, in whatever order the rows come.
    """

    def __init__(self, schema: pa.Schema, picked: Collection[str], seed: int = 0) -> None:
        self.schema = pa.schema([item for item in schema if not pa.types.is_nested(item.type)])
        self.nested = tuple(item.name for item in schema if pa.types.is_nested(item.type))
        self.facts = {name: ColumnFacts() for name in self.schema.names}
        self._picked, self._seed = frozenset(picked), seed
        self._sample: pa.Table | None = None
        self._keys: NDArray[np.uint64] = np.zeros(0, np.uint64)

    @property
    def sample(self) -> pa.Table:
        """The sampled rows, in random order."""
        return self.schema.empty_table() if self._sample is None else self._sample

    def add(self, table: pa.Table) -> None:
        """Add rows, with any of the columns."""
        for item in self.schema:
            facts = self.facts[item.name]
            facts.rows += table.num_rows
            if item.name not in table.column_names:
                continue
            if is_number(item.type) or pa.types.is_boolean(item.type):
                self._number(item.name, floats(table, item.name), table)
            else:
                column = table[item.name]
                facts.known += len(column) - column.null_count
                _count_texts(facts.texts, column)
        self._draw(table)

    def _number(self, name: str, values: Floats, table: pa.Table) -> None:
        facts, good = self.facts[name], np.isfinite(values)
        known = values[good]
        facts.known += len(known)
        if not len(known):
            return
        facts.low = float(np.fmin(facts.low, known.min()))
        facts.high = float(np.fmax(facts.high, known.max()))
        facts.total += float(known.sum())
        if name in self._picked:
            rows = np.flatnonzero(good & _asked(name, table))
            facts.lowest = _extremes(facts.lowest, values, rows, table)
            facts.highest = [
                Pick(-item.value, item.source_id, item.unit) for item in _extremes(_negative(facts.highest), -values, rows, table)
            ]

    def _draw(self, table: pa.Table) -> None:
        """Keep the rows whose hashed ids are the smallest."""
        keys = hashed(table["source_id"].to_numpy(), self._seed)
        limit = self._keys.max() if len(self._keys) >= SAMPLE else None
        rows = np.arange(len(keys)) if limit is None else np.flatnonzero(keys < limit)
        if not len(rows):
            return
        fresh = pa.table(
            {
                item.name: table[item.name] if item.name in table.column_names else pa.nulls(table.num_rows, item.type)
                for item in self.schema
            }
        ).take(pa.array(rows))
        whole = fresh.cast(self.schema) if self._sample is None else pa.concat_tables([self._sample, fresh.cast(self.schema)])
        together = np.concatenate([self._keys, keys[rows]])
        order = np.argsort(together, kind="stable")[:SAMPLE]
        self._sample, self._keys = whole.take(pa.array(order)).combine_chunks(), together[order]


def hashed(ids: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A well-mixed 64-bit hash of each id (splitmix64, Steele et al. 2014, OOPSLA)."""
    with np.errstate(over="ignore"):
        value = ids.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(value ^ (value >> np.uint64(31)))


def _asked(name: str, table: pa.Table) -> NDArray[np.bool_]:
    """Rows that a vote fraction says something about: those whose question most volunteers would be asked."""
    column = f"{name.split('_')[0]}_proportion_asked"
    if not name.endswith("_fraction") or column not in table.column_names:
        return np.ones(table.num_rows, bool)
    return floats(table, column) >= ASKED


def _negative(picks: list[Pick]) -> list[Pick]:
    return [Pick(-item.value, item.source_id, item.unit) for item in picks]


def _extremes(before: list[Pick], values: Floats, rows: NDArray[np.int64], table: pa.Table) -> list[Pick]:
    """The smallest of the values and of those before, the smallest first; of equal ones those of the smallest id."""
    if len(rows) > EXTREMES:
        # all that could be among the smallest, equal ones included
        limit = np.partition(values[rows], EXTREMES - 1)[EXTREMES - 1]
        if len(before) == EXTREMES:
            limit = min(limit, before[-1].value)
        rows = rows[values[rows] <= limit]
    ids = table["source_id"].to_numpy()
    rows = rows[np.lexsort((ids[rows], values[rows]))][:EXTREMES]
    chosen = table.select(["release_name", "region", "brickname"]).take(pa.array(rows)).to_pylist()
    fresh = [Pick(float(values[row]), int(ids[row]), unit_of_row(text)) for row, text in zip(rows, chosen, strict=True)]
    return sorted([*before, *fresh], key=lambda item: (item.value, item.source_id))[:EXTREMES]


def unit_of_row(row: Mapping[str, Any]) -> Unit | None:
    """The brick that a row is of; None where it names none."""
    return Unit(row["release_name"], row["region"], row["brickname"]) if row["brickname"] else None


def _count_texts(texts: Counter[str], column: pa.ChunkedArray) -> None:
    for item in pc.value_counts(column.drop_null()).to_pylist():
        text = str(item["values"])
        texts[text if text in texts or len(texts) < MOST_TEXTS else OTHERS] += item["counts"]
