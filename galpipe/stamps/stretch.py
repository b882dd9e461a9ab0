"""From survey pixels to color pictures and back: the stretches that label sets were drawn with, one class per family.

Every stretch maps g, r, z fluxes (nanomaggies per 0.262 arcsec pixel) to the blue, green and red channel of an 8-bit picture. The way
back is what science.md section 3 calls the **JPEG route**. It cannot bring back what the picture does not hold: fluxes beyond black or
white (marked as not known), steps finer than 1/255 of the stretch, and whatever JPEG blocks and shared chroma pixels took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Picture = NDArray[np.uint8]

BANDS = ("g", "r", "z")
PLANES = {"z": 0, "r": 1, "g": 2}
"""Channel of a band in an RGB picture."""

SCALES = {"g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2}
"""Per-band factor of the viewer's ``dr2_rgb`` (i as in its older griz mapping); nothing here follows the image."""

M = 0.03
Q = 20.0

WHITE = 250
"""Channel value from which on a pixel counts as white: JPEG's rounding leaves 250 to 255 of it."""

LEAST_COLOR = 0.15
"""Share of its color that a pixel of a Galaxy Zoo DECaLS picture must have kept for its fluxes to be told apart."""

GRIZ_BRIGHTER = 1.5
"""The viewer's griz pictures (DR10 on) multiply all of `SCALES` by this."""

GRIZ_MIX = {"r": {"i": 0.25, "z": 0.75}, "g": {"r": 0.5, "i": 0.5}, "b": {"g": 0.75, "r": 0.25}}
"""Channels of the viewer's griz pictures as sums of stretched bands (reference section 6)."""


class Stretch(Protocol):
    """One way of drawing fluxes; see the module for units."""

    @property
    def name(self) -> str:
        """What tables and columns call it."""

    @property
    def photometric(self) -> bool:
        """Whether the constants are those that the pictures were made with, so that fluxes mean nanomaggies."""

    def picture(self, flux: NDArray[np.floating]) -> Picture:
        """Picture, shape (H, W, 3), row 0 at the top (north), of g, r, z fluxes, shape (3, H, W), row 0 at the south."""

    def flux(self, picture: Picture) -> tuple[FloatArray, BoolArray]:
        """The way back: g, r, z fluxes, shape (3, H, W), and where they are known."""


def lupton_values(shown: Mapping[int, NDArray[np.floating]], q: float, norm: float | None = None) -> FloatArray:
    """Lupton et al. (2004, PASP 116, 133) as the Legacy Surveys use it: the mean of the channels is stretched, colors are kept.

    ``I = mean_c max(0, x_c); v_c = clip(x_c asinh(Q I) / (sqrt(Q) I), 0, 1)`` (reference section 6).

    Parameters
    ----------
    shown : mapping of int to ndarray, shape (H, W)
        ``scale * flux + pedestal`` by channel; channels that are missing stay black.
    q : float
    norm : float, optional
        In place of ``sqrt(Q)``.

    Returns
    -------
    ndarray of float32, shape (H, W, 3)
        From 0 to 1, row order of the input.
    """
    intensity = np.mean([np.maximum(plane, 0.0) for plane in shown.values()], axis=0)
    stretched = np.arcsinh(q * intensity) / (norm or np.sqrt(q))
    ratio = stretched / np.where(intensity == 0.0, 1e-6, intensity)
    rgb = np.zeros((*intensity.shape, 3), np.float32)
    for index, plane in shown.items():
        rgb[..., index] = np.clip(plane * ratio, 0.0, 1.0)
    return rgb


