"""The stamps behind a catalog's rows: which are kept, where they lie, and one of them with its pixels."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.query import Catalog
from catalogs.serve.limits import NotThere
from catalogs.stampindex import store_of
from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.stamps.footprint import corners
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import Store
from galpipe.unit import Unit

KEPT_STORES = 64
"""Stores whose tables stay in memory (about a megabyte each)."""

UNIT_COLUMNS = ("release_name", "region", "brickname")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shelf:
    """A brick's store and the way from ids to its rows."""

    store: Store
    rows: Mapping[int, int]
    size: int
    pixscale: float
    bands: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Shelf:
        """Open a store.

        Raises
        ------
        BadData
            If it does not read.
        """
        store = Store(path)
        # no pixels: an empty set has the form of the stamps
        like = store.rows([])
        ids = store.sources()["source_id"].to_pylist()
        return cls(store, {source: row for row, source in enumerate(ids)}, like.size, like.pixscale, like.bands)

    def corners(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Corners of some stamps; see `galpipe.stamps.footprint.corners`."""
        return corners(self.store.sources().take(list(rows)), self.store.stamp_attrs, self.size, self.pixscale)


@dataclass(frozen=True)
class Stamp:
    """One stamp with what its row says.

    Parameters
    ----------
    pixels : StampSet
        Of this stamp alone.
    row : mapping
        ``source_id``, unit columns, ``provenance_id``.
    cut : str
        Name of the cut settings.
    """

    pixels: StampSet
    row: Mapping[str, Any]
    cut: str
    fingerprint: str


class StampShelves:
    """The stores of one catalog's bricks; may be used by many threads.

    Parameters
    ----------
    layout : Layout
    name : str
        The catalog, whose provenance records say which stamps its rows were predicted from; without one the newest are taken.
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout, self._name = layout, name
        self._shelves: OrderedDict[tuple[Path, int], Shelf] = OrderedDict()
        self._lock = threading.Lock()

    def shelf(self, row: Mapping[str, Any]) -> Shelf | None:
        """The store that a row was predicted from; None where it is not kept, or was cut again since.

        Parameters
        ----------
        row : mapping
            With `UNIT_COLUMNS` and ``provenance_id``.

        Raises
        ------
        BadData
            If it does not read.
        """
        if None in (names := [row[name] for name in UNIT_COLUMNS]):
            return None
        unit = Unit(*names)
        found = store_of(self._layout, self._name, unit, row["provenance_id"])
        paths = [found[0]] if found else self._layout.stamps_of(unit)
        if not paths or not (paths[0] / "zarr.json").exists():
            return None
        shelf = self._opened(paths[0])
        return shelf if found is None or shelf.store.attrs["fingerprint"] == found[1] else None

    def _opened(self, path: Path) -> Shelf:
        key = (path, (path / "zarr.json").stat().st_mtime_ns)
        with self._lock:
            if key in self._shelves:
                self._shelves.move_to_end(key)
                return self._shelves[key]
        shelf = Shelf.open(path)
        with self._lock:
            self._shelves[key] = shelf
            while len(self._shelves) > KEPT_STORES:
                self._shelves.popitem(last=False)
        return shelf

    def shelf_or_none(self, row: Mapping[str, Any]) -> tuple[Shelf | None, bool]:
        """As `shelf`; a damaged store is None too, and said so by the second value and in the log."""
        try:
            return self.shelf(row), False
        except BadData as error:
            _LOG.warning("%s", error)
            return None, True

    def stamp(self, catalog: Catalog, source_id: int) -> Stamp:
        """The stamp of a source.

        Raises
        ------
        NotThere
            If the catalog has no such row, or its stamp was not kept.
        BadData
            If its store does not read.
        """
        found = catalog.by_id([source_id], ["source_id", *UNIT_COLUMNS, "provenance_id"]).to_pylist()
        if not found:
            raise NotThere("a source_id of this version of the catalog", f"{source_id}")
        row = found[0]
        shelf = self.shelf(row)
        place = None if shelf is None else shelf.rows.get(source_id)
        if shelf is None or place is None:
            unit = "/".join(str(row[name]) for name in UNIT_COLUMNS)
            raise NotThere(
                f"the stamp of source {source_id}",
                f"none: the stamps of {unit} were not kept (galpipe run --keep stamps keeps them), or were cut again since",
            )
        return Stamp(shelf.store.rows([place]), row, shelf.store.path.parents[3].name, str(shelf.store.attrs["fingerprint"]))
