"""The report's drawings, as PNG bytes: sky map of bricks, histograms, model against Tractor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from catalogs.report.rows import Sample, field_text
from catalogs.report.style import ACCENT, INK, MUTED, axes_of, figure_of, plain_log, png_of
from catalogs.report.words import kind_in_words
from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import Brick, brick_by_name

STATE_COLORS = {
    "done": "#5b9a7a",
    "up_to_date": "#5b9a7a",
    "no_work": "#c3ccd1",
    "bad_data": "#b5523f",
    "remote_failure": "#d39a3c",
    "resource": "#8a6bb0",
    "error": "#5d2a2a",
}
OTHER_COLOR = "#444444"

MOST_RECTANGLES = 4000
"""Bricks drawn as rectangles; more are drawn as points."""
MOST_POINTS = 3000
"""Galaxies drawn one by one; more are drawn as a density."""


@dataclass(frozen=True)
class Histogram:
    """One histogram: the first of ``columns`` that the catalog has.

    Parameters
    ----------
    columns : tuple of str
    title : str
    log : bool
        Logarithmic axis of values.
    low, high : float or None
        Fixed limits; None takes them from the values.
    """

    columns: tuple[str, ...]
    title: str
    log: bool = False
    low: float | None = None
    high: float | None = None


HISTOGRAMS = (
    Histogram(("mag_z", "mag_r"), "Tractor magnitude"),
    Histogram(("lvm_mag_r",), "model magnitude r, dereddened"),
    Histogram(("lvm_half_light_radius",), "model half-light radius", log=True),
    Histogram(("smooth-or-featured_featured-or-disk_fraction",), "vote fraction featured or disk", low=0, high=1),
    Histogram(("n_detections",), "objects found per stamp"),
    Histogram(("sep_n_objects",), "objects found by sep per stamp"),
    Histogram(("lvm_sersic_n",), "model Sersic index", log=True),
    Histogram(("lvm_axis_ratio",), "model axis ratio b/a", low=0, high=1),
    Histogram(("lvm_bulge_fraction",), "model bulge fraction", low=0, high=1),
    Histogram(("z_lvm", "z_mock"), "redshift"),
    Histogram(("merging_none_fraction",), "vote fraction not merging", low=0, high=1),
    Histogram(("restoration_filled_fraction",), "share of pixels filled", low=0, high=1),
)


@dataclass(frozen=True)
class Comparison:
    """A model's column against a measured one of the same meaning."""

    model: str
    measured: str
    title: str
    log: bool = False


COMPARISONS = (
    Comparison("lvm_mag_r", "mag_r_dered", "total magnitude r, dereddened"),
    Comparison("lvm_half_light_radius", "shape_r", "half-light radius, arcsec", log=True),
    Comparison("lvm_mag_r", "sep_mag_auto_r", "model against sep's AUTO magnitude r"),
)


def columns_drawn() -> list[str]:
    """Every column that a drawing may use."""
    compared = [name for item in COMPARISONS for name in (item.model, item.measured)]
    return [name for item in HISTOGRAMS for name in item.columns] + compared


