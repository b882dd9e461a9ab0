"""Read a brick's Zarr store (see `galpipe.stamps.storewriter`): whole, batch by batch, or some rows; a damaged one is found out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from galpipe.commit import remove_folder
from galpipe.errors import BadData
from galpipe.stamps.contenthash import ARRAYS, ContentHash
from galpipe.stamps.result import Cut, CutResult
from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.stamps.storewriter import FORMAT, OUTCOMES_FILE, SOURCES, coarse_group, write_store

__all__ = [
    "Store",
    "content_hash",
    "delete_store",
    "read_pixels",
    "read_store",
    "store_files",
    "store_fingerprint",
    "store_summary",
    "write_store",
]


class Store:
    """A store opened for reading; tables are in memory, pixels stay on disk.

    Parameters
    ----------
    path : Path
        ``<brick>.zarr``.

    Raises
    ------
    BadData
        If there is no readable store.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.attrs = path, _attrs(path)
        self.coarse = tuple(int(binning) for binning in self.attrs["coarse"])
        """Binnings of the second stamps that there are, finest first."""
        self.outcomes = self._table(path / OUTCOMES_FILE)
        self._sources = {binning: self._table(self._folder(binning) / SOURCES) for binning in (1, *self.coarse)}
        self._seen = ContentHash()

    @property
    def stamp_attrs(self) -> dict[str, Any]:
        """Attributes of the stamps: unit, checksums, settings."""
        attrs: dict[str, Any] = self.attrs["attrs"]
        return attrs

    def sources(self, binning: int = 1) -> pa.Table:
        """One row per stamp of a scale."""
        return self._sources[binning]

    def batches(self, rows: int, binning: int = 1) -> Iterator[StampSet]:
        """All stamps of a scale in order, ``rows`` at a time; one empty set where there is none.

        Raises
        ------
        BadData
            If the store does not read; content that differs from what was written is found by `check` alone.
        """
        count = len(self.sources(binning))
        for start in range(0, max(1, count), rows):
            found = self._set(slice(start, min(start + rows, count)), binning)
            self._seen.add(found)
            yield found

    def rows(self, indices: Sequence[int], binning: int = 1) -> StampSet:
        """Some stamps of a scale, in that order; what was written is not proven, as that would take reading all of it.

        Raises
        ------
        BadData
            If the store does not read.
        """
        return concatenate([self._set(slice(index, index + 1), binning) for index in indices] or [self._set(slice(0, 0), binning)])

    def check(self) -> None:
        """Compare what `batches` gave with what was written; to be called once all scales were read to the end.

        Raises
        ------
        BadData
            If it differs: a missing shard reads as zeros.
        """
        told = self._seen.finish([*(self._sources[binning] for binning in (1, *self.coarse)), self.outcomes])
        expected = self.attrs["content_hash"]
        if told != expected:
            raise BadData(f"an undamaged stamp store, content {expected[:12]}", f"content {told[:12]}", file=str(self.path))

    def _folder(self, binning: int) -> Path:
        return self.path if binning == 1 else self.path / coarse_group(binning)

    def _table(self, path: Path) -> pa.Table:
        try:
            return pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise _unreadable(self.path, error) from error

    def _set(self, part: slice, binning: int) -> StampSet:
        try:
            group = zarr.open_group(str(self._folder(binning)), mode="r", zarr_format=3)
            attrs: dict[str, Any] = dict(group.attrs)
            arrays = [np.asarray(group[name][part]) for name in ARRAYS]  # type: ignore[index]
            described = (tuple(attrs["bands"]), attrs["pixscale"], tuple(attrs["softening"]), attrs["attrs"])
        # zarr and its codecs raise many kinds on damaged files
        except Exception as error:
            raise _unreadable(self.path, error) from error
        try:
            return StampSet(arrays[0], arrays[1], arrays[2], self.sources(binning).slice(part.start, part.stop - part.start), *described)
        except BadData as error:
            raise BadData(error.expected, error.got, file=str(self.path)) from error


