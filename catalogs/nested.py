"""Nested columns as LSDB wants them: a list of structs becomes a struct of lists."""

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
