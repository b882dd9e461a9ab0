"""Plots and pictures of the comparison of real and mock sky."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from galpipe.evaluate.classify import Verdict
from galpipe.evaluate.fields import BANDS, Field
from galpipe.evaluate.measure import LAGS, Measured
from galpipe.evaluate.statistics import Profiles, central_profiles, galaxy_table, noise_correlations, power_spectrum, star_profiles
from galpipe.stamps.render import enlarge, label, mosaic, png, to_rgb

Floats = NDArray[np.float64]

COLORS = {"real": "black", "survey": "tab:blue", "plain": "tab:orange"}


def _figure(columns: int, rows: int = 1) -> tuple[Figure, NDArray[np.object_]]:
    mpl.use("Agg")
    figure = Figure(figsize=(3.3 * columns, 2.8 * rows), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(rows, columns))


def plot_noise(path: Path, fields: dict[str, list[Measured]]) -> None:
    """Autocorrelation along x and power spectrum of sky pixels, per band."""
    figure, axes = _figure(3, 2)
    along = [k for k, lag in enumerate(LAGS) if lag[0] == 0]
    for column, band in enumerate(BANDS):
        for kind, measured in fields.items():
            middle, spread = noise_correlations(measured)[band]
            lags = [LAGS[k][1] for k in along]
            axes[0, column].errorbar(
                lags, [middle[k] for k in along], [spread[k] for k in along], color=COLORS[kind], label=kind, capsize=2
            )
            axes[1, column].plot(*power_spectrum(measured, band), color=COLORS[kind])
        axes[0, column].axhline(0, color="grey", lw=0.5)
        axes[0, column].set(title=band, xlabel="lag (pixels)", ylabel="autocorrelation" if column == 0 else "")
        axes[1, column].set(xlabel="frequency (1 / pixel)", ylabel="power" if column == 0 else "")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def plot_profiles(path: Path, fields: dict[str, list[Measured]]) -> None:
    """Stars' and central galaxies' radial profiles."""
    figure, axes = _figure(3, 2)
    for column, band in enumerate(BANDS):
        for kind, measured in fields.items():
            for row, profiles in enumerate((star_profiles(measured, band), central_profiles(measured, band))):
                _band(axes[row, column], profiles, COLORS[kind], f"{kind} ({len(profiles.values)})")
        axes[0, column].set(title=band, yscale="log", ylim=(1e-6, 2), xlabel="radius (arcsec)")
        axes[1, column].set(yscale="log", ylim=(3e-4, 100), xlabel="radius (arcsec)")
        axes[0, column].legend(fontsize=7)
        axes[1, column].legend(fontsize=7)
    axes[0, 0].set_ylabel("star: share per arcsec²")
    axes[1, 0].set_ylabel("galaxy: nMgy per arcsec²")
    figure.savefig(path, dpi=80)


def _band(axis: Axes, profiles: Profiles, color: str, name: str) -> None:
    if len(profiles.values):
        low, middle, high = np.percentile(profiles.values, [16, 50, 84], axis=0)
        axis.plot(profiles.radius, np.maximum(middle, 1e-9), color=color, label=name)
        axis.fill_between(profiles.radius, np.maximum(low, 1e-9), np.maximum(high, 1e-9), color=color, alpha=0.15, lw=0)


def plot_population(path: Path, fields: dict[str, list[Measured]]) -> None:
    """Color against magnitude, size against magnitude, and counts."""
    figure, axes = _figure(4)
    for kind, measured in fields.items():
        table = galaxy_table(measured)
        shown = slice(0, 250)
        for axis, name in zip(axes, ("g - r", "r - z", "r50"), strict=False):
            axis.plot(table["r"][shown], table[name][shown], ".", ms=3, color=COLORS[kind], alpha=0.6, label=kind)
            axis.set(xlabel="r (mag)", ylabel=name if name != "r50" else "half-light radius (arcsec)")
        edges = np.arange(17.5, 24.6, 0.5)
        every = np.concatenate([m.sources.mag["r"] for m in measured])
        counts = np.histogram(every[np.isfinite(every)], edges)[0] / len(measured)
        axes[3].step(edges[:-1], np.maximum(counts, 1e-2), where="post", color=COLORS[kind])
    axes[0].set_ylim(-0.7, 3)
    axes[1].set_ylim(-0.7, 3.5)
    axes[2].set(yscale="log", ylim=(0.4, 12))
    axes[3].set(xlabel="r (mag)", ylabel="sources per field and 0.5 mag", yscale="log")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def plot_scores(path: Path, verdicts: dict[str, tuple[Verdict, NDArray[np.bool_]]]) -> None:
    """Held-out scores of real and mock samples, one panel per test."""
    figure, axes = _figure(len(verdicts))
    for axis, (name, (verdict, real)) in zip(axes, verdicts.items(), strict=True):
        for kind, chosen in (("real", real), ("survey", ~real)):
            axis.hist(verdict.scores[chosen], np.linspace(0, 1, 21), density=True, histtype="step", color=COLORS[kind], label=kind)
        axis.set(title=f"{name}: AUC {verdict.auc:.2f}", xlabel="looks real (rank)")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def picture_of_fields(path: Path, fields: Sequence[Field], columns: int = 4) -> None:
    """Fields in the survey's stretch, side by side."""
    pictures = [label(to_rgb(np.stack([field.planes[band] for band in BANDS])), field.kind) for field in fields]
    path.write_bytes(png(mosaic(pictures, columns)))


def picture_of_stamps(path: Path, stamps: NDArray[np.float32], names: Sequence[str], columns: int = 12) -> None:
    """Galaxies' stamps, nanomaggies, shape (N, 3, H, W), enlarged and side by side."""
    pictures = [label(enlarge(to_rgb(stamp), 3), name) for stamp, name in zip(stamps, names, strict=True)]
    path.write_bytes(png(mosaic(pictures, columns)))
