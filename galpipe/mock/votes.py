"""Mock volunteers: answers to the Galaxy Zoo DECaLS tree, from what can be seen and not from what is there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from galpipe.galaxyzoo import PARENT, TREE
from galpipe.mock.sky import Catalog

Floats = NDArray[np.float64]

Chances = Callable[[Catalog, Floats, float], dict[str, Floats]]
"""Chance of each answer, shape (N, answers) per question, from catalog, S/N and seeing."""

VOLUNTEERS = 40


def fraction_columns() -> list[str]:
    """Names of the 34 vote-fraction columns."""
    return [f"{question}_{answer}_fraction" for question, answers in TREE.items() for answer in answers]


def total_columns() -> list[str]:
    """Names of the ten vote-count columns."""
    return [f"{question}_total" for question in TREE]


def vote(catalog: Catalog, snr: Floats, seeing: float, rng: np.random.Generator, chances_of: Chances | None = None) -> dict[str, Floats]:
    """Let 40 volunteers look at each galaxy with z < 20.

    A feature's visibility is the product of how well it is resolved (half-light radius over seeing) and how bright it is
    (its share of the flux times the galaxy's S/N); answers about a feature are drawn toward "not there" by its absence.

    Parameters
    ----------
    catalog : structured array, shape (N,)
    snr : ndarray, shape (N,)
        S/N of each source in r.
    seeing : float
        FWHM in r, arcsec.
    rng : numpy.random.Generator
    chances_of : callable, optional
        Gives each answer's chance; `answer_chances` by default, `galpipe.mock.seen.seen_chances` for the survey-like sky.

    Returns
    -------
    dict of ndarray, shape (N,)
        Fractions (NaN where nobody was asked) and totals, by published name. Faint sources and stars: total 0.
    """
    chances = (chances_of or answer_chances)(catalog, snr, seeing)
    shown = (catalog["kind"] != "star") & ~catalog["faint"]
    counts: dict[str, NDArray[np.int64]] = {}
    columns: dict[str, Floats] = {}
    for question, answers in TREE.items():
        asked = _asked(question, counts, shown)
        counts[question] = rng.multinomial(asked, chances[question])
        with np.errstate(invalid="ignore", divide="ignore"):
            fractions = np.where(asked[:, None] > 0, counts[question] / asked[:, None], np.nan)
        for k, answer in enumerate(answers):
            columns[f"{question}_{answer}_fraction"] = fractions[:, k]
        columns[f"{question}_total"] = asked.astype(np.float64)
    return columns


def _asked(question: str, counts: dict[str, NDArray[np.int64]], shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    parent = PARENT[question]
    if parent is None:
        return np.where(shown, VOLUNTEERS, 0)
    if parent[1] == "not artifact":
        return counts[parent[0]][:, :2].sum(axis=1)
    return counts[parent[0]][:, TREE[parent[0]].index(parent[1])]


def visibility(catalog: Catalog, snr: Floats, seeing: float, strength: Floats) -> Floats:
    """0 to 1: how well a feature with a share ``strength`` of the flux can be seen; arrays of shape (N,)."""
    resolved = catalog["half_light_radius"] / seeing
    return np.asarray(_rise(resolved, 1.0, 0.35) * _rise(np.log10(np.maximum(snr * strength, 1e-3)), 1.0, 0.25))


def _rise(value: Floats, middle: float, width: float) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip((value - middle) / width, -40, 40))))


def answer_chances(catalog: Catalog, snr: Floats, seeing: float) -> dict[str, Floats]:
    """Chance of each answer, shape (N, answers) per question; rows sum to one."""
    kind = catalog["kind"]
    disk = 1 - catalog["bulge"][:, 1]
    arms = visibility(catalog, snr, seeing, catalog["arm_strength"] * disk * 0.5) * (catalog["arms"] > 0)
    bar = visibility(catalog, snr, seeing, catalog["bar"] * disk) * (catalog["bar"] > 0)
    ring = visibility(catalog, snr, seeing, catalog["ring"] * disk) * (catalog["ring"] > 0)
    clumps = visibility(catalog, snr, seeing, catalog["clumps"] * disk * 0.5) * (catalog["clumps"] > 0)
    tail = visibility(catalog, snr, seeing, np.full(len(catalog), 0.5)) * (kind == "merger")
    arc = visibility(catalog, snr, seeing, catalog["arc"]) * (kind == "lens")
    thin = visibility(catalog, snr, seeing, disk) * (kind == "edge_on")
    plain = visibility(catalog, snr, seeing, disk * 0.3) * 0.35 * (disk > 0.3)
    featured = 1 - np.prod([1 - 0.95 * s for s in (arms, bar, ring, clumps, 0.7 * tail, 0.5 * arc, 0.9 * thin, plain)], axis=0)
    seen_q = _blurred_axis_ratio(catalog, seeing)
    cigar, round_ = _rise(-seen_q, -0.38, 0.05), _rise(seen_q, 0.82, 0.06)
    edge = np.maximum(thin * 0.95, 0.6 * _rise(-seen_q, -0.28, 0.03))
    return {
        "smooth-or-featured": _share(1 - featured, featured, np.full(len(catalog), 0.03)),
        "how-rounded": _share(round_, np.maximum(1 - round_ - cigar, 0.02), cigar),
        "disk-edge-on": _share(edge, 1 - edge),
        "edge-on-bulge": _edge_bulge(catalog),
        "has-spiral-arms": _share(arms + 0.02, 1 - 0.95 * arms),
        "bar": _bar(catalog, bar),
        "bulge-size": _ladder(catalog["bulge"][:, 1], (0.75, 0.5, 0.25, 0.09, 0.0), 0.09),
        "spiral-winding": _ladder(-catalog["pitch"], (-12.0, -21.0, -31.0), 4.5),
        "spiral-arm-count": _arm_count(catalog, arms),
        "merging": _merging(catalog, tail),
    }


def _share(*parts: Floats) -> Floats:
    stacked = np.maximum(np.stack(parts, axis=1).astype(np.float64), 0.005)
    return np.asarray(stacked / stacked.sum(axis=1, keepdims=True))


def _blurred_axis_ratio(catalog: Catalog, seeing: float) -> Floats:
    major, blur = catalog["half_light_radius"], seeing / 2
    b = catalog["bulge"][:, 1]
    q = b * catalog["bulge_q"] + (1 - b) * catalog["disk_q"]
    return np.asarray(np.sqrt(((major * q) ** 2 + blur**2) / (major**2 + blur**2)))


def _ladder(value: Floats, steps: tuple[float, ...], width: float) -> Floats:
    return _share(*[np.exp(-0.5 * ((value - step) / width) ** 2) for step in steps])


def _edge_bulge(catalog: Catalog) -> Floats:
    seen = _rise(catalog["bulge"][:, 1], 0.12, 0.05)
    return _share(0.12 * seen, 1 - seen, 0.88 * seen)


def _bar(catalog: Catalog, seen: Floats) -> Floats:
    strong = seen * _rise(catalog["bar"], 0.17, 0.03)
    return _share(strong, seen - strong + 0.04, 1 - 0.95 * seen)


def _arm_count(catalog: Catalog, seen: Floats) -> Floats:
    exact = np.eye(5)[np.clip(catalog["arms"], 1, 5) - 1] * (catalog["arms"] > 0)[:, None]
    near = 0.72 * exact + 0.14 * np.roll(exact, 1, axis=1) + 0.14 * np.roll(exact, -1, axis=1)
    sure = 0.25 + 0.65 * seen[:, None]
    return _share(*(sure * near).T, 1 - sure[:, 0])


def _merging(catalog: Catalog, seen: Floats) -> Floats:
    merger = (catalog["kind"] == "merger") * np.maximum(seen, 0.25)
    odd = 0.25 * (catalog["kind"] == "irregular")
    return _share(1 - 0.95 * merger - odd, 0.10 * merger + 0.7 * odd + 0.03, 0.25 * merger + 0.3 * odd, 0.60 * merger)
