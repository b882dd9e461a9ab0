"""What the JPEG route does to stamps: the same galaxies as survey pixels and through each label set's drawing and coding.

Each stamp is drawn by a set's stretch, brought to the set's size, coded with the set's JPEG quality and chroma subsampling, decoded, and
taken back, exactly as the set's pictures are. What it cannot test is what only the real pictures have: another telescope (SDSS), an
unknown scale, constants that are not published (see `galpipe.stamps.stretch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from galpipe.config import SURVEY_PIXSCALE
from galpipe.errors import BadData
from galpipe.lvm.predict import Predictor
from galpipe.stamps.pictures import KINDS, PictureKind, decode, encode_jpeg, framed, picture_flux, picture_stamps
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.stretch import BANDS, Picture

EDGES = (18.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0)
"""Bins of surface brightness, AB mag per square arcsec, of the survey pixels (mean of 3 x 3); fainter ones are the sky."""

SKY = "sky"

HOLDS = 0.25
"""A prediction outlives the route where its median absolute change is at most this part of the spread between galaxies."""

LEAST_GALAXIES = 30
"""With fewer real galaxies than this no statement is made, whatever the change."""

CONTROL = "mirrored survey pixels"
"""The same stamp with east and west exchanged: a change of the input that means nothing, for comparison."""

RESAMPLES = 1000

BATCH = 32
"""Stamps per pass; a smaller set is one pass of its own size."""


@dataclass(frozen=True)
class Column:
    """Values of one prediction: name, head, one number per stamp (NaN where null)."""

    name: str
    head: str
    values: NDArray[np.float64]


def through(stamps: StampSet, kind: PictureKind) -> Iterator[Picture]:
    """Pictures of stamps as a set's files hold them, decoded again; shape (size, size, 3) each."""
    for index in range(len(stamps)):
        picture = framed(kind.stretch.picture(_grz(stamps, index)), kind)
        yield decode(encode_jpeg(picture, kind))


def _grz(stamps: StampSet, index: int) -> NDArray[np.float32]:
    flux = stamps.flux(index)
    return np.stack([flux[stamps.bands.index(band)] for band in BANDS])


def mirrored(stamps: StampSet) -> StampSet:
    """Stamps with east and west exchanged about the source's pixel."""
    middle = stamps.size // 2
    columns = np.clip(2 * middle - np.arange(stamps.size), 0, stamps.size - 1)
    return replace(stamps, image=stamps.image[..., columns], invvar_code=stamps.invvar_code[..., columns], mask=stamps.mask[..., columns])


def compare(predictor: Predictor, stamps: StampSet, kinds: Sequence[PictureKind] = tuple(KINDS.values())) -> list[dict[str, Any]]:
    """Pair survey pixels with every route.

    Parameters
    ----------
    predictor : Predictor
    stamps : StampSet
        g, r and z; bands that are masked everywhere are drawn black, as pictures have them.
    kinds : sequence of PictureKind

    Returns
    -------
    list of dict
        Per route: ``route``, ``galaxies``, ``flux`` (per bin and band), ``embedding``, ``heads``; last the control, without ``flux``.

    Raises
    ------
    BadData
        If a band of the model is not among the stamps', or there are fewer than two stamps.
    """
    if not set(BANDS) <= set(stamps.bands) or len(stamps) < 2:
        raise BadData(f"at least two stamps with {', '.join(BANDS)}", f"{len(stamps)} with {', '.join(stamps.bands)}")
    direct, vectors = predictions(predictor, stamps)
    results = []
    for kind in kinds:
        pictures = list(through(stamps, kind))
        facts: dict[str, Sequence[Any]] = {name: stamps.sources[name].to_pylist() for name in ("stamp_dx", "stamp_dy")}
        changed, moved = predictions(predictor, picture_stamps(pictures, kind, facts))
        result = {"route": kind.name, "stretch": kind.stretch.name, "photometric": kind.stretch.photometric, "galaxies": len(stamps)}
        results.append(result | {"flux": flux_residuals(stamps, pictures, kind)} | _learned(direct, changed, vectors, moved))
    changed, moved = predictions(predictor, mirrored(stamps))
    return [*results, {"route": CONTROL, "galaxies": len(stamps)} | _learned(direct, changed, vectors, moved)]


def _learned(
    direct: Sequence[Column], changed: Sequence[Column], vectors: NDArray[np.float64], moved: NDArray[np.float64]
) -> dict[str, Any]:
    return {"embedding": embedding_change(vectors, moved), "heads": head_changes(direct, changed)}


def flux_residuals(stamps: StampSet, pictures: Sequence[Picture], kind: PictureKind) -> list[dict[str, Any]]:
    """Flux through the route minus survey flux, per band and bin of surface brightness.

    Returns
    -------
    list of dict
        ``band``, ``bin`` (upper and lower edge in mag per square arcsec, or ``sky``), ``pixels``, ``flux`` (median, nanomaggies per pixel),
        ``median`` and ``nmad`` of the residual (nanomaggies per pixel), ``nmad_sigma`` (the latter over the pixel's noise, where that is
        known), ``clipped`` (share of pixels whose channel was at 0 or 255 or kept no color; they are in no other figure).
    """
    found: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for index, picture in enumerate(pictures):
        flux, known, inside = picture_flux(picture, kind)
        one = stamps.take([index])
        true, invvar, valid = _grz(stamps, index), one.invvar()[0], one.valid()[0]
        for place, band in enumerate(BANDS):
            own = stamps.bands.index(band)
            use = valid[own] & inside
            names = _bins(uniform_filter(true[place], 3))
            values = np.stack([flux[place], true[place], invvar[own], known[place]])[:, use].astype(np.float64)
            for name in np.unique(names[use]):
                found.setdefault((band, str(name)), []).append(values[:, names[use] == name])
    return [_residual(band, name, np.concatenate(parts, axis=1)) for (band, name), parts in sorted(found.items())]