def sky_map(states: Mapping[str, str]) -> bytes | None:
    """Bricks on the sky, colored by status.

    Parameters
    ----------
    states : mapping
        Status by unit (``release/region/brick``); units that are no brick are left out.

    Returns
    -------
    bytes or None
        PNG; None where no unit is a brick.
    """
    bricks, names = _bricks(states)
    if not bricks:
        return None
    present = [state for state in STATE_COLORS if state in names] + sorted(set(names) - set(STATE_COLORS))
    middle = _mean_angle(np.array([item.ra for item in bricks]))
    figure = figure_of(6.4, 3.7)
    axes = axes_of(figure, 1, 1)[0]
    _draw_bricks(axes, bricks, [STATE_COLORS.get(name, OTHER_COLOR) for name in names], middle)
    axes.set_xlabel("RA, deg", fontsize=8, color=INK)
    axes.set_ylabel("Dec, deg", fontsize=8, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
    axes.invert_xaxis()
    handles = [
        Line2D(
            [],
            [],
            marker="s",
            linestyle="",
            color=STATE_COLORS.get(name, OTHER_COLOR),
            label=f"{kind_in_words(name)} ({names.count(name)})",
        )
        for name in present
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7.5, frameon=False, labelcolor=INK)
    return png_of(figure)


def _bricks(states: Mapping[str, str]) -> tuple[list[Brick], list[str]]:
    bricks, names = [], []
    for unit, state in sorted(states.items()):
        try:
            bricks.append(brick_by_name(unit.rsplit("/", 1)[-1]))
        except ConfigurationError:
            # stamps without a position and refused files have units that are no brick
            continue
        names.append("done" if state == "up_to_date" else state)
    return bricks, names


def _mean_angle(angles: NDArray[np.float64]) -> float:
    vector = np.exp(1j * np.deg2rad(angles)).mean()
    return float(np.rad2deg(np.angle(vector)) % 360)


def around(angles: NDArray[np.float64], middle: float) -> NDArray[np.float64]:
    """Angles in degrees within half a turn of ``middle``, so that a region over RA 0 stays whole."""
    return np.asarray(middle + (angles - middle + 180) % 360 - 180, np.float64)


def _draw_bricks(axes: Axes, bricks: Sequence[Brick], colors: Sequence[str], middle: float) -> None:
    """Boxes in degrees; RA continues past 0 and 360 around ``middle``."""
    left = around(np.array([item.ra1 for item in bricks]), middle)
    width = np.array([item.ra2 - item.ra1 for item in bricks])
    low, high = np.array([item.dec1 for item in bricks]), np.array([item.dec2 for item in bricks])
    if len(bricks) > MOST_RECTANGLES:
        axes.scatter(left + width / 2, (low + high) / 2, s=1, c=list(colors), linewidths=0)
    else:
        corners = np.stack([left, low, left + width, low, left + width, high, left, high], axis=1).reshape(-1, 4, 2)
        axes.add_collection(PolyCollection(list(corners), facecolors=list(colors), edgecolors="white", linewidths=0.7))
    margin = max(0.05, 0.04 * float(high.max() - low.min()))
    axes.set_xlim(left.min() - margin, (left + width).max() + margin)
    axes.set_ylim(low.min() - margin, high.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    # a degree of RA is shorter than one of Dec: a small region looks as it does on the sky
    shrink = float(np.cos(np.deg2rad((low.min() + high.max()) / 2)))
    if np.ptp(left) < 60:
        axes.set_aspect(1 / max(shrink, 0.1), adjustable="box")


def histograms(sample: Sample) -> bytes | None:
    """Distributions of the key columns that the catalog has; None where it has none of them."""
    shown = []
    for item in HISTOGRAMS:
        for column in item.columns:
            values = sample.values(column)
            values = values[np.isfinite(values) & ((values > 0) | (not item.log))]
            if len(values):
                shown.append((item, column, values))
                break
    if not shown:
        return None
    rows = -(-len(shown) // 4)
    figure = figure_of(11.4, 2.1 * rows)
    places = axes_of(figure, rows, 4)
    for axes, (item, column, values) in zip(places, shown, strict=False):
        _histogram(axes, item, values)
        axes.set_title(_title(sample, item.title, column), fontsize=8.5, color=INK, loc="left")
        axes.set_xlabel(column + (f", {sample.unit_of(column)}" if sample.unit_of(column) else ""), fontsize=7, color=MUTED)
    for axes in places[len(shown) :]:
        axes.set_visible(False)
    return png_of(figure)


def _title(sample: Sample, title: str, column: str) -> str:
    learned = field_text(sample.schema, column, "learned")
    return f"{title} ({learned})" if learned == "mock only" and column.startswith("z_") else title


def _histogram(axes: Axes, item: Histogram, values: NDArray[np.float64]) -> None:
    low = item.low if item.low is not None else float(np.percentile(values, 0.2))
    high = item.high if item.high is not None else float(np.percentile(values, 99.8))
    whole = bool(np.all(values == np.rint(values))) and high - low < 60
    if whole:
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.5)
    elif item.log and high > 5 * low:
        edges = np.geomspace(low, max(high, low * 1.01), 31)
        axes.set_xscale("log")
        plain_log(axes.xaxis)
    else:
        edges = np.linspace(low, max(high, low + 1e-6), 31)
    axes.hist(np.clip(values, edges[0], edges[-1]), bins=list(edges), color=ACCENT, edgecolor="white", linewidth=0.4)
    axes.grid(axis="x", visible=False)


def comparisons(sample: Sample) -> bytes | None:
    """The model's answers against the same measured by Tractor; None where neither pair is there."""
    shown = []
    for item in COMPARISONS:
        model, measured = sample.values(item.model), sample.values(item.measured)
        if not (len(model) and len(measured)):
            continue
        good = np.isfinite(model) & np.isfinite(measured)
        if item.log:
            good &= (model > 0) & (measured > 0)
        if good.sum() > 1:
            shown.append((item, measured[good], model[good]))
    if not shown:
        return None
    # always room for all of them, so that letters have one size on the page
    figure = figure_of(11.4, 3.7)
    places = axes_of(figure, 1, len(COMPARISONS))
    for axes, (item, measured, model) in zip(places, shown, strict=False):
        _compare(axes, item, measured, model)
    for axes in places[len(shown) :]:
        axes.set_visible(False)
    return png_of(figure)


def _compare(axes: Axes, item: Comparison, measured: NDArray[np.float64], model: NDArray[np.float64]) -> None:
    low, high = np.percentile(np.concatenate([measured, model]), [0.3, 99.7])
    scale: Literal["log", "linear"] = "log" if item.log else "linear"
    if len(model) > MOST_POINTS:
        inside = (measured >= low) & (measured <= high) & (model >= low) & (model <= high)
        axes.hexbin(
            measured[inside], model[inside], gridsize=50, xscale=scale, yscale=scale, bins="log", cmap="Blues", mincnt=1, linewidths=0.1
        )
    else:
        axes.scatter(measured, model, s=7, color=ACCENT, alpha=0.55, linewidths=0)
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--")
    axes.set(xscale=scale, yscale=scale, xlim=(low, high), ylim=(low, high))
    if item.log:
        for axis in (axes.xaxis, axes.yaxis):
            plain_log(axis)
    else:
        # magnitudes: bright at the right and at the top
        axes.invert_xaxis()
        axes.invert_yaxis()
    difference = np.log10(model / measured) if item.log else model - measured
    median = float(np.median(difference))
    spread = 1.4826 * float(np.median(np.abs(difference - median)))
    what = "log10 ratio" if item.log else "difference"
    axes.set_title(f"{item.title}\n{what}: median {median:+.3f}, scatter {spread:.3f}, n {len(model)}", fontsize=8.5, color=INK, loc="left")
    axes.set_xlabel(item.measured, fontsize=8, color=INK)
    axes.set_ylabel(item.model, fontsize=8, color=INK)
