"""Sets of labelled (or unlabelled) galaxies from any kind of file, behind one interface: rows, labels, stamps for the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.errors import BadData, ConfigurationError
from galpipe.labels.columns import LabelColumn, as_numbers, describe
from galpipe.labels.sources import Item, Source, open_source
from galpipe.labels.target import Target, TargetSpec, checked
from galpipe.stamps.external import ExternalSettings, convert
from galpipe.stamps.pictures import JPEG_ROUTE, PictureKind, decode, kind_named, kind_of, picture_stamps
from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.stamps.stretch import Picture

ID_COLUMNS = ("id", "source_id", "iauname", "dr8_id", "dr7objid", "objid", "file", "filename", "inds")
"""Columns that may name a row, the first that is there is taken."""

IAU_NAME = re.compile(r"J(\d{2})(\d{2})(\d{2}(?:\.\d+)?)([+-])(\d{2})(\d{2})(\d{2}(?:\.\d+)?)")

BATCH = 32


@dataclass(frozen=True)
class Dropped:
    """A row that has no stamp: its number, its id, why, and the set's file."""

    row: int
    id: str
    reason: str
    file: str = ""


@dataclass(frozen=True)
class LabelBatch:
    """Stamps of some rows.

    Parameters
    ----------
    rows : ndarray of int64, shape (K,)
        Rows of the set that the stamps are of; ``rows[-1]`` is where a stream can be taken up again.
    stamps : StampSet or None
        K stamps; None where K = 0.
    dropped : tuple of Dropped
        Rows between them that have none.
    """

    rows: NDArray[np.int64]
    stamps: StampSet | None
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True)
class LabelSet:
    """An opened set; images stay on disk.

    Parameters
    ----------
    path : Path
    source : Source
    kind : PictureKind or None
        How its pictures were drawn; None for survey pixels.
    kind_assumed : bool
        The file does not tell, and its name is not that of a known set.
    ids : tuple of str
    ra, dec : ndarray of float64, shape (N,)
        Degrees; NaN where not known.
    columns : tuple of LabelColumn
    refused : dict
        Rows that are left out before their image is read, with the reason (no file, a row again).
    """

    path: Path
    source: Source
    kind: PictureKind | None
    kind_assumed: bool
    ids: tuple[str, ...]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    columns: tuple[LabelColumn, ...]
    refused: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def table(self) -> pa.Table:
        """All columns but the image, N rows."""
        return self.source.table

    @property
    def route(self) -> str:
        """``survey pixels`` or ``JPEG route``: every figure got from the set says which."""
        return self.source.route

    def column(self, name: str) -> LabelColumn:
        """What a column is.

        Raises
        ------
        ConfigurationError
            If there is no such label.
        """
        found = {column.name: column for column in self.columns}
        if name not in found:
            raise ConfigurationError(f"a label among {sorted(found)}", repr(name), file=str(self.path))
        return found[name]

    def target(self, spec: TargetSpec, names: tuple[str, ...] = ()) -> Target:
        """The answers that a spec asks for; see `TargetSpec.apply`. Rows that are refused have none."""
        target = spec.apply(self.table, str(self.path), names)
        kept = np.array([row not in self.refused for row in target.rows], bool)
        left_out = target.left_out | ({"no image, or a row again": int((~kept).sum())} if not kept.all() else {})
        usable = Target(target.kind, target.names, target.rows[kept], target.values[kept], left_out)
        return checked(usable, spec.column, str(self.path), constant_allowed=bool(names))

    def items(self, rows: Sequence[int] | NDArray[np.integer] | None = None) -> Iterator[tuple[int, Item | Dropped]]:
        """Encoded pictures or raw stamps of ascending rows, one at a time; rows that cannot be read say why.

        Raises
        ------
        ConfigurationError
            If rows do not ascend, or are not there.
        """
        wanted = self._checked(rows)
        readable = [row for row in wanted if row not in self.refused]
        found = self.source.read(readable)
        for row in wanted:
            if row in self.refused:
                yield row, self.dropped(row, self.refused[row])
                continue
            _, item = next(found)
            yield row, self.dropped(row, str(item)) if isinstance(item, BadData) else item

    def pictures(self, rows: Sequence[int] | NDArray[np.integer] | None = None) -> Iterator[tuple[int, Picture | Dropped]]:
        """Decoded pictures of ascending rows.

        Raises
        ------
        ConfigurationError
            If the set has survey pixels, or rows do not ascend.
        """
        if self.kind is None:
            raise ConfigurationError("a set of pictures", self.route, file=str(self.path))
        for row, item in self.items(rows):
            yield row, self._decoded(row, item) if isinstance(item, bytes) else self._never(row, item)

    def stamps(self, rows: Sequence[int] | NDArray[np.integer]) -> LabelBatch:
        """Stamps of some ascending rows, all in memory."""
        return self._batch(list(self.items(rows)))

    def batches(self, size: int = BATCH, rows: Sequence[int] | NDArray[np.integer] | None = None, after: int = -1) -> Iterator[LabelBatch]:
        """Stream stamps; never more than ``size`` of them are in memory.

        Parameters
        ----------
        size : int
        rows : sequence of int, optional
            Ascending; None for all.
        after : int
            Rows up to this one are skipped: the last row of an earlier stream, to go on from there.

        Yields
        ------
        LabelBatch
        """
        if size < 1:
            raise ConfigurationError("batches of at least one stamp", repr(size))
        wanted = [row for row in self._checked(rows) if row > after]
        held: list[tuple[int, Item | Dropped]] = []
        for found in self.items(wanted):
            held.append(found)
            if len(held) == size:
                yield self._batch(held)
                held = []
        if held:
            yield self._batch(held)

    def _batch(self, found: list[tuple[int, Item | Dropped]]) -> LabelBatch:
        if self.kind is not None:
            decoded = [(row, self._decoded(row, item) if isinstance(item, bytes) else self._never(row, item)) for row, item in found]
            good = [(row, item) for row, item in decoded if not isinstance(item, Dropped)]
            rows = np.array([row for row, _ in good], np.int64)
            stamps = picture_stamps([item for _, item in good], self.kind, self._facts(rows)) if good else None
            return LabelBatch(rows, stamps, tuple(item for _, item in decoded if isinstance(item, Dropped)))
        converted = [(row, self._converted(row, item)) for row, item in found]
        sets = [(row, item) for row, item in converted if isinstance(item, StampSet)]
        rows = np.array([row for row, _ in sets], np.int64)
        whole = concatenate([item for _, item in sets]) if sets else None
        return LabelBatch(rows, whole, tuple(item for _, item in converted if isinstance(item, Dropped)))

    def _facts(self, rows: NDArray[np.int64]) -> dict[str, Sequence[object]]:
        positions = {"ra": self.ra[rows], "dec": self.dec[rows]}
        known = {name: [None if np.isnan(value) else float(value) for value in values] for name, values in positions.items()}
        return {"id": [self.ids[row] for row in rows], **{name: pa.array(values, pa.float64()) for name, values in known.items()}}

    def _decoded(self, row: int, content: bytes) -> Picture | Dropped:
        try:
            return decode(content)
        except BadData as error:
            return self.dropped(row, str(error))

    def _converted(self, row: int, item: Item | Dropped) -> StampSet | Dropped:
        if isinstance(item, Dropped | bytes):
            return self._never(row, item)
        try:
            return convert(item, ExternalSettings())
        except BadData as error:
            return self.dropped(row, str(error))

    def _never(self, row: int, item: Item | Dropped) -> Dropped:
        """A row that was dropped already, or whose item is of the other route."""
        return item if isinstance(item, Dropped) else self.dropped(row, f"not of the {self.route}")

    def dropped(self, row: int, reason: str) -> Dropped:
        """A row of this set that has no stamp."""
        return Dropped(row, self.ids[row], reason, str(self.path))

    def _checked(self, rows: Sequence[int] | NDArray[np.integer] | None) -> list[int]:
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        if len(wanted) and (np.any(np.diff(wanted) <= 0) or wanted[0] < 0 or wanted[-1] >= len(self)):
            raise ConfigurationError(f"rows that ascend from 0 to {len(self) - 1}", f"{wanted[:8].tolist()}", file=str(self.path))
        found: list[int] = wanted.tolist()
        return found


