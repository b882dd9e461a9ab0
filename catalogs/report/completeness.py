"""The completeness table: every source and brick of a catalog, by what became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from catalogs.extent import Extent
from catalogs.inventory import Entry, Inventory
from catalogs.outcomes import read_outcomes_meta
from catalogs.report.words import kind_in_words, rule_in_words
from galpipe.errors import BadData
from galpipe.survey.selection import RULES
from galpipe.unit import Unit

MOST_BRICKS = 300
"""Bricks listed one by one, the incomplete ones first."""

ABSENT = "no_work"
"""Status of a brick that the release has no source table for, or no source in it."""


@dataclass(frozen=True)
class BrickLine:
    """One brick: how it ended, and its sources by outcome."""

    unit: Unit
    status: str
    sources: int = 0
    predicted: int = 0
    filtered: int = 0
    failed: int = 0
    reason: str = ""


@dataclass(frozen=True)
class RegionTotals:
    """One region of a release.

    Parameters
    ----------
    place : str
        ``release/region``.
    bricks : Counter
        Bricks by status.
    sources : Counter
        Sources by status, and by ``status:reason``.
    rows : int
        Rows of its shards.
    """

    place: str
    bricks: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    @property
    def failed_bricks(self) -> int:
        """Bricks that neither were done nor had nothing to do."""
        return sum(count for status, count in self.bricks.items() if status not in ("done", ABSENT))

    @property
    def closed(self) -> bool:
        """Whether every source has an outcome, and every predicted one a row."""
        told = sum(self.sources[key] for key in ("predicted", "filtered", "failed"))
        return told == self.sources["sources"] and self.sources["predicted"] == self.rows


@dataclass(frozen=True)
class Completeness:
    """The tables of the page.

    Parameters
    ----------
    regions : list of RegionTotals
    reasons : list of tuple
        (outcome, reason in words, sources in each region).
    bricks : list of BrickLine
        At most `MOST_BRICKS`.
    all_bricks : int
    """

    regions: list[RegionTotals]
    reasons: list[tuple[str, str, list[int]]]
    bricks: list[BrickLine]
    all_bricks: int


def completeness(extent: Extent, stock: Inventory) -> Completeness:
    """What became of every source of the bricks of an extent.

    Parameters
    ----------
    extent : Extent
    stock : Inventory
        Of the extent: whole bricks, where a region cuts some.
    """
    regions: dict[str, RegionTotals] = {}
    lines = []
    for entry in stock.outcomes:
        region = _region(regions, entry)
        told = json.loads(entry.counts)
        region.bricks[told["status"]] += 1
        region.sources.update(told["counts"])
        counts = [told["counts"].get(key, 0) for key in ("sources", "predicted", "filtered", "failed")]
        lines.append(BrickLine(extent.unit_of(entry.path), told["status"], *counts))
    for entry in stock.shards:
        region = _region(regions, entry)
        regions[region.place] = RegionTotals(region.place, region.bricks, region.sources, region.rows + entry.rows)
    ordered = [regions[place] for place in sorted(regions)]
    return Completeness(ordered, _reasons(ordered), _shown(extent, lines), len(lines))


def _region(regions: dict[str, RegionTotals], entry: Entry) -> RegionTotals:
    place = "/".join(entry.path.split("/")[:2])
    return regions.setdefault(place, RegionTotals(place))


def _reasons(regions: Sequence[RegionTotals]) -> list[tuple[str, str, list[int]]]:
    found = {key for region in regions for key, count in region.sources.items() if ":" in key and count}

    def order(key: str) -> tuple[int, int, str]:
        status, _, reason = key.partition(":")
        return ("predicted", "filtered", "failed").index(status), RULES.index(reason) if reason in RULES else len(RULES), reason

    known = sorted((key for key in found if key.split(":")[0] in ("predicted", "filtered", "failed")), key=order)
    return [(key.split(":")[0], rule_in_words(key.partition(":")[2]), [region.sources[key] for region in regions]) for key in known]


def _shown(extent: Extent, lines: Sequence[BrickLine]) -> list[BrickLine]:
    """Failed bricks first, then those without work, then those of which the smallest share was predicted."""

    def order(line: BrickLine) -> tuple[int, float, Unit]:
        kind = 2 if line.status == "done" else 1 if line.status == ABSENT else 0
        return kind, line.predicted / max(line.sources, 1), line.unit

    return [line if line.status == "done" else _with_reason(extent, line) for line in sorted(lines, key=order)[:MOST_BRICKS]]


def _with_reason(extent: Extent, line: BrickLine) -> BrickLine:
    """Why a brick was not done, by its outcomes file; nothing where a later run replaced that."""
    try:
        told = read_outcomes_meta(extent.layout.outcomes(line.unit, extent.name))
    except BadData:
        return line
    reason = " ".join(part for part in (told.file, told.reason) if part) if told.status == line.status else ""
    return BrickLine(line.unit, line.status, line.sources, line.predicted, line.filtered, line.failed, reason)


def status_in_words(status: str) -> str:
    """A brick's status for the completeness table."""
    return "absent" if status == ABSENT else kind_in_words(status)
