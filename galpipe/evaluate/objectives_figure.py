"""The curves of `galpipe evaluate objectives`; statistics only, no pixels."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#6b7c87", "#3b7896", "#b5523f", "#5b9a7a", "#d39a3c", "#8a6bb0", "#c27ba0")
DODGE = 0.006
"""Shift of one arm against the next, as a part of the budget, so that error bars do not hide each other."""
DPI = 120


def draw(compared: dict[str, Any]) -> bytes:
    """PNG of a comparison: one panel per probe, AUC against processor seconds, one curve per objective.

    Parameters
    ----------
    compared : dict
        Result of `galpipe.evaluate.objectives.compare_objectives`. Curves begin at the random weights where these were probed.
    """
    probes = compared["probes"]
    figure = Figure(figsize=(6.2 * len(probes), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, probe in zip(figure.subplots(1, len(probes), squeeze=False)[0], probes, strict=True):
        _panel(axis, compared, probe)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def _panel(axis: Axes, compared: dict[str, Any], probe: dict[str, Any]) -> None:
    name, budget = probe["name"], compared["settings"]["seconds"]
    start = compared["arms"].get("none", {"curve": []})["curve"]
    learned = {arm: found["curve"] for arm, found in compared["arms"].items() if arm != "none"}
    for place, (arm, curve) in enumerate(learned.items()):
        points = [*start, *curve]
        shift = DODGE * budget * (place - (len(learned) - 1) / 2)
        seconds = [point["seconds"] + shift for point in points]
        scores = [point["scores"][name] for point in points]
        means, errors = [score["mean"] for score in scores], [score["error"] for score in scores]
        axis.errorbar(seconds, means, errors, fmt="o-", ms=4, lw=1.4, capsize=2, color=COLORS[1 + place % (len(COLORS) - 1)], label=arm)
    if start:
        axis.axhline(start[0]["scores"][name]["mean"], color=COLORS[0], lw=0.8, ls=":", label="none (random weights)")
    axis.set(title=f"{name} ({probe['set']})", xlabel="processor seconds of learning", ylabel="AUC, frozen embedding")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7)
