"""The survey-like frame of noiseless images: batches of smooth sources, and structured galaxies one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock import shapes
from galpipe.mock.fourier import Batch, View, batches, draw_batch, draw_stars, half_sizes, psf_spectra, sersic_spectra
from galpipe.mock.render import ISOPHOTE_FLUX, Drawn, Image
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import ALL_BANDS
from galpipe.mock.structure import disk_patterns

Floats = NDArray[np.float64]

ARC_TINT = (2.2, 1.0, 0.75, 0.6)
"""Share of lensed arcs per band relative to r: background galaxies are bluer than their deflectors."""


@dataclass
class _Canvas:
    """Images under way."""

    drawn: Drawn
    best: Image
    label_band: str

    def add(self, index: int, corner: tuple[int, int], images: dict[str, Image]) -> None:
        """Add one source's stamp at a corner (x, y), and note what it measures."""
        height, width = self.best.shape
        size = next(iter(images.values())).shape[0]
        x0, y0 = max(corner[0], 0), max(corner[1], 0)
        x1, y1 = min(corner[0] + size, width), min(corner[1] + size, height)
        if x0 >= x1 or y0 >= y1:
            return
        frame, own = np.s_[y0:y1, x0:x1], np.s_[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]]
        for band, image in images.items():
            self.drawn.clean[band][frame] += image[own]
        shown = images[self.label_band][own]
        ahead = shown > self.best[frame]
        self.best[frame][ahead] = shown[ahead]
        self.drawn.owner[frame][ahead] = index + 1

    def measure(self, rows: NDArray[np.int64], images: dict[str, Image]) -> None:
        """Noise-equivalent area and peak of the sources of a batch; stamps of shape (n, size, size)."""
        for k, stamps in enumerate(images.values()):
            total, square = stamps.sum(axis=(1, 2), dtype=np.float64), (stamps**2).sum(axis=(1, 2), dtype=np.float64)
            self.drawn.nea[rows, k] = total**2 / np.maximum(square, 1e-30)
            self.drawn.central[rows, k] = stamps.max(axis=(1, 2))


def draw_view(catalog: Catalog, at: tuple[Floats, Floats], view: View, shape: tuple[int, int]) -> Drawn:
    """Draw every source of a frame, or of any rectangle of sky.

    Parameters
    ----------
    catalog : structured array of `galpipe.mock.sky.SOURCE`, shape (N,)
    at : pair of ndarray, shape (N,)
        0-based positions x, y in the frame.
    view : View
    shape : tuple of int
        Height and width of the frame, pixels.
    """
    bands = view.bands
    blank = np.zeros((len(catalog), len(bands)))
    drawn = Drawn({band: np.zeros(shape, np.float32) for band in bands}, np.zeros(shape, np.int32), blank, blank.copy())
    if not len(catalog):
        return drawn
    canvas = _Canvas(drawn, np.full(shape, ISOPHOTE_FLUX, np.float32), "r" if "r" in bands else bands[-1])
    alone = is_structured(catalog)
    half = half_sizes(catalog, view)
    for batch in batches(at[0], at[1], half):
        star = catalog["kind"][batch.rows] == "star"
        if star.any():
            stars = batch.part(np.flatnonzero(star))
            _add_all(canvas, stars, draw_stars(catalog, at, stars, view))
        smooth = np.flatnonzero(~alone[batch.rows] & ~star)
        if len(smooth):
            galaxies = batch.part(smooth)
            _add_all(canvas, galaxies, draw_batch(catalog, galaxies, view))
        for n in np.flatnonzero(alone[batch.rows]):
            one = batch.part(np.array([n]))
            _add_all(canvas, one, _structured(catalog, one, at, view))
    return drawn


def _add_all(canvas: _Canvas, batch: Batch, images: dict[str, Image]) -> None:
    canvas.measure(batch.rows, images)
    for n, row in enumerate(batch.rows):
        canvas.add(int(row), (int(batch.x0[n]), int(batch.y0[n])), {band: image[n] for band, image in images.items()})


def is_structured(catalog: Catalog) -> NDArray[np.bool_]:
    """Sources that are more than a bulge and a smooth disk."""
    plain = catalog["faint"] | np.isin(catalog["kind"], ["star", "smooth_elliptical"])
    return np.asarray(~plain & ((catalog["bulge"][:, 1] < 1) | (catalog["einstein"] > 0)))


def _structured(catalog: Catalog, batch: Batch, at: tuple[Floats, Floats], view: View) -> dict[str, Image]:
    """One galaxy with structure, per band, shape (1, size, size)."""
    row = int(batch.rows[0])
    source, size = catalog[row], batch.size
    line = np.arange(size)
    dx = (line + batch.x0[0] - at[0][row]) * SURVEY_PIXSCALE
    dy = (line + batch.y0[0] - at[1][row]) * SURVEY_PIXSCALE
    grid = np.meshgrid(dx, dy)
    patterns = disk_patterns(source, grid[0], grid[1], view.bands) if source["bulge"][1] < 1 else {}
    arcs = fft.rfft2(shapes.arcs(source, *grid)) if source["einstein"] > 0 else None
    bulge = sersic_spectra(catalog, batch, "bulge")[0] * batch.phase[0]
    images = {}
    for band in view.bands:
        k = ALL_BANDS.index(band)
        share, flux = float(source["bulge"][k]), float(source["flux"][k])
        arc = min(float(source["arc"]) * ARC_TINT[k], 0.6) if arcs is not None else 0.0
        spectrum = (1 - arc) * share * bulge
        if patterns:
            spectrum = spectrum + (1 - arc) * (1 - share) * fft.rfft2(patterns[band])
        if arcs is not None:
            spectrum = spectrum + arc * arcs
        blurred = spectrum * psf_spectra(batch, view, band)[0]
        images[band] = np.asarray(flux * fft.irfft2(blurred, s=(size, size)), np.float32)[None]
    return images
