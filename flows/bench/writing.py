"""The price of the books: 50 brick shards with outcomes, provenance and ledger, over pyarrow writing the same tables plainly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.derive import healpix29
from catalogs.join import FROM_THE_MODEL
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, check_totals, finish, write_outcomes
from catalogs.parquet import PARQUET
from catalogs.provenance import record
from catalogs.schema import HEALPIX, assemble
from catalogs.shard import ShardMeta, write_shard
from flows.bench.brick import MODEL
from flows.bench.figures import Figure, Size, in_turns
from galpipe.columns import Column
from galpipe.commit import replace_together
from galpipe.config import Settings
from galpipe.heads import coarse_baseline, sep_baseline
from galpipe.layout import Layout
from galpipe.lvm.predict import Predictor
from galpipe.lvm.registry import model_folder
from galpipe.survey.bricks import Brick, brick_by_name, names_of
from galpipe.unit import Receipt, Unit

BRICKS, ROWS, FILTERED = 50, 300, 900
"""Bricks, rows of each, and sources of each that were not selected: as in a typical brick of the survey."""

NAME, FIRST_BRICK = "bench", 330_368


@dataclass(frozen=True)
class WideBrick:
    """One brick's rows as the catalog stage has them, and its sources as the cut left them."""

    unit: Unit
    rows: pa.Table
    cut: pa.Table
    inputs: dict[str, Any]

    def outcomes(self) -> pa.Table:
        """What became of every source."""
        return finish(self.cut, self.rows["source_id"].to_pylist(), unit=self.unit)


def run(size: Size) -> list[Figure]:
    """Write the same bricks both ways, in turns, each time into an empty folder."""
    schema = assemble(_heads())
    bricks = list(make_bricks(schema))
    outcomes = [brick.outcomes() for brick in bricks]
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        root = Path(place)
        sides = {"plain": lambda: plain(_fresh(root), bricks, outcomes), "books": lambda: books(_fresh(root), bricks)}
        seconds = in_turns(sides, size.repeats)
        written = plain(_fresh(root), bricks, outcomes)
    wide = f"{len(bricks)} bricks, {BRICKS * ROWS} rows of {len(schema)} columns, {written / 1e6:.0f} MB"
    return [
        Figure("books_over_plain", seconds["books"] / seconds["plain"], "ratio", f"{wide}; with outcomes, ledger and provenance"),
        Figure("plain", seconds["plain"], "s", "pyarrow writing the same shards and outcomes, without fsync"),
        Figure("books", seconds["books"], "s", "totals checked, hashed, synced, renamed, in the ledger stage by stage"),
    ]


def plain(folder: Path, bricks: list[WideBrick], outcomes: list[pa.Table]) -> int:
    """Shards and outcomes by pyarrow alone, with the same codec and row groups; the bytes written."""
    written = 0
    for brick, sources in zip(bricks, outcomes, strict=True):
        for ending, table in (("parquet", brick.rows), ("outcomes.parquet", sources)):
            path = folder / f"{brick.unit.brick}.{ending}"
            pq.write_table(table, path, row_group_size=table.num_rows, **PARQUET)
            written += path.stat().st_size
    return written


def books(folder: Path, bricks: list[WideBrick]) -> None:
    """Shards and outcomes as the catalog stage writes them, each stage's receipt in the ledger as it arrives."""
    layout = Layout(folder)
    with Ledger(layout.ledger) as ledger:
        for brick in bricks:
            for stage in ("fetch", "cut"):
                ledger.record([Receipt(brick.unit, stage, "done", f"{stage}/{brick.unit}", ROWS, "0" * 64, "0" * 32)], "bench", NAME)
            ledger.record([_write(layout, brick)], "bench", NAME)