def open_labels(path: Path | str, pictures: str = "", images: Path | None = None) -> LabelSet:
    """Open a set of galaxies with or without labels.

    Parameters
    ----------
    path : Path or str
        See `galpipe.labels.sources.open_source`.
    pictures : str
        Name of a known set (`galpipe.stamps.pictures.KINDS`) whose way of drawing this one shares; by default the file's name tells.
    images : Path, optional
        Folder that the files named in a table lie under; by default the table's own.

    Raises
    ------
    ConfigurationError
        If it is no set of labelled images.
    BadData
        If it is damaged or empty.
    """
    path = Path(path)
    source = open_source(path, images)
    table = source.table
    if not table.num_rows:
        raise BadData("at least one row", "none", file=str(path))
    kind, assumed = (kind_named(pictures), False) if pictures else kind_of(path.stem)
    ids = _ids(table)
    ra, dec = _positions(table, ids)
    described = [describe(name, table[name]) for name in table.column_names]
    columns = tuple(item for item in described if item is not None)
    refused = source.notices | {row: reason for row, reason in _repeated(ids).items() if row not in source.notices}
    is_picture = source.route == JPEG_ROUTE
    return LabelSet(path, source, kind if is_picture else None, assumed and is_picture, ids, ra, dec, columns, refused)


