"""Each source once: what neighbouring bricks both have is published from one of them.

The survey's rule, ``brick_primary``, looks at the fitted position. That differs a little between the frames of two bricks, so a
source on their common edge can be primary in both tables or in neither (reference section 5.3). A brick's shard knows its own table
only; publication sees the outcomes of all bricks, in which every source of every table has a row:

* two fits are of one source when each is the other table's nearest to it and they lie within `EDGE` of each other;
* of two primary ones the brick with the lower id keeps it: the other row is a ``duplicate``;
* a row beyond its brick's edge (outcome ``edge``) stays only where no brick has the source as its own, though the brick that it lies in
  was done: then it is ``rescued``, again from the brick with the lower id; otherwise it is the ``neighbour``'s.

Which rows stay depends on the outcomes of a brick and of those that touch it, not on the order in which bricks were done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.coordinates import spherical_to_cartesian
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.inventory import Entry, read_listed
from catalogs.outcomes import read_outcomes
from catalogs.parquet import read_footer
from galpipe.survey.bricks import Brick, ids_at, known_brick
from galpipe.survey.edges import EDGE_REASON
from galpipe.survey.neighbours import EDGE, distance_to_edge, touching
from galpipe.survey.selection import REPEATED

RESOLVED = pa.schema(
    [
        pa.field("order", pa.int64(), metadata={"description": "HEALPix order of the partition that the row would lie, or lies, in"}),
        pa.field("pixel", pa.int64(), metadata={"description": "Its pixel"}),
        pa.field("source_id", pa.int64(), metadata={"description": "Row of a shard"}),
        pa.field(
            "kept", pa.int64(), metadata={"description": "Row that stands for the source; null where a brick has it without predicting it"}
        ),
        pa.field("reason", pa.string(), metadata={"description": "duplicate, neighbour (both left out) or rescued (published)"}),
    ]
)
"""Rows of shards about which more than one brick had to be asked."""

_RADIUS = 2 * np.sin(np.radians(EDGE / 3600) / 2)
"""`EDGE` as a chord of the unit sphere."""


@dataclass(frozen=True)
class EdgeSources:
    """The sources of one brick's table near its edge; arrays of shape (N,), ``xyz`` (N, 3)."""

    brickid: int
    ids: NDArray[np.int64]
    xyz: NDArray[np.float64]
    own: NDArray[np.bool_]
    """Fitted inside the brick, not beyond its edge."""
    edge: NDArray[np.bool_]
    """Predicted, and beyond the edge."""
    predicted: NDArray[np.bool_]
    owner: NDArray[np.int64]
    """brickid of the brick that the fitted position lies in."""

    @property
    def tree(self) -> cKDTree:
        """Of the positions."""
        return cKDTree(self.xyz)


@dataclass(frozen=True)
class _Match:
    """One source as another brick's table has it."""

    brickid: int
    source_id: int
    own: bool
    predicted: bool

    @property
    def rank(self) -> tuple[int, int]:
        """The lowest is kept."""
        return self.brickid, self.source_id


@dataclass(frozen=True)
class Resolver:
    """Decides about rows at the edges of bricks.

    Parameters
    ----------
    folder : Path
        Of the catalog's shards and outcomes.
    outcomes : iterable of Entry
        Every outcomes file of the catalog.
    """

    folder: Path
    outcomes: Iterable[Entry]
    _by_brick: dict[str, list[Entry]] = field(default_factory=dict)
    _edges: dict[str, EdgeSources] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.outcomes:
            self._by_brick.setdefault(_brick_of(entry), []).append(entry)

    def around(self, shard: Entry) -> tuple[Entry, ...]:
        """Outcomes of the bricks that touch a shard's: of its release, or of another region, as in a union of releases."""
        area = known_brick(_brick_of(shard))
        release, region = shard.path.split("/")[:2]
        near = [entry for other in (touching(area) if area else ()) for entry in self._by_brick.get(other.name, ())]
        apart = [entry.path.split("/")[:2] for entry in near]
        return tuple(entry for entry, (whose, where) in zip(near, apart, strict=True) if whose == release or where != region)

    def own(self, shard: Entry) -> Entry | None:
        """Outcomes that lie beside a shard."""
        path = shard.path.removesuffix(".parquet") + ".outcomes.parquet"
        return next((entry for entry in self._by_brick.get(_brick_of(shard), ()) if entry.path == path), None)

    def depends_on(self, shards: Iterable[Entry]) -> list[list[str]]:
        """Path and content hash of every outcomes file that decides about rows of the shards, sorted."""
        found = {entry.path: entry.content_hash for shard in shards for entry in (self.own(shard), *self.around(shard)) if entry}
        return [list(item) for item in sorted(found.items())]

    def verdicts(self, shard: Entry) -> dict[int, tuple[int | None, str]]:
        """What to do with the rows of a shard that other bricks have too: ``source_id -> (row that is kept, reason)``.

        Rows that are not named are published. Reasons are those of `RESOLVED`.

        Raises
        ------
        BadData
            If an outcomes file does not read.
        StaleInventory
            If one was replaced meanwhile.
        """
        beside = self.own(shard)
        here = self._edge(beside) if beside else None
        if here is None or not here.predicted.any():
            return {}
        return decide(here, [edge for entry in self.around(shard) if (edge := self._edge(entry)) is not None])

    def forget(self, shards: Iterable[Entry]) -> None:
        """Let go of what was read, but for the shards' own surroundings: memory is bounded by one partition and the next."""
        kept = {entry.path for shard in shards for entry in (self.own(shard), *self.around(shard)) if entry}
        for path in set(self._edges) - kept:
            del self._edges[path]

    def _edge(self, entry: Entry) -> EdgeSources | None:
        area = known_brick(_brick_of(entry))
        if area is None or not entry.rows:
            return None
        if entry.path not in self._edges:
            self._edges[entry.path] = _read_edge(self.folder, entry, area)
        return self._edges[entry.path]


