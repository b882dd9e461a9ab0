"""Strong lenses put into stamps that exist: a blue galaxy behind a singular isothermal ellipsoid, and companions that only look so.

Nobody labels enough lenses to learn from, so they are drawn: deflections of Kormann, Schneider & Bartelmann (1994, A&A 284, 285) as written
by Keeton (2001, arXiv:astro-ph/0102341) for a core radius of zero; surface brightness is conserved, so that magnification comes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import gamma

from galpipe.mock.render import MOFFAT_BETA
from galpipe.mock.shapes import plane
from galpipe.mock.spec import SKY_LEVEL
from galpipe.stamps.normalize import encode
from galpipe.stamps.stampset import StampSet

Floats = NDArray[np.float64]

WINDOW = 64
"""Pixels on a side of the drawn square, the source in its middle."""

FINE = 4
"""Samples per pixel and axis."""

USUAL_SEEING = 1.3
"""Arcsec; taken where a stamp does not say."""

SEEN = 15.0
"""S/N of the arcs, bands together, from which on a drawn lens counts as one that could be seen."""

LEFT_OVER = 0.05
"""Share of the lens galaxy's light that counts as noise to its arcs: nobody can take it away better."""

TRIES = 12
"""Draws per stamp until its arcs can be seen; after these the brightest is taken."""

BEHIND_MAGNITUDES = (21.5, 24.5)
"""r magnitude of the background galaxy before lensing (uniform in magnitude, brighter ones are rare and would be found by eye)."""


@dataclass(frozen=True)
class Behind:
    """One background galaxy.

    Parameters
    ----------
    magnitude : float
        r, AB, unlensed.
    g_r, r_z : float
        Colors.
    radius, n, axis_ratio, pa : float
        Half-light radius (arcsec, major axis), Sersic index, b/a, degrees east of north.
    x, y : float
        Arcsec from the lens along +x (west) and +y (north), in the source plane.
    """

    magnitude: float
    g_r: float
    r_z: float
    radius: float
    n: float
    axis_ratio: float
    pa: float
    x: float
    y: float

    def flux(self, band: str) -> float:
        """Unlensed flux in g, r or z, nanomaggies."""
        magnitude = self.magnitude + {"g": self.g_r, "r": 0.0, "z": -self.r_z}[band]
        return float(10 ** (0.4 * (22.5 - magnitude)))

    def light(self, dx: Floats, dy: Floats) -> Floats:
        """Surface brightness per square arcsec for a total flux of one, at points of the source plane (arcsec)."""
        u, v = plane(dx - self.x, dy - self.y, self.pa, self.axis_ratio)
        # Ciotti & Bertin 1999, good to a few 1e-4 from n = 0.5 on
        b = 2 * self.n - 1 / 3 + 4 / (405 * self.n)
        profile = np.exp(-b * (np.hypot(u, v) / self.radius) ** (1 / self.n))
        return np.asarray(profile / sersic_norm(self.radius, self.n, b, self.axis_ratio))


@dataclass(frozen=True)
class Deflector:
    """The lens: Einstein radius (arcsec), axis ratio and position angle (degrees east of north) of the mass."""

    einstein: float
    axis_ratio: float
    pa: float

    def source_plane(self, dx: Floats, dy: Floats) -> tuple[Floats, Floats]:
        """Where rays that arrive at (dx, dy), arcsec from the lens along +x and +y, come from."""
        q = min(self.axis_ratio, 0.98)
        u, v = plane(dx, dy, self.pa, 1.0)
        psi = np.sqrt(q**2 * u**2 + v**2) + 1e-9
        flat = np.sqrt(1 - q**2)
        strength = self.einstein * np.sqrt(q) / flat
        bu = u - strength * np.arctan(flat * u / psi)
        bv = v - strength * np.arctanh(flat * v / psi)
        angle = np.radians(self.pa)
        return -np.sin(angle) * bu - np.cos(angle) * bv, np.cos(angle) * bu - np.sin(angle) * bv


def sersic_norm(radius: float, n: float, b: float, axis_ratio: float) -> float:
    """Total of ``exp(-b (r / radius)^(1/n))`` over the plane, square arcsec (Graham & Driver 2005, equation 4, less its prefactor)."""
    return float(2 * np.pi * axis_ratio * radius**2 * n * b ** (-2 * n) * gamma(2 * n))


