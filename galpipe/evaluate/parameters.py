"""Magnitudes, sizes, shapes and redshifts against the truth of the benchmark mock, in bins, beside the Tractor columns of the same sources.

Definitions are science.md's (section 4). Every figure has a 95 % interval over galaxies drawn again with replacement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.parameter_errors import Errors, lvm_errors, redshift_errors, tractor_errors
from galpipe.evaluate.scores import INTERVAL
from galpipe.heads.parameter_scores import pdf_column
from galpipe.heads.quantities import MOCK, QUANTITIES, R_MAG, SPECTROSCOPIC, Values, is_star, true_redshifts, true_values
from galpipe.heads.redshiftpdf import crps, pit, soft_bins
from galpipe.lvm.inputs import float_column
from galpipe.lvm.mocksky import Progress
from galpipe.lvm.pack import Pack, read_pack
from galpipe.lvm.predict import Predictor
from galpipe.survey.photometry import depth_to_mag

BATCH = 32
RESAMPLES = 300
LEAST_GALAXIES = 30
"""Galaxies below which a bin has no row."""

WANTED = (0.65, 0.71)
"""Range of the 68 % coverage that calibration is held to in every bin."""

PIT_BINS = 10

NORTH_RELEASES = (8001, 9011, 11001)
"""Release numbers of the northern survey (BASS and MzLS)."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Binning:
    """A way to divide the galaxies.

    Parameters
    ----------
    by : str
        ``magnitude`` (true, r, dereddened), ``size/seeing`` (true half-light radius over FWHM in r), ``depth`` (5 sigma, point source, r).
    edges : tuple of float
        Inner edges.
    """

    by: str
    edges: tuple[float, ...]

    def bins(self, values: Values) -> Iterator[tuple[str, Mask]]:
        """Names and members; a value that is not finite is in none."""
        ends = (-np.inf, *self.edges, np.inf)
        names = (
            f"below {self.edges[0]:g}",
            *(f"{low:g} to {high:g}" for low, high in pairwise(self.edges)),
            f"{self.edges[-1]:g} and above",
        )
        for name, (low, high) in zip(names, pairwise(ends), strict=True):
            yield name, (values >= low) & (values < high)


BINNINGS = (
    Binning("magnitude", (18.0, 19.0, 20.0)),
    Binning("size/seeing", (0.5, 1.0, 2.0)),
    Binning("depth", (23.8, 24.2, 24.6)),
)


def predict_packs(predictor: Predictor, paths: Sequence[Path], progress: Progress | None = None) -> tuple[pa.Table, pa.Table]:
    """Answers of the parameters head and the sources with their truth, row by row, over some packs; ``progress`` is told of ``packs``.

    Raises
    ------
    ConfigurationError
        If the model has no parameters head.
    BadData
        If a pack has no truth.
    """
    if "parameters" not in predictor.model.settings.heads:
        raise ConfigurationError("a model with the head 'parameters'", f"heads {predictor.model.settings.heads}")
    tables, sources = [], []
    for number, path in enumerate(paths):
        pack = read_pack(path)
        if not pack.has_truth:
            raise BadData("a pack with truth", "none", file=str(path))
        tables.append(_answers(predictor, pack))
        sources.append(pack.sources)
        if progress is not None:
            progress("packs", number + 1, len(paths))
    return pa.concat_tables(tables), pa.concat_tables(sources, promote_options="permissive")


def _answers(predictor: Predictor, pack: Pack) -> pa.Table:
    head, stamps, parts = predictor.model.head("parameters"), pack.stamps(), []
    for first in range(0, len(pack), BATCH):
        raw = predictor.raw(stamps.take(np.arange(first, min(first + BATCH, len(pack)))), BATCH)
        parts.append(pa.table(head.decode(raw.heads["parameters"], raw.context)))
    return pa.concat_tables(parts)


def compare(predicted: pa.Table, sources: pa.Table, seed: int = 0) -> dict[str, Any]:
    """Every figure.

    Parameters
    ----------
    predicted : pyarrow.Table
        N rows, columns of the head.
    sources : pyarrow.Table
        N rows: Tractor columns and truth.
    seed : int
        Of the resampling.

    Returns
    -------
    dict
        ``rows`` (a row per quantity, bin and method), ``redshift`` (PIT histogram, CRPS) and ``coverage`` (bins outside of `WANTED`).
    """
    redshift = SPECTROSCOPIC if SPECTROSCOPIC in predicted.column_names else MOCK
    galaxy = ~is_star(sources) & np.isfinite(true_values(sources, QUANTITIES[R_MAG]))
    groups = [("all", "all", galaxy), *((by, name, members & galaxy) for by, name, members in _groups(sources))]
    measured: list[tuple[str, Errors]] = [("lvm", item) for item in lvm_errors(predicted, sources)]
    measured.append(("lvm", redshift_errors(predicted, sources, redshift)))
    measured += [("tractor", item) for item in tractor_errors(sources)]
    rng = np.random.default_rng([seed, 17])
    rows = [row for method, errors in measured for group in groups if (row := _row(method, errors, group, rng)) is not None]
    return {"rows": rows, "redshift": _pdf_figures(predicted, sources, redshift), "coverage": _verdict(rows)}


