"""How real the mock sky looks: one comparison of real and mock fields, with tables, plots and a classifier (docs/realism.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.evaluate import plots
from galpipe.evaluate.classify import Fit, Verdict, cross_validate, logistic, network, telling_features
from galpipe.evaluate.features import (
    GALAXY_FEATURES,
    HALF,
    NOISE_FEATURES,
    galaxy_features,
    galaxy_stamps,
    noise_features,
    noise_stamps,
)
from galpipe.evaluate.fields import BANDS, Look, plain_fields, real_direct, real_fields, real_single_band, survey_fields
from galpipe.evaluate.measure import LAGS, Measured, galaxies, look_of, measure, star_fwhm
from galpipe.evaluate.statistics import (
    distances,
    galaxy_table,
    kernel_noise,
    match_in_magnitude,
    noise_correlations,
    north_noise,
    pixel_shares,
    population_rows,
    single_band_noise,
)
from galpipe.evaluate.tables import tables_text
from galpipe.mock.cameras import camera

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

USUAL_FWHM = {"g": 1.35, "r": 1.1, "z": 1.0}
"""Arcsec, where no star of a real field tells."""

MOST_PATCHES = 1500
"""Mock noise patches in the classifier's test: three times the real ones."""

PER_GALAXY = 3
"""Mock galaxies matched to each real one."""

WANTED = {"noise patches": 0.65, "galaxies": 0.85}
"""Largest AUC at which the mock counts as real enough."""


@dataclass(frozen=True)
class Effort:
    """How much is drawn and trained."""

    fields: int = 60
    """Mock fields of the survey-like sky; the plain sky has as many."""
    seed: int = 1
    networks: bool = True
    """Train small networks on the pixels as well as the regression on features."""
    plain: bool = True
    """Compare the plain sky too; its two whole frames take most of the time."""

    @property
    def skies(self) -> tuple[str, ...]:
        """Mock skies compared."""
        return ("survey", "plain") if self.plain else ("survey",)


def compare(real_folder: Path, out: Path, effort: Effort, progress: Progress | None = None) -> dict[str, Any]:
    """Compare real cutouts with both mock skies; write tables, plots and pictures.

    Parameters
    ----------
    real_folder : Path
        Holds ``stamps/cutout_*.fits`` and what else `real_fields` takes.
    out : Path
        ``realism.json``, ``realism.md``, ``realism-*.png``, and ``pictures-*.png``, which show real pixels.
    effort : Effort
    progress : callable, optional

    Returns
    -------
    dict
        The content of ``realism.json``.
    """
    steps = progress or (lambda _what, _done, _total: None)
    out.mkdir(parents=True, exist_ok=True)
    real = [measure(field) for field in real_fields(real_folder)]
    looks = looks_of(real)
    fields = {"real": real}
    for kind in effort.skies:
        fields[kind] = []
        for field in (survey_fields if kind == "survey" else plain_fields)(looks, effort.fields, effort.seed):
            fields[kind].append(measure(field))
            steps(f"{kind} fields", len(fields[kind]), effort.fields)
    result = _tables(fields, real_folder, effort.seed)
    shown: dict[str, tuple[Verdict, NDArray[np.bool_]]] = {}
    result["classifier"] = []
    for kind in effort.skies:
        for what in WANTED:
            for entry, verdict, isreal in _tell_apart(fields["real"], fields[kind], (kind, what), effort):
                result["classifier"].append(entry)
                steps("classifiers", len(result["classifier"]), classifiers(effort))
                if kind == "survey":
                    shown[f"{what}, {entry['by']}"] = (verdict, isreal)
    _write(out, result, fields, shown)
    return result


def classifiers(effort: Effort) -> int:
    """How many are trained."""
    return len(WANTED) * len(effort.skies) * (2 if effort.networks else 1)


def looks_of(real: list[Measured]) -> list[Look]:
    """Depth and seeing of the real fields with a galaxy in the middle."""
    usual = {}
    for band in BANDS:
        seen = [value for value in (star_fwhm(m, band) for m in real) if value]
        usual[band] = float(np.median(seen)) if seen else USUAL_FWHM[band]
    return [look_of(m, usual) for m in real if m.field.center]


