"""A class's fraction against the conditions of the sky, as PNG bytes, and as the table of all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from catalogs.maps import Answer, Condition, SkyMaps
from catalogs.report.style import ACCENT, GRID, INK, MUTED, dress, figure_of, png_of, pretty_unit
from galpipe.skymap.trends import Trend, trend

Floats = NDArray[np.float64]

SHOWN_CLASSES = 6
FEWEST = 30
"""Galaxies of a class, and of the others of its question, from which on its trends are shown."""
SUSPECT = 0.0027
"""Chance (3 sigma) below which a trend is marked."""
MARK = "#b5523f"

SHOWN_CONDITIONS = ("depth_r", "depth_z", "seeing_r", "seeing_z", "ebv", "stars", "usable")
_SHORT = {"ebv": "E(B-V)", "stars": "point sources", "usable": "usable share"}


@dataclass(frozen=True)
class ClassTrends:
    """One class against every condition.

    Parameters
    ----------
    answer : Answer
    galaxies : float
        Galaxies of its question.
    overall : float
        Fraction of them that are of the class.
    trends : dict
        By the condition's name; conditions that do not vary are left out.
    """

    answer: Answer
    galaxies: float
    overall: float
    trends: Mapping[str, Trend]


def class_trends(maps: SkyMaps) -> list[ClassTrends]:
    """The trends of every class that has enough galaxies, in the order of the catalog's columns."""
    found = []
    for answer, (hits, tries) in maps.classes.items():
        total, mine = float(tries.sum()), float(hits.sum())
        if min(mine, total - mine) < FEWEST:
            continue
        named = {item.name: trend(values, hits, tries) for item, values in maps.conditions.items()}
        found.append(ClassTrends(answer, total, mine / total, {name: item for name, item in named.items() if item is not None}))
    return [item for item in found if item.trends]


def conditions_shown(maps: SkyMaps, classes: Sequence[ClassTrends]) -> list[Condition]:
    """The conditions that the drawing has a column for."""
    known = {item.name: item for item in maps.conditions}
    used = {name for item in classes for name in item.trends}
    return [known[name] for name in SHOWN_CONDITIONS if name in known and name in used]


def draw_trends(maps: SkyMaps, classes: Sequence[ClassTrends]) -> bytes | None:
    """Panels of the largest classes (rows) against the conditions (columns); None where there is no trend to draw.

    The gray band is the fraction in the whole area with its error; a panel whose points leave it by chance less often than
    `SUSPECT` has its p-value in red.
    """
    shown = _largest(classes)
    columns = conditions_shown(maps, shown)
    if not shown or not columns:
        return None
    shown.sort(key=lambda item: list(maps.classes).index(item.answer))
    left, right, top, below, tall = 0.95, 0.12, 0.36, 0.5, 1.12
    width, height = 11.4, len(shown) * tall + top + below
    figure = figure_of(width, height, placed=True)
    grid = figure.subplots(len(shown), len(columns), squeeze=False)
    inner = {"left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": below / height}
    figure.subplots_adjust(**inner, wspace=0.2, hspace=0.2)
    for row, item in enumerate(shown):
        limits = _limits(item)
        for column, condition in enumerate(columns):
            axes: Axes = grid[row, column]
            dress(axes)
            _panel(axes, item, item.trends.get(condition.name), limits)
            axes.tick_params(labelleft=column == 0, labelbottom=row == len(shown) - 1)
            if row == len(shown) - 1:
                unit = f", {pretty_unit(condition.unit)}" if condition.unit else ""
                axes.set_xlabel(short_name(condition) + unit, fontsize=8, color=INK)
        grid[row, 0].set_ylabel(f"{item.answer.question}:\n{item.answer.answer}", fontsize=8, color=INK)
    for column, condition in enumerate(columns):
        _same_axis(list(grid[:, column]), [item.trends[condition.name] for item in shown if condition.name in item.trends])
    return png_of(figure)


def _largest(classes: Sequence[ClassTrends]) -> list[ClassTrends]:
    """The classes that are known best; of a question all but its most common answer, which is what the others leave."""
    common: dict[str, ClassTrends] = {}
    for item in classes:
        if item.overall > common.get(item.answer.question, item).overall or item.answer.question not in common:
            common[item.answer.question] = item
    others = [item for item in classes if common[item.answer.question] is not item] or list(classes)
    return sorted(others, key=lambda item: -item.galaxies * item.overall * (1 - item.overall))[:SHOWN_CLASSES]


def short_name(condition: Condition) -> str:
    """A condition in few letters."""
    kind, _, band = condition.name.partition("_")
    return _SHORT.get(condition.name, f"{kind} {band}")


def _limits(item: ClassTrends) -> tuple[float, float]:
    low = min(float(one.low.min()) for one in item.trends.values())
    high = max(float(one.high.max()) for one in item.trends.values())
    # room above for the p-value
    return low - 0.12 * (high - low), high + 0.34 * (high - low)


def _same_axis(column: Sequence[Axes], trends: Sequence[Trend]) -> None:
    low, high = (end(float(end(one.at)) for one in trends) for end in (min, max))
    margin = 0.08 * (high - low)
    for axes in column:
        axes.set_xlim(low - margin, high + margin)


def _panel(axes: Axes, item: ClassTrends, found: Trend | None, limits: tuple[float, float]) -> None:
    axes.set_ylim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    spread = float(np.sqrt(item.overall * (1 - item.overall) / item.galaxies))
    axes.axhspan(item.overall - spread, item.overall + spread, color=GRID, linewidth=0)
    axes.axhline(item.overall, color=MUTED, linewidth=0.7)
    if found is None:
        return
    errors = np.abs(np.stack([found.fraction - found.low, found.high - found.fraction]))
    axes.errorbar(found.at, found.fraction, errors, fmt="o", color=ACCENT, markersize=3.2, linewidth=1.0, capsize=0)
    color = MARK if found.p_value < SUSPECT else MUTED
    axes.text(0.97, 0.95, p_text(found.p_value), transform=axes.transAxes, ha="right", va="top", fontsize=7, color=color)


def p_text(value: float) -> str:
    """``p 0.31``, or ``p < 0.0001``."""
    return "p < 0.0001" if value < 1e-4 else f"p {value:.2g}"