def _ids(table: pa.Table) -> tuple[str, ...]:
    """Release, brickid and objid together where all are there; else the first column that names rows; else the row's number."""
    parts = [name for name in ("release", "brickid", "objid") if name in table.column_names]
    if len(parts) == 3:
        return tuple("-".join(str(value) for value in row) for row in zip(*(table[name].to_pylist() for name in parts), strict=True))
    name = next((name for name in ID_COLUMNS if name in table.column_names), None)
    if name is None:
        return tuple(str(row) for row in range(table.num_rows))
    return tuple(f"row {row}" if value is None else str(value) for row, value in enumerate(table[name].to_pylist()))


def _repeated(ids: tuple[str, ...]) -> dict[int, str]:
    first: dict[str, int] = {}
    return {row: f"id {name!r} of row {first[name]} again" for row, name in enumerate(ids) if first.setdefault(name, row) != row}


def _positions(table: pa.Table, ids: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns ra and dec where they are there, else what IAU names say (to 0.15 arcsec)."""
    if {"ra", "dec"} <= set(table.column_names):
        ra, dec = as_numbers(table["ra"]), as_numbers(table["dec"])
    else:
        places = [position_of_name(name) for name in ids]
        ra, dec = (np.array([np.nan if place is None else place[axis] for place in places], np.float64) for axis in (0, 1))
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    return np.where(known, ra % 360, np.nan), np.where(known, dec, np.nan)


def position_of_name(name: str) -> tuple[float, float] | None:
    """RA and Dec (deg) of an IAU name such as ``J000411.19+020924.0``; None for any other."""
    found = IAU_NAME.fullmatch(name)
    if not found:
        return None
    hours, minutes, seconds, sign, degrees, arcmin, arcsec = found.groups()
    dec = float(degrees) + float(arcmin) / 60 + float(arcsec) / 3600
    return 15 * (float(hours) + float(minutes) / 60 + float(seconds) / 3600), dec if sign == "+" else -dec
