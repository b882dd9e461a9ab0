"""Restoration measured: stamps blurred and given fresh noise, restored by the model and by classical methods, against the noiseless image.

Every stamp is blurred to 1 / 0.85 of its seeing with its noise brought back, and every second one loses a rectangle or a streak of
pixels. The truth is the noiseless image at the stamp's own PSF: the target of every method is 0.85 of the seeing of what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from galpipe.config import SOFTENING, SURVEY_PIXSCALE
from galpipe.evaluate.benchmark import DEGRADATION_SEED
from galpipe.evaluate.restored import APERTURE, Scene, figures, summary
from galpipe.evaluate.restorers import GRID, SNR_EDGES, Degraded, Lucy, Restorer, Wavelet, bin_of
from galpipe.heads.base import FloatArray, RawOutputs, Truth
from galpipe.heads.restoration import LEVELS, Restoration
from galpipe.lvm.data import USUAL_SEEING, degraded_inputs, load_pixels, load_truth
from galpipe.lvm.inputs import MARGIN, MODEL_BANDS, SHARPENING, Inputs, float_column
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor

Progress = Callable[[str, int, int], None]
Tuned = Mapping[str, Sequence[Restorer]]

TUNED: Tuned = {
    "richardson-lucy": (Lucy(2, True),) * (len(SNR_EDGES) - 1),
    "wavelet": (Wavelet("BayesShrink", 1.0, 2),) * (len(SNR_EDGES) - 1),
}
"""Parameters per bin of S/N, as `tune` chose them."""

METHODS = ("lvm", "stamp", *TUNED)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Parameters
    ----------
    bands : tuple of str
    stamps : int
        Of each brick, drawn by a fixed seed; 0 = all.
    batch : int
    """

    bands: tuple[str, ...] = ("r",)
    stamps: int = 100
    batch: int = 16


@dataclass(frozen=True)
class Batch:
    """Degraded stamps, their truth, and the model's answers."""

    inputs: Inputs
    truth: Truth
    outputs: RawOutputs
    half_widths: FloatArray
    seeing: NDArray[np.float64]


def chosen_rows(pack: Pack, count: int) -> NDArray[np.int64]:
    """Rows of a pack to measure on, the same for every method and model."""
    order = np.random.default_rng([DEGRADATION_SEED, 1]).permutation(len(pack))
    return np.sort(order[: count or len(pack)])


def batches(predictor: Predictor, pack: Pack, rows: NDArray[np.int64], size: int) -> Iterator[Batch]:
    """Degraded stamps with the model's answers."""
    head = predictor.model.head("restoration")
    if not isinstance(head, Restoration):
        raise TypeError(f"expected the restoration head, got {type(head).__name__}")
    stamps = pack.stamps()
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        inputs = degraded(pack, part)
        raw = predictor.raw_inputs(inputs, stamps.take(part), size)
        outputs = raw.heads["restoration"]
        half_widths = head.half_widths(outputs, raw.context.valid)
        yield Batch(inputs, truth_of(pack, part), outputs, half_widths, _seeing(pack, part))


