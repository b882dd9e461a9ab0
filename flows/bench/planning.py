"""Planning a rerun of a whole release against a full ledger: 366,898 bricks, as many as DR10 has."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from catalogs.ledger import Ledger
from flows.bench.figures import Figure, Size, peak_bytes
from galpipe.config import Settings
from galpipe.fingerprint import files_fingerprint
from galpipe.layout import Layout
from galpipe.survey.bricks import BRICKS, geometry_of, names_of
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import open_release
from galpipe.unit import Receipt, Unit
from tasks.chain import chain
from tasks.context import RunContext
from tasks.plan import find_changes
from tasks.recipe import remember_recipe

WHOLE_RELEASE = 366_898
RELEASE, REGION, NAME = "dr10", "south", "main"

CHANGED = 598
"""Bricks that the ledger knows otherwise than they are now: as many as DR10.1 replaced."""


def run(size: Size) -> list[Figure]:
    """Fill a ledger and a root, then plan in a process of its own, whose memory is measured.

    Raises
    ------
    RuntimeError
        If the plan does not find exactly the bricks that changed.
    """
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        root = Path(place)
        bricks = fill(root, WHOLE_RELEASE)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured = [pool.apply(plan_once, (root,)) for _ in range(size.repeats)]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            others = [pool.apply(plan_once, (root, "e" * 16)) for _ in range(size.repeats)]
    for item, expected in [*((item, min(CHANGED, bricks)) for item in measured), *((item, bricks) for item in others)]:
        if (item.to_do, item.explained) != (expected, expected):
            raise RuntimeError(f"expected {expected} bricks to do for another encoder, got {item.to_do}, {item.explained} of them so")
    one, all_ = _medians(measured), _medians(others)
    return [
        Figure("planning", one["plan"] + one["rest"], "s", f"region, brick table and ledger; {bricks} bricks, {CHANGED} of them to do"),
        Figure("ledger_over_rows", one["rest"] / one["rows"], "ratio", "finding what is to do, and why, over reading the ledger's rows"),
        Figure("peak_memory", one["peak"] / 1e9, "GB", "of the planning process"),
        Figure("planning_all", all_["plan"] + all_["rest"], "s", "the same with another model: every brick is to be done"),
        Figure("peak_memory_all", all_["peak"] / 1e9, "GB", "of the planning process then"),
    ]


def _medians(measured: list[Planned]) -> dict[str, float]:
    return {name: float(np.median([getattr(item, name) for item in measured])) for name in ("plan", "rest", "rows", "peak")}


@dataclass(frozen=True)
class Planned:
    """One plan.

    Parameters
    ----------
    plan, rest, rows : float
        Seconds: of the plan, of comparing it with the ledger and saying why, of reading the ledger's rows alone.
    peak : int
        Bytes.
    to_do, explained : int
        Bricks that are not up to date, and those of them of which the encoder is named as what changed.
    """

    plan: float
    rest: float
    rows: float
    peak: int
    to_do: int
    explained: int


def fill(root: Path, bricks: int) -> int:
    """A release of that many bricks without images, every one of them done: ledger rows and (empty) shards.

    Returns
    -------
    int
        Bricks.
    """
    ids = np.unique(np.linspace(1, BRICKS, bricks).astype(np.int64))
    names = [str(name) for name in names_of(ids)]
    _write_tree(root / RELEASE, ids, names)
    context = bench_context(root)
    for run in (_earlier(context), context):
        remember_recipe(run)
    with Ledger(context.layout.ledger) as ledger:
        ledger.record(_receipts(context, names), "bench", NAME)
    for brick in names:
        shard = context.layout.shard(Unit(RELEASE, REGION, brick), NAME)
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.touch()
    return len(names)


def bench_context(root: Path, model: str = "0" * 16) -> RunContext:
    """A run that needs no model."""
    return RunContext(Layout(root).root, NAME, "bench", Settings(), root, model, "bench")


def _earlier(context: RunContext) -> RunContext:
    """The run that made the bricks that are not up to date."""
    return replace(context, model_hash="f" * 16)


def _receipts(context: RunContext, names: list[str]) -> Iterator[Receipt]:
    for number, brick in enumerate(names):
        unit = Unit(RELEASE, REGION, brick)
        links = chain(files_fingerprint({f"tractor-{brick}.fits": f"{number:064x}"}, ()), context)
        old = _earlier(context) if number < CHANGED else context
        yield Receipt(unit, "fetch", "done", fingerprint=links.fetch)
        yield Receipt(unit, "cut", "done", fingerprint=links.cut)
        yield Receipt(unit, "catalog", "done", fingerprint=chain(links.fetch, old).catalog)


def _write_tree(tree: Path, ids: np.ndarray[tuple[int], np.dtype[np.int64]], names: list[str]) -> None:
    columns = [fits.Column("brickname", "8A", array=np.array(names)), fits.Column("brickid", "J", array=ids)]
    columns += [fits.Column(name, "D", array=values) for name, values in geometry_of(ids).items()]
    columns.append(fits.Column("survey_primary", "L", array=np.ones(len(ids), bool)))
    columns += [fits.Column(f"nexp_{band}", "I", array=np.ones(len(ids), np.int16)) for band in ("g", "r", "z")]
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(content)
    (tree / REGION / "coadd").mkdir(parents=True)
    (tree / REGION / f"survey-bricks-{RELEASE}-{REGION}.fits.gz").write_bytes(gzip.compress(content.getvalue(), 1))


def plan_once(root: Path, model: str = "0" * 16) -> Planned:
    """Plan a rerun by a model, as ``galpipe run --dry-run`` does."""
    context = bench_context(root, model)
    started = time.perf_counter()
    plan = make_plan(open_release(str(root / RELEASE)), "all")
    planned = time.perf_counter()
    with Ledger(context.layout.ledger) as ledger:
        told = find_changes(context, ledger, plan.units).as_dict()
        compared = time.perf_counter()
        for stage in ("fetch", "cut", "catalog"):
            for _ in ledger.states(stage, NAME, RELEASE):
                pass
    explained = sum(cause["bricks"] for cause in told["causes"] if cause["cause"] == "encoder")
    return Planned(planned - started, compared - planned, time.perf_counter() - compared, peak_bytes(), told["to_do"], explained)
