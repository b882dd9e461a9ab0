"""What differs between two published versions: rows added, removed and changed, and by how much.

Versions are read partition by partition. Partitions that both have (one file under two names, or made from the same shards) are
counted and not read. A row is the same galaxy in both where it has the same ``source_id``; rows of different releases, whose ids say
nothing, are matched by position.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogs.diff.pairs import LARGEST_RADIUS, Cell, Matched, Rows, cell_of, match, read_rows, ring, separation
from catalogs.diff.values import Amounts, Compared, compare, tolerance_of
from catalogs.hats import manifest, version_folder
from catalogs.memory import KEYS
from catalogs.schema import HEALPIX
from catalogs.versions import partitions_of
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout

PROVENANCE = "provenance_id"
"""Counted apart: a row that was made again and came out the same did not change."""

MOVED = "separation"
"""Stands among the columns for the angle between the two positions, arcsec."""

NEVER = ("source_id", HEALPIX, PROVENANCE)
"""Columns that say who a row is, where it is again, and what it was made from."""

NAMES = ("release_name", "region", "release", "brickid", "objid", "brickname")
"""Columns that differ by nature where rows are matched by position."""


BLOCK = 24
"""Columns in memory at a time; opening a file costs as much as reading many of its columns."""


@dataclass(frozen=True)
class Side:
    """One of the two versions."""

    name: str
    version: int
    folder: Path
    created: str
    schema: pa.Schema
    cells: dict[Cell, Path]
    keys: dict[str, str]

    @classmethod
    def open(cls, layout: Layout, name: str, version: int) -> Side:
        """Look at a version; rows are not read."""
        folder = version_folder(layout, name, version)
        cells = {cell_of(path): path for path in partitions_of(folder)}
        schema = pq.read_schema(folder / "dataset" / "_common_metadata")
        # an older galpipe kept a flat list, whose keys do not say which columns there are
        keys = json.loads((folder / KEYS).read_text()).get("keys", {})
        return cls(name, version, folder, manifest(folder)["created"], schema, cells, keys)

    def key(self, cell: Cell) -> str | None:
        """What a partition was made from; None where the version does not say."""
        return self.keys.get(f"{cell.order}/{cell.pixel}")

    def as_dict(self, rows: int) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"name": self.name, "version": self.version, "created": self.created, "rows": rows}


@dataclass(frozen=True)
class Group:
    """Partitions of both versions that cover one pixel of the sky: one on each side, or several where one was split."""

    cell: Cell
    before: tuple[Path, ...]
    after: tuple[Path, ...]
    linked: bool
    """Both sides are the same."""


@dataclass(frozen=True)
class Part:
    """The differing rows of one group, as `catalogs.diff.output` writes them."""

    matched: Matched
    pairs: NDArray[np.int64]
    """Which of the pairs changed."""
    columns: dict[str, NDArray[np.bool_]]
    """Columns that changed, each with the changed pairs in which it did."""
    apart: NDArray[np.float64]
    """Of each changed pair: arcsec."""


@dataclass
class Difference:
    """The result of `diff`."""

    before: Side
    after: Side
    compared: tuple[str, ...]
    rows_before: int = 0
    rows_after: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    by_position: int = 0
    """Rows that were matched by position."""
    remade: int = 0
    """Rows with another provenance_id, changed or not."""
    partitions_skipped: int = 0
    partitions_compared: int = 0
    amounts: dict[str, Amounts] = field(default_factory=dict)

    def columns(self) -> list[tuple[str, Amounts]]:
        """Columns with a change, the most changed first."""
        found = [(name, item) for name, item in self.amounts.items() if item.changed]
        return sorted(found, key=lambda item: (-item[1].changed, item[0]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        one, other = self.before.schema, self.after.schema
        counts = ("added", "removed", "changed", "unchanged", "by_position", "remade", "partitions_skipped", "partitions_compared")
        return {
            "before": self.before.as_dict(self.rows_before),
            "after": self.after.as_dict(self.rows_after),
            "counts": {key: getattr(self, key) for key in counts},
            "columns": {name: {**amounts.as_dict(), "unit": _unit(self.after.schema, name)} for name, amounts in self.columns()},
            "columns_added": [name for name in other.names if name not in one.names],
            "columns_removed": [name for name in one.names if name not in other.names],
            "columns_retyped": [name for name in one.names if name in other.names and one.field(name).type != other.field(name).type],
        }


def _unit(schema: pa.Schema, name: str) -> str:
    if name == MOVED:
        return "arcsec"
    return ((schema.field(name).metadata or {}).get(b"unit") or b"").decode()


def open_sides(layout: Layout, before: tuple[str, int], after: tuple[str, int], columns: Sequence[str] = ()) -> Difference:
    """Two versions to compare, each a catalog's name and a number.

    Parameters
    ----------
    layout : Layout
    before, after : tuple
    columns : sequence of str
        What to compare; empty for every column that both have.

    Raises
    ------
    ConfigurationError
        If there is no such version, or a column is not in both.
    """
    sides = Side.open(layout, *before), Side.open(layout, *after)
    shared = [name for name in sides[1].schema.names if name in sides[0].schema.names]
    unknown = sorted(set(columns) - set(shared))
    if unknown:
        raise ConfigurationError("columns that both versions have", f"{unknown}")
    return Difference(*sides, tuple(name for name in shared if name not in NEVER and (not columns or name in columns)))


def diff(
    found: Difference,
    radius: float | None = None,
    on_part: Callable[[Part], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Compare two versions, one pixel of the sky in memory at a time.

    Parameters
    ----------
    found : Difference
        From `open_sides`; filled in.
    radius : float, optional
        Arcsec: match rows by position alone. By default by ``source_id``, and by position (within 1 arcsec) those that are left over
        and belong to different releases.
    on_part : callable, optional
        Called with the differing rows of each pixel.
    progress : callable, optional
        Called with (pixels done, pixels).

    Raises
    ------
    ConfigurationError
        If the radius makes no sense.
    BadData
        If a partition does not read.
    """
    if radius is not None and not 0 < radius <= LARGEST_RADIUS:
        raise ConfigurationError(f"a radius above 0 and up to {LARGEST_RADIUS:g} arcsec", repr(radius))
    listed = list(groups(found.before, found.after))
    unshared = {group.cell: group for group in listed if not group.linked}
    for done, group in enumerate(listed, 1):
        if group.linked:
            rows = sum(pq.read_metadata(path).num_rows for path in group.after)
            found.partitions_skipped += len(group.after)
            found.rows_before, found.rows_after, found.unchanged = found.rows_before + rows, found.rows_after + rows, found.unchanged + rows
        else:
            own = read_rows(group.before), read_rows(group.after)
            part = _compare(found, match(group.cell, own, _around(group, unshared, radius), radius))
            found.partitions_compared += len(group.after) or len(group.before)
            if on_part:
                on_part(part)
        if progress:
            progress(done, len(listed))
    return found


