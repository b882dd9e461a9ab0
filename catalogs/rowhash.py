"""Sums that tell whether two tables hold the same rows, in any order and however the rows are spread over files.

Every value is hashed together with its column, its place in its list and its row's id, and the hashes are added: the sum of a
brick's rows in its shard equals their sum in the published partitions. Nothing but one number per group is kept, so this works for a
whole release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def row_sums(table: pa.Table, groups: NDArray[np.int64], count: int) -> Words:
    """Sum of the hashes of every value, by group.

    Parameters
    ----------
    table : pyarrow.Table
        With ``source_id``. A list of structs and a struct of lists give the same sum.
    groups : ndarray
        Group of each row, shape (rows,), from 0.
    count : int
        Groups.

    Returns
    -------
    ndarray
        uint64, shape (count,), modulo 2**64.
    """
    ids = _mix(table["source_id"].fill_null(0).to_numpy().astype(np.int64).view(np.uint64))
    rows = np.arange(table.num_rows)
    sums = np.zeros(count, np.uint64)
    for name in table.column_names:
        whole = table[name].combine_chunks()
        column = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
        for path, bits, owners, places in _leaves(name, column, rows, np.zeros(len(rows), np.uint64)):
            hashed = _mix(_mix(bits ^ _seed(path)) + ids[owners] + places)
            if count == 1:
                sums += hashed.sum(dtype=np.uint64)
            else:
                np.add.at(sums, groups[owners], hashed)
    return sums


def _mix(values: Words) -> Words:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _seed(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _leaves(path: str, array: pa.Array, rows: NDArray[np.int64], places: Words) -> Iterator[tuple[str, Words, NDArray[np.int64], Words]]:
    """Values that are there, as 64 bits each, with their rows and a hash of their places in lists; of nested columns leaf by leaf."""
    if array.null_count:
        there = array.is_valid().to_numpy(zero_copy_only=False)
        rows, places, array = rows[there], places[there], array.drop_null()
    kind = array.type
    if pa.types.is_struct(kind):
        for item, part in zip(kind, array.flatten(), strict=True):
            yield from _leaves(f"{path}.{item.name}", part, rows, places)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        within = (np.arange(lengths.sum()) - starts + 1).astype(np.uint64)
        yield from _leaves(path, array.flatten(), np.repeat(rows, lengths), _mix(np.repeat(places, lengths) + within))
    else:
        yield path, _bits(array), rows, places


def _bits(array: pa.Array) -> Words:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        coded = array.dictionary_encode()
        words = np.array([_seed(text) for text in coded.dictionary.to_pylist()], np.uint64)
        return words[coded.indices.to_numpy(zero_copy_only=False)] if len(words) else np.zeros(0, np.uint64)
    values = (array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array).to_numpy(zero_copy_only=False)
    return values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
