"""Write a query's result: Parquet, CSV, FITS, VOTable, JSON."""

from __future__ import annotations

import datetime
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.io.votable.exceptions import W50
from astropy.table import Column, MaskedColumn, Table
from numpy.typing import NDArray

from catalogs.parquet import PARQUET
from galpipe.commit import replace_file
from galpipe.errors import ConfigurationError


def to_json(table: pa.Table) -> dict[str, Any]:
    """A result as plain values: ``{"columns": [...], "rows": [[...]]}``.

    NaN and infinities become null; 64-bit integers become strings, because JavaScript's numbers lose their last digits.
    """
    columns = [[_plain(value, item.type) for value in table.column(index).to_pylist()] for index, item in enumerate(table.schema)]
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
    return {"columns": table.column_names, "rows": rows}


def _plain(value: Any, kind: pa.DataType) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if pa.types.is_integer(kind):
        return str(value) if kind.bit_width == 64 else value
    if pa.types.is_floating(kind):
        return float(value) if math.isfinite(value) else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_plain(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {part.name: _plain(value[part.name], part.type) for part in kind}
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _width(column: pa.ChunkedArray) -> int:
    """Length of a list column's lists if all have the same and hold numbers; 0 otherwise."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) or not pa.types.is_floating(kind.value_type):
        return 0
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    return int(lengths[0]) if len(lengths) == 1 and lengths[0] else 0


def _split(table: pa.Table, *, vectors: bool) -> tuple[pa.Table, list[str]]:
    """Leave out what a flat format cannot hold, with a note for each."""
    notes, kept = [], []
    for item in table.schema:
        if pa.types.is_nested(item.type) and not (vectors and _width(table[item.name])):
            notes.append(f"column {item.name!r} ({item.type}) left out: the format is flat; write .parquet or .json to keep it")
        else:
            kept.append(item.name)
    return table.select(kept), notes


def _astropy_column(column: pa.ChunkedArray, item: pa.Field) -> Column:
    texts = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
    width, missing = _width(column), np.asarray(column.is_null().combine_chunks())
    if width:
        values = np.asarray(column.combine_chunks().flatten().cast(pa.float32())).reshape(-1, width)
    elif pa.types.is_floating(item.type):
        kind = pa.float64() if item.type == pa.float64() else pa.float32()
        # a null float is NaN, as astronomers' files have it
        values, missing = np.array(column.cast(kind).to_numpy()), np.zeros(len(column), bool)
    elif pa.types.is_boolean(item.type) and missing.any():
        # a FITS logical cannot be null
        values = np.array(column.cast(pa.int16()).fill_null(0).to_numpy())
    elif pa.types.is_integer(item.type) or pa.types.is_boolean(item.type):
        values = np.array(column.fill_null(False if pa.types.is_boolean(item.type) else 0).to_numpy())
    else:
        values, missing = np.array(column.cast(pa.string()).fill_null("").to_pylist(), dtype=str), np.zeros(len(column), bool)
    made = MaskedColumn(values, name=item.name, mask=missing) if missing.any() else Column(values, name=item.name)
    made.description = texts.get("description")
    made.unit = _unit(texts["unit"]) if "unit" in texts else None
    return made


def _unit(text: str) -> u.UnitBase:
    """A unit; nanomaggies are in no standard, so their text is written as it is, as the survey does."""
    return u.UnrecognizedUnit(text) if "nanomaggy" in text else u.Unit(text)


def to_astropy(table: pa.Table) -> Table:
    """A flat Arrow table as an astropy table, with units and descriptions; lists of one length become vector columns."""
    return Table([_astropy_column(table[item.name], item) for item in table.schema])


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table for pandas: integers with nulls stay integers, units and descriptions by column in ``attrs``."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    told = {item.name: {key.decode(): value.decode() for key, value in (item.metadata or {}).items()} for item in table.schema}
    frame.attrs["units"] = {name: texts["unit"] for name, texts in told.items() if "unit" in texts}
    frame.attrs["descriptions"] = {name: texts["description"] for name, texts in told.items() if "description" in texts}
    return frame


_NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""Types that numpy cannot hold a null in: ids would lose their last digits as floats."""


def from_astropy(table: Table) -> pa.Table:
    """An astropy table as Arrow: masked values become null, units, descriptions and UCDs go into the fields' metadata."""
    columns, fields = [], []
    for name in table.colnames:
        column = table[name]
        values = _arrow_values(column)
        texts = {"unit": column.unit and column.unit.to_string(), "description": column.description, "ucd": column.meta.get("ucd")}
        fields.append(pa.field(str(name), values.type, metadata={key: str(text) for key, text in texts.items() if text}))
        columns.append(values)
    return pa.table(columns, schema=pa.schema(fields))


def _arrow_values(column: Column) -> pa.Array:
    mask = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    values = np.asarray(column)
    if values.dtype.kind in "iufb":
        # FITS is big-endian
        values = values.astype(values.dtype.newbyteorder("="))
        if values.ndim == 1:
            return pa.array(values, mask=mask)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), int(np.prod(values.shape[1:])))
        return flat.cast(pa.list_(flat.type.value_type))
    plain = [value.decode("utf-8", "replace") if isinstance(value, bytes) else None if value is None else str(value) for value in values]
    return pa.array([None if hidden else text for text, hidden in zip(plain, _hidden(mask, plain), strict=True)], pa.string())


def _hidden(mask: NDArray[np.bool_] | None, values: list[str | None]) -> list[bool]:
    return [False] * len(values) if mask is None else [bool(np.any(item)) for item in mask]


def _parquet(table: pa.Table, path: Path) -> list[str]:
    pq.write_table(table, path, **PARQUET)
    return []


def _csv(table: pa.Table, path: Path) -> list[str]:
    flat, notes = _split(table, vectors=False)
    pacsv.write_csv(flat, path)
    return notes


def _write_astropy(table: pa.Table, path: Path, form: str) -> None:
    with warnings.catch_warnings():
        # about nanomaggies, which have to stay
        for category in (u.UnitsWarning, W50):
            warnings.simplefilter("ignore", category)
        to_astropy(table).write(path, format=form, overwrite=True)


def _fits(table: pa.Table, path: Path) -> list[str]:
    flat, notes = _split(table, vectors=True)
    _write_astropy(flat, path, "fits")
    return notes


def _votable(table: pa.Table, path: Path) -> list[str]:
    flat, notes = _split(table, vectors=False)
    _write_astropy(flat, path, "votable")
    return notes


def _json(table: pa.Table, path: Path) -> list[str]:
    path.write_text(json.dumps(to_json(table), allow_nan=False))
    return []


_WRITERS: dict[str, Callable[[pa.Table, Path], list[str]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".fits": _fits,
    ".vot": _votable,
    ".xml": _votable,
    ".json": _json,
}

FORMATS = tuple(_WRITERS)


def write_result(table: pa.Table, path: Path) -> list[str]:
    """Write a result in the format that the file's name says.

    Parameters
    ----------
    table : pyarrow.Table
    path : Path
        Ending in one of `FORMATS`; replaced in one step.

    Returns
    -------
    list of str
        Notes for the user: columns that the format cannot hold.

    Raises
    ------
    ConfigurationError
        If the ending is unknown.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ConfigurationError(f"a file name ending in one of {FORMATS}", repr(path.suffix), file=str(path))
    with replace_file(path) as aside:
        return writer(table, aside)
