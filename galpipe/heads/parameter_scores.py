"""Figures of the parameters head, each beside that of a constant answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.heads.base import Score
from galpipe.heads.quantities import ANGLE, QUANTITIES, Values, angle_difference, is_star, true_angles, true_redshifts, true_values
from galpipe.heads.redshiftpdf import crps, pit, soft_bins
from galpipe.lvm.inputs import float_column


def scores(predicted: pa.Table, truth: pa.Table, training: pa.Table, redshift: str) -> list[Score]:
    """Median and rms errors beside those of the training median and mean, coverage, and the CRPS of the redshift's PDF.

    Parameters
    ----------
    predicted : pyarrow.Table
        Columns of the head, N rows.
    truth : pyarrow.Table
        N rows.
    training : pyarrow.Table
        Truth of the training set.
    redshift : str
        Name of the redshift's column.
    """
    result: list[Score] = []
    rows, galaxy = predicted.num_rows, ~is_star(truth)
    covered: list[npt.NDArray[np.bool_]] = []
    asked = [(item.column, item.unit, true_values(truth, item), item.encode(true_values(training, item))) for item in QUANTITIES]
    known = [true_values(training, item) for item in QUANTITIES]
    asked.append((redshift, "", true_redshifts(truth), true_redshifts(training)))
    known.append(true_redshifts(training))
    for (column, unit, true, encoded), learned in zip(asked, known, strict=True):
        use = galaxy & np.isfinite(true)
        if not use.any() or not np.isfinite(encoded).any():
            continue
        error = np.abs(float_column(predicted, column, rows) - true)[use]
        covered.append(error <= float_column(predicted, f"{column}_sigma", rows)[use])
        result += _beside(column, unit, error, (true[use], learned))
    result += _angle_score(predicted, truth, galaxy)
    result += _crps_score(predicted, truth, training, redshift)
    if covered:
        inside = np.concatenate(covered)
        miss = abs(float(inside.mean()) - 0.68)
        result.append(Score("coverage of one sigma: distance from 0.68", "", miss, 0.68, False, len(inside), "no uncertainty given"))
    return result


def _beside(column: str, unit: str, error: Values, values: tuple[Values, Values]) -> list[Score]:
    """Median and rms error, and those of the training set's median and mean."""
    true, learned = values
    middle, mean = np.abs(np.nanmedian(learned) - true), np.abs(np.nanmean(learned) - true)
    medians, rms = (
        (float(np.median(error)), float(np.median(middle))),
        (float(np.sqrt(np.mean(error**2))), float(np.sqrt(np.mean(mean**2)))),
    )
    return [
        Score(f"{column}: median error", unit, *medians, False, len(error), "training median"),
        Score(f"{column}: rms error", unit, *rms, False, len(error), "training mean"),
    ]


def _angle_score(predicted: pa.Table, truth: pa.Table, galaxy: npt.NDArray[np.bool_]) -> list[Score]:
    angles = true_angles(truth)
    use = galaxy & np.isfinite(angles)
    if not use.any():
        return []
    true = angles[use]
    error = angle_difference(float_column(predicted, ANGLE, predicted.num_rows)[use], true)
    fixed = float(np.median(angle_difference(np.full(len(true), 90.0), true)))
    return [Score(f"{ANGLE}: median error", "deg", float(np.median(error)), fixed, False, len(true), "90 deg")]


def _crps_score(predicted: pa.Table, truth: pa.Table, training: pa.Table, redshift: str) -> list[Score]:
    """Mean CRPS beside that of the training set's distribution, and how far PITs are from uniform."""
    true, learned = true_redshifts(truth), true_redshifts(training)
    use, seen = np.isfinite(true), np.isfinite(learned)
    if not use.any() or not seen.any() or f"{redshift}_pdf" not in predicted.column_names:
        return []
    pdf = pdf_column(predicted, redshift)[use]
    fixed = np.tile(soft_bins(learned[seen]).mean(axis=0), (int(use.sum()), 1))
    figures = float(np.mean(crps(pdf, true[use]))), float(np.mean(crps(fixed, true[use])))
    far = _from_uniform(pit(pdf, true[use])), _from_uniform(pit(np.roll(fixed, 8, axis=1), true[use]))
    return [
        Score(f"{redshift}: CRPS", "", *figures, False, int(use.sum()), "distribution in training"),
        Score(f"{redshift}: PIT, largest distance from uniform", "", *far, False, int(use.sum()), "that distribution, 8 bins off"),
    ]


def pdf_column(table: pa.Table, redshift: str) -> Values:
    """A redshift's PDF, float64 of shape (N, 64)."""
    column = table[f"{redshift}_pdf"]
    flat = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(table.num_rows, -1)


def _from_uniform(places: Values) -> float:
    """Kolmogorov-Smirnov distance of PITs from uniform."""
    ordered = np.sort(places)
    steps = np.arange(1, len(ordered) + 1) / len(ordered)
    return float(np.max(np.maximum(np.abs(steps - ordered), np.abs(steps - 1 / len(ordered) - ordered))))
