"""What cutting gives: stamps, coarser ones of large galaxies, and one outcome per source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.survey.edges import EDGE_REASON
from galpipe.survey.selection import FAILURES

OUTCOMES = pa.schema(
    [
        ("release", pa.int32()),
        ("brickid", pa.int32()),
        ("objid", pa.int32()),
        ("source_id", pa.int64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
"""One row per source of the Tractor table; status ``selected``, ``filtered`` or ``failed``, reason empty when selected.

A selected source just beyond its brick's edge has reason `EDGE_REASON`.
"""


@dataclass(frozen=True)
class Block:
    """Stamps of some sources, in the order of the table.

    Parameters
    ----------
    stamps : StampSet
        May hold no stamp at all.
    coarse : tuple of StampSet
        Second stamps of the large galaxies among them, one set per pixel scale, finest first; see `galpipe.stamps.coarse`.
    """

    stamps: StampSet
    coarse: tuple[StampSet, ...] = ()


class Cut(Protocol):
    """A brick's stamps, block by block, and its outcomes, which are complete once the blocks were all seen."""

    def blocks(self) -> Iterator[Block]:
        """At least one block; attributes, bands, size and scales are the same in all."""

    @property
    def outcomes(self) -> pa.Table:
        """Schema `OUTCOMES`, one row per source of the Tractor table."""


@dataclass(frozen=True)
class CutResult:
    """A brick's stamps in memory.

    Parameters
    ----------
    stamps : StampSet
        May hold no stamp at all.
    outcomes : pyarrow.Table
        Schema `OUTCOMES`, one row per source of the Tractor table.
    coarse : tuple of StampSet
        As in `Block`.
    """

    stamps: StampSet
    outcomes: pa.Table
    coarse: tuple[StampSet, ...] = ()

    def blocks(self) -> Iterator[Block]:
        """Everything as one block."""
        yield Block(self.stamps, self.coarse)

    def counts(self) -> dict[str, int]:
        """Sources by status; they add up to the rows of the Tractor table."""
        return outcome_counts(self.outcomes)


def outcome_counts(outcomes: pa.Table) -> dict[str, int]:
    """Rows of a table of schema `OUTCOMES`, in all (``sources``) and by status."""
    status = outcomes["status"].to_pylist()
    return {"sources": len(status)} | {name: status.count(name) for name in ("selected", "filtered", "failed")}


def outcomes_table(sources: pa.Table, reasons: NDArray[np.object_], edge: NDArray[np.bool_] | None = None) -> pa.Table:
    """Outcomes of the sources of a brick.

    Parameters
    ----------
    sources : pyarrow.Table
        Tractor subset, N rows.
    reasons : ndarray of str, shape (N,)
        Empty for a selected source.
    edge : ndarray of bool, shape (N,), optional
        The selected sources that lie just beyond the brick's edge.
    """
    # too few pixels to predict is a reason to leave a source out, not a failure
    status = ["selected" if not reason else "failed" if reason in FAILURES else "filtered" for reason in reasons]
    told = reasons if edge is None else np.where(edge & (reasons == ""), EDGE_REASON, reasons)
    columns = [sources[name] for name in OUTCOMES.names[:6]]
    return pa.table([*columns, pa.array(status, pa.string()), pa.array(told.tolist(), pa.string())], schema=OUTCOMES)


def gather_blocks(cut: Cut) -> CutResult:
    """All blocks of a cut as one result in memory.

    Raises
    ------
    BadData
        If the blocks are of different kinds.
    """
    blocks = list(cut.blocks())
    if len(blocks) == 1:
        return CutResult(blocks[0].stamps, cut.outcomes, blocks[0].coarse)
    coarse: dict[float, list[StampSet]] = {}
    for block in blocks:
        for part in block.coarse:
            coarse.setdefault(part.pixscale, []).append(part)
    stamps = concatenate([block.stamps for block in blocks])
    return CutResult(stamps, cut.outcomes, tuple(concatenate(coarse[scale]) for scale in sorted(coarse)))