def _tables(fields: dict[str, list[Measured]], real_folder: Path, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {"fields": {kind: len(found) for kind, found in fields.items()}}
    result["lags"] = [list(lag) for lag in LAGS]
    result["noise"] = {kind: noise_correlations(found) for kind, found in fields.items()}
    result["pixels"] = {kind: pixel_shares(found) for kind, found in fields.items()}
    tables = {kind: galaxy_table(found) for kind, found in fields.items()}
    skies = [kind for kind in fields if kind != "real"]
    result["population"] = {kind: population_rows(tables["real"], tables[kind]) for kind in skies}
    result["distances"] = {}
    for kind in skies:
        rows = match_in_magnitude(tables["real"]["r"], tables[kind]["r"], PER_GALAXY, seed)
        result["distances"][kind] = distances(tables["real"], tables[kind], rows)
    result["direct"] = _direct(real_folder, seed)
    return result


def _direct(real_folder: Path, seed: int) -> dict[str, list[float]]:
    """Autocorrelations of coadds that were not interpolated again, per camera: real, drawn, and by the kernel alone."""
    rows: dict[str, list[float]] = {}
    decam, north = real_direct(real_folder), real_single_band(real_folder)
    if decam is not None:
        rows |= {"DECam g, coadd: real": single_band_noise(*decam), "DECam: kernel": kernel_noise(camera("south", "g").pixscale)}
    if north is not None:
        rows |= {"90Prime g, coadd: real": single_band_noise(*north), "90Prime: kernel": kernel_noise(camera("north", "g").pixscale)}
        rows["90Prime g, coadd: survey"] = np.mean([north_noise(seed + k) for k in range(3)], axis=0).tolist()
    return rows


def _tell_apart(
    real: list[Measured], mock: list[Measured], test: tuple[str, str], effort: Effort
) -> list[tuple[dict[str, Any], Verdict, NDArray[np.bool_]]]:
    """Both classifiers on noise patches or galaxies: entry of the table, verdict, labels."""
    kind, what = test
    every = real + mock
    names = NOISE_FEATURES if what == "noise patches" else GALAXY_FEATURES
    if what == "noise patches":
        found = [noise_features(m) for m in every]
        magnitude = np.concatenate([np.zeros(len(part)) for part in found])
    else:
        pairs = [galaxy_features(m) for m in every]
        found, magnitude = [pair[0] for pair in pairs], np.concatenate([pair[1] for pair in pairs])
    features = np.concatenate(found)
    groups = np.repeat([m.field.name for m in every], [len(part) for part in found])
    isreal = np.repeat([m.field.kind == "real" for m in every], [len(part) for part in found])
    kept = _kept(isreal, magnitude, what, effort.seed)
    ways: list[tuple[str, Floats, Fit]] = [("features", features, logistic(3.0))]
    if effort.networks:
        stamps = np.concatenate([noise_stamps(m) if what == "noise patches" else galaxy_stamps(m) for m in every])
        ways.append(("pixels", stamps, network(seed=effort.seed)))
    results = []
    for by, samples, fit in ways:
        verdict = cross_validate(samples[kept], isreal[kept], groups[kept], fit, effort.seed)
        entry = {"sky": kind, "what": what, "by": by, "auc": verdict.auc, "interval": [verdict.low, verdict.high]}
        entry |= {"real": verdict.real, "mock": verdict.mock, "wanted": WANTED[what]}
        if by == "features":
            entry["telling"] = telling_features(features[kept], isreal[kept], names)
        results.append((entry, verdict, isreal[kept]))
    return results


def _kept(isreal: NDArray[np.bool_], magnitude: Floats, what: str, seed: int) -> NDArray[np.int64]:
    """All real samples, and as many mock ones as fit: galaxies matched in magnitude, patches at random."""
    mock = np.flatnonzero(~isreal)
    if what == "noise patches":
        chosen = np.random.default_rng(seed).permutation(mock)[:MOST_PATCHES]
    else:
        chosen = mock[match_in_magnitude(magnitude[isreal], magnitude[mock], PER_GALAXY, seed)]
    return np.concatenate([np.flatnonzero(isreal), chosen])


def _write(
    out: Path, result: dict[str, Any], fields: dict[str, list[Measured]], shown: dict[str, tuple[Verdict, NDArray[np.bool_]]]
) -> None:
    (out / "realism.json").write_text(json.dumps(result, indent=1))
    (out / "realism.md").write_text(tables_text(result))
    plots.plot_noise(out / "realism-noise.png", fields)
    plots.plot_profiles(out / "realism-profiles.png", fields)
    plots.plot_population(out / "realism-population.png", fields)
    plots.plot_scores(out / "realism-scores.png", shown)
    plots.picture_of_fields(out / "realism-mock.png", [m.field for m in fields["survey"][:8]])
    both = [m.field for kind in ("real", "survey") for m in fields[kind][:12]]
    plots.picture_of_fields(out / "pictures-fields.png", both)
    stamps, names = [], []
    for kind in ("real", "survey"):
        own = [_stamps(m) for m in fields[kind]]
        chosen = np.concatenate([part for part in own if len(part)])[:36]
        stamps.append(chosen)
        names += [kind] * len(chosen)
    plots.picture_of_stamps(out / "pictures-galaxies.png", np.concatenate(stamps), names)


def _stamps(measured: Measured) -> NDArray[np.float32]:
    """Stamps of a field's galaxies, nanomaggies, shape (N, 3, 2 HALF, 2 HALF)."""
    s = measured.sources
    found = []
    for k in galaxies(measured):
        x, y = round(float(s.x[k])), round(float(s.y[k]))
        found.append(np.stack([measured.planes[band][y - HALF : y + HALF, x - HALF : x + HALF] for band in BANDS]))
    return np.array(found, np.float32).reshape(-1, len(BANDS), 2 * HALF, 2 * HALF)
