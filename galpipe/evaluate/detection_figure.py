"""The drawing of `galpipe evaluate detection`: completeness and purity by magnitude and by separation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = {"lvm": "tab:blue", "sep": "black", "maskrcnn": "tab:red"}

PANELS = ("completeness by magnitude", "purity by magnitude", "completeness by separation", "purity by separation")


def draw(results: list[dict[str, Any]]) -> bytes:
    """PNG of the rows of every method, with their 95 % intervals."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.ravel(figure.subplots(2, 2))
    methods = list(dict.fromkeys(row["method"] for row in results))
    for axis, panel in zip(axes, PANELS, strict=True):
        bins = list(dict.fromkeys(row["bin"] for row in results if row["metric"] == panel))
        for place, method in enumerate(methods):
            rows = {row["bin"]: row for row in results if row["metric"] == panel and row["method"] == method}
            shown = [(index, rows[name]) for index, name in enumerate(bins) if name in rows and np.isfinite(rows[name]["value"])]
            x = [index + 0.08 * (place - (len(methods) - 1) / 2) for index, _ in shown]
            y = np.array([row["value"] for _, row in shown])
            error = np.abs(np.array([[row["value"] - row["low"], row["high"] - row["value"]] for _, row in shown]).reshape(-1, 2).T)
            axis.errorbar(x, y, error, fmt="o-", ms=4, lw=1, capsize=2, color=COLORS.get(method), label=method)
        axis.set_xticks(range(len(bins)), [f"{name}\n({_count(results, panel, name, methods)})" for name in bins], fontsize=8)
        axis.set(title=panel, ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    axes[0].legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _count(results: list[dict[str, Any]], panel: str, name: str, methods: list[str]) -> str:
    """Objects in a bin; of purity the first method's detections."""
    found = [row["count"] for row in results if row["metric"] == panel and row["bin"] == name and row["method"] == methods[0]]
    return str(found[0]) if found else "0"