def _brick_of(entry: Entry) -> str:
    return entry.path.rpartition("/")[2].partition(".")[0]


def _read_edge(folder: Path, entry: Entry, area: Brick) -> EdgeSources:
    table = read_listed(folder, entry, lambda path: (read_outcomes(path), read_footer(path)["content_hash"]))
    return edge_sources(table, area)


def edge_sources(table: pa.Table, area: Brick) -> EdgeSources:
    """The sources of a brick's table near its edge.

    Parameters
    ----------
    table : pyarrow.Table
        Outcomes of the brick.
    area : Brick
    """
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    with np.errstate(invalid="ignore"):
        near = np.abs(distance_to_edge(area, ra, dec)) < 4 * EDGE
    # a repeated row would be taken for the other table's nearest in place of the one that counts
    near &= ~np.isin(table["reason"].to_numpy(zero_copy_only=False).astype(str), sorted(REPEATED))
    table, ra, dec = table.filter(pa.array(near)), ra[near], dec[near]
    reason = table["reason"].to_numpy(zero_copy_only=False).astype(str)
    predicted = table["status"].to_numpy(zero_copy_only=False).astype(str) == "predicted"
    owner = ids_at(ra, dec)
    edge = predicted & (reason == EDGE_REASON)
    own = (owner == area.brickid) & ~edge & (reason != "not_primary")
    xyz = np.stack([value.value for value in spherical_to_cartesian(1.0, np.radians(dec), np.radians(ra))], axis=1).reshape(-1, 3)
    # listed by its id although it is another brick's: wanted as it is
    predicted &= own | edge
    return EdgeSources(area.brickid, table["source_id"].to_numpy(), xyz, own, edge, predicted, owner)


def decide(here: EdgeSources, others: list[EdgeSources]) -> dict[int, tuple[int | None, str]]:
    """What to do with the predicted rows of a brick that others have too; see `Resolver.verdicts`.

    Parameters
    ----------
    here : EdgeSources
    others : list of EdgeSources
        Of the bricks that touch it and were done.
    """
    matches = _matches(here, others)
    present = {edge.brickid for edge in others}
    found = {}
    for row in np.flatnonzero(here.predicted):
        verdict = _verdict(here, int(row), matches.get(int(row), []), present)
        if verdict is not None:
            found[int(here.ids[row])] = verdict
    return found


def _matches(here: EdgeSources, others: list[EdgeSources]) -> dict[int, list[_Match]]:
    """By row of ``here``: the rows of other tables that are mutually nearest to it, within `EDGE`."""
    found: dict[int, list[_Match]] = {}
    tree = here.tree
    for other in others:
        if not len(other.ids):
            continue
        distance, nearest = (np.asarray(values) for values in other.tree.query(here.xyz, distance_upper_bound=_RADIUS))
        near = np.flatnonzero(np.isfinite(distance))
        back = np.asarray(tree.query(other.xyz[nearest[near]])[1])
        for row in near[back == near].tolist():
            there = nearest[row]
            match = _Match(other.brickid, int(other.ids[there]), bool(other.own[there]), bool(other.predicted[there]))
            found.setdefault(row, []).append(match)
    return found


def _verdict(here: EdgeSources, row: int, matches: list[_Match], present: set[int]) -> tuple[int | None, str] | None:
    rank = here.brickid, int(here.ids[row])
    owners = [match for match in matches if match.own]
    if not here.edge[row]:
        better = sorted(match.rank for match in owners if match.predicted and match.rank < rank)
        return (better[0][1], "duplicate") if better else None
    if owners or int(here.owner[row]) not in present:
        answered = sorted(match.rank for match in owners if match.predicted)
        return answered[0][1] if answered else None, "neighbour"
    # in nobody's area by everybody's own fit, or not in the table of the brick whose area it is in
    better = sorted(match.rank for match in matches if match.predicted and match.rank < rank)
    return (better[0][1], "neighbour") if better else (rank[1], "rescued")
