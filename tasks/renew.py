"""Catalog, the short way: what of a brick's shard is still the same is carried over, and only the rest is answered anew.

A new head asks for its own columns only: from the embeddings in the shard where it needs no pixels, else from the stamps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.join import Origin, renew_shard
from catalogs.outcomes import check_totals, count, read_outcomes, read_outcomes_meta
from catalogs.provenance import provenance_id, read_inputs
from catalogs.shard import ShardMeta, read_shard, read_shard_meta
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.heads.base import head_class
from galpipe.heads.classes import Classes
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.folder import read_card
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.predict import Predictor
from galpipe.stamps.store import Store, store_fingerprint
from galpipe.unit import Receipt, Unit
from tasks.catalog import HELD, commit, declared_columns, found_damaged, inputs_of, predict_unit, predictor, receipt_of
from tasks.chain import Chain, chain, files_fingerprint
from tasks.context import RunContext, guarded
from tasks.recipe import shard_parts


@dataclass(frozen=True)
class _Kept:
    """A shard of which something can be carried over, and what its brick was made from."""

    meta: ShardMeta
    links: Chain
    made_from: dict[str, Any]
    stale: tuple[str, ...]
    """Heads of today's model that answer otherwise, or not yet."""


def can_begin_at_catalog(context: RunContext, unit: Unit, fetch: str) -> bool:
    """Whether a brick needs neither its files nor a cut: its stamps are kept, or its embeddings are all that is needed.

    Parameters
    ----------
    context : RunContext
    unit : Unit
    fetch : str
        Fingerprint of its files.
    """
    if context.force:
        return False
    if store_fingerprint(context.layout.stamps(unit, context.settings.cut.name)) == chain(fetch, context).cut:
        return True
    return _kept_without_pixels(context, unit, fetch) is not None


def _kept_without_pixels(context: RunContext, unit: Unit, fetch: str) -> _Kept | None:
    kept = _kept(context, unit, fetch)
    return kept if kept is not None and _without_pixels(context.model_folder, context.model_hash).issuperset(kept.stale) else None


@cache
def _without_pixels(folder: Path, model_hash: str) -> frozenset[str]:
    """Names of a model's heads that are answered from the embedding; none where a head's module is not here."""
    # the hash is part of the key: a folder whose weights changed is another model
    try:
        settings = ModelSettings.from_dict(read_card(folder)["settings"])
        kinds = [head_class(name) for name in settings.heads]
    except ConfigurationError:
        return frozenset()
    tasks = [] if Classes.needs_pixels else [task.name for task in settings.tasks]
    return frozenset([*(kind.name for kind in kinds if not kind.needs_pixels), *tasks])


def renew_unit(context: RunContext, unit: Unit, fetch: str = "") -> Receipt:
    """`tasks.catalog.predict_unit`, but for what the brick's shard already has as it would be now.

    Parameters
    ----------
    context : RunContext
    unit : Unit
        Its store lies under ``stamps/``, or its shard has all that is needed.
    fetch : str
        Fingerprint of its files, where it begins here (`can_begin_at_catalog`); else its store was cut just now.
    """
    return guarded(unit, "catalog", lambda: _renewed(context, unit, fetch))


def _renewed(context: RunContext, unit: Unit, fetch: str) -> Receipt:
    kept = None
    if not context.force:
        # catalogs share stamps: the store may be of another one's settings, and is not asked where no pixels are needed
        kept = _kept_without_pixels(context, unit, fetch) if fetch else None
        stored = store_fingerprint(context.layout.stamps(unit, context.settings.cut.name)) or ""
        kept = kept or _kept(context, unit, "", stored)
    return predict_unit(context, unit) if kept is None else _renew(context, kept)


def _kept(context: RunContext, unit: Unit, fetch: str, cut: str = "") -> _Kept | None:
    """What a shard has to carry over; None if its stamps, encoder or anything that all columns depend on is another now.

    Parameters
    ----------
    context : RunContext
    unit : Unit
    fetch, cut : str
        Fingerprint of the files, or of the stamps, that the brick is to be made from; empty: those of the shard.
    """
    try:
        meta = read_shard_meta(context.layout.shard(unit, context.name))
        told = read_outcomes_meta(context.layout.outcomes(unit, context.name))
        made_from = read_inputs(context.layout, context.name, meta.provenance_id)
    except (BadData, ConfigurationError):
        return None
    # cut off between outcomes and shard: these outcomes are not of these rows
    if told.fingerprint != meta.fingerprint:
        return None
    links = chain(files_fingerprint(made_from["files"], made_from["absent"]), context)
    now = shard_parts(context, links)
    if meta.parts.get("pixels") != now["pixels"] or fetch not in ("", links.fetch) or cut not in ("", links.cut):
        return None
    before = meta.parts["heads"]
    return _Kept(meta, links, made_from, tuple(name for name, told in now["heads"].items() if before.get(name) != told))


def _renew(context: RunContext, kept: _Kept) -> Receipt:
    layout, unit = context.layout, kept.meta.unit
    shard, place = layout.shard(unit, context.name), layout.outcomes(unit, context.name)
    try:
        rows, _ = read_shard(shard)
        outcomes = read_outcomes(place)
        check_totals(outcomes, rows.num_rows, unit)
    except BadData:
        # damaged: nothing of it is carried over, and without stamps to begin from the reason is told
        if store_fingerprint(layout.stamps(unit, context.settings.cut.name)) != kept.links.cut:
            raise
        return predict_unit(context, unit)
    if kept.meta.fingerprint == kept.links.catalog:
        # written by a run that was killed before it said so
        return receipt_of(context, kept.meta, rows, count(outcomes), sha256_file(shard))
    model = predictor(context)
    answers = _answers(context, model, kept, rows)
    carried = {"from": str(kept.meta.provenance_id), "but": list(kept.stale)}
    inputs = inputs_of(context, unit, kept.made_from["files"], kept.made_from["absent"]) | {"carried": carried}
    renewed = renew_shard(rows, answers, declared_columns(model), Origin(unit, provenance_id(inputs), MODEL_BANDS))
    meta = ShardMeta(unit, kept.links.catalog, parts=shard_parts(context, kept.links))
    return commit(context, (meta, inputs), renewed, outcomes)


def _answers(context: RunContext, model: Predictor, kept: _Kept, rows: pa.Table) -> pa.Table:
    """The columns of the heads that differ."""
    batch, unit = context.settings.infer.batch, kept.meta.unit
    if not any(model.model.head(name).needs_pixels for name in kept.stale):
        return model.predict_kept(rows, batch, kept.stale)
    path = context.layout.stamps(unit, context.settings.cut.name)
    if store_fingerprint(path) != kept.links.cut:
        raise BadData("the brick's stamps, for a head that needs pixels", "none", unit=str(unit), file=path.name)
    with found_damaged(path, unit):
        store = Store(path)
        held = batch * max(1, HELD // batch)
        answers = pa.concat_tables([model.predict(stamps, batch, kept.stale) for stamps in store.batches(held)])
        for binning in store.coarse:
            # read to be proven with the others
            deque(store.batches(held, binning), maxlen=0)
        store.check()
        if not store.sources()["source_id"].equals(rows["source_id"]):
            raise BadData("stamps of the shard's rows, in their order", "others", unit=str(unit), file=path.name)
    return answers
