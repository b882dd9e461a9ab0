"""Where the images of a label set lie: a Parquet column, a Stein-layout HDF5 file, or files beside a table or in folders per class.

Every source has its rows' table in memory and its images outside: they are read as they are asked for, in order or by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from galpipe.errors import BadData, ConfigurationError
from galpipe.stamps.pictures import JPEG_ROUTE, SURVEY_PIXELS
from galpipe.stamps.readers import FITS, HDF5, PICTURES, RawStamp, read_raw, stein_stamp
from galpipe.stamps.stein import SteinFile, text

Item = bytes | RawStamp
"""An encoded picture, or a stamp of survey pixels."""

IMAGE_COLUMNS = ("image", "png", "jpg", "jpeg")
FILE_COLUMNS = ("file", "filename", "path", "image", "file_loc")
TABLES = (".parquet", ".csv")
READ_TOGETHER = 64
"""Rows of a Parquet file that are decoded at a time."""

CLASS_COLUMN = "label"
"""Column that the names of folders become."""

NPZ = (".npz",)


class Source(Protocol):
    """Rows and their images."""

    @property
    def table(self) -> pa.Table:
        """One row per image, every column but the image."""

    @property
    def route(self) -> str:
        """`JPEG_ROUTE` or `SURVEY_PIXELS`."""

    @property
    def notices(self) -> dict[int, str]:
        """Rows that are refused before their image is read, with the reason."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else there is to say of the source."""

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Item | BadData]]:
        """Images of some rows, which must ascend; one that cannot be read comes as its error."""


