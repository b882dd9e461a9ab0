"""The hash of stamps and tables as content: whatever the compression, the blocks and chunks they came in, the bytes under nulls."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galpipe.stamps.stampset import StampSet

ARRAYS = ("image", "invvar_code", "mask")


class ContentHash:
    """Takes in stamps of one or several scales, block by block, then the tables."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, str], hashlib._Hash] = defaultdict(hashlib.sha256)
        self._shapes: dict[tuple[int, str], str] = {}
        self._rows: dict[int, int] = defaultdict(int)

    def add(self, stamps: StampSet) -> None:
        """Stamps that follow, in order, on those of the same scale before them."""
        self._rows[stamps.binning] += len(stamps)
        for name in ARRAYS:
            values = getattr(stamps, name)
            self._shapes[stamps.binning, name] = f"{name}{values.shape[1:]}{values.dtype.str}"
            self._digests[stamps.binning, name].update(np.ascontiguousarray(values).data)

    def finish(self, tables: Sequence[pa.Table]) -> str:
        """sha256 of everything, as 64 hexadecimal digits.

        Parameters
        ----------
        tables : sequence of pyarrow.Table
            Sources of each scale, finest first, and the outcomes.
        """
        whole = hashlib.sha256()
        for key in sorted(self._shapes):
            whole.update(f"{key[0]}{self._shapes[key]}{self._rows[key[0]]}{self._digests[key].hexdigest()}".encode())
        for table in tables:
            for name in table.column_names:
                _hash_column(whole, name, table[name])
        return whole.hexdigest()


def _hash_column(digest: hashlib._Hash, name: str, column: pa.ChunkedArray | pa.Array) -> None:
    kind, present = column.type, column.drop_null()
    digest.update(f"{name}:{kind}:{len(column)}:{column.null_count}".encode())
    if column.null_count:
        digest.update(np.packbits(column.is_valid().to_numpy()).tobytes())
    if pa.types.is_string(kind):
        digest.update(pc.binary_length(present).to_numpy().astype("<i8").tobytes())
        digest.update("".join(present.to_pylist()).encode())
    elif pa.types.is_boolean(kind):
        digest.update(np.packbits(present.to_numpy()).tobytes())
    elif len(present):
        values = present.to_numpy()
        if values.dtype.kind == "O":
            raise TypeError(f"column {name!r} of a stamp table must be flat, got {kind}")
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
