"""The part of a report that shows the sky: maps of coverage and conditions, and each class's fraction against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mocpy import MOC

from catalogs.extent import Extent
from catalogs.inventory import Inventory
from catalogs.maps import SMALLEST_SHARE, Answer, SkyMaps, take_maps
from catalogs.report.galaxies import encoded
from catalogs.report.skydraw import Ground, Panel, outline_shows, sky_maps
from catalogs.report.trenddraw import SUSPECT, ClassTrends, class_trends, conditions_shown, draw_trends, short_name
from catalogs.report.words import grouped
from galpipe.skymap.cells import cell_area

MOC_FILE = "moc.fits"

FEWEST_IN_CELL = 5
"""Galaxies of a question from which on a cell's fraction is drawn."""

MAIN = ("usable", "stars", "ebv", "depth_z", "seeing_z")
"""Conditions that a run's page has a map of."""
MAIN_ROWS = 200_000
"""Rows of a catalog from which on a run's page has no maps: `galpipe report --catalog` takes its time for them."""
MAIN_IMAGES = 8
"""Bricks whose images a run's page reads for usable area."""


def sky_part(extent: Extent, maps: SkyMaps) -> dict[str, Any]:
    """What the catalog's page says of the sky: maps, trends and their table.

    Parameters
    ----------
    extent : Extent
    maps : SkyMaps
        Of the extent.
    """
    moc = _moc(extent)
    ground = Ground(maps.cells, maps.order, maps.processed, moc)
    trends = class_trends(maps)
    shown = conditions_shown(maps, trends)
    drawings = {
        "maps": sky_maps(ground, condition_panels(maps)),
        "trends": draw_trends(maps, trends),
        "classes": sky_maps(Ground(maps.cells, maps.order, maps.processed), _class_panels(maps, trends)),
    }
    lines = [_trend_line(item, [condition.name for condition in shown]) for item in trends]
    tests = sum(len([text for text, _ in line["changes"] if text != "–"]) for line in lines)
    return {
        "figures": {key: encoded(data) if data else "" for key, data in drawings.items()},
        "order": maps.order,
        "cell": _cell_text(maps.order),
        "outline": outline_shows(ground),
        "usable_from": maps.usable_from,
        "trends": lines,
        "trend_conditions": [short_name(condition) for condition in shown],
        "tests": tests,
        "expected": f"{tests * SUSPECT:.1f}",
    }


def _moc(extent: Extent) -> MOC | None:
    if extent.version is None:
        return None
    # a version of an older galpipe is one HATS catalog, not a collection of them
    found = [path for path in (extent.folder / "catalog" / MOC_FILE, extent.folder / MOC_FILE) if path.exists()]
    return MOC.load(str(found[0]), format="fits") if found else None


def coverage_text(extent: Extent) -> str:
    """What the coverage map of a published version is, in words."""
    moc = _moc(extent)
    if moc is None:
        return "– (a published version has a MOC)"
    return f"{MOC_FILE} of the version: MOC of order {moc.max_order}, {moc.sky_fraction * 360**2 / np.pi:.3g} deg²"


def _cell_text(order: int) -> str:
    side = float(np.sqrt(cell_area(order)))
    return f"{side / 60:.2g} deg wide" if side > 60 else f"{side:.2g} arcmin wide"


def condition_panels(maps: SkyMaps) -> list[Panel]:
    """The maps of coverage and conditions, in the order of the page."""
    area = maps.covered * cell_area(maps.order)
    density = np.where(maps.covered >= SMALLEST_SHARE, maps.galaxies / np.where(area > 0, area, 1.0), np.nan)
    known = {condition.name: (condition, values) for condition, values in maps.conditions.items()}
    first = [known.pop(name) for name in ("usable", "stars") if name in known]
    panels = [Panel("galaxies per processed area", "arcmin-2", density)]
    return panels + [Panel(item.label, item.unit, values) for item, values in [*first, *known.values()]]


def _class_panels(maps: SkyMaps, trends: Sequence[ClassTrends]) -> list[Panel]:
    panels = []
    for item in trends:
        hits, tries = maps.classes[item.answer]
        share = np.where(tries >= FEWEST_IN_CELL, hits / np.maximum(tries, 1), np.nan)
        if np.isfinite(share).any():
            panels.append(Panel(_class_text(item.answer), "fraction", share, "cividis"))
    return panels


def _class_text(answer: Answer) -> str:
    return f"{answer.question}: {answer.answer}"


def _trend_line(item: ClassTrends, conditions: Sequence[str]) -> dict[str, Any]:
    changes = []
    for name in conditions:
        found = item.trends.get(name)
        if found is None:
            changes.append(("–", False))
        else:
            change, error = found.change
            changes.append((f"{100 * change:+.1f} ± {100 * error:.1f}", found.p_value < SUSPECT))
    return {
        "question": item.answer.question,
        "answer": item.answer.answer,
        "galaxies": grouped(round(item.galaxies)),
        "fraction": f"{item.overall:.3f}",
        "changes": changes,
    }


def main_maps(extent: Extent, stock: Inventory) -> dict[str, str]:
    """The maps and trends on the page of a run, as base64 of PNGs; empty texts where there is nothing to draw or it would take long.

    Parameters
    ----------
    extent : Extent
    stock : Inventory
        Of the extent.
    """
    if not 0 < sum(entry.rows for entry in stock.shards) <= MAIN_ROWS:
        return {"maps": "", "trends": ""}
    maps = take_maps(extent, stock, MAIN_IMAGES)
    kept = {item: values for item, values in maps.conditions.items() if item.name in MAIN}
    panels = condition_panels(replace(maps, conditions=kept))
    drawn = sky_maps(Ground(maps.cells, maps.order, maps.processed), panels), draw_trends(maps, class_trends(maps))
    return {key: encoded(data) if data else "" for key, data in zip(("maps", "trends"), drawn, strict=True)}