def _bins(flux: NDArray[np.float32]) -> NDArray[np.str_]:
    """Name of each pixel's bin, shape of ``flux`` (nanomaggies per pixel)."""
    brightness = 22.5 - 2.5 * np.log10(np.maximum(flux, 1e-9) / SURVEY_PIXSCALE**2)
    edges = [f"< {EDGES[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(EDGES)), SKY]
    names: NDArray[np.str_] = np.array(edges)[np.digitize(brightness, EDGES)]
    return names


def _residual(band: str, name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    got, true, invvar, known = values
    used = known > 0
    difference = (got - true)[used]
    noise = 1 / np.sqrt(np.where(invvar > 0, invvar, np.nan))[used]
    return {
        "band": band,
        "bin": name,
        "pixels": len(true),
        "flux": _median(true[used]),
        "median": _median(difference),
        "nmad": nmad(difference),
        "nmad_sigma": nmad((difference / noise)[np.isfinite(noise)]),
        "clipped": float(1 - used.mean()),
    }


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def nmad(values: NDArray[np.float64]) -> float:
    """1.4826 times the median absolute deviation from the median; NaN for nothing."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def predictions(predictor: Predictor, stamps: StampSet) -> tuple[list[Column], NDArray[np.float64]]:
    """Every single-valued prediction of every head (of lists their length), and the embeddings, shape (N, E), length one."""
    table = predictor.predict(stamps, min(BATCH, len(stamps)))
    columns = []
    for head in predictor.model.head_list():
        for column in head.columns():
            values = _values(table[column.name])
            if values is not None and not column.name.endswith(("_lo", "_hi", "_lo95", "_hi95")):
                columns.append(Column(column.name, head.name, values))
    vectors = np.array(table["embedding"].to_pylist(), np.float64)
    return columns, vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _values(values: pa.ChunkedArray) -> NDArray[np.float64] | None:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return np.array([np.nan if item is None else len(item) for item in values.to_pylist()], np.float64)
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return np.array(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    return None


def embedding_change(vectors: NDArray[np.float64], moved: NDArray[np.float64]) -> dict[str, Any]:
    """Cosine of each galaxy's two embeddings, beside that of different galaxies.

    Returns
    -------
    dict
        ``cosine`` (median), ``cosine_68`` (its 68 % bootstrap interval over galaxies), ``cosine_least``, ``between_galaxies`` (median
        cosine of different galaxies' survey pixels), ``found_again`` (share of galaxies whose nearest survey embedding is their own).
    """
    own = (vectors * moved).sum(axis=1)
    every = vectors @ vectors.T
    others = every[np.triu_indices(len(vectors), 1)]
    draws = np.random.default_rng(0).integers(0, len(own), (RESAMPLES, len(own)))
    low, high = np.percentile(np.median(own[draws], axis=1), [16, 84])
    return {
        "cosine": float(np.median(own)),
        "cosine_68": [float(low), float(high)],
        "cosine_least": float(own.min()),
        "between_galaxies": float(np.median(others)),
        "found_again": float(np.mean((moved @ vectors.T).argmax(axis=1) == np.arange(len(own)))),
    }


def head_changes(direct: Sequence[Column], changed: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """Change of every prediction, by head.

    Returns
    -------
    dict
        Per head ``change`` (median over its columns of ``relative``), ``holding`` (share of columns that hold), and ``columns``: per column
        ``median`` (signed change), ``absolute`` (median), ``spread`` (NMAD between galaxies, survey pixels), ``relative`` (absolute over
        spread), ``galaxies``. Columns without spread are left out.
    """
    heads: dict[str, dict[str, Any]] = {}
    for one, other in zip(direct, changed, strict=True):
        both = np.isfinite(one.values) & np.isfinite(other.values)
        spread = nmad(one.values[both]) or float(np.std(one.values[both])) if both.sum() >= 2 else 0.0
        if not spread > 0:
            continue
        difference = (other.values - one.values)[both]
        absolute = _median(np.abs(difference))
        figures = {"median": _median(difference), "absolute": absolute, "spread": spread, "relative": absolute / spread}
        heads.setdefault(one.head, {"columns": {}})["columns"][one.name] = figures | {"galaxies": int(both.sum())}
    for head in heads.values():
        relative = np.array([item["relative"] for item in head["columns"].values()])
        head |= {"change": float(np.median(relative)), "holding": float((relative <= HOLDS).mean())}
    return heads


def verdict(real: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether what is learned through a route may be claimed for survey pixels.

    Parameters
    ----------
    real : sequence of dict
        What `compare` says of real stamps.

    Returns
    -------
    dict
        ``rule``, ``supported`` (route to heads for which the pairing supports it), ``reason``.
    """
    galaxies = min((item["galaxies"] for item in real), default=0)
    routes = [item for item in real if item["route"] != CONTROL]
    rule = f"at least {LEAST_GALAXIES} real galaxies, the set's own constants, and a median change of at most {HOLDS:g} of the spread"
    if galaxies < LEAST_GALAXIES:
        reason = f"{galaxies} real galaxies are fewer than {LEAST_GALAXIES}: the pairing supports no claim"
        return {"rule": rule, "supported": {item["route"]: [] for item in routes}, "reason": reason}
    supported = {
        item["route"]: [name for name, head in item["heads"].items() if head["change"] <= HOLDS] if item["photometric"] else []
        for item in routes
    }
    return {"rule": rule, "supported": supported, "reason": "by the rule"}
