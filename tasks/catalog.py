"""Infer and catalog: a brick's stamps through the model once, its rows and outcomes to disk. Runs on Dask workers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalogs.join import FROM_THE_MODEL, Origin, build_shard
from catalogs.outcomes import OutcomesMeta, check_totals, empty, finish, write_outcomes
from catalogs.provenance import provenance_id, record, record_run
from catalogs.shard import ShardMeta, read_shard_meta, write_shard
from galpipe.columns import Column
from galpipe.commit import remove_folder, replace_together
from galpipe.errors import BadData
from galpipe.heads import coarse_baseline, sep_baseline
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.predict import Predictor
from galpipe.stamps.store import Store
from galpipe.unit import STAMPS, Receipt, Unit
from tasks.chain import Chain, binding_hash, chain, files_fingerprint
from tasks.context import RunContext, guarded
from tasks.recipe import shard_parts

_LOADING = threading.Lock()

HELD = 512
"""Stamps in memory at a time, about: whole batches of the model."""


@cache
def _load(folder: Path, model_hash: str, threads: int) -> Predictor:
    # the hash is part of the key: a folder whose weights changed is another model
    return Predictor.load(folder, threads=threads)


def predictor(context: RunContext) -> Predictor:
    """The worker's model: loaded once per process and kept, because torch does not give memory back."""
    with _LOADING:
        return _load(context.model_folder, context.model_hash, context.settings.infer.threads)


def predict_unit(context: RunContext, unit: Unit) -> Receipt:
    """Predict every stamp of a brick and write its shard and outcomes.

    Parameters
    ----------
    context : RunContext
    unit : Unit
        Its store lies under ``stamps/``.

    Returns
    -------
    Receipt
        ``rows`` counts predicted galaxies; ``counts`` has the outcomes by status, which add up to ``sources``.
    """
    return guarded(unit, "catalog", lambda: _predict(context, unit))


def _predict(context: RunContext, unit: Unit) -> Receipt:
    layout = context.layout
    path = layout.stamps(unit, context.settings.cut.name)
    model = predictor(context)
    with found_damaged(path, unit):
        store = Store(path)
        links = _links(context, store)
        predictions = _answers(store, model, context.settings.infer.batch)
    inputs = inputs_of(context, unit, store.stamp_attrs["checksums"], store.stamp_attrs["absent"])
    rows = build_shard(store.sources(), predictions, declared_columns(model), Origin(unit, provenance_id(inputs), MODEL_BANDS))
    outcomes = finish(store.outcomes, rows["source_id"].to_pylist(), unit=unit)
    check_totals(outcomes, rows.num_rows, unit, store.stamp_attrs.get("tractor_rows"))
    meta = ShardMeta(unit, links.catalog, parts=shard_parts(context, links))
    return commit(context, (meta, inputs), rows, outcomes)


def declared_columns(model: Predictor) -> list[Column]:
    """The columns that are answered from pixels, beside those that every catalog has."""
    declared = (*model.columns(), *sep_baseline.columns(), *coarse_baseline.columns())
    return [column for column in declared if column.name not in FROM_THE_MODEL]


def commit(context: RunContext, origin: tuple[ShardMeta, Mapping[str, Any]], rows: pa.Table, outcomes: pa.Table) -> Receipt:
    """Write a brick's provenance, outcomes and shard.

    Parameters
    ----------
    context : RunContext
    origin : tuple of ShardMeta and mapping
        Unit, fingerprint and parts, the rest is filled in; and everything that the rows were made from.
    rows, outcomes : pyarrow.Table
    """
    meta, inputs = origin
    layout, unit = context.layout, meta.unit
    shard = layout.shard(unit, context.name)
    full = replace(meta, model=context.model_hash, counts={"predicted": rows.num_rows}, binding=binding_hash(context))
    with replace_together() as together:
        full = replace(full, provenance_id=record(layout, context.name, inputs, together))
        ended = OutcomesMeta(unit, fingerprint=meta.fingerprint)
        counts = write_outcomes(layout.outcomes(unit, context.name), outcomes, ended, together)
        # the last one to get its name: where the shard is, so is what belongs to it
        _, content_hash = write_shard(shard, rows, full, together)
    return receipt_of(context, full, rows, counts, content_hash)