def open_source(path: Path, images: Path | None = None) -> Source:
    """The source of a path.

    Parameters
    ----------
    path : Path
        A Parquet file with a column of encoded images; a Parquet or CSV file with a column of files beside it; a Stein-layout HDF5 file; a
        folder with one subfolder of images per class, or with images and one table of labels.
    images : Path, optional
        Folder that the files named in a table lie under; by default the table's own.

    Raises
    ------
    ConfigurationError
        If it is none of these.
    BadData
        If it is damaged.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise ConfigurationError("a file or folder of labelled images", "nothing", file=str(path))
    suffix = path.suffix.lower()
    if suffix in HDF5:
        return SteinSource(path)
    if suffix not in TABLES:
        raise ConfigurationError("a Parquet, CSV or HDF5 file, or a folder", repr(path.name), file=str(path))
    if suffix == ".parquet":
        schema = _schema(path)
        image = next((name for name in schema.names if name in IMAGE_COLUMNS and _holds_bytes(schema.field(name).type)), None)
        if image is not None:
            return ParquetSource(path, image)
    return FilesSource.beside(path, images)


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("a readable Parquet file", str(error), file=str(path)) from error


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        # as datasets on Hugging Face have it
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class ParquetSource:
    """Encoded images in a column, streamed group by group.

    Of a file written as one row group Arrow holds about half (measured: 212 MB of 400): large sets want many groups.
    """

    route = JPEG_ROUTE
    remarks: tuple[str, ...] = ()

    def __init__(self, path: Path, image: str) -> None:
        self.path, self._image = path, image
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            names = [name for name in self._file.schema_arrow.names if name != image]
            # of an image without bytes only the flag is wanted
            self.table = self._file.read(columns=names)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadData("a readable Parquet file", str(error), file=str(path)) from error
        groups = [self._file.metadata.row_group(index).num_rows for index in range(self._file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)
        self.notices: dict[int, str] = {}

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Item | BadData]]:
        """See `Source.read`; groups without a wanted row are not touched."""
        wanted = np.asarray(rows, np.int64)
        for group in range(len(self._starts) - 1):
            first, last = self._starts[group], self._starts[group + 1]
            inside = wanted[(wanted >= first) & (wanted < last)]
            if len(inside):
                yield from self._group(group, int(first), inside.tolist())

    def _group(self, group: int, first: int, rows: list[int]) -> Iterator[tuple[int, Item | BadData]]:
        place, left = first, iter(rows)
        row = next(left)
        try:
            for batch in self._file.iter_batches(READ_TOGETHER, row_groups=[group], columns=[self._image]):
                column = batch.column(0)
                while row < place + len(batch):
                    yield row, self._content(column[row - place].as_py(), row)
                    following = next(left, None)
                    if following is None:
                        return
                    row = following
                place += len(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadData("a readable Parquet file", str(error), file=str(self.path)) from error

    def _content(self, value: object, row: int) -> Item | BadData:
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(content, bytes) and content:
            return content
        return BadData("an image", "none", file=f"{self.path}[{row}]")


class SteinSource:
    """Survey pixels with the fields of Stein et al. 2021; an image is read when its row is asked for."""

    route = SURVEY_PIXELS

    def __init__(self, path: Path) -> None:
        try:
            self._file = SteinFile(path)
        except OSError as error:
            raise BadData("a readable HDF5 file", str(error), file=str(path)) from error
        columns = {name: values for name, values in self._file.columns.items() if values.ndim == 1}
        arrays = {
            name: pa.array([text(value) for value in values]) if values.dtype.kind in "OS" else pa.array(values)
            for name, values in columns.items()
        }
        # a file without any field still has its rows
        self.table = pa.table(arrays) if arrays else pa.table({"row": pa.array(range(len(self._file)))})
        self.notices = {row: f"row {first} again (inds {columns['inds'][row]})" for row, first in self._file.repeats().items()}
        skipped = self._file.skipped()
        self.remarks = (f"inds skips {skipped} values",) if skipped else ()

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Item | BadData]]:
        """See `Source.read`."""
        for row in rows:
            try:
                yield row, stein_stamp(self._file, row)
            except BadData as error:
                yield row, error


class FilesSource:
    """One file per row: all pictures, or all survey pixels."""

    remarks: tuple[str, ...] = ()

    def __init__(self, table: pa.Table, files: Sequence[Path | None], origin: Path) -> None:
        self.table, self._files = table, list(files)
        self.notices = {row: _absent(path) for row, path in enumerate(self._files) if path is None or not path.is_file()}
        suffixes = {path.suffix.lower() for path in self._files if path is not None and path.is_file()}
        pictures, pixels = suffixes & set(PICTURES), suffixes & {*FITS, *NPZ}
        if not suffixes:
            raise BadData("images beside the labels", f"none of {len(self._files)} files is there", file=str(origin))
        if suffixes - set(PICTURES) - {*FITS, *NPZ}:
            raise BadData("JPEG, PNG, FITS or npz images", f"{sorted(suffixes)}", file=str(origin))
        if pictures and pixels:
            raise BadData("either pictures or survey pixels, as figures are given per route", f"both {sorted(suffixes)}", file=str(origin))
        self.route = JPEG_ROUTE if pictures else SURVEY_PIXELS

    @classmethod
    def beside(cls, path: Path, images: Path | None = None) -> FilesSource:
        """Files that a table of labels names, relative to a folder, by default the table's own.

        Raises
        ------
        BadData
            If the table cannot be read.
        ConfigurationError
            If no column holds files.
        """
        try:
            table = pq.read_table(path) if path.suffix.lower() == ".parquet" else pa_csv.read_csv(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadData("a readable table of labels", str(error), file=str(path)) from error
        name = next((name for name in FILE_COLUMNS if name in table.column_names), None)
        if name is None:
            raise ConfigurationError(
                f"a column of images among {IMAGE_COLUMNS} or of files among {FILE_COLUMNS}", repr(table.column_names), file=str(path)
            )
        files = [None if value is None else (images or path.parent) / str(value) for value in table[name].to_pylist()]
        return cls(table, files, path)

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Item | BadData]]:
        """See `Source.read`."""
        for row in rows:
            yield row, self._item(self._files[row])

    def _item(self, path: Path | None) -> Item | BadData:
        if path is None or not path.is_file():
            return BadData("an image", _absent(path), file=str(path or ""))
        if path.suffix.lower() in PICTURES:
            return path.read_bytes()
        try:
            found = next(read_raw(path))
        except BadData as error:
            return error
        return found


def _absent(path: Path | None) -> str:
    return "no file named" if path is None else f"no file {path.name}"


def _open_folder(path: Path) -> FilesSource:
    known = {*PICTURES, *FITS, *NPZ}
    tables = [item for item in sorted(path.iterdir()) if item.is_file() and item.suffix.lower() in TABLES]
    if len(tables) == 1:
        return FilesSource.beside(tables[0])
    if tables:
        raise ConfigurationError("one table of labels in a folder", f"{[item.name for item in tables]}", file=str(path))
    files = sorted(item for item in path.glob("*/*") if item.is_file() and item.suffix.lower() in known)
    if not files:
        raise ConfigurationError("subfolders of images named after their class, or a table of labels", "neither", file=str(path))
    names = [str(item.relative_to(path)) for item in files]
    table = pa.table({"id": pa.array(names), CLASS_COLUMN: pa.array([item.parent.name for item in files])})
    return FilesSource(table, files, path)
