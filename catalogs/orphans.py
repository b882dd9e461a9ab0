"""Products that belong to nothing: stamps, files and provenance records of bricks that neither outcomes nor ledger know."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.ledger import SHARED_STAGES, Ledger
from catalogs.problem import Problem
from catalogs.provenance import read_inputs, records, run_files
from galpipe.commit import ASIDE
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from galpipe.unit import Unit


def orphans(layout: Layout, name: str, units: Collection[Unit], used: Collection[int], ledger: Ledger | None) -> Iterator[Problem]:
    """What belongs to nothing.

    Parameters
    ----------
    layout : Layout
    name : str
    units : collection of Unit
        Bricks that have outcomes or a shard in this catalog.
    used : collection of int
        Provenance ids of the catalog's shards.
    ledger : Ledger or None
    """
    known = {unit for stage in SHARED_STAGES for unit in ledger.done(stage)} if ledger else set[Unit]()
    others = [other for other in layout.catalogs() if other != name]

    def belongs(unit: Unit) -> bool:
        return unit in units or unit in known or any(layout.outcomes(unit, other).exists() for other in others)

    for what, products in (("stamps", layout.stores()), ("files", layout.brick_folders())):
        for unit, path in products:
            if not belongs(unit):
                text = f"expected outcomes or a ledger row of the brick whose {what} these are, got neither (run its region again)"
                yield Problem(str(unit), layout.relative(path), text)
    yield from _records(layout, name, units, used)
    yield from _left_over(layout, name)


def _records(layout: Layout, name: str, units: Collection[Unit], used: Collection[int]) -> Iterator[Problem]:
    """Records of bricks that are not in the catalog, and ids of runs without a record."""
    known = {str(unit) for unit in units}
    there: set[int] = set()
    for identifier, path in records(layout, name):
        there.add(identifier)
        if identifier in used:
            continue  # read with its shard
        try:
            unit = str(read_inputs(layout, name, identifier).get("unit", ""))
        except (BadData, ConfigurationError) as error:
            yield Problem("", layout.relative(path), str(error))
            continue
        if unit not in known:
            yield Problem(unit, layout.relative(path), "expected outcomes of the brick that this provenance record is of, got none")
    for path in run_files(layout, name):
        yield from _run(layout, path, there)


def _run(layout: Layout, path: Path, there: set[int]) -> Iterator[Problem]:
    try:
        ids = pq.read_table(path)["provenance_id"].to_numpy()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        yield Problem("", layout.relative(path), f"expected the provenance ids of a run, got {error}")
        return
    lost = ids[~np.isin(ids, np.fromiter(there, np.int64, len(there)))]
    if len(lost):
        yield Problem("", layout.relative(path), f"expected a record of each provenance id, got none of {len(lost)}, first {int(lost[0])}")


def _left_over(layout: Layout, name: str) -> Iterator[Problem]:
    for path in sorted([*layout.catalog(name).rglob(f"{ASIDE}*"), *layout.hats(name).glob(f"{ASIDE}*")]):
        yield Problem("", layout.relative(path), "expected no unfinished product while no run is at work, got one")