def _groups(sources: pa.Table) -> Iterator[tuple[str, str, Mask]]:
    rows = sources.num_rows
    seeing = float_column(sources, "psfsize_r", rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        extent = float_column(sources, "half_light_radius", rows) / np.where(seeing > 0, seeing, np.nan)
    values = {
        "magnitude": true_values(sources, QUANTITIES[R_MAG]),
        "size/seeing": extent,
        "depth": depth_to_mag(float_column(sources, "psfdepth_r", rows)),
    }
    for binning in BINNINGS:
        for name, members in binning.bins(values[binning.by]):
            yield binning.by, name, members
    north = np.isin(float_column(sources, "release", rows), NORTH_RELEASES)
    yield "region", "north", north
    yield "region", "south", ~north


def _row(method: str, errors: Errors, group: tuple[str, str, Mask], rng: np.random.Generator) -> dict[str, Any] | None:
    by, name, members = group
    use = members & np.isfinite(errors.error)
    count = int(use.sum())
    if count < LEAST_GALAXIES:
        return None
    error, inside68, inside95 = errors.error[use], errors.inside68[use], errors.inside95[use]
    figures = _figures(error[None], inside68[None], inside95[None], errors.outlier)[:, 0]
    drawn = rng.integers(count, size=(RESAMPLES, count))
    low, high = np.percentile(_figures(error[drawn], inside68[drawn], inside95[drawn], errors.outlier), INTERVAL, axis=1)
    row: dict[str, Any] = {"quantity": errors.quantity, "unit": errors.unit, "method": method, "by": by, "bin": name, "galaxies": count}
    for place, what in enumerate(("bias", "scatter", "outliers", "coverage68", "coverage95")):
        row |= {what: float(figures[place]), f"{what}_low": float(low[place]), f"{what}_high": float(high[place])}
    return row


def _figures(error: Values, inside68: Mask, inside95: Mask, outlier: float) -> Values:
    """Median, NMAD (1.4826 times the median absolute deviation), share beyond the outlier limit, and both coverages.

    Of samples of shape (R, K); the result has the shape (5, R).
    """
    middle = np.median(error, axis=1)
    scatter = 1.4826 * np.median(np.abs(error - middle[:, None]), axis=1)
    return np.stack([middle, scatter, np.mean(np.abs(error) > outlier, axis=1), inside68.mean(axis=1), inside95.mean(axis=1)])


def _pdf_figures(predicted: pa.Table, sources: pa.Table, redshift: str) -> dict[str, Any]:
    true = true_redshifts(sources)
    known = np.isfinite(true)
    pdf, true = pdf_column(predicted, redshift)[known], true[known]
    places = pit(pdf, true)
    counts, _ = np.histogram(places, PIT_BINS, (0.0, 1.0))
    constant = np.tile(soft_bins(true).mean(axis=0), (len(true), 1))
    ordered = np.sort(places)
    distance = float(np.max(np.abs(np.arange(1, len(ordered) + 1) / len(ordered) - ordered))) if len(ordered) else float("nan")
    return {
        "column": redshift,
        "galaxies": len(true),
        "pit_histogram": counts.tolist(),
        "pit_distance": distance,
        "crps": float(np.mean(crps(pdf, true))) if len(true) else float("nan"),
        "crps_constant": float(np.mean(crps(constant, true))) if len(true) else float("nan"),
    }


def _verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Bins of this model whose 68 % coverage is out of `WANTED`, and those of them that are so beyond their error bars."""
    own = [row for row in rows if row["method"] == "lvm"]
    out = [row for row in own if not WANTED[0] <= row["coverage68"] <= WANTED[1]]
    sure = [row for row in out if row["coverage68_high"] < WANTED[0] or row["coverage68_low"] > WANTED[1]]
    named = [f"{row['quantity']}, {row['by']} {row['bin']}: {row['coverage68']:.3f}" for row in sure]
    return {"wanted": list(WANTED), "bins": len(own), "outside": len(out), "outside_beyond_error": len(sure), "which": named}
