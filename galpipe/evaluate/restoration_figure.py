"""A drawing of restoration's figures: one panel per figure, S/N across, one line per method."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANELS = {
    "psnr": ("PSNR in asinh units (dB)", 1.0),
    "flux": ("flux bias (%)", 100.0),
    "r50": ("r50 bias (%)", 100.0),
    "ellipticity": ("ellipticity bias", 1.0),
    "false": ("false sources (%)", 100.0),
    "lost": ("lost sources (%)", 100.0),
}

COLORS = {"lvm": "tab:blue", "stamp": "grey", "richardson-lucy": "tab:orange", "wavelet": "tab:green"}


def draw(results: list[dict[str, Any]], band: str) -> bytes:
    """PNG of one band's figures.

    Parameters
    ----------
    results : list of dict
        As `galpipe.evaluate.restoration.measure` gives them.
    band : str
    """
    mpl.use("Agg")
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axis, (name, (title, factor)) in zip(figure.subplots(2, 3).ravel(), PANELS.items(), strict=True):
        _panel(axis, [item for item in results if item["band"] == band], name, factor)
        axis.set(title=title, xscale="log", xlim=(5, 1000), xticks=[10, 30, 100, 300], xticklabels=["10", "30", "100", "300"])
        axis.minorticks_off()
        if name not in ("psnr", "false", "lost"):
            axis.axhline(0, color="black", lw=0.6)
    figure.supxlabel(f"S/N of the central galaxy ({band}: figures; r: bins)", fontsize=9)
    figure.axes[0].legend(fontsize=7, loc="lower left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _panel(axis: Axes, results: list[dict[str, Any]], name: str, factor: float) -> None:
    for number, (method, color) in enumerate(COLORS.items()):
        rows = [item for item in results if item["method"] == method and name in item["metrics"]]
        if not rows:
            continue
        # bins are half a decade wide; methods stand side by side
        places = [max(item["snr_low"], 4.0) * 1.6 * 1.06**number for item in rows]
        values = [factor * item["metrics"][name]["value"] for item in rows]
        ends = [[factor * abs(item["metrics"][name][end] - item["metrics"][name]["value"]) for item in rows] for end in ("low", "high")]
        axis.errorbar(places, values, ends, marker="o", ms=3, lw=1, capsize=2, color=color, label=method)