@dataclass(frozen=True)
class Lupton:
    """``dr2_rgb`` and its relatives.

    Parameters
    ----------
    name : str
    scales : tuple of float
        Factor of g, r, z.
    pedestal : float
        m, added to every channel: what makes empty sky grey.
    q : float
    norm : float or None
        Divisor of the stretched mean; None is sqrt(q), as the surveys have it.
    photometric : bool
    """

    name: str
    scales: tuple[float, float, float] = (SCALES["g"], SCALES["r"], SCALES["z"])
    pedestal: float = M
    q: float = Q
    norm: float | None = None
    photometric: bool = True

    def picture(self, flux: NDArray[np.floating]) -> Picture:
        """See `Stretch.picture`; values are rounded to 8 bits."""
        planes = np.nan_to_num(np.asarray(flux, np.float32))
        shown = {
            PLANES[b]: np.float32(s) * plane + np.float32(self.pedestal) for b, s, plane in zip(BANDS, self.scales, planes, strict=True)
        }
        return np.rint(lupton_values(shown, self.q, self.norm)[::-1] * 255).astype(np.uint8)

    def flux(self, picture: Picture) -> tuple[FloatArray, BoolArray]:
        """See `Stretch.flux`.

        Where no channel is clipped, ``mean(v) = asinh(Q I) / norm``, so ``I = sinh(norm mean(v)) / Q`` and
        ``flux_b = (v_b I / mean(v) - m) / s_b``. Where a channel is white the mean is a limit, and no band's flux is known.
        """
        values = picture[::-1].astype(np.float32) / 255.0
        mean = values.mean(axis=-1)
        intensity = np.sinh((self.norm or np.sqrt(self.q)) * mean) / self.q
        ratio = intensity / np.where(mean == 0.0, 1.0, mean)
        bands = [(values[..., PLANES[band]] * ratio - self.pedestal) / scale for band, scale in zip(BANDS, self.scales, strict=True)]
        inside = channels_inside(picture)
        white = picture[::-1].max(axis=-1) >= WHITE
        return np.stack(bands).astype(np.float32), inside & ~white


