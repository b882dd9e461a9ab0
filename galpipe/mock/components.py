"""What the fitter takes for sources: blends that merge, large galaxies that fall apart, sources that are missed or never were."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.cameras import camera
from galpipe.mock.canvas import is_structured
from galpipe.mock.frame import Frame, in_gaia
from galpipe.mock.psf import size_over_fwhm
from galpipe.mock.sky import SOURCE, Catalog
from galpipe.survey.bricks import BRICK_PIXELS

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

MERGED_WITHIN = 0.75
"""Two sources closer than this share of the PSF's FWHM may be fitted as one."""

SPURIOUS = 0.012
"""Share of rows that stand for nothing, away from bright stars (guess)."""

SHRED_SIZE = 2.0
"""Half-light radius (arcsec) from which structured galaxies are fitted in pieces."""


@dataclass(frozen=True)
class Components:
    """The fitter's sources, as a frame whose catalog holds fragments and spurious ones behind the true ones."""

    frame: Frame
    rows: Rows
    """Index into that frame's catalog per row of the table."""
    merged: dict[int, int]
    """True source: the true source whose row holds its light."""
    parent: dict[int, int]
    """Fragment (index behind the true ones): the true source it is part of."""
    true: int
    """Number of true sources: larger indices are fragments or spurious."""


def components(frame: Frame, total: Floats, rng: np.random.Generator) -> Components:
    """Decide what the fitter finds.

    Parameters
    ----------
    frame : Frame
    total : ndarray, shape (N,)
        S/N of each true source, all bands together.
    rng : numpy.random.Generator
    """
    edge = BRICK_PIXELS - 0.5
    inside = (frame.x >= -0.5) & (frame.x < edge) & (frame.y >= -0.5) & (frame.y < edge)
    known = in_gaia(frame.catalog)
    seen = inside & ((total + rng.standard_normal(len(total)) > 6) | known)
    merged = merge(frame, seen, rng)
    seen[list(merged)] = False
    seen &= known | ~missed(frame, total, rng)
    merged = {lost: host for lost, host in merged.items() if seen[host]}
    catalog, x, y = frame.catalog.copy(), frame.x.copy(), frame.y.copy()
    for lost, host in merged.items():
        _join(catalog, x, y, lost, host)
    pieces, px, py, parents = shreds(catalog, x, y, np.flatnonzero(seen & (total > 60)), rng)
    taken = np.array([sum(pieces["flux"][parents == row, 1]) for row in np.unique(parents)])
    catalog["flux"][np.unique(parents)] *= 1 - (taken / np.maximum(catalog["flux"][np.unique(parents), 1], 1e-9))[:, None]
    ghosts, gx, gy = spurious(frame, int(seen.sum()), rng)
    true, extra = len(catalog), len(pieces) + len(ghosts)
    drawn = replace(frame.drawn, nea=_pad_point(frame, frame.drawn.nea, extra), central=_pad(frame.drawn.central, pieces, ghosts, frame))
    joined = replace(
        frame,
        catalog=np.concatenate([catalog, pieces, ghosts]),
        x=np.concatenate([x, px, gx]),
        y=np.concatenate([y, py, gy]),
        drawn=drawn,
    )
    rows = np.concatenate([np.flatnonzero(seen), true + np.arange(extra)])
    return Components(joined, rows, merged, {true + k: int(parent) for k, parent in enumerate(parents)}, true)


def point_area(frame: Frame, band: str) -> float:
    """Noise-equivalent area of a star, square pixels: what the survey's PSF size stands for."""
    return float(4 * np.pi * (frame.state.seeing[band] / 2.3548 / SURVEY_PIXSCALE) ** 2)


def _pad_point(frame: Frame, nea: Floats, extra: int) -> Floats:
    return np.concatenate([nea, np.tile([point_area(frame, band) for band in frame.bands], (extra, 1))])


def _pad(central: Floats, pieces: Catalog, ghosts: Catalog, frame: Frame) -> Floats:
    """Peaks of point sources for what was added."""
    flux = np.concatenate([pieces["flux"], ghosts["flux"]])[:, ["griz".index(band) for band in frame.bands]]
    return np.concatenate([central, flux / np.array([point_area(frame, band) for band in frame.bands])])


def merge(frame: Frame, seen: NDArray[np.bool_], rng: np.random.Generator) -> dict[int, int]:
    """Sources fitted as one with a brighter neighbor: index of each, and of its host.

    The chance falls from one, for sources on top of each other, to nothing at `MERGED_WITHIN` of the FWHM.
    """
    band = "r" if "r" in frame.bands else frame.bands[-1]
    fwhm = frame.state.seeing[band] / size_over_fwhm(camera(frame.spec.region, band)) / SURVEY_PIXSCALE
    rows = np.flatnonzero(seen)
    places = np.stack([frame.x[rows], frame.y[rows]], axis=1)
    flux = frame.catalog["flux"][:, 1]
    found: dict[int, int] = {}
    for i, j in sorted(cKDTree(places).query_pairs(MERGED_WITHIN * fwhm)):
        apart = float(np.hypot(*(places[i] - places[j]))) / (MERGED_WITHIN * fwhm)
        one, two = int(rows[i]), int(rows[j])
        lost, host = (one, two) if flux[one] < flux[two] else (two, one)
        if rng.random() < min(1.0, 1.5 * (1 - apart)) and lost not in found and host not in found:
            found[lost] = host
    # a host may have been swallowed by a third source
    return {lost: found.get(host, host) for lost, host in found.items() if found.get(host, host) != lost}


