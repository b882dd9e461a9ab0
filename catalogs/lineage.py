"""Where one row came from: its shard, what that was made from, the model that answered, and the versions that show the row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.hats import version_folder, versions
from catalogs.inventory import shard_files
from catalogs.provenance import describe, record_path
from catalogs.schema import HEALPIX, HEALPIX_ORDER
from catalogs.shard import ShardMeta, read_shard
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from galpipe.lvm.registry import ModelEntry, list_models
from galpipe.survey.bricks import BRICKS, names_of
from galpipe.survey.tractor import unpack_id
from galpipe.unit import STAMPS, Unit

_FILE = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)\.parquet$")


@dataclass(frozen=True)
class Row:
    """A row of a shard.

    Parameters
    ----------
    unit : Unit
    shard : Path
    table : pyarrow.Table
        One row, as stored.
    meta : ShardMeta
    """

    unit: Unit
    shard: Path
    table: pa.Table
    meta: ShardMeta


def locate(layout: Layout, name: str, source_id: int) -> Row:
    """The row of an id, in the shards as they are now.

    Raises
    ------
    ConfigurationError
        If no shard has it.
    BadData
        If the shard that has it does not read.
    """
    for unit, path in _candidates(layout, name, source_id):
        table, meta = read_shard(path)
        found = table.filter(pc.equal(table["source_id"], source_id))
        if found.num_rows:
            return Row(unit, path, found.slice(0, 1), meta)
    raise ConfigurationError(f"the provenance_id or source_id of a row of catalog {name!r}", repr(source_id))


def _candidates(layout: Layout, name: str, source_id: int) -> Iterator[tuple[Unit, Path]]:
    """Shards that may have an id: those of the brick that it names, then those of stamps from files, whose ids are hashes."""
    brickid = unpack_id(source_id)[1]
    if 1 <= brickid <= BRICKS:
        brick = str(names_of([brickid])[0])
        for path in sorted(layout.catalog(name).glob(f"*/*/{brick[:3]}/{brick}.parquet")):
            yield layout.unit_of_shard(path, name), path
    for unit, path in shard_files(layout, name):
        if unit.release == STAMPS:
            yield unit, path


def model_of(layout: Layout, model_hash: str) -> ModelEntry | None:
    """The model with a hash, in the package or under the root; None if it is in neither."""
    return next((entry for entry in list_models(layout.models) if entry.model_hash == model_hash), None)


def lineage(layout: Layout, name: str, identifier: int) -> dict[str, Any]:
    """Everything known of a provenance id, or of the row with a source id.

    Returns
    -------
    dict
        ``id``, ``inputs`` (files with sha256, settings, code version), ``runs`` (sorted run ids) and ``model`` (name, version, hash and
        the labels it learned from; None if the model is not here any more). For a row also ``source_id``, ``unit``, ``shard`` and
        ``published``: each version that shows it, and whether with this provenance.

    Raises
    ------
    ConfigurationError
        If the catalog has neither.
    BadData
        If a record or shard is damaged or missing.
    """
    of_row: dict[str, Any] = {}
    if not record_path(layout, name, identifier).exists():
        row = locate(layout, name, identifier)
        of_row = {"source_id": identifier, "unit": str(row.unit), "shard": layout.relative(row.shard)}
        of_row["published"] = list(_published(layout, name, row))
        identifier = row.meta.provenance_id
        if not record_path(layout, name, identifier).exists():
            path = record_path(layout, name, identifier)
            raise BadData(f"the record of provenance_id {identifier}", "none", unit=str(row.unit), file=str(path))
    told = describe(layout, name, identifier)
    entry = model_of(layout, str(told["inputs"].get("model", "")))
    return {**told, **of_row, "model": _model(entry) if entry else None}


def _model(entry: ModelEntry) -> dict[str, Any]:
    card = entry.card
    learned: dict[str, Any] = {key: card[key] for key in ("name", "version") if key in card}
    training = card.get("training")
    if isinstance(training, dict):
        flat = {**training, **(training.get("settings") or {})}
        learned["labels"] = {key: value for key, value in flat.items() if "label" in key or key == "real_sets"}
    return {"registered": entry.name, "hash": entry.model_hash, "sha256": card["sha256"], **learned}


def _published(layout: Layout, name: str, row: Row) -> Iterator[dict[str, Any]]:
    """The versions that show a row; one without a position is in none."""
    place, source = row.table[HEALPIX][0].as_py(), row.table["source_id"][0].as_py()
    if place is None:
        return
    for version in versions(layout, name):
        for path in version_folder(layout, name, version).glob("dataset/Norder=*/Dir=*/Npix=*.parquet"):
            match = _FILE.search(path.as_posix())
            if match is None or place >> 2 * (HEALPIX_ORDER - int(match[1])) != int(match[2]):
                continue
            found = pq.read_table(path, columns=["provenance_id"], filters=[("source_id", "=", source)], partitioning=None)
            for identifier in found["provenance_id"].to_pylist():
                yield {"version": version, "provenance_id": identifier, "same": identifier == row.meta.provenance_id}
