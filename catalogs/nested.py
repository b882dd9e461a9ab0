"""Nested columns between their two forms: a list of structs in the shards, a struct of lists, as LSDB wants them, in the partitions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def _is_list_of_structs(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)


def publish_schema(schema: pa.Schema) -> pa.Schema:
    """Schema of the published partitions: a list of structs becomes a struct of lists.

    LSDB 0.11 shows both as one nested column, but reads single fields of the second form only.
    """
    items = []
    for item in schema:
        if _is_list_of_structs(item.type):
            inner = pa.struct([pa.field(part.name, pa.list_(part.type)) for part in item.type.value_type])
            items.append(pa.field(item.name, inner, metadata=item.metadata))
        else:
            items.append(item)
    return pa.schema(items)


def publishable(table: pa.Table) -> pa.Table:
    """Rows of shards as they are published, see `publish_schema`."""
    schema = publish_schema(table.schema)
    columns = []
    for item in table.schema:
        column = table[item.name].combine_chunks()
        columns.append(_transpose(column, schema.field(item.name)) if _is_list_of_structs(item.type) else column)
    return pa.table(columns, schema=schema)


def _transpose(column: pa.ListArray, target: pa.Field) -> pa.StructArray:
    absent = np.asarray(column.is_null())
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    # flatten skips null lists, so the offsets count from the lengths
    inner = column.flatten()
    mask = pa.array(absent)
    lists = [pa.ListArray.from_arrays(offsets, pc.struct_field(inner, [index]), mask=mask) for index in range(target.type.num_fields)]
    return pa.StructArray.from_arrays(
        [array.cast(part.type) for array, part in zip(lists, target.type, strict=True)], fields=list(target.type)
    )


def _is_struct_of_lists(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.num_fields > 0 and all(pa.types.is_list(part.type) for part in kind)


def as_rows(table: pa.Table) -> pa.Table:
    """A table whose structs of lists are lists of structs, as the shards have them; null where the struct is."""
    for index, item in enumerate(table.schema):
        if _is_struct_of_lists(item.type):
            column = _rows(table[item.name].combine_chunks())
            table = table.set_column(index, pa.field(item.name, column.type, metadata=item.metadata), column)
    return table


def _rows(column: pa.StructArray | pa.ChunkedArray) -> pa.ListArray:
    struct = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    lists = [pc.struct_field(struct, [index]) for index in range(struct.type.num_fields)]
    absent = np.asarray(lists[0].is_null())
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists[0]), 0))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    # flatten skips null lists, so the offsets count from the lengths
    inner = [part.flatten() for part in lists]
    fields = [pa.field(part.name, part.type.value_type) for part in struct.type]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(inner, fields=fields), mask=pa.array(absent))
