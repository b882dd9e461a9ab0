"""The figures of `galpipe evaluate parameters` as a text table and as a drawing."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {"lvm": "tab:blue", "tractor": "tab:orange"}


def text_table(result: dict[str, Any]) -> str:
    """One line per quantity, bin and method, then the PDF's figures and how the coverage does."""
    lines = [
        f"{'quantity':<22} {'bin':<26} {'method':<8} {'n':>5} {'bias':>9} {'scatter (95 %)':>24} {'outliers':>8} {'68 %':>6} {'95 %':>6}"
    ]
    for row in result["rows"]:
        where = row["bin"] if row["by"] == "all" else f"{row['by']} {row['bin']}"
        spread = f"{row['scatter']:.4f} ({row['scatter_low']:.4f}-{row['scatter_high']:.4f})"
        figures = f"{row['bias']:>+9.4f} {spread:>24} {row['outliers']:>8.3f} {row['coverage68']:>6.3f} {row['coverage95']:>6.3f}"
        lines.append(f"{row['quantity']:<22} {where:<26} {row['method']:<8} {row['galaxies']:>5} {figures}")
    pdf, held = result["redshift"], result["coverage"]
    counts = " ".join(str(count) for count in pdf["pit_histogram"])
    lines.append(f"{pdf['column']}: CRPS {pdf['crps']:.4f} (constant {pdf['crps_constant']:.4f}), PIT histogram {counts}")
    low, high = held["wanted"]
    lines.append(
        f"68 % coverage: {held['bins']} bins, {held['outside']} outside of {low:.2f} to {high:.2f},"
        f" {held['outside_beyond_error']} of them beyond their error bars"
    )
    return "\n".join([*lines, *(f"  {name}" for name in held["which"])])


def draw(result: dict[str, Any]) -> bytes:
    """Scatter by magnitude beside Tractor's, coverage of every bin, and the PIT histogram; PNG."""
    mpl.use("Agg")
    quantities = list(dict.fromkeys(row["quantity"] for row in result["rows"]))
    figure = Figure(figsize=(15, 9), layout="constrained")
    axes = figure.subplots(3, 4).ravel()
    for axis, quantity in zip(axes, quantities, strict=False):
        _scatter(axis, [row for row in result["rows"] if row["quantity"] == quantity and row["by"] == "magnitude"], quantity)
    for axis in axes[len(quantities) : -2]:
        axis.set_axis_off()
    _coverage(axes[-2], result)
    counts = result["redshift"]["pit_histogram"]
    axes[-1].bar(np.arange(len(counts)) / len(counts), counts, width=1 / len(counts), align="edge", color=COLORS["lvm"], alpha=0.6)
    axes[-1].axhline(sum(counts) / len(counts), color="black", lw=0.8)
    axes[-1].set(title=f"{result['redshift']['column']}: PIT", xlabel="cumulative probability at the truth", ylabel="galaxies")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80, format="png")
    return buffer.getvalue()


def _scatter(axis: Axes, rows: list[dict[str, Any]], quantity: str) -> None:
    for shift, (method, color) in enumerate(COLORS.items()):
        own = [row for row in rows if row["method"] == method]
        if own:
            middle = np.array([row["scatter"] for row in own])
            ends = np.abs(np.array([[row["scatter_low"], row["scatter_high"]] for row in own]).T - middle)
            place = np.arange(len(own)) + 0.12 * shift
            axis.errorbar(place, middle, np.maximum(ends, 0), fmt="o-", ms=4, capsize=2, color=color, label=method)
            axis.set_xticks(np.arange(len(own)), [row["bin"] for row in own], fontsize=7)
    unit = next((row["unit"] for row in rows if row["unit"]), "")
    axis.set(title=quantity, ylabel=f"scatter ({unit})" if unit else "scatter", ylim=(0, None))
    axis.legend(fontsize=7)


def _coverage(axis: Axes, result: dict[str, Any]) -> None:
    own = [row for row in result["rows"] if row["method"] == "lvm"]
    middle = np.array([row["coverage68"] for row in own])
    ends = np.abs(np.array([[row["coverage68_low"], row["coverage68_high"]] for row in own]).T - middle)
    axis.errorbar(np.arange(len(own)), middle, ends, fmt=".", ms=3, lw=0.5, color=COLORS["lvm"])
    axis.axhspan(*result["coverage"]["wanted"], color="tab:green", alpha=0.3)
    axis.set(title="68 % intervals, every quantity and bin", xlabel="bin", ylabel="share that holds the truth", ylim=(0.4, 0.95))
