"""The paired test of the JPEG route as one drawing; statistics only, no pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from galpipe.evaluate.jpeg_route import CONTROL, EDGES, SKY

BAND = "r"
COLORS = ("#3b7896", "#b5523f", "#5b9a7a", "#d39a3c", "#8a6bb0", "#c27ba0", "#5d2a2a")
MUTED = "#6b7c87"
MOSTLY = 0.9
"""Bins of which more is clipped are not drawn."""
DPI = 144


def draw(groups: Mapping[str, Sequence[dict[str, Any]]]) -> bytes:
    """PNG of a comparison.

    Parameters
    ----------
    groups : mapping
        Result of `galpipe.evaluate.jpeg_route.compare` by population (``real``, ``mock``).

    Returns
    -------
    bytes
        One row of panels per population: flux residual in r against surface brightness, cosine of the embeddings, change of each head.
    """
    figure = Figure(figsize=(13, 4.1 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(groups), 3, squeeze=False, width_ratios=(1.5, 1, 1.4))
    for row, (population, results) in enumerate(groups.items()):
        routes = [item for item in results if item["route"] != CONTROL]
        title = f"{population}: {results[0]['galaxies']} galaxies"
        _residuals(axes[row, 0], routes, title)
        _cosines(axes[row, 1], results)
        _heads(axes[row, 2], results)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _residuals(axes: Any, routes: Sequence[dict[str, Any]], title: str) -> None:
    order = [f"< {EDGES[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(EDGES)), SKY]
    for color, item in zip(COLORS, routes, strict=False):
        points = {
            entry["bin"]: entry for entry in item["flux"] if entry["band"] == BAND and entry["flux"] > 0 and entry["clipped"] < MOSTLY
        }
        bins = [name for name in order if name in points and name != SKY]
        places = [order.index(name) for name in bins]
        axes.plot(places, [points[name]["median"] / points[name]["flux"] for name in bins], color=color, label=item["route"])
        scatter = [points[name]["nmad"] / points[name]["flux"] for name in bins]
        axes.plot(places, scatter, color=color, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(order) - 1), order[:-1], rotation=45)
    axes.set(xlabel="surface brightness in r, mag / arcsec²", ylabel="residual / flux (line), its NMAD (dots)", title=title, ylim=(-1, 1))
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.legend(fontsize=7, frameon=False)


def _cosines(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    names = [item["route"] for item in results]
    values = [item["embedding"]["cosine"] for item in results]
    colors = [*COLORS[: len(results) - 1], MUTED]
    axes.barh(range(len(names)), values, color=colors)
    for place, item in enumerate(results):
        low, high = item["embedding"]["cosine_68"]
        axes.plot([low, high], [place, place], color="black", linewidth=1)
    axes.axvline(results[0]["embedding"]["between_galaxies"], color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="cosine to the survey pixels' embedding\n(dashed: between different galaxies)", xlim=(0, 1))


def _heads(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    heads = list(results[0]["heads"])
    width = 0.8 / len(results)
    for number, item in enumerate(results):
        color = MUTED if item["route"] == CONTROL else COLORS[number % len(COLORS)]
        places = [index + number * width for index in range(len(heads))]
        axes.bar(places, [item["heads"].get(head, {}).get("change", 0.0) for head in heads], width=width, color=color)
    axes.set_xticks([index + 0.4 for index in range(len(heads))], heads, fontsize=8)
    axes.set(ylabel="median change / spread between galaxies")