def _write(layout: Layout, brick: WideBrick) -> Receipt:
    unit, fingerprint, rows = brick.unit, "f" * 32, brick.rows.num_rows
    outcomes = brick.outcomes()
    check_totals(outcomes, rows, unit, brick.cut.num_rows)
    shard = layout.shard(unit, NAME)
    with replace_together() as together:
        identifier = record(layout, NAME, brick.inputs, together)
        meta = ShardMeta(unit, fingerprint, identifier, "0" * 16, {"predicted": rows}, binding=fingerprint)
        counts = write_outcomes(layout.outcomes(unit, NAME), outcomes, OutcomesMeta(unit, fingerprint=fingerprint), together)
        _, content_hash = write_shard(shard, brick.rows, meta, together)
    return Receipt(unit, "catalog", "done", layout.relative(shard), rows, content_hash, fingerprint, counts=counts)


def _fresh(root: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=root))


def _heads() -> list[Column]:
    """What the shipped model and the measurements beside it declare."""
    declared = Predictor.load(model_folder(MODEL, Path()), device="cpu", threads=1).columns()
    return [item for item in (*declared, *sep_baseline.columns(), *coarse_baseline.columns()) if item.name not in FROM_THE_MODEL]


def make_bricks(schema: pa.Schema, bricks: int = BRICKS, rows: int = ROWS) -> Iterator[WideBrick]:
    """Random rows of a schema in neighbouring bricks; random numbers compress as badly as measured ones.

    Parameters
    ----------
    schema : pyarrow.Schema
    bricks, rows : int
        How many bricks, and rows of each.
    """
    random = np.random.default_rng(5)
    for name in names_of(np.arange(FIRST_BRICK, FIRST_BRICK + bricks)):
        area = brick_by_name(str(name))
        places = _places(area, rows + FILTERED, random)
        columns = {item.name: random_array(item.type, rows, random) for item in schema} | {
            key: values.slice(0, rows) for key, values in places.items()
        }
        columns[HEALPIX] = healpix29(columns["ra"].to_numpy(), columns["dec"].to_numpy())
        status = pa.array(["selected"] * rows + ["filtered"] * FILTERED)
        cut = pa.table({**places, "status": status, "reason": pa.array([""] * rows + ["faint"] * FILTERED)})
        unit = Unit("dr9", "south", area.name)
        files = {f"legacysurvey-{area.name}-{number}.fits.fz": random.bytes(32).hex() for number in range(11)}
        settings = asdict(Settings().cut) | asdict(Settings().selection)
        inputs = {"unit": str(unit), "files": files, "absent": [], "cut": settings, "model": "0" * 16, "code": "bench"}
        yield WideBrick(unit, pa.table([columns[item.name].cast(item.type) for item in schema], schema=schema), cut, inputs)


def _places(area: Brick, rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    objid = np.arange(rows)
    return {
        "release": pa.array(np.full(rows, 9011), pa.int32()),
        "brickid": pa.array(np.full(rows, area.brickid), pa.int32()),
        "objid": pa.array(objid, pa.int32()),
        "source_id": pa.array((np.int64(9011) << 42) | (np.int64(area.brickid) << 22) | objid, pa.int64()),
        "ra": pa.array(random.uniform(area.ra1, area.ra2, rows)),
        "dec": pa.array(random.uniform(area.dec1, area.dec2, rows)),
    }


def random_array(kind: pa.DataType, rows: int, random: np.random.Generator) -> pa.Array:
    """Random values of any type of the catalog, shape (rows,)."""
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(random_array(kind.value_type, rows * kind.list_size, random), kind.list_size)
    if pa.types.is_list(kind):
        long = 192 if pa.types.is_float16(kind.value_type) else 3
        offsets = pa.array(np.arange(rows + 1) * long, pa.int32())
        return pa.ListArray.from_arrays(offsets, random_array(kind.value_type, rows * long, random)).cast(kind)
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([random_array(item.type, rows, random) for item in kind], fields=list(kind))
    if pa.types.is_boolean(kind):
        return pa.array(random.random(rows) < 0.1)
    if pa.types.is_string(kind):
        return pa.array(random.choice(["g", "r", "grz"], rows))
    if pa.types.is_integer(kind):
        return pa.array(random.integers(0, 4, rows)).cast(kind)
    return pa.array(random.normal(size=rows).astype(np.float16 if pa.types.is_float16(kind) else np.float32)).cast(kind)
