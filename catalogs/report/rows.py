"""What a report reads of a catalog: totals from footers, a few columns from the shards, whatever columns there are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogs import inventory
from catalogs.hats import INVENTORY, version_folder, versions
from catalogs.inventory import Inventory
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from galpipe.unit import Unit

MOST_SHARDS = 400
"""Shards that histograms are made from; of a larger catalog an even sample."""

UNIT = "unit"
"""Column of `Sample.table` that says which brick a row is of."""


@dataclass(frozen=True)
class Sample:
    """Some columns of a catalog's rows.

    Parameters
    ----------
    table : pyarrow.Table
        The wanted columns that the catalog has, and `UNIT`.
    schema : pyarrow.Schema
        Every column of the catalog; without fields where there is no shard.
    read, shards : int
        Shards that were read and that there are.
    """

    table: pa.Table
    schema: pa.Schema
    read: int
    shards: int

    def values(self, name: str) -> NDArray[np.float64]:
        """A numeric column as float64, NaN for null; empty where there is no such column."""
        if name not in self.table.column_names:
            return np.zeros(0)
        column = self.table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(column, np.float64)

    def unit_of(self, name: str) -> str:
        """The unit of a column, as the schema says it."""
        return field_text(self.schema, name, "unit")


def field_text(schema: pa.Schema, name: str, key: str) -> str:
    """A text of a column's metadata (``unit``, ``description``, ``learned``); empty where there is none."""
    metadata = schema.field(name).metadata if name in schema.names else None
    return (metadata or {}).get(key.encode(), b"").decode()


def take_inventory(layout: Layout, name: str) -> Inventory:
    """What the catalog consists of now; footers that the newest version remembers are not opened again."""
    known = None
    if versions(layout, name):
        try:
            known = inventory.load(version_folder(layout, name) / INVENTORY)
        except (ConfigurationError, OSError):
            # a killed publisher leaves no pointer, and footers say the same more slowly
            known = None
    return inventory.take(layout, name, known)


def read_sample(layout: Layout, name: str, stock: Inventory, wanted: Iterable[str]) -> Sample:
    """Read some columns of a catalog.

    Parameters
    ----------
    layout : Layout
    name : str
    stock : Inventory
    wanted : iterable of str
        Columns; those that the catalog lacks are left out.
    """
    filled = [entry for entry in stock.shards if entry.rows]
    if not filled:
        schema = pq.read_schema(layout.catalog(name) / stock.shards[0].path) if stock.shards else pa.schema([])
        return Sample(pa.table({UNIT: pa.array([], pa.string())}), schema, 0, len(stock.shards))
    step = max(1, -(-len(filled) // MOST_SHARDS))
    paths = [layout.catalog(name) / entry.path for entry in filled[::step]]
    schema = pq.read_schema(paths[0])
    columns = [column for column in dict.fromkeys(wanted) if column in schema.names]
    parts = [_part(path, columns, str(layout.unit_of_shard(path, name))) for path in paths]
    # a catalog that changes its model for another has both schemas for a while
    return Sample(pa.concat_tables(parts, promote_options="permissive"), schema, len(paths), len(filled))


def _part(path: Path, columns: Sequence[str], unit: str) -> pa.Table:
    present = [column for column in columns if column in pq.read_schema(path).names]
    table = pq.read_table(path, columns=present, partitioning=None).replace_schema_metadata(None)
    plain = pa.schema([item.remove_metadata() for item in table.schema])
    return table.cast(plain).append_column(UNIT, pa.array([unit] * table.num_rows, pa.string()))


def read_rows(layout: Layout, name: str, unit: Unit, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Whole rows of a brick, without embeddings, in the order of the ids; ids that are not there are left out."""
    path = layout.shard(unit, name)
    columns = [column for column in pq.read_schema(path).names if column != "embedding"]
    table = pq.read_table(path, columns=columns, filters=[("source_id", "in", list(ids))], partitioning=None)
    found = {row["source_id"]: row for row in table.to_pylist()}
    return [found[source] for source in ids if source in found]


def brick_states(stock: Inventory, failures: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Status of each brick by unit: what its outcomes file says, and what failed in this run over that."""
    states = {}
    for entry in stock.outcomes:
        release, region, _, file = entry.path.split("/")
        states[f"{release}/{region}/{file.split('.')[0]}"] = str(json.loads(entry.counts)["status"])
    states |= {str(item["unit"]): str(item["kind"]) for item in failures if item.get("unit")}
    return states


def outcome_totals(stock: Inventory) -> dict[str, Counter[str]]:
    """Sources by outcome, and by reason within each outcome: ``{"filtered": {"": 931, "faint": 800, ...}}``."""
    totals: dict[str, Counter[str]] = {}
    for entry in stock.outcomes:
        for key, count in json.loads(entry.counts)["counts"].items():
            status, _, reason = key.partition(":")
            totals.setdefault(status, Counter())[reason] += count
    return totals