def groups(before: Side, after: Side) -> Iterator[Group]:
    """The partitions of two versions, put together by the coarsest pixel that covers them, sorted."""
    every = {cell: None for side in (before, after) for cell in side.cells}
    roots: dict[Cell, list[Cell]] = {}
    for cell in sorted(every):
        above = (Cell(order, cell.at(order)) for order in range(cell.order))
        roots.setdefault(next((root for root in above if root in roots), cell), []).append(cell)
    for root, cells in sorted(roots.items()):
        files = [tuple(side.cells[cell] for cell in cells if cell in side.cells) for side in (before, after)]
        same = all(cell in before.cells and cell in after.cells and _same(before, after, cell) for cell in cells)
        yield Group(root, files[0], files[1], same)


def _same(before: Side, after: Side, cell: Cell) -> bool:
    key = before.key(cell)
    return before.cells[cell].samefile(after.cells[cell]) or (key is not None and key == after.key(cell))


def _around(group: Group, unshared: Mapping[Cell, Group], radius: float | None) -> tuple[Iterator[Path], Iterator[Path]]:
    """Partitions beside a group's; those that both versions share hold no counterpart of anything."""
    order, cells = ring(group.cell, radius or 0.0)
    touched = [other for level in {cell.order for cell in unshared} for other in _at_level(order, cells, level, unshared)]
    beside = [unshared[cell] for cell in sorted(touched) if cell != group.cell]
    return (path for other in beside for path in other.before), (path for other in beside for path in other.after)


