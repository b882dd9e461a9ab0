"""Redshifts against spectra, survey by survey, beside the official accuracy of the DR10 photometric redshifts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.errors import BadData

Floats = NDArray[np.float64]

OUTLIER = 0.15
"""Of abs(dz) / (1 + z): science.md section 6."""

LEAST_GALAXIES = 10

SECTIONS = {"without i band": "grz", "with i band": "griz"}
"""Headings of the official file, and the bands that its redshifts used."""

NUMBERS = ("count", "nmad", "nmad_zmag21", "outliers_percent", "outliers_percent_zmag21")


def read_performance(path: Path) -> list[dict[str, Any]]:
    """Rows of the official ``dr10_photoz_performance.txt``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of dict
        survey, bands (``grz`` or ``griz``), count, nmad and nmad_zmag21 (of dz / (1 + z), all and z < 21 mag), outliers_percent and
        outliers_percent_zmag21. The file's third table compares the first two and is left out.

    Raises
    ------
    BadData
        If no row was found.
    """
    rows: list[dict[str, Any]] = []
    bands = ""
    for line in path.read_text().splitlines():
        if line.rstrip().endswith(":"):
            bands = SECTIONS.get(line.strip().rstrip(":").lower(), "")
            continue
        parts = line.split()
        if bands and len(parts) == 1 + len(NUMBERS) and re.fullmatch(r"\d+", parts[1]):
            values = [int(parts[1]), *(float(part) for part in parts[2:])]
            rows.append({"survey": parts[0], "bands": bands} | dict(zip(NUMBERS, values, strict=True)))
    if not rows:
        raise BadData("a table of photo-z accuracy by survey", "no row of one", file=path.name)
    return rows


def by_survey(
    redshift: Floats, spectroscopic: Floats, surveys: Sequence[str], official: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Bias, scatter and outliers per spectroscopic survey.

    Parameters
    ----------
    redshift, spectroscopic : ndarray, shape (N,)
        NaN where not known.
    surveys : sequence of str
        N names.
    official : sequence of dict
        From `read_performance`; figures with the bands ``grz`` go beside those of a survey of the same name.

    Returns
    -------
    list of dict
        survey (``all`` first), galaxies, bias (median of dz / (1 + z)), sigma_nmad (1.4826 times the median absolute deviation from the
        bias), outliers (share beyond 0.15), and official_nmad and official_outliers_percent (None where not published).
    """
    known = np.isfinite(redshift) & np.isfinite(spectroscopic)
    error = (redshift - spectroscopic) / (1 + spectroscopic)
    names = np.array(surveys, dtype=object)
    published = {row["survey"]: row for row in official if row["bands"] == "grz"}
    rows = []
    for name in ["all", *sorted({str(item) for item in names[known]})]:
        own = error[known & ((names == name) | (name == "all"))]
        if len(own) < LEAST_GALAXIES:
            continue
        bias = float(np.median(own))
        beside = published.get(name, {})
        rows.append(
            {
                "survey": name,
                "galaxies": len(own),
                "bias": bias,
                "sigma_nmad": 1.4826 * float(np.median(np.abs(own - bias))),
                "outliers": float(np.mean(np.abs(own) > OUTLIER)),
                "official_nmad": beside.get("nmad"),
                "official_outliers_percent": beside.get("outliers_percent"),
            }
        )
    return rows