def receipt_of(context: RunContext, meta: ShardMeta, rows: pa.Table, counts: dict[str, int], content_hash: str) -> Receipt:
    """The receipt of a brick whose shard is there."""
    path = context.layout.relative(context.layout.shard(meta.unit, context.name))
    # a model of one task finds no objects
    detections = int(pc.sum(rows["n_detections"]).as_py() or 0) if "n_detections" in rows.column_names else 0
    totals = counts | {"detections": detections}
    return Receipt(meta.unit, "catalog", "done", path, rows.num_rows, content_hash, meta.fingerprint, counts=totals)


def _answers(store: Store, model: Predictor, batch: int) -> pa.Table:
    """Everything that is answered from the pixels, a row per stamp; `HELD` stamps at a time, in whole batches."""
    held, parts = batch * max(1, HELD // batch), []
    for stamps in store.batches(held):
        answers = model.predict(stamps, batch=batch)
        parts.append(_beside(answers, sep_baseline.sep_columns(stamps)))
    coarse = (stamps for binning in store.coarse for stamps in store.batches(held, binning))
    second = coarse_baseline.coarse_columns(store.sources(), coarse)
    # all pixels were seen: nothing is written that was made from others than were cut
    store.check()
    return _beside(pa.concat_tables(parts), second)


def _beside(table: pa.Table, more: pa.Table) -> pa.Table:
    for name in more.column_names:
        table = table.append_column(more.schema.field(name), more[name])
    return table


@contextmanager
def found_damaged(store: Path, unit: Unit) -> Iterator[None]:
    """A damaged store is taken away, so that the next run cuts it again instead of trusting its name.

    A store of files' stamps stays as it is: it cannot be made again without its files.
    """
    try:
        yield
    except BadData:
        if unit.release != STAMPS:
            remove_folder(store)
        raise


def _links(context: RunContext, store: Store) -> Chain:
    """The chain of a store: its fetch fingerprint again from the checksums it carries."""
    attrs, stored = store.stamp_attrs, store.attrs["fingerprint"]
    links = chain(files_fingerprint(attrs["checksums"], attrs["absent"]), context)
    if links.cut != stored:
        raise RuntimeError(f"store was cut as {stored}, the run expects {links.cut}")
    return links


def inputs_of(context: RunContext, unit: Unit, checksums: Mapping[str, str], absent: Sequence[str]) -> dict[str, Any]:
    """Everything a row of this brick was made from, for its provenance id: never a time, a host or a run."""
    settings = context.settings
    return {
        "unit": str(unit),
        "files": dict(checksums),
        "absent": list(absent),
        "cut": asdict(settings.cut),
        "selection": settings.selection.identity(),
        "infer": {"batch": settings.infer.batch},
        "model": context.model_hash,
        "code": context.code_version,
    }


def record_without_rows(context: RunContext, receipt: Receipt) -> None:
    """Write the outcomes file of a brick that ended without rows; an earlier good shard is kept as it is.

    Parameters
    ----------
    context : RunContext
    receipt : Receipt
        Its status is not ``done``.
    """
    layout = context.layout
    if layout.shard(receipt.unit, context.name).exists():
        return
    meta = OutcomesMeta(receipt.unit, receipt.status, receipt.file, receipt.reason, receipt.fingerprint, stage=receipt.stage)
    write_outcomes(layout.outcomes(receipt.unit, context.name), empty(), meta)


def note_run(context: RunContext, units: Iterable[Unit]) -> None:
    """Write beside the provenance records which of them this run made, from the shards' footers."""
    identifiers = [read_shard_meta(context.layout.shard(unit, context.name)).provenance_id for unit in units]
    if identifiers:
        record_run(context.layout, context.name, context.run_id, identifiers)
