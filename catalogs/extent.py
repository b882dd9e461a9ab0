"""The rows that a report is of: one published version, or the shards as they are now, and of these a region of the sky.

Rows come batch by batch, so that memory does not grow with the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogs import inventory
from catalogs.hats import INVENTORY, version_folder
from catalogs.inventory import Inventory
from catalogs.schema import NESTED
from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.skymap.inside import inside
from galpipe.survey.bricks import ids_at, known_brick
from galpipe.survey.region import Everything, Region
from galpipe.unit import Unit

BATCH = 32_768
"""Rows in memory at a time."""

POSITION = ("ra", "dec")
WHERE = ("release_name", "region", "brickname", "source_id", "brickid", *POSITION)
"""Columns that say which row it is; every batch has those of them that the catalog has."""


@dataclass(frozen=True)
class Extent:
    """What a report is of.

    Parameters
    ----------
    layout : Layout
    name : str
        The catalog's name.
    version : int or None
        A published version; None reads the shards as they are now.
    region : Region
    """

    layout: Layout
    name: str
    version: int | None = None
    region: Region = Everything()  # noqa: RUF009

    @property
    def folder(self) -> Path:
        """Where the Parquet files lie."""
        return self.layout.catalog(self.name) if self.version is None else version_folder(self.layout, self.name, self.version)

    def stock(self) -> Inventory:
        """Shards and outcomes that the version was made from, or that there are now; of bricks that touch the region."""
        whole = inventory.take(self.layout, self.name) if self.version is None else inventory.load(self.folder / INVENTORY)
        if isinstance(self.region, Everything):
            return whole
        touched = self._touched([self.unit_of(entry.path) for entry in whole.shards + whole.outcomes])
        shards = tuple(entry for entry in whole.shards if self.unit_of(entry.path) in touched)
        return Inventory(shards, tuple(entry for entry in whole.outcomes if self.unit_of(entry.path) in touched))

    def unit_of(self, path: str) -> Unit:
        """The brick of a shard's or outcomes' path, relative to the catalog's folder."""
        release, region, _, file = path.split("/")
        return Unit(release, region, file.split(".")[0])

    def _touched(self, units: Sequence[Unit]) -> set[Unit]:
        """Of these bricks those that overlap the region; units that are no brick lie nowhere."""
        named = sorted({unit.brick for unit in units})
        found = [brick for brick in map(known_brick, named) if brick is not None]
        keys = ("brickid", "ra", "dec", "ra1", "ra2", "dec1", "dec2")
        table = pa.table({key: [getattr(brick, key) for brick in found] for key in keys} | {"brickname": [brick.name for brick in found]})
        names = {brick.name for brick, touches in zip(found, self.region.touches(table), strict=True) if touches} if found else set()
        return {unit for unit in units if unit.brick in names}

    def files(self) -> list[Path]:
        """Parquet files of rows that may lie in the region, sorted."""
        if self.version is not None:
            return sorted(self.folder.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"))
        return [self.folder / entry.path for entry in self.stock().shards if entry.rows]

    def schema(self) -> pa.Schema:
        """Columns of the rows; without fields where there is no shard.

        Raises
        ------
        BadData
            If a file does not read.
        """
        if self.version is not None:
            return _opened(self.folder / "dataset" / "_common_metadata").schema_arrow
        shards = self.stock().shards
        return _opened(self.folder / shards[0].path).schema_arrow if shards else pa.schema([])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The region's rows, at most `BATCH` at a time, in the order of the files.

        Of shards, rows just beyond the edge of their brick are left out: their own brick has them.

        Parameters
        ----------
        columns : sequence of str
            Columns wanted beside `WHERE`; those that a file lacks, and `NESTED` ones, are left out.

        Raises
        ------
        BadData
            If a file does not read.
        """
        for path in self.files():
            with _opened(path) as file:
                present = set(file.schema_arrow.names)
                wanted = [name for name in dict.fromkeys([*WHERE, *columns]) if name in present and name not in NESTED]
                if not self._any_inside(file):
                    continue
                try:
                    for batch in file.iter_batches(BATCH, columns=wanted):
                        table = pa.Table.from_batches([batch])
                        kept = self._kept(table)
                        if kept.any():
                            yield table if kept.all() else table.filter(pa.array(kept))
                except (OSError, pa.ArrowInvalid) as error:
                    raise BadData("a readable Parquet file", str(error), file=str(path)) from error

    def _any_inside(self, file: pq.ParquetFile) -> bool:
        """Whether the region has rows in a file: two columns are read before all others are."""
        if isinstance(self.region, Everything):
            return True
        return any(self._kept(pa.Table.from_batches([batch])).any() for batch in file.iter_batches(BATCH, columns=list(POSITION)))

    def _kept(self, table: pa.Table) -> NDArray[np.bool_]:
        ra, dec = (floats(table, name) for name in POSITION)
        kept = inside(self.region, ra, dec)
        if self.version is None and "brickid" in table.column_names:
            placed = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
            own = np.ones(len(kept), bool)
            own[placed] = ids_at(ra[placed], dec[placed]) == floats(table, "brickid")[placed]
            # stamps that came without a brick have none to lie outside of
            kept &= own | ~(floats(table, "brickid") > 0)
        return kept


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64, NaN where it is null or absent; shape (rows,). Ids of 64 bits lose their last digits."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable Parquet file", str(error), file=str(path)) from error
