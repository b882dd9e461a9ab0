"""A drawing of what changed between two versions: how many rows per column, and by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catalogs.diff.compare import Difference
from catalogs.report.style import ACCENT, DPI, GRID, INK, MUTED
from galpipe.commit import replace_file

SHOWN = 30
"""Columns drawn, the most changed first."""


def draw(found: Difference, path: Path) -> None:
    """Write the drawing as PNG.

    Parameters
    ----------
    found : Difference
        From `catalogs.diff.compare.diff`.
    path : Path
    """
    columns = found.columns()[:SHOWN]
    names = [name for name, _ in columns]
    figure = Figure(figsize=(11, 1.9 + 0.24 * max(4, len(columns))), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    one, other = found.before, found.after
    title = f"{one.name} v{one.version} to {other.name} v{other.version}: {found.changed:,} rows changed, {found.added:,} added, "
    figure.suptitle(f"{title}{found.removed:,} removed, {found.unchanged:,} as they were", color=INK, fontsize=11)
    left, right = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(columns))
    left.barh(place, [item.changed for _, item in columns], color=ACCENT)
    left.set_yticks(place, names, fontsize=7)
    left.set_ylim(max(len(columns), 1) - 0.4, -0.6)
    hidden = len(found.columns()) - len(columns)
    left.set_xlabel("rows changed by more than the tolerance" + (f"; {hidden} more columns not drawn" if hidden else ""))
    medians, largest = (np.array([getattr(item, key) for _, item in columns]) for key in ("median", "largest"))
    right.hlines(place, medians, largest, color=MUTED, linewidth=1)
    right.plot(medians, place, "o", color=ACCENT, markersize=4, label="median")
    right.plot(largest, place, "|", color=INK, markersize=8, label="largest")
    right.set_xlabel("absolute change, in the column's unit (none for text and flags)")
    if np.isfinite(medians).any():
        right.set_xscale("log")
        right.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    for axes in (left, right):
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    with replace_file(path) as aside:
        figure.savefig(aside, format="png")