def _at_level(order: int, cells: NDArray[np.int64], level: int, unshared: Mapping[Cell, Group]) -> list[Cell]:
    if level > order:
        return [cell for cell in unshared if cell.order == level and cell.at(order) in cells]
    return [cell for pixel in np.unique(cells >> (2 * (order - level))) if (cell := Cell(level, int(pixel))) in unshared]


def _compare(found: Difference, matched: Matched) -> Part:
    """Count a group's rows and compare its pairs column by column."""
    pairs = matched.pairs
    before, after = matched.before.take(pairs.before), matched.after.take(pairs.after)
    masks: dict[str, NDArray[np.bool_]] = {}
    apart = separation(before, after)

    def note(name: str, compared: Compared) -> None:
        found.amounts.setdefault(name, Amounts()).add(compared, after.ids)
        if compared.changed.any():
            masks[name] = compared.changed

    if len(before):
        for name, (older, newer) in _columns(found.compared, before, after):
            compared = compare(older, newer, max(tolerance_of(side.schema.field(name)) for side in (found.before, found.after)))
            # a row matched by position has another brick, number and release by nature
            note(name, Compared(compared.changed & ~matched.positional, compared.amount) if name in NAMES else compared)
        moved = after.ra != before.ra, after.dec != before.dec
        if {"ra", "dec"} <= set(found.compared):
            found.amounts.setdefault(MOVED, Amounts()).add(Compared(moved[0] | moved[1], apart), after.ids)
        if all(PROVENANCE in side.schema.names for side in (found.before, found.after)):
            ((_, made_from),) = _columns((PROVENANCE,), before, after)
            found.remade += int(compare(*made_from, 0).changed.sum())
    rows = np.flatnonzero(np.logical_or.reduce([np.zeros(len(before), bool), *masks.values()]))
    _count(found, matched, len(rows))
    return Part(matched, rows, {name: mask[rows] for name, mask in masks.items()}, apart[rows])


def _columns(names: Sequence[str], before: Rows, after: Rows) -> Iterator[tuple[str, tuple[pa.Array, pa.Array]]]:
    """Columns of both, `BLOCK` in memory at a time."""
    for start in range(0, len(names), BLOCK):
        block = names[start : start + BLOCK]
        one, other = before.columns(block), after.columns(block)
        yield from ((name, (one[name], other[name])) for name in block)


def _count(found: Difference, matched: Matched, changed: int) -> None:
    found.rows_before += matched.own[0]
    found.rows_after += matched.own[1]
    found.removed += len(matched.removed)
    found.added += len(matched.added)
    found.changed += changed
    found.unchanged += len(matched.pairs.before) - changed
    found.by_position += int(matched.positional.sum())


def rows_of(part: Part) -> dict[str, tuple[Rows | None, Rows | None]]:
    """The differing rows of a part by kind: before and after, None where a kind has no such side."""
    matched, pairs = part.matched, part.matched.pairs
    return {
        "removed": (matched.before.take(matched.removed), None),
        "added": (None, matched.after.take(matched.added)),
        "changed": (matched.before.take(pairs.before[part.pairs]), matched.after.take(pairs.after[part.pairs])),
    }
