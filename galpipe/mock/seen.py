"""What mock volunteers can see in the survey-like sky's noisy, blurred images: each feature by its own size and S/N.

A feature shows when its narrowest extent, on the sky, is resolved and its contrast stands out of the noise. Where it does not show,
answers about it fall back to what people answer when they see a smooth blob; the truth behind the blur is not consulted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from galpipe.mock.sky import Catalog

Floats = NDArray[np.float64]

NO_IDEA = {
    "bulge-size": (0.04, 0.14, 0.40, 0.34, 0.08),
    "spiral-winding": (0.35, 0.40, 0.25),
    "spiral-arm-count": (0.08, 0.38, 0.06, 0.03, 0.02, 0.43),
    "edge-on-bulge": (0.05, 0.45, 0.50),
}
"""Answers of people who cannot tell, in the order of the tree (guess, after the spread of real votes)."""


def shows(extent: Floats, signal: Floats, seeing: float) -> Floats:
    """0 to 1: how well a feature shows.

    Parameters
    ----------
    extent : ndarray, shape (N,)
        Full width of its narrowest side on the sky, arcsec.
    signal : ndarray, shape (N,)
        S/N of its light against the noise under it.
    seeing : float
        FWHM, arcsec.

    Returns
    -------
    ndarray, shape (N,)
        Half where the extent is 0.8 of the seeing and the S/N, diluted by the blur, is 12.
    """
    resolved = extent / seeing
    # light spread by the blur over more pixels loses contrast
    contrast = signal * resolved / np.hypot(resolved, 0.5)
    return np.asarray(_rise(resolved, 0.8, 0.14) * _rise(np.log10(np.maximum(contrast, 1e-3)), np.log10(12), 0.18))


def _rise(value: Floats, middle: float, width: float) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip((value - middle) / width, -40, 40))))


def features(catalog: Catalog, snr: Floats, seeing: float) -> dict[str, Floats]:
    """How well each feature of each galaxy shows, 0 where it has none; arrays of shape (N,)."""
    kind, q = catalog["kind"], catalog["disk_q"]
    size = catalog["half_light_radius"]
    disk = 1 - catalog["bulge"][:, 1]
    # arms wind through a ring of about a half-light radius: their spacing along the minor axis is what the blur must leave
    spacing = 2 * np.pi * catalog["disk_re"] * np.tan(np.radians(catalog["pitch"])) / np.maximum(catalog["arms"], 1) * q
    arms = shows(np.minimum(spacing, catalog["disk_re"] * q), snr * catalog["arm_strength"] * disk * 0.4, seeing)
    # seen from the side, arms lie on top of each other
    arms = arms * (catalog["arms"] > 0) * _rise(q, 0.27, 0.04)
    bar = shows(catalog["bar_length"] * np.sqrt(q), snr * catalog["bar"] * disk * 1.5, seeing) * (catalog["bar"] > 0)
    ring = shows(catalog["ring_radius"] * 0.8 * q, snr * catalog["ring"] * disk * 0.6, seeing) * (catalog["ring"] > 0)
    clumps = shows(catalog["disk_re"] * 0.7, snr * catalog["clumps"] * disk * 0.25, seeing) * (catalog["clumps"] > 0)
    return {
        "arms": arms,
        "bar": bar,
        "ring": ring,
        "clumps": clumps,
        "tail": shows(catalog["disk_re"], snr * catalog["tail"] * 0.4, seeing) * (kind == "merger"),
        "arc": shows(catalog["einstein"] * 0.7, snr * catalog["arc"] * 0.4, seeing) * (kind == "lens"),
        "thin": shows(size * 1.2, snr * disk * 0.3, seeing) * _rise(-_blurred_q(catalog, seeing), -0.38, 0.04),
        "bulge": shows(2 * catalog["bulge_re"] + 0.3 * size, snr * np.minimum(catalog["bulge"][:, 1], 0.5), seeing),
    }


def _blurred_q(catalog: Catalog, seeing: float) -> Floats:
    """Axis ratio of a source in the blurred image."""
    major, blur = catalog["half_light_radius"], 0.42 * seeing
    b = catalog["bulge"][:, 1]
    q = b * catalog["bulge_q"] + (1 - b) * catalog["disk_q"]
    return np.asarray(np.sqrt(((major * q) ** 2 + blur**2) / (major**2 + blur**2)))


def seen_chances(catalog: Catalog, snr: Floats, seeing: float) -> dict[str, Floats]:
    """Chance of each answer, shape (N, answers) per question; rows sum to one.

    Parameters
    ----------
    catalog : structured array, shape (N,)
    snr : ndarray, shape (N,)
        S/N of each source in r, from the image's own inverse variance.
    seeing : float
        FWHM of the PSF's core in r, arcsec.
    """
    seen = features(catalog, snr, seeing)
    weights = {"arms": 0.95, "bar": 0.9, "ring": 0.9, "clumps": 0.8, "tail": 0.7, "arc": 0.4, "thin": 0.9}
    nothing = np.prod([1 - weight * seen[name] for name, weight in weights.items()], axis=0)
    # a resolved disk without features still looks like one to some
    faint_disk = 0.25 * shows(catalog["half_light_radius"] * 1.5, snr * 0.1, seeing) * (catalog["bulge"][:, 1] < 0.6)
    featured = 1 - nothing * (1 - faint_disk)
    q = _blurred_q(catalog, seeing)
    cigar, round_ = _rise(-q, -0.40, 0.05), _rise(q, 0.82, 0.05)
    edge = np.maximum(0.95 * seen["thin"], 0.5 * _rise(-q, -0.28, 0.03))
    merger = seen["tail"]
    pair = 0.15 * (catalog["kind"] == "merger") * _rise(np.log10(np.maximum(snr, 1)), 1.3, 0.2)
    odd = 0.4 * seen["clumps"] * (catalog["kind"] == "irregular")
    return {
        "smooth-or-featured": _share(1 - featured, featured, np.full(len(catalog), 0.03)),
        "how-rounded": _share(round_, np.maximum(1 - round_ - cigar, 0.02), cigar),
        "disk-edge-on": _share(edge, 1 - edge),
        "edge-on-bulge": _or_no_idea("edge-on-bulge", seen["bulge"], _edge_bulge(catalog)),
        "has-spiral-arms": _share(0.95 * seen["arms"] + 0.03, 1 - 0.95 * seen["arms"]),
        "bar": _bar(catalog, seen["bar"]),
        "bulge-size": _or_no_idea("bulge-size", seen["bulge"], _ladder(catalog["bulge"][:, 1], (0.75, 0.5, 0.25, 0.09, 0.0), 0.09)),
        "spiral-winding": _or_no_idea("spiral-winding", seen["arms"], _ladder(-catalog["pitch"], (-12.0, -21.0, -31.0), 4.5)),
        "spiral-arm-count": _or_no_idea("spiral-arm-count", seen["arms"], _arm_count(catalog)),
        "merging": _share(1 - 0.95 * merger - odd - pair, 0.10 * merger + 0.7 * odd + 0.03, 0.25 * merger + 0.3 * odd, 0.6 * merger + pair),
    }


def _share(*parts: Floats) -> Floats:
    stacked = np.maximum(np.stack(parts, axis=1).astype(np.float64), 0.005)
    return np.asarray(stacked / stacked.sum(axis=1, keepdims=True))


def _or_no_idea(question: str, seen: Floats, answer: Floats) -> Floats:
    """What is there as far as it is seen, and the answers of people who cannot tell for the rest."""
    return np.asarray(seen[:, None] * answer + (1 - seen[:, None]) * _share(*np.array(NO_IDEA[question])[:, None]))


def _ladder(value: Floats, steps: tuple[float, ...], width: float) -> Floats:
    return _share(*[np.exp(-0.5 * ((value - step) / width) ** 2) for step in steps])


def _edge_bulge(catalog: Catalog) -> Floats:
    thick = _rise(catalog["bulge"][:, 1], 0.12, 0.05)
    return _share(0.12 * thick, 1 - thick, 0.88 * thick)


def _bar(catalog: Catalog, seen: Floats) -> Floats:
    strong = seen * _rise(catalog["bar"], 0.17, 0.03)
    return _share(strong, seen - strong + 0.04, 1 - 0.95 * seen)


def _arm_count(catalog: Catalog) -> Floats:
    exact = np.eye(5)[np.clip(catalog["arms"], 1, 5) - 1] * (catalog["arms"] > 0)[:, None]
    near = 0.74 * exact + 0.13 * np.roll(exact, 1, axis=1) + 0.13 * np.roll(exact, -1, axis=1)
    return _share(*(0.92 * near).T, np.full(len(catalog), 0.08))