def _join(catalog: Catalog, x: Floats, y: Floats, lost: int, host: int) -> None:
    """Give a merged source's light to its host, in place: flux adds, the center moves, the host looks larger."""
    share = float(catalog["flux"][lost, 1] / (catalog["flux"][lost, 1] + catalog["flux"][host, 1]))
    apart = float(np.hypot(x[lost] - x[host], y[lost] - y[host])) * SURVEY_PIXSCALE
    x[host] += share * (x[lost] - x[host])
    y[host] += share * (y[lost] - y[host])
    catalog["flux"][host] += catalog["flux"][lost]
    catalog["half_light_radius"][host] = np.hypot(catalog["half_light_radius"][host], apart * share * (1 - share))


def missed(frame: Frame, total: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Sources lost in brighter light: inside another one's isophote, or beside bright stars."""
    column = np.clip(np.round(frame.x), 0, BRICK_PIXELS - 1).astype(np.int64)
    row = np.clip(np.round(frame.y), 0, BRICK_PIXELS - 1).astype(np.int64)
    owner = frame.drawn.owner[row, column]
    covered = (owner > 0) & (owner != np.arange(len(total)) + 1)
    chance = np.where(covered, np.clip(1.2 - total / 40, 0.1, 0.9), 0.0)
    chance = np.maximum(chance, 0.5 * ((frame.mask[row, column] >> 1) & 1) * (total < 20))
    return np.asarray(rng.random(len(total)) < chance)


def shreds(catalog: Catalog, x: Floats, y: Floats, candidates: Rows, rng: np.random.Generator) -> tuple[Catalog, Floats, Floats, Rows]:
    """Fragments of large structured galaxies: knots of arms and clumps that the fitter takes for sources of their own.

    Returns
    -------
    pieces : structured array, shape (K,)
    x, y : ndarray, shape (K,)
    parent : ndarray of int64, shape (K,)
    """
    structured = candidates[is_structured(catalog)[candidates]]
    large = structured[catalog["half_light_radius"][structured] > SHRED_SIZE]
    knotty = 0.4 + catalog["clumps"][large] + 0.5 * (catalog["arms"][large] > 0) + (catalog["tail"][large] > 0)
    count = rng.poisson(0.8 * knotty * (catalog["half_light_radius"][large] - SHRED_SIZE) ** 1.2)
    parent = np.repeat(large, np.minimum(count, 25)).astype(np.int64)
    pieces = np.zeros(len(parent), SOURCE)
    pieces[:] = catalog[parent]
    pieces["kind"], pieces["faint"] = "disk_spiral", True
    pieces["flux"] *= (0.06 * rng.random(len(parent)) ** 2 + 0.002)[:, None] * np.array([1.25, 1.0, 0.9, 0.8])
    pieces["half_light_radius"] = np.where(rng.random(len(parent)) < 0.5, 0.05, rng.uniform(0.3, 1.2, len(parent)))
    pieces["bulge"], pieces["disk_re"], pieces["disk_q"] = 0.0, pieces["half_light_radius"], rng.uniform(0.4, 1.0, len(parent))
    pieces["bulge_n"] = pieces["sersic_n"] = 1.0
    along = rng.uniform(0.5, 2.2, len(parent)) * catalog["half_light_radius"][parent] / SURVEY_PIXSCALE
    angle, pa = rng.uniform(0, 2 * np.pi, len(parent)), np.radians(catalog["pa"][parent])
    u, v = along * np.cos(angle), along * np.sin(angle) * catalog["disk_q"][parent]
    px = np.clip(x[parent] - np.sin(pa) * u - np.cos(pa) * v, 0, BRICK_PIXELS - 1)
    py = np.clip(y[parent] + np.cos(pa) * u - np.sin(pa) * v, 0, BRICK_PIXELS - 1)
    return pieces, px, py, parent


def spurious(frame: Frame, rows: int, rng: np.random.Generator) -> tuple[Catalog, Floats, Floats]:
    """Rows that stand for nothing: noise, unmasked cosmic rays and satellites anywhere; spikes and halos near bright stars."""
    bright = np.flatnonzero((frame.catalog["kind"] == "star") & (frame.catalog["flux"][:, 1] > 10 ** (0.4 * (22.5 - 14))))
    mags = 22.5 - 2.5 * np.log10(frame.catalog["flux"][bright, 1])
    near = np.repeat(bright, rng.poisson(0.8 * (15 - mags))) if len(bright) else np.zeros(0, np.int64)
    anywhere = int(rng.poisson(SPURIOUS * rows))
    count = anywhere + len(near)
    x, y = rng.uniform(0, BRICK_PIXELS - 1, (2, count))
    spike = np.radians(camera(frame.spec.region, frame.bands[0]).spike_angle + 90 * rng.integers(0, 4, len(near)))
    reach = rng.exponential(12.0, len(near)) / SURVEY_PIXSCALE + 8
    x[anywhere:] = np.clip(frame.x[near] + reach * np.cos(spike), 0, BRICK_PIXELS - 1)
    y[anywhere:] = np.clip(frame.y[near] + reach * np.sin(spike), 0, BRICK_PIXELS - 1)
    catalog = np.zeros(count, SOURCE)
    catalog["kind"], catalog["faint"], catalog["half_light_radius"] = "irregular", True, 0.05
    catalog["bulge_n"] = catalog["bulge_q"] = catalog["disk_q"] = catalog["sersic_n"] = 1.0
    # just above the threshold, in one band more than in the others
    depth = np.array([6.5 / len(frame.bands) ** 0.5 * frame.state.sigma[b] * point_area(frame, b) ** 0.5 for b in frame.bands])
    strength = rng.uniform(0.2, 2.0, (count, len(frame.bands))) * np.exp(0.3 * rng.standard_normal(count))[:, None]
    catalog["flux"] = 1e-3
    catalog["flux"][:, ["griz".index(band) for band in frame.bands]] = strength * depth
    return catalog, x, y
