"""The cameras of the two regions, and the nights they had: seeing, depth and dust of a brick, drawn together.

Sources of the numbers: native pixels and CCD sizes from the cameras' manuals; noise medians from the log-normal fits of Stein et al.
(2021) to DR9, split by region with the published depths; outer PSF of DECam from the DR9 page on the PSF's wings; PSF cores fitted to
a DR9 coadd PSF. What the survey does not publish (satellite rate, leftover of halos) is a stated guess in `galpipe.mock.artefacts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from astropy.coordinates import SkyCoord

from galpipe.mock.pixels import Conditions
from galpipe.mock.spec import ALL_BANDS, MockSpec
from galpipe.survey.bricks import Brick

REDDENING = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}
"""A / E(B-V), SFD98."""


@dataclass(frozen=True)
class Camera:
    """One camera through one filter."""

    name: str
    pixscale: float
    """Native pixel, arcsec: what the resampling kernel stretches over."""
    psfsize: float
    """Median PSF size of a coadd as the survey defines it (from the PSF's norm), arcsec."""
    sigma: float
    """Median sky noise of a coadd, nanomaggies per 0.262 arcsec pixel."""
    exposures: tuple[int, int]
    """Fewest and most exposures of a brick."""
    core: tuple[float, float, float]
    """Moffat beta of the core; share and relative width of a second Moffat with beta 2.2."""
    power_law: float
    """Outer profile w / r^2 of a star of unit flux, per square arcsec; 0 where it is a Moffat."""
    outer: tuple[float, float, float]
    """alpha (arcsec), beta and weight of the outer Moffat; weight 0 where it is a power law."""
    ccd: tuple[int, int]
    """A CCD's extent along x and y, coadd pixels."""
    bleed_axis: int
    """Array axis along which charge bleeds."""
    spike_angle: float
    """Direction of a diffraction spike, degrees from +x; four of them, 90 degrees apart."""


def _decam(psfsize: float, sigma: float, core: tuple[float, float, float], power_law: float, outer: tuple[float, float, float]) -> Camera:
    return Camera("decam", 0.262, psfsize, sigma, (4, 9), core, power_law, outer, (4094, 2046), 1, 45.0)


CAMERAS = {
    ("south", "g"): _decam(1.30, 0.0029, (3.35, 0.168, 1.69), 0.00045, (1.0, 2.0, 0.0)),
    ("south", "r"): _decam(1.20, 0.0042, (2.98, 0.091, 2.64), 0.00033, (1.0, 2.0, 0.0)),
    ("south", "i"): _decam(1.15, 0.0075, (2.80, 0.070, 3.30), 0.00033, (1.0, 2.0, 0.0)),
    ("south", "z"): _decam(1.15, 0.0112, (2.61, 0.055, 3.99), 0.0, (17.65, 1.7, 0.0145)),
    ("north", "g"): Camera("90prime", 0.4533, 1.65, 0.0024, (2, 5), (3.6, 0.10, 1.8), 0.0006, (1.0, 2.0, 0.0), (7000, 7000), 0, 0.0),
    ("north", "r"): Camera("90prime", 0.4533, 1.50, 0.0036, (2, 5), (3.3, 0.10, 1.8), 0.0005, (1.0, 2.0, 0.0), (7000, 7000), 0, 0.0),
    ("north", "z"): Camera("mosaic3", 0.258, 1.05, 0.0140, (3, 7), (2.7, 0.06, 3.0), 0.0004, (1.0, 2.0, 0.0), (4035, 4035), 0, 0.0),
}
CAMERAS["north", "i"] = CAMERAS["north", "z"]


def camera(region: str, band: str) -> Camera:
    """The camera that took a band of a region."""
    return CAMERAS[region, band]


@cache
def galactic_latitude(area: Brick) -> float:
    """Degrees, of the brick's center."""
    return float(SkyCoord(area.ra, area.dec, unit="deg").galactic.b.deg)


def star_count(area: Brick) -> int:
    """Stars per brick with 11 < r < 23 by galactic latitude: 700 at the poles, rising as 1 / sin|b|, halted at 10 degrees."""
    return round(700 / max(np.sin(np.radians(abs(galactic_latitude(area)))), 0.17))


def survey_conditions(spec: MockSpec, area: Brick) -> Conditions:
    """Seeing, depth and dust of a brick, drawn together from ``(seed, brickid)``.

    A night's air moves every band's seeing alike. The surveys lengthened exposures for dust and bad air, so that the depth for a
    point source varies less than either: the sky noise falls with both. Dust thins with galactic latitude.
    """
    rng = np.random.default_rng(spec.entropy(area.brickid, 21))
    thick = 0.025 / max(np.sin(np.radians(abs(galactic_latitude(area)))), 0.17)
    ebv = float(thick * np.exp(0.4 * rng.standard_normal()))
    night, own = 0.09 * rng.standard_normal(), 0.06 * rng.standard_normal(4)
    luck, common = 0.16 * rng.standard_normal(4), 0.15 * rng.standard_normal()
    share = rng.random(4)
    seeing, sigma, exposures = {}, {}, {}
    for k, band in enumerate(ALL_BANDS):
        instrument = camera(spec.region, band)
        air = night + own[k]
        seeing[band] = float(instrument.psfsize * np.exp(air))
        extinction = 0.4 * np.log(10) * REDDENING[band] * (ebv - 0.03)
        sigma[band] = float(instrument.sigma * np.exp(common + luck[k] - 0.6 * air - 0.5 * extinction))
        low, high = instrument.exposures
        exposures[band] = low + int(share[k] * (high - low + 1))
    return Conditions(seeing, sigma, exposures, ebv)
