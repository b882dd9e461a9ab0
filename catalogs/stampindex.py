"""Where the stamp of each published galaxy is: an extension of the catalog, joined by ``source_id``.

Pixels stay in the stores they were cut into; a version holds, partition by partition, which store and which row of it each galaxy was
predicted from. A store counts only if its fingerprint is the one that the provenance record of the row leads to. Galaxies whose stamps
were not kept, or were cut again since, are absent from the index, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from catalogs.hatsfiles import STAMPS
from catalogs.inventory import Entry
from catalogs.provenance import read_inputs
from catalogs.schema import HEALPIX
from galpipe.config import CutSettings
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import files_fingerprint, fingerprint
from galpipe.layout import Layout
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import Store, store_fingerprint, store_summary
from galpipe.stamps.storewriter import SOURCES
from galpipe.unit import Unit


def _field(name: str, kind: pa.DataType, description: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"description": description} | ({"unit": unit} if unit else {}))


INDEX = pa.schema(
    [
        _field(HEALPIX, pa.int64(), "NESTED HEALPix pixel of (ra, dec) at order 29"),
        _field("source_id", pa.int64(), "Id of the galaxy, as in the catalog"),
        _field("ra", pa.float64(), "Right ascension, ICRS", "deg"),
        _field("dec", pa.float64(), "Declination, ICRS", "deg"),
        _field("store", pa.string(), "Zarr store of the brick's stamps, relative to the root folder"),
        _field("row", pa.int32(), "Index of the stamp in the store's arrays image, invvar and mask, from 0"),
        _field("brickname", pa.string(), "Brick name"),
        _field("store_fingerprint", pa.string(), "Hash of everything that the store was made from; its attribute 'fingerprint'"),
        _field("store_content_hash", pa.string(), "sha256 of the store's arrays and tables; its attribute 'content_hash'"),
    ]
)
"""Columns of the extension."""


@dataclass(frozen=True)
class Kept:
    """A store whose stamps a shard was predicted from.

    Parameters
    ----------
    entry : Entry
        The shard.
    path : str
        Relative to the root.
    fingerprint, content_hash : str
    """

    entry: Entry
    path: str
    fingerprint: str
    content_hash: str


def kept_stores(layout: Layout, name: str, shards: Iterable[Entry]) -> dict[str, Kept]:
    """Stores that are still there, by the path of the shard that was predicted from them.

    Raises
    ------
    BadData
        If a provenance record is damaged.
    """
    if not (layout.root / "stamps").is_dir():
        return {}
    return {entry.path: kept for entry in shards if (kept := _kept(layout, name, entry)) is not None}


def _kept(layout: Layout, name: str, entry: Entry) -> Kept | None:
    unit = layout.unit_of_shard(layout.catalog(name) / entry.path, name)
    if not layout.stamps_of(unit):
        return None
    found = store_of(layout, name, unit, entry.provenance_id)
    if found is None or store_fingerprint(found[0]) != found[1]:
        return None
    path, wanted = found
    return Kept(entry, layout.relative(path), wanted, store_summary(path)["content_hash"])


def store_of(layout: Layout, name: str, unit: Unit, provenance_id: int) -> tuple[Path, str] | None:
    """Where the stamps of a row's brick would lie, and the fingerprint of the store that the row was predicted from.

    Parameters
    ----------
    layout : Layout
    name : str
    unit : Unit
    provenance_id : int
        Of the row.

    Returns
    -------
    tuple or None
        None where no record says how its stamps were cut.
    """
    try:
        inputs = read_inputs(layout, name, provenance_id)
    except ConfigurationError:
        return None
    if "cut" not in inputs:
        return None
    path = layout.stamps(unit, CutSettings(**inputs["cut"] | {"bands": tuple(inputs["cut"]["bands"])}).name)
    made_from = files_fingerprint(inputs["files"], inputs["absent"])
    return path, fingerprint("cut", {"cut": inputs["cut"], "selection": inputs["selection"], "fetch": made_from})


def index_rows(layout: Layout, partition: Path, kept: Sequence[Kept]) -> pa.Table:
    """The index of one partition, in its order; galaxies without a kept stamp are left out.

    Parameters
    ----------
    layout : Layout
    partition : Path
        File of the published galaxies.
    kept : sequence of Kept
        Stores of the shards with rows in it.
    """
    places = {store.entry.provenance_id: (store, _rows_by_id(layout.root / store.path)) for store in kept}
    columns = [HEALPIX, "source_id", "ra", "dec", "brickname", "provenance_id"]
    rows = []
    for row in pq.read_table(partition, columns=columns, partitioning=None).to_pylist():
        store, by_id = places.get(row.pop("provenance_id"), (None, {}))
        if store is not None and row["source_id"] in by_id:
            where = {"store": store.path, "row": by_id[row["source_id"]]}
            rows.append(row | where | {"store_fingerprint": store.fingerprint, "store_content_hash": store.content_hash})
    return pa.Table.from_pylist(rows, schema=INDEX)


def _rows_by_id(store: Path) -> dict[int, int]:
    try:
        ids = pq.read_table(store / SOURCES, columns=["source_id"], partitioning=None)["source_id"].to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable stamp store", str(error), file=str(store)) from error
    return {source: row for row, source in enumerate(ids)}


def find_stamps(version: Path, ids: Sequence[int]) -> pa.Table:
    """Where the stamps of some galaxies are, in the order of `INDEX`'s rows; ids without a kept stamp give no row.

    Parameters
    ----------
    version : Path
        From `catalogs.hats.version_folder`.
    ids : sequence of int
    """
    files = sorted((version / STAMPS / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))
    if not files:
        return INDEX.empty_table()
    dataset = pds.dataset([str(path) for path in files], schema=INDEX, format="parquet")
    return dataset.to_table(filter=pc.field("source_id").isin(np.asarray(ids, np.int64)))


def read_stamp(layout: Layout, version: Path, source_id: int) -> StampSet:
    """The stamp that a published row was predicted from: image, inverse variance, mask and its row of the store's sources.

    Parameters
    ----------
    layout : Layout
    version : Path
        From `catalogs.hats.version_folder`.
    source_id : int

    Returns
    -------
    StampSet
        Of one stamp.

    Raises
    ------
    ConfigurationError
        If the version has no kept stamp of this id.
    BadData
        If the store is gone, was cut again since, or does not read.
    """
    found = find_stamps(version, [source_id]).to_pylist()
    if not found:
        raise ConfigurationError(f"a stamp of source {source_id} kept with {version.name}", "none (not a published id, or not kept)")
    where: dict[str, Any] = found[0]
    path = layout.root / where["store"]
    if (told := store_fingerprint(path)) != where["store_fingerprint"]:
        raise BadData(f"the store that was published, fingerprint {where['store_fingerprint']}", told or "no store", file=str(path))
    stamps = Store(path).rows([where["row"]])
    if (came := stamps.sources["source_id"][0].as_py()) != source_id:
        raise BadData(f"source {source_id} in row {where['row']}", f"{came}", file=str(path))
    return stamps
