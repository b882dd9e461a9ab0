"""The histogram of one column as a few rectangles and ticks, which the page draws as SVG: hundreds of them cost little."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 240.0, 70.0
"""Size of the drawing's plane, in its own units."""
BARS = 40
MOST_WHOLE = 40
"""Whole numbers over no more than this range have a bar each."""
LARGEST_WHOLE = 1e9
"""Larger whole numbers are numbers like any other."""
LOG_FROM = 30.0
"""Ratio of the 98th to the 2nd percentile from which an axis of values is logarithmic."""
LOG_COUNTS = 0.75
"""Share of rows in the tallest bar from which the axis of counts is logarithmic: the others would not be seen."""
MOST_TEXTS = 8


@dataclass(frozen=True)
class Bar:
    """A rectangle from the baseline up: left edge, width, height, and what it counts."""

    x: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A mark of the axis of values."""

    x: float
    label: str

    @property
    def anchor(self) -> str:
        """How SVG puts the label: inside the drawing at its ends."""
        return "start" if self.x < 0.04 * WIDTH else "end" if self.x > 0.96 * WIDTH else "middle"


@dataclass(frozen=True)
class Histogram:
    """Bars and ticks on a plane of `WIDTH` by `HEIGHT`.

    Parameters
    ----------
    bars : tuple of Bar
    ticks : tuple of Tick
    top : int
        Rows in the tallest bar.
    log_values, log_counts : bool
        Which axes are logarithmic.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    top: int
    log_values: bool = False
    log_counts: bool = False


def of_numbers(values: Floats, *, share: bool = False) -> Histogram | None:
    """Histogram of numbers; None where there is none. The outermost half percent at each end is counted in the outermost bars.

    Parameters
    ----------
    values : ndarray
        Any shape; what is not finite is left out.
    share : bool
        The values are shares of a whole, whose axis begins at 0.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = (float(end) for end in np.percentile(values, [0.5, 99.5]))
    whole = bool(np.all(values == np.rint(values))) and float(np.abs(values).max()) < LARGEST_WHOLE
    if whole and values.max() - values.min() <= MOST_WHOLE:
        edges, log = np.arange(values.min() - 0.5, values.max() + 1.5), False
    elif high - low <= 1e-9 * max(abs(low), abs(high)):
        half = max(abs(low) * 0.05, 1e-3)
        edges, log = np.linspace(low - half, high + half, 4), False
    else:
        spread = np.percentile(values, [2, 98])
        log = bool(not share and values.min() > 0 and spread[1] > LOG_FROM * spread[0])
        low = 0.0 if share and values.min() >= 0 else low
        edges = np.geomspace(low, high, BARS + 1) if log else np.linspace(low, high, BARS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    places = _place(edges, edges, log)
    bars, logged = _bars(counts, places, [f"{start:.4g} to {stop:.4g}" for start, stop in pairwise(edges)])
    return Histogram(bars, _ticks(edges, log), int(counts.max()), log, logged)


def _place(values: Floats, edges: Floats, log: bool) -> Floats:
    scale = np.log10 if log else np.asarray
    start, stop = scale(edges[0]), scale(edges[-1])
    return np.asarray(WIDTH * (scale(values) - start) / (stop - start), np.float64)


def _bars(counts: NDArray[np.int64], places: Floats, texts: list[str]) -> tuple[tuple[Bar, ...], bool]:
    total, top = int(counts.sum()), int(counts.max())
    # of few bars each is seen beside the tallest one
    logged = bool(len(counts) > 2 and top > LOG_COUNTS * total and top < total and top > 20)
    heights = np.log1p(counts) / np.log1p(top) if logged else counts / max(top, 1)
    made = [
        Bar(float(start), max(float(stop - start) - 0.5, 0.5), float(HEIGHT * height), f"{text}: {count}")
        for start, stop, height, count, text in zip(places[:-1], places[1:], heights, counts, texts, strict=True)
        if count
    ]
    return tuple(made), logged


def _ticks(edges: Floats, log: bool) -> tuple[Tick, ...]:
    if log:
        first, last = np.log10(edges[0]), np.log10(edges[-1])
        whole = np.arange(np.ceil(first - 1e-9), np.floor(last + 1e-9) + 1)
        steps = (1.0, 2.0, 5.0) if len(whole) < 3 else (1.0,)
        values = np.array([step * 10.0**power for power in np.arange(np.floor(first), np.floor(last) + 1) for step in steps])
    else:
        values = np.asarray(MaxNLocator(4).tick_values(float(edges[0]), float(edges[-1])))
        if float(edges[1] - edges[0]) == 1.0:
            values = np.unique(np.rint(values))
    values = values[(values >= edges[0]) & (values <= edges[-1])]
    while len(values) > 5:
        values = values[:: 2 if len(values) < 12 else 3]
    return tuple(Tick(float(x), label(float(value))) for x, value in zip(_place(values, edges, log), values, strict=True))


def label(value: float) -> str:
    """A number with four digits at most: ``1e+06`` becomes ``1e6``."""
    return f"{value + 0.0:.4g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def of_texts(texts: Counter[str]) -> list[tuple[str, int, float]]:
    """The most frequent texts: (text, rows, share of the most frequent); what is left over is counted together."""
    listed = sorted(texts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = listed[:MOST_TEXTS], listed[MOST_TEXTS:]
    if rest:
        shown.append((f"({len(rest)} others)", sum(count for _, count in rest)))
    top = max((count for _, count in shown), default=1)
    return [(text or "(empty)", count, count / top) for text, count in shown]
