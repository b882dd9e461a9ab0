"""VOTables made of Arrow tables, piece by piece: a big answer is never one text in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalogs.serve.pages import render
from catalogs.ucd import text_of, ucd, vounit

CHUNK = 1000
"""Rows per piece."""

_DATATYPES = {
    pa.bool_(): "boolean",
    pa.int16(): "short",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float16(): "float",
    pa.float32(): "float",
    pa.float64(): "double",
}
_FORBIDDEN = "[^\t\n\r\x20-\U0010ffff]"
"""Characters that XML 1.0 cannot hold."""


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Parameters
    ----------
    table : pyarrow.Table
        Fields may have ``unit``, ``description``, ``learned``, ``ucd``, ``utype`` and ``xtype`` in their metadata.
    overflow : bool
        There was more than the answer may hold.
    title : str
        What the table is.
    infos : tuple of tuple
        (name, value) pairs for the VOTable's head.
    soda : str
        Address of the cutout service that takes the ids of this table; empty without one.
    """

    table: pa.Table
    overflow: bool = False
    title: str = ""
    infos: tuple[tuple[str, str], ...] = ()
    soda: str = ""


@dataclass(frozen=True)
class Field:
    """One FIELD element."""

    name: str
    datatype: str
    arraysize: str
    unit: str
    ucd: str
    utype: str
    xtype: str
    description: str


def flat(schema: pa.Schema) -> list[str]:
    """Names of the columns that a VOTable can hold: plain values and lists of numbers."""
    return [item.name for item in schema if _datatype(item.type)[0]]


def _datatype(kind: pa.DataType) -> tuple[str, str]:
    """VOTable's datatype and arraysize; empty datatype where there is none."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "char", "*"
    if pa.types.is_fixed_size_list(kind):
        return _DATATYPES.get(kind.value_type, ""), str(kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _DATATYPES.get(kind.value_type, ""), "*"
    return _DATATYPES.get(kind, ""), ""


def field_of(item: pa.Field, column: pa.ChunkedArray | None = None) -> Field:
    """What is told of a column; of a text whether it needs more than ASCII, where its values are given."""
    datatype, arraysize = _datatype(item.type)
    if datatype == "char" and column is not None and pc.all(pc.string_is_ascii(column)).as_py() is False:
        datatype = "unicodeChar"
    learned = text_of(item, "learned")
    description = text_of(item, "description") + (f" (model column, learned from: {learned})" if learned else "")
    means = text_of(item, "ucd") or ucd(item)
    return Field(
        item.name,
        datatype,
        arraysize,
        vounit(text_of(item, "unit")),
        means,
        text_of(item, "utype"),
        text_of(item, "xtype"),
        description,
    )


def pieces(answer: Answer) -> Iterator[bytes]:
    """The VOTable of an answer."""
    table = answer.table
    values = {"fields": [field_of(item, table[item.name]) for item in table.schema], "answer": answer}
    head, tail = render("votable.xml.jinja", values).split("<!-- rows -->")
    yield head.encode()
    for start in range(0, table.num_rows, CHUNK):
        yield _rows(table.slice(start, CHUNK)).encode()
    yield tail.encode()


def error_document(message: str, title: str) -> bytes:
    """What a request that went wrong is answered with: once as Simple Cone Search, once as DALI wants it."""
    return render("error.xml.jinja", {"message": message, "title": title}).encode()


def _rows(table: pa.Table) -> str:
    cells = [_cells(table[item.name], item.type) for item in table.schema]
    joined = pc.binary_join_element_wise(*cells, "</TD><TD>")
    return "".join(f"<TR><TD>{row}</TD></TR>\n" for row in joined.to_pylist())


def _cells(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    values = column.combine_chunks()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = pc.replace_substring_regex(values.cast(pa.string()), _FORBIDDEN, "")
        for plain, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            values = pc.replace_substring(values, plain, written)
    elif pa.types.is_nested(kind):
        values = _lists(values, kind)
    else:
        values = _numbers(values, kind)
    return pc.fill_null(values, "")


def _lists(values: pa.Array, kind: pa.DataType) -> pa.Array:
    joined = [
        None if row is None else " ".join(_numbers(pa.array(row, kind.value_type), kind.value_type).to_pylist())
        for row in values.to_pylist()
    ]
    return pa.array(joined, pa.string())


def _numbers(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_floating(kind):
        return values.cast(pa.string())
    plain = values.cast(pa.float32()) if pa.types.is_float16(kind) else values
    texts = pc.if_else(pc.is_nan(plain), "NaN", plain.cast(pa.string()))
    infinite = pc.if_else(pc.less(plain, 0), "-Inf", "+Inf")
    return pc.if_else(pc.is_inf(plain), infinite, texts)


def described(table: pa.Table, like: Sequence[pa.Field]) -> pa.Table:
    """A table whose fields have the metadata of the fields of the same name, whatever their types."""
    known = {item.name: item.metadata for item in like}
    fields = [item.with_metadata(known.get(item.name) or item.metadata) for item in table.schema]
    return table.cast(pa.schema(fields))
