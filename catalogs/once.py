"""Whether a source_id is in two shards, without holding every id: of a release's 76 million that would be 600 MB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from galpipe.unit import STAMPS, Unit

_OBJID_BITS = 22
"""Of a packed id; what is left of them is release and brick."""


class Once:
    """Ids of one shard after the other. What is kept is one number per brick, as an id begins with release and brick; ids of stamps
    from files, which are hashes, are kept whole.
    """

    def __init__(self) -> None:
        self._seen: dict[int, list[tuple[Unit, Path]]] = {}
        self._hashes: dict[int, Unit] = {}

    def problems(self, unit: Unit, shard: Path, ids: NDArray[np.int64]) -> Iterator[str]:
        """What of a shard's ids was in an earlier shard, or is in this one twice.

        Parameters
        ----------
        unit : Unit
        shard : Path
        ids : ndarray
            int64, shape (rows,).
        """
        values, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            first = int(values[times > 1][0])
            yield f"expected each source_id once, got {int((times > 1).sum())} of them more often, first {first}"
        if unit.release == STAMPS:
            yield from self._among_hashes(unit, values)
            return
        for begin in np.unique(values >> _OBJID_BITS).tolist():
            for other, path in self._seen.setdefault(begin, []):
                yield from _in_both(other, path, values)
            self._seen[begin].append((unit, shard))

    def _among_hashes(self, unit: Unit, values: NDArray[np.int64]) -> Iterator[str]:
        for value in values.tolist():
            other = self._hashes.setdefault(value, unit)
            if other != unit:
                yield f"expected each source_id once, got {value} in {other} too"


def _in_both(other: Unit, path: Path, values: NDArray[np.int64]) -> Iterator[str]:
    try:
        theirs = pq.read_table(path, columns=["source_id"], partitioning=None)["source_id"].to_numpy()
    except (OSError, pa.ArrowInvalid):
        return  # a shard that does not read is named as such
    both = np.intersect1d(values, theirs)
    if len(both):
        yield f"expected each source_id once, got {len(both)} of them in {other} too, first {int(both[0])}"
