"""What a version holds and what it lacks, and why: totals by region, and a row per brick."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.inventory import Inventory
from catalogs.outcomes import STATUSES
from catalogs.parquet import PARQUET

COMPLETENESS = "completeness.json"
"""Totals by region in a version's folder."""

BRICKS = "completeness.parquet"
"""A row per brick in a version's folder."""

BY_BRICK = pa.schema(
    [
        pa.field("release", pa.string(), metadata={"description": "Name of the survey release"}),
        pa.field("region", pa.string(), metadata={"description": "Region of the release"}),
        pa.field("brick", pa.string(), metadata={"description": "Brick name"}),
        pa.field("status", pa.string(), metadata={"description": "done, no_work, or the kind of error that ended the brick"}),
        pa.field("file", pa.string(), metadata={"description": "File concerned, for a status other than done"}),
        pa.field("reason", pa.string(), metadata={"description": "Why, for a status other than done"}),
        pa.field("sources", pa.int64(), metadata={"description": "Rows of the brick's Tractor table"}),
        *(pa.field(status, pa.int64(), metadata={"description": f"Sources that were {status}"}) for status in STATUSES),
        pa.field("rows", pa.int64(), metadata={"description": "Rows of the brick's shard"}),
        pa.field("rows_without_position", pa.int64(), metadata={"description": "Rows of the shard that HATS cannot hold"}),
        pa.field("counts", pa.string(), metadata={"description": "JSON: sources by status and reason"}),
    ]
)


def by_brick(stock: Inventory) -> pa.Table:
    """One row per brick that was dealt with, sorted; schema `BY_BRICK`."""
    shards = {entry.path: entry for entry in stock.shards}
    rows = []
    for entry in stock.outcomes:
        release, region, _, file = entry.path.split("/")
        told = json.loads(entry.counts)
        shard = shards.get(entry.path.removesuffix(".outcomes.parquet") + ".parquet")
        row = {"release": release, "region": region, "brick": file.partition(".")[0], "status": told["status"]}
        row |= {name: told.get(name, "") for name in ("file", "reason")}
        row |= {name: told["counts"].get(name, 0) for name in ("sources", *STATUSES)}
        row |= {"rows": shard.rows, "rows_without_position": shard.rows - shard.placed_rows} if shard else {}
        rows.append(dict.fromkeys(("rows", "rows_without_position"), 0) | row | {"counts": json.dumps(told["counts"], sort_keys=True)})
    return pa.Table.from_pylist(rows, schema=BY_BRICK)


def totals(regions: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Totals of a whole version from those of its regions."""
    whole: Counter[str] = Counter()
    for counts in regions.values():
        whole.update(counts)
    return dict(sorted(whole.items()))


def write_completeness(stock: Inventory, folder: Path) -> dict[str, int]:
    """Write both files into the folder of a version that is being made; returns the totals of the whole."""
    regions = stock.completeness()
    (folder / COMPLETENESS).write_text(json.dumps(regions, indent=1) + "\n")
    pq.write_table(by_brick(stock), folder / BRICKS, **PARQUET)
    return totals(regions)


def read_by_brick(folder: Path) -> pa.Table | None:
    """A version's rows by brick; None for one of an older galpipe, which has none."""
    path = folder / BRICKS
    return pq.read_table(path, schema=BY_BRICK) if path.exists() else None