def draw_deflector(rng: np.random.Generator, pa: float) -> Deflector:
    """An early type's mass: an Einstein radius that seeing from the ground resolves, aligned with the light within 15 deg."""
    einstein = float(np.clip(rng.lognormal(np.log(1.4), 0.35), 0.8, 3.5))
    return Deflector(einstein, float(rng.uniform(0.55, 0.95)), pa + 15 * float(rng.standard_normal()))


def draw_behind(rng: np.random.Generator, reach: float) -> Behind:
    """A faint blue galaxy within ``reach`` arcsec of the line of sight, uniform in area."""
    off, angle = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    return Behind(
        magnitude=float(rng.uniform(*BEHIND_MAGNITUDES)),
        g_r=float(np.clip(0.30 + 0.20 * rng.standard_normal(), -0.1, 0.9)),
        r_z=float(np.clip(0.30 + 0.25 * rng.standard_normal(), -0.3, 1.0)),
        radius=float(rng.uniform(0.10, 0.45)),
        n=float(rng.uniform(0.7, 2.0)),
        axis_ratio=float(rng.uniform(0.3, 1.0)),
        pa=float(rng.uniform(0, 180)),
        x=float(off * np.cos(angle)),
        y=float(off * np.sin(angle)),
    )


def draw_arcs(behind: Behind, deflector: Deflector | None, seeing: Floats, bands: Sequence[str], pixscale: float) -> Floats:
    """What is seen of a background galaxy.

    Parameters
    ----------
    behind : Behind
    deflector : Deflector or None
        None draws the galaxy as it is, not lensed.
    seeing : ndarray, shape (B,)
        FWHM per band, arcsec.
    bands : sequence of str
        Of g, r, z.
    pixscale : float
        Arcsec.

    Returns
    -------
    ndarray
        Shape (B, `WINDOW`, `WINDOW`), nanomaggies per pixel, noiseless; the lens is at the pixel ``[WINDOW // 2, WINDOW // 2]``.
    """
    step = pixscale / FINE
    line = (np.arange(WINDOW * FINE) - (WINDOW * FINE - 1) / 2) * step + pixscale / 2
    # the middle of pixel WINDOW // 2 lies half a pixel beyond the middle of the square
    line = line - pixscale
    dx, dy = np.meshgrid(line, line)
    places = (dx, dy) if deflector is None else deflector.source_plane(dx, dy)
    spectrum = fft.rfft2(behind.light(*places) * step**2)
    return np.stack([_seen(spectrum, behind.flux(band), _moffat(fwhm, band, step)) for band, fwhm in zip(bands, seeing, strict=True)])


def _seen(spectrum: NDArray[np.complex128], flux: float, kernel: NDArray[np.complex128]) -> Floats:
    side = WINDOW * FINE
    blurred = fft.irfft2(spectrum * kernel, s=(side, side)) * flux
    return np.asarray(blurred.reshape(WINDOW, FINE, WINDOW, FINE).sum(axis=(1, 3)))


def _moffat(fwhm: float, band: str, step: float) -> NDArray[np.complex128]:
    side = WINDOW * FINE
    line = (np.arange(side) - side // 2) * step
    core = fwhm / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA[band]) - 1))
    kernel = (1 + (line[None, :] ** 2 + line[:, None] ** 2) / core**2) ** -MOFFAT_BETA[band]
    return np.asarray(fft.rfft2(np.fft.ifftshift(kernel / kernel.sum())))


@dataclass(frozen=True)
class Injection:
    """Stamps with something put in, and what that was.

    Parameters
    ----------
    stamps : StampSet
    einstein : ndarray, shape (N,)
        Arcsec; 0 for a companion that is not lensed.
    snr : ndarray, shape (N,)
        Of what was put in, bands together.
    """

    stamps: StampSet
    einstein: Floats
    snr: Floats


def inject(stamps: StampSet, rng: np.random.Generator, *, lensed: bool = True) -> Injection:
    """Put a lensed background galaxy into each stamp, or (for comparison) one to three blue galaxies beside its center.

    Parameters
    ----------
    stamps : StampSet
        Of bands among g, r, z; the galaxy in the middle becomes the lens.
    rng : numpy.random.Generator
    lensed : bool
    """
    image, noise = np.array(stamps.image), sky_noise(stamps)
    einstein, snr = np.zeros(len(stamps)), np.zeros(len(stamps))
    for row in range(len(stamps)):
        added, einstein[row], snr[row] = _addition(stamps, row, _disturbance(stamps, row, noise[row]), rng, lensed)
        image[row] = _with(stamps, row, added + _shot(added, noise[row], stamps.bands, rng))
    return Injection(replace(stamps, image=image), einstein, snr)