def degraded(pack: Pack, rows: NDArray[np.int64]) -> Inputs:
    """Blurred inputs, a gap in every second one; drawn pair by pair, so that batches of any size see the same pixels."""
    parts = [degraded_inputs(pack, rows[first : first + 2], DEGRADATION_SEED) for first in range(0, len(rows), 2)]
    names = ("pixels", "valid", "conditions", "sharpening")
    return Inputs(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def truth_of(pack: Pack, rows: NDArray[np.int64]) -> Truth:
    """The truth; of stamps without one, the stamps as they were before they were degraded."""
    if pack.has_truth:
        return load_truth(pack, rows)
    count, size = len(pack), pack.image.shape[-1]
    blank, nothing = np.zeros((count, size, size), np.uint8), np.zeros((0, 8), np.float32)
    known = replace(pack, clean=pack.image, segments=blank, objects=nothing, object_start=np.zeros(count + 1, np.int64))
    truth = load_truth(known, rows)
    return replace(truth, known=truth.known & load_valid(pack, rows))


def load_valid(pack: Pack, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels that every band has, padded, shape (K, P, P)."""
    return np.asarray(load_pixels(pack, rows)[1].all(axis=1))


def _seeing(pack: Pack, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Wanted FWHM (arcsec), that of the stamp before it was degraded, shape (K, 3)."""
    values = np.stack([float_column(pack.sources, f"psfsize_{band}", len(pack))[rows] for band in MODEL_BANDS], axis=1)
    return np.where(np.isfinite(values) & (values > 0), values, USUAL_SEEING)


def cases(batch: Batch, index: int, band: str) -> tuple[Degraded, Scene]:
    """What a method is given of one stamp and band, and what is true."""
    b = MODEL_BANDS.index(band)
    size = batch.inputs.pixels.shape[-1] - 2 * MARGIN
    inside = (slice(MARGIN, MARGIN + size), slice(MARGIN, MARGIN + size))
    softening = SOFTENING[band]
    pixels, valid = batch.inputs.pixels[index, b].numpy()[inside], batch.inputs.valid[index, b].numpy()[inside] > 0
    flux = (np.sinh(pixels) * softening).astype(np.float32)
    wanted = float(batch.seeing[index, b]) / SURVEY_PIXSCALE
    clean = (np.sinh(batch.truth.clean[index, b][inside]) * softening).astype(np.float32)
    offsets = [float_column(batch.truth.table, f"stamp_d{axis}", len(batch.truth.table))[index] for axis in "xy"]
    center = tuple(size // 2 + (value if np.isfinite(value) else 0.0) for value in offsets)
    scene = Scene(clean, batch.truth.known[index][inside], (center[0], center[1]), softening)
    return Degraded(flux, valid, wanted / SHARPENING, wanted, noise_of(flux, valid)), scene


def noise_of(flux: FloatArray, valid: NDArray[np.bool_]) -> float:
    """Robust scatter of a plane's pixels, which are mostly sky."""
    if not valid.any():
        return 0.0
    values = flux[valid]
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def snr_of(stamp: Degraded, scene: Scene) -> float:
    """S/N of the central galaxy: noiseless flux within `APERTURE` over the sky noise of as many pixels."""
    rows, columns = np.indices(scene.clean.shape)
    disk = np.hypot(columns - scene.center[0], rows - scene.center[1]) <= APERTURE
    return float(scene.clean[disk].sum() / max(stamp.noise * np.sqrt(disk.sum()), 1e-12))


def measure(predictor: Predictor, packs: Mapping[str, Pack], settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """Figures of every method in bins of S/N.

    Parameters
    ----------
    predictor : Predictor
    packs : mapping
        Stamps by the name of their brick.
    settings : Settings
    progress : callable, optional
        Called as ``progress("restoration", done, total)``.

    Returns
    -------
    dict
        ``results``, a list by band, bin and method; ``target``, the PSFs per band; ``parameters`` of the classical methods.
    """
    rows = {name: chosen_rows(pack, settings.stamps) for name, pack in packs.items()}
    total, done = sum(len(item) for item in rows.values()), 0
    gathered: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    seeing = []
    for name, pack in packs.items():
        for batch in batches(predictor, pack, rows[name], settings.batch):
            for index in range(len(batch.inputs)):
                _measure_stamp(batch, index, settings.bands, gathered)
            seeing.append(batch.seeing)
            done += len(batch.inputs)
            if progress is not None:
                progress("restoration", done, total)
    return {
        "target": _target(np.concatenate(seeing), settings.bands),
        "results": list(_results(gathered)),
        "parameters": {name: [asdict(item) for item in items] for name, items in TUNED.items()},
        "methods": list(METHODS),
        "snr_edges": [float(edge) for edge in SNR_EDGES],
    }


def _measure_stamp(batch: Batch, index: int, bands: Sequence[str], gathered: dict[tuple[str, int, str], list[dict[str, float]]]) -> None:
    reference = cases(batch, index, "r")
    if not reference[1].known.any():
        return
    place = bin_of(snr_of(*reference))
    for band in bands:
        stamp, scene = reference if band == "r" else cases(batch, index, band)
        if not stamp.noise > 0:
            continue
        for method in METHODS:
            plane = _model_plane(batch, index, scene, band) if method == "lvm" else _classical(method, place, stamp)
            found = figures(plane, scene, stamp)
            if method == "lvm":
                found |= _coverage(batch, index, band)
            gathered.setdefault((band, place, method), []).append(found)


def _model_plane(batch: Batch, index: int, scene: Scene, band: str) -> FloatArray:
    size = scene.clean.shape[0]
    inside = slice(MARGIN, MARGIN + size)
    restored = batch.outputs["restored"][index, MODEL_BANDS.index(band), inside, inside]
    return (np.sinh(np.clip(restored, -12, 12)) * scene.softening).astype(np.float32)


def _classical(method: str, place: int, stamp: Degraded) -> FloatArray:
    if method == "stamp":
        return np.where(stamp.valid, stamp.flux, 0).astype(np.float32)
    return TUNED[method][place](stamp)


def _coverage(batch: Batch, index: int, band: str) -> dict[str, float]:
    """Share of pixels within the stated intervals: all, the source's, and filled ones."""
    b = MODEL_BANDS.index(band)
    away = np.abs(batch.outputs["restored"][index, b] - batch.truth.clean[index, b])
    known, valid = batch.truth.known[index], batch.inputs.valid[index, b].numpy() > 0
    side = np.arange(away.shape[0]) - away.shape[0] // 2
    disk = np.hypot(side[:, None], side[None, :]) <= 2 * APERTURE
    result = {}
    for number, level in enumerate(LEVELS):
        held = away <= batch.half_widths[number, index, b]
        for name, where in {"": known & valid, "_center": known & valid & disk, "_filled": known & ~valid}.items():
            result[f"coverage{name}_{100 * level:.0f}"] = float(held[where].mean()) if where.any() else float("nan")
    return result


def _target(seeing: NDArray[np.float64], bands: Sequence[str]) -> dict[str, dict[str, float]]:
    wanted = {band: seeing[:, MODEL_BANDS.index(band)] for band in bands}
    return {
        band: {
            "target_fwhm": float(values.mean()),
            "target_fwhm_low": float(values.min()),
            "target_fwhm_high": float(values.max()),
            "input_fwhm": float(values.mean() / SHARPENING),
        }
        for band, values in wanted.items()
    }


def _results(gathered: Mapping[tuple[str, int, str], list[dict[str, float]]]) -> Iterator[dict[str, Any]]:
    for (band, place, method), found in sorted(gathered.items(), key=lambda item: (item[0][0], item[0][1], METHODS.index(item[0][2]))):
        low, high = list(pairwise(SNR_EDGES))[place]
        top = None if np.isinf(high) else high
        yield {"band": band, "snr_low": low, "snr_high": top, "method": method, "galaxies": len(found), "metrics": summary(found)}


def tune(pack: Pack, count: int, progress: Progress | None = None) -> dict[str, list[dict[str, Any]]]:
    """Try `GRID` on stamps that nothing is measured on, in r.

    Returns
    -------
    dict
        By method a list of bins with the best parameters, their PSNR (dB) and the number of galaxies.
    """
    rows = chosen_rows(pack, count)
    scores: dict[tuple[str, int, int], list[float]] = {}
    done = 0
    for first in range(0, len(rows), 16):
        part = rows[first : first + 16]
        batch = Batch(degraded(pack, part), truth_of(pack, part), {}, np.zeros(0, np.float32), _seeing(pack, part))
        for index in range(len(batch.inputs)):
            stamp, scene = cases(batch, index, "r")
            done += 1
            if stamp.noise > 0 and scene.known.any():
                _try_all(stamp, scene, scores)
            if progress is not None:
                progress("tuning", done, len(rows))
    found: dict[str, list[dict[str, Any]]] = {}
    for method, place in sorted({(method, place) for method, place, _ in scores}):
        means = {number: float(np.mean(values)) for (name, where, number), values in scores.items() if (name, where) == (method, place)}
        best = max(means, key=lambda number: means[number])
        counted = len(scores[method, place, best])
        entry = {"bin": place, "parameters": asdict(GRID[method][best]), "psnr": means[best], "galaxies": counted}
        found.setdefault(method, []).append(entry)
    return found


def _try_all(stamp: Degraded, scene: Scene, scores: dict[tuple[str, int, int], list[float]]) -> None:
    place = bin_of(snr_of(stamp, scene))
    for method, grid in GRID.items():
        for number, restorer in enumerate(grid):
            psnr = figures(restorer(stamp), scene, stamp)["psnr"]
            scores.setdefault((method, place, number), []).append(psnr)