def _unreadable(path: Path, error: Exception) -> BadData:
    return BadData("a readable stamp store", f"{type(error).__name__}: {error}", file=str(path))


def read_store(path: Path) -> CutResult:
    """Read back what `write_store` wrote, bit by bit, into memory.

    Raises
    ------
    BadData
        If there is no readable store, or its content is not what was written.
    """
    store = Store(path)
    sets = [next(store.batches(max(1, len(store.sources(binning))), binning)) for binning in (1, *store.coarse)]
    store.check()
    return CutResult(sets[0], store.outcomes, tuple(sets[1:]))


def read_pixels(path: Path, rows: slice, columns: Sequence[str]) -> StampSet:
    """Image and mask of some rows with a few columns of their sources: what training reads of the first stamps of a store.

    Parameters
    ----------
    path : Path
    rows : slice
    columns : sequence of str
        Those that the table lacks are left out.

    Returns
    -------
    StampSet
        Inverse variances are not read, all 0.

    Raises
    ------
    BadData
        If the store does not read; content that differs from what was written is not found out.
    """
    try:
        group = zarr.open_group(str(path), mode="r", zarr_format=3)
        image, mask = (np.asarray(group[name][rows]) for name in ("image", "mask"))  # type: ignore[index]
        described = (tuple(group.attrs["bands"]), group.attrs["pixscale"], tuple(group.attrs["softening"]))  # type: ignore[arg-type]
        with pq.ParquetFile(path / SOURCES) as file:
            table = file.read([name for name in columns if name in file.schema_arrow.names])[rows]
            # a table without a column has no rows
            sources = table if table.num_columns else pa.table({"row": pa.array(range(len(image)), pa.int64())})
    # zarr and its codecs raise many kinds on damaged files
    except Exception as error:
        raise _unreadable(path, error) from error
    try:
        return StampSet(image, np.broadcast_to(np.uint8(0), image.shape), mask, sources, *described)  # type: ignore[arg-type]
    except BadData as error:
        raise BadData(error.expected, error.got, file=str(path)) from error


def delete_store(path: Path) -> None:
    """Delete a store so that a half-deleted one is never seen under its name; nothing happens if it is not there."""
    remove_folder(path)


def _attrs(path: Path) -> dict[str, Any]:
    try:
        attrs: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError) as error:
        raise BadData("a stamp store", f"{type(error).__name__}: {error}", file=str(path)) from error
    if attrs.get("format") != FORMAT:
        raise BadData(f"a stamp store of format {FORMAT}", repr(attrs.get("format")), file=str(path))
    return attrs


def store_fingerprint(path: Path) -> str:
    """The fingerprint of a store, from one small file; empty where there is no usable store."""
    try:
        return str(_attrs(path)["fingerprint"])
    except BadData:
        return ""


def store_summary(path: Path) -> dict[str, Any]:
    """Fingerprint, content hash, rows, counts and settings of a store, from one small file.

    Raises
    ------
    BadData
        If there is no store.
    """
    return _attrs(path)


def store_files(path: Path) -> list[str | None]:
    """The column ``file`` of a store's sources, without its arrays; nulls for stamps cut from bricks.

    Raises
    ------
    BadData
        If there is no readable store.
    """
    rows = int(_attrs(path)["rows"])
    try:
        with pq.ParquetFile(path / SOURCES) as file:
            named = "file" in file.schema_arrow.names
            names: list[str | None] = file.read(["file"])["file"].to_pylist() if named else [None] * rows
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error
    return names


def content_hash(cut: Cut) -> str:
    """sha256 of a cut's arrays and tables, as 64 hexadecimal digits; the same for equal content, see `ContentHash`."""
    seen = ContentHash()
    tables: dict[int, list[pa.Table]] = {}
    for block in cut.blocks():
        for stamps in (block.stamps, *block.coarse):
            seen.add(stamps)
            tables.setdefault(stamps.binning, []).append(stamps.sources)
    return seen.finish([*(pa.concat_tables(tables[binning]) for binning in sorted(tables)), cut.outcomes])