def _addition(stamps: StampSet, row: int, noise: Floats, rng: np.random.Generator, lensed: bool) -> tuple[Floats, float, float]:
    """What goes into one stamp: arcs that can be seen, or companions as bright; with the Einstein radius and the S/N."""
    seeing = np.array([_number(stamps, f"psfsize_{band}", row, USUAL_SEEING) for band in stamps.bands])
    pa = _number(stamps, "position_angle", row, float(rng.uniform(0, 180)))
    best: tuple[Floats, float, float] = (np.zeros((len(stamps.bands), WINDOW, WINDOW)), 0.0, -1.0)
    for _ in range(TRIES):
        if lensed:
            deflector = draw_deflector(rng, pa)
            added = draw_arcs(draw_behind(rng, 0.6 * deflector.einstein), deflector, seeing, stamps.bands, stamps.pixscale)
            radius = deflector.einstein
        else:
            added, radius = _companions(rng, seeing, stamps), 0.0
        snr = float(np.sqrt(((added / noise) ** 2).sum()))
        if snr > best[2]:
            best = added, radius, snr
        if snr >= SEEN:
            break
    return best


def _disturbance(stamps: StampSet, row: int, noise: Floats) -> Floats:
    """What hides arcs, per pixel of the window, nanomaggies, shape (B, `WINDOW`, `WINDOW`): noise, and the galaxy that is there."""
    first = stamps.size // 2 - WINDOW // 2
    there = np.maximum(stamps.flux(row)[:, first : first + WINDOW, first : first + WINDOW], 0.0)
    sky = np.array([SKY_LEVEL[band] for band in stamps.bands])[:, None, None]
    return np.asarray(np.sqrt(noise[:, None, None] ** 2 * (1 + there / sky) + (LEFT_OVER * there) ** 2))


def _companions(rng: np.random.Generator, seeing: Floats, stamps: StampSet) -> Floats:
    total = np.zeros((len(stamps.bands), WINDOW, WINDOW))
    for _ in range(int(rng.integers(1, 4))):
        far, angle = rng.uniform(0.8, 5.0), rng.uniform(0, 2 * np.pi)
        # as bright as arcs, which are magnified a few times
        own = replace(draw_behind(rng, 0.0), x=float(far * np.cos(angle)), y=float(far * np.sin(angle)))
        total += draw_arcs(replace(own, magnitude=own.magnitude - 1.5), None, seeing, stamps.bands, stamps.pixscale)
    return total


def _shot(added: Floats, noise: Floats, bands: Sequence[str], rng: np.random.Generator) -> Floats:
    """The added light's own photon noise: the sky's variance times the light over the sky's brightness."""
    sky = np.array([SKY_LEVEL[band] for band in bands])[:, None, None]
    return np.asarray(rng.standard_normal(added.shape) * noise[:, None, None] * np.sqrt(np.maximum(added, 0) / sky))


def _with(stamps: StampSet, row: int, added: Floats) -> NDArray[np.int16]:
    flux = stamps.flux(row).astype(np.float64)
    first = stamps.size // 2 - WINDOW // 2
    place = slice(first, first + WINDOW)
    flux[:, place, place] += added
    codes = np.array(stamps.image[row])
    for index, line in enumerate(stamps.codecs):
        codes[index, place, place] = encode(flux[index, place, place], line)
    return codes


def sky_noise(stamps: StampSet) -> Floats:
    """Noise of a pixel per stamp and band, nanomaggies, shape (N, B): from the median absolute difference of neighbours along the border.

    Differences of pixels three apart, so that the correlation of resampled neighbours does not make it too small.
    """
    result = np.empty((len(stamps), len(stamps.bands)))
    for row in range(len(stamps)):
        flux = stamps.flux(row)
        edge = np.concatenate([flux[:, :16], flux[:, -16:]], axis=1)
        spread = np.median(np.abs(edge[:, :, 3:] - edge[:, :, :-3]), axis=(1, 2)) * 1.4826 / np.sqrt(2)
        result[row] = np.maximum(spread, 1e-4)
    return result


def _number(stamps: StampSet, name: str, row: int, otherwise: float) -> float:
    if name not in stamps.sources.column_names:
        return otherwise
    value = stamps.sources[name][row].as_py()
    return float(value) if value is not None and np.isfinite(value) and (value > 0 or name == "position_angle") else otherwise