@dataclass(frozen=True)
class GalaxyZooDecals:
    """The pictures that volunteers of Galaxy Zoo DECaLS saw (DR5 campaign; public downloader code of that project).

    Each channel alone: ``x_b = (asinh(flux_b / s_b) - lo) / (hi - lo)`` with ``lo = asinh(-0.5)``, ``hi = asinh(300)``; then colors
    are weakened where one channel dominates: with ``a = mean(x)`` and ``w = sin(pi/2 (1 - min(1, max(x) / (2.5 a))))``,
    ``v_b = w x_b + (1 - w) a + (1 - w)^2 a x_b``. Values are cut off, not rounded, to 8 bits. Empty sky is 17 of 255; the median sky
    of the real pictures is 16 to 17, that of ``dr2_rgb`` would be 32. Two fluxes can have one picture: light in one band only looks like
    light of a mild color, which is what the way back takes it for.
    """

    name: str = "gz_decals"
    softening: tuple[float, float, float] = (0.008, 0.014, 0.019)
    low: float = -0.5
    high: float = 300.0
    dominance: float = 2.5
    photometric: bool = True

    def picture(self, flux: NDArray[np.floating]) -> Picture:
        """See `Stretch.picture`."""
        least, span = self._range()
        planes = np.nan_to_num(np.asarray(flux, np.float64))
        x = np.stack([(np.arcsinh(plane / s) - least) / span for plane, s in zip(planes, self.softening, strict=True)])
        mean = x.mean(axis=0)
        mean = np.where(mean == 0.0, 1.0, mean)
        weight = _weight(x.max(axis=0) / mean / self.dominance)
        shown = x * weight + mean * (1 - weight) + mean * (1 - weight) ** 2 * x
        rgb = np.moveaxis(shown[[BANDS.index(band) for band in sorted(PLANES, key=PLANES.__getitem__)]], 0, -1)
        return np.asarray((np.clip(rgb, 0, 1) * 255)[::-1], np.uint8)

    def flux(self, picture: Picture) -> tuple[FloatArray, BoolArray]:
        """See `Stretch.flux`; the weight of the colors is found by bisection, 24 steps. Not known where hardly any color was kept."""
        values = (picture[::-1].astype(np.float64) + 0.5) / 255
        shown = np.stack([values[..., PLANES[band]] for band in BANDS])
        brightest, total = shown.max(axis=0), shown.mean(axis=0)
        low, high = np.full(total.shape, 1 / self.dominance), np.ones(total.shape)
        for _ in range(24):
            middle = (low + high) / 2
            # the share that this weight would give back: too large a guess gives a smaller share than it was
            above = self._share(middle, brightest, total) > middle
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        weight = _weight((low + high) / 2)
        mean = self._mean(weight, total)
        colored = weight + mean * (1 - weight) ** 2 > LEAST_COLOR
        # three channels cannot exceed three times their mean; where no color was kept all bands are alike
        x = np.where(colored, np.clip(self._undone((low + high) / 2, shown, total), 0.0, 3 * mean), mean)
        least, span = self._range()
        bands = [s * np.sinh(plane * span + least) for plane, s in zip(x, self.softening, strict=True)]
        return np.stack(bands).astype(np.float32), channels_inside(picture) & colored

    def _range(self) -> tuple[float, float]:
        least = float(np.arcsinh(self.low))
        return least, float(np.arcsinh(self.high)) - least

    @staticmethod
    def _mean(weight: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        """A of the mean picture value: ``total = a + (1 - w)^2 a^2``."""
        bend = np.maximum((1 - weight) ** 2, 1e-9)
        mean: NDArray[np.float64] = (np.sqrt(1 + 4 * bend * total) - 1) / (2 * bend)
        return mean

    def _undone(self, share: NDArray[np.float64], shown: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        weight = _weight(share)
        mean = self._mean(weight, total)
        x: NDArray[np.float64] = (shown - mean * (1 - weight)) / np.maximum(weight + mean * (1 - weight) ** 2, 0.05)
        return np.clip(x, 0.0, 1.0)

    def _share(self, share: NDArray[np.float64], brightest: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = self._mean(_weight(share), total)
        ratio: NDArray[np.float64] = self._undone(share, brightest, total) / np.maximum(mean, 1e-9) / self.dominance
        return ratio


def _weight(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of a pixel's color is kept, 0 to 1; ``share`` is the brightest channel over 2.5 times the mean of all."""
    weight: NDArray[np.float64] = np.sin((1 - np.minimum(share, 1.0)) * np.pi / 2)
    return weight


def channels_inside(picture: Picture) -> BoolArray:
    """Where a band's own channel is neither 0 nor 255, shape (3, H, W), g, r, z, row 0 at the south."""
    planes = np.stack([picture[::-1, :, PLANES[band]] for band in BANDS])
    inside: BoolArray = (planes > 0) & (planes < 255)
    return inside


def griz_picture(flux: NDArray[np.floating]) -> Picture:
    """The viewer's picture of g, r, i, z (DR10 on). There is no way back: four bands went into three channels.

    Parameters
    ----------
    flux : ndarray, shape (4, H, W)
        g, r, i, z, nanomaggies per 0.262 arcsec pixel, row 0 at the south.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        Row 0 at the top (north).
    """
    planes = {band: np.nan_to_num(np.asarray(plane, np.float32)) for band, plane in zip("griz", flux, strict=True)}
    shown = {band: np.float32(SCALES[band] * GRIZ_BRIGHTER) * plane + np.float32(M) for band, plane in planes.items()}
    intensity = np.mean([np.maximum(plane, 0.0) for plane in shown.values()], axis=0)
    ratio = np.arcsinh(Q * intensity) / np.sqrt(Q) / np.where(intensity == 0.0, 1e-6, intensity)
    bands = {band: np.clip(plane * ratio, 0.0, 1.0) for band, plane in shown.items()}
    channels = [sum(share * bands[band] for band, share in mix.items()) for mix in GRIZ_MIX.values()]
    return np.rint(np.stack(channels, axis=-1)[::-1] * 255).astype(np.uint8)


DR2_RGB = Lupton("dr2_rgb")
"""The survey's own grz pictures: the viewer, its cutout service, the coadds' JPEGs up to DR9."""

GZ_DECALS = GalaxyZooDecals()

SKYSERVER = Lupton("skyserver_fitted", (5.9, 2.1, 2.5), pedestal=0.0069, norm=9.44, photometric=False)
"""SDSS SkyServer pictures: i, r, g in the place of z, r, g; Lupton with modifications that are published as a flow chart, without
constants. These were fitted (least squares, pedestal from the median sky of 4 of 255) on the one galaxy that both ``legacy_rings`` and
``sdss_gz1_classes`` have, where they leave 0.05 of full scale rms, ``dr2_rgb`` 0.25. Sizes and shapes hold; fluxes are rough."""

EFIGI = Lupton("efigi_symbolic", pedestal=0.018, photometric=False)
"""EFIGI's own drawing of SDSS g, r, i: the curve of ``dr2_rgb`` with the pedestal that gives its sky (20 of 255, measured), for want of
better. Sizes and shapes hold, fluxes and colors are **symbolic**."""

STRETCHES: dict[str, Stretch] = {stretch.name: stretch for stretch in (DR2_RGB, GZ_DECALS, SKYSERVER, EFIGI)}
