"""How every drawing of a report looks: colors, letters, axes, and the same bytes for the same catalog."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

INK, MUTED, ACCENT, GRID = "#24313a", "#6b7c87", "#3b7896", "#e3e8ea"

DPI = 144

_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def figure_of(width: float, height: float, *, placed: bool = False) -> Figure:
    """An empty figure of a size in inches; ``placed`` where its drawing says itself where each axes lies."""
    # a Figure of its own, not pyplot's: no global state, safe in any thread
    figure = Figure(figsize=(width, height), dpi=DPI, layout=None if placed else "constrained")
    FigureCanvasAgg(figure)
    return figure


def axes_of(figure: Figure, rows: int, columns: int) -> list[Axes]:
    """A grid of axes in the report's style, row by row."""
    made: list[Axes] = list(np.atleast_1d(figure.subplots(rows, columns)).ravel())
    for axes in made:
        dress(axes)
    return made


def dress(axes: Axes) -> None:
    """Put axes into the report's style."""
    axes.tick_params(labelsize=7.5, colors=MUTED, length=3)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
        spine.set_linewidth(0.7)


def png_of(figure: Figure) -> bytes:
    """A figure as PNG bytes."""
    buffer = BytesIO()
    # no creation date: the same catalog gives the same page
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def plain_log(axis: Axis) -> None:
    """Ticks at 1, 2, 5 times powers of ten, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def pretty_unit(unit: str) -> str:
    """A VOUnit text for people: ``arcmin-2`` becomes ``arcmin`` with a raised ``-2``."""
    return re.sub(r"-?\d+", lambda found: found[0].translate(_RAISED), unit)
