"""The differing rows of two versions as a table: one row per galaxy, with its values before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.diff.compare import MOVED, NEVER, Difference, Part, rows_of
from catalogs.diff.pairs import Rows
from catalogs.formats import FORMATS, write_result
from catalogs.parquet import PARQUET
from galpipe.commit import replace_file
from galpipe.errors import ConfigurationError

BEFORE = "_before"
"""Ends the name of a column with the older version's value."""

_HEAD = pa.schema(
    [
        pa.field("difference", pa.string(), metadata={"description": "added, removed or changed"}),
        pa.field("columns", pa.string(), metadata={"description": "Columns that changed by more than their tolerance"}),
        pa.field(MOVED, pa.float64(), metadata={"unit": "arcsec", "description": "Between the two positions"}),
        pa.field("source_id", pa.int64(), metadata={"description": "In the newer version; of a removed row in the older"}),
        pa.field("source_id_before", pa.int64(), metadata={"description": "In the older version"}),
        pa.field("ra", pa.float64(), metadata={"unit": "deg", "description": "In the newer version; of a removed row in the older"}),
        pa.field("dec", pa.float64(), metadata={"unit": "deg", "description": "As ra"}),
    ]
)


def row_schema(found: Difference) -> pa.Schema:
    """Columns of the table: who and where, then every compared flat column, newer and older value side by side."""
    fields = list(_HEAD)
    for name in _flat(found):
        item, old = found.after.schema.field(name), found.before.schema.field(name)
        fields += [] if name in _HEAD.names else [item]
        fields.append(old.with_name(name + BEFORE))
    return pa.schema(fields)


def _flat(found: Difference) -> list[str]:
    return [name for name in found.compared if name not in NEVER and not pa.types.is_nested(found.after.schema.field(name).type)]


def row_table(found: Difference, part: Part) -> pa.Table:
    """The differing rows of one pixel, with the columns of `row_schema`."""
    schema = row_schema(found)
    tables = [schema.empty_table()]
    for kind, (before, after) in rows_of(part).items():
        shown = after if after is not None else before
        if shown is None or not len(shown):
            continue
        values: dict[str, Any] = {
            "difference": pa.array([kind] * len(shown)),
            "source_id": pa.array(shown.ids),
            "ra": pa.array(shown.ra),
            "dec": pa.array(shown.dec),
        }
        if kind == "changed":
            values |= {"columns": _changed_columns(part), MOVED: pa.array(part.apart)}
        if before is not None:
            values["source_id_before"] = pa.array(before.ids)
        values |= _values(found, before, after)
        arrays = [values[item.name] if item.name in values else pa.nulls(len(shown), item.type) for item in schema]
        tables.append(pa.table(arrays, schema=schema))
    return pa.concat_tables(tables)


def _changed_columns(part: Part) -> pa.Array:
    names = [[name for name, mask in part.columns.items() if mask[row]] for row in range(len(part.pairs))]
    return pa.array([" ".join(listed) for listed in names], pa.string())


def _values(found: Difference, before: Rows | None, after: Rows | None) -> dict[str, pa.Array]:
    names = _flat(found)
    values: dict[str, pa.Array] = {}
    if after is not None:
        values |= {name: column for name, column in after.columns(names).items() if name not in _HEAD.names}
    if before is not None:
        values |= {name + BEFORE: column for name, column in before.columns(names).items()}
    return values


def check_format(path: Path) -> None:
    """Refuse a file name before the work begins.

    Raises
    ------
    ConfigurationError
        If its ending says no format that there is.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"a file name ending in .png or one of {FORMATS}", repr(path.suffix), file=str(path))


@contextmanager
def writer(found: Difference, path: Path) -> Iterator[Callable[[Part], None]]:
    """Yield what takes in the parts of `catalogs.diff.compare.diff`; the file stands under its name when the block ended well.

    Parquet is written pixel by pixel. The other formats of `catalogs.formats` hold the whole table in memory at the end.

    Parameters
    ----------
    found : Difference
        From `open_sides`.
    path : Path
        Its ending says the format.
    """
    if path.suffix.lower() == ".parquet":
        with replace_file(path) as aside, _parquet(found, aside) as take:
            yield take
        return
    with TemporaryDirectory(prefix="galpipe-diff-") as folder:
        with _parquet(found, Path(folder) / "rows.parquet") as take:
            yield take
        write_result(pq.read_table(Path(folder) / "rows.parquet"), path)


@contextmanager
def _parquet(found: Difference, path: Path) -> Iterator[Callable[[Part], None]]:
    with pq.ParquetWriter(path, row_schema(found), **PARQUET) as opened:

        def take(part: Part) -> None:
            table = row_table(found, part)
            if table.num_rows:
                opened.write_table(table.take(pa.array(np.argsort(table["source_id"].to_numpy(), kind="stable"))))

        yield take
