"""Pixel codes of a stamp store: asinh fluxes as int16 with scale and offset, inverse variances as one logarithmic byte.

Flux: ``y = asinh(flux / s_b)`` (science.md section 3), stored as ``code = round((y - offset_b) / scale_b)``. The codes span
``y`` from `FLOOR` (-100 softenings, beyond -5 sigma of noise twenty times the softening) to ``asinh(CEILING / s_b)``.

A pixel's largest rounding error is ``scale_b / 2 * sqrt(flux**2 + s_b**2)``: 1.44e-4 of the flux at the bright end in g
(scale 2.87e-4), less in r, i, z, and 6e-7 nanomaggies in the sky. It is below 0.1 of the pixel's noise ``sqrt(sky**2 + flux / gain)``
as long as the pixel gathered fewer than `ELECTRONS_WITHIN_TENTH` electrons, the content of three DECam pixels at full well
(1.6e5 electrons each); saturated pixels have invvar = 0 and no noise to compare with. In coadds of more exposures the
brightest unsaturated pixels exceed the tenth: ten exposures, all at full well, round to 0.18 of the noise at worst, 0.11 rms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLOOR = -float(np.arcsinh(100.0))
"""Least normalized value that has a code."""

CEILING = 1500.0
"""Largest flux (nanomaggies per pixel) that has a code; DECam pixels saturate near 100."""

STEPS = 65_534
"""Codes run from -32767 to 32767; -32768 stays free."""

ELECTRONS_WITHIN_TENTH = 4.8e5
"""Below so many electrons in a pixel the rounding stays under 0.1 of its noise, in every band."""

INVVAR_FIRST = 1e-2
"""Inverse variance (1/nanomaggies^2) of code 1."""

INVVAR_LAST = 1e8
"""Inverse variance (1/nanomaggies^2) of code 255."""

_INVVAR_STEP = float(np.log(INVVAR_LAST / INVVAR_FIRST)) / 254


@dataclass(frozen=True)
class Codec:
    """The straight line between normalized values and int16 codes of one band.

    Parameters
    ----------
    softening : float
        s_b, nanomaggies per pixel.
    scale, offset : float
        ``y = code * scale + offset``.
    """

    softening: float
    scale: float
    offset: float

    @property
    def ceiling(self) -> float:
        """Largest flux that has a code, nanomaggies per pixel."""
        return float(self.softening * np.sinh(self.offset + self.scale * (STEPS // 2)))

    @property
    def floor(self) -> float:
        """Least flux that has a code, nanomaggies per pixel."""
        return float(self.softening * np.sinh(self.offset - self.scale * (STEPS // 2)))


def codec(softening: float) -> Codec:
    """The codec of a band.

    Parameters
    ----------
    softening : float
        s_b > 0, nanomaggies per pixel.

    Raises
    ------
    ValueError
        If the softening is not positive.
    """
    if not softening > 0:
        raise ValueError(f"softening must be positive, got {softening!r}")
    top = float(np.arcsinh(CEILING / softening))
    return Codec(softening, (top - FLOOR) / STEPS, (top + FLOOR) / 2)


def encode(flux: NDArray[np.floating], band: Codec) -> NDArray[np.int16]:
    """Codes of one band's pixels.

    Parameters
    ----------
    flux : ndarray, any shape
        Nanomaggies per pixel; values that are not finite get the code of 0, values out of range that of the nearest end
        (see `in_range`).
    band : Codec

    Returns
    -------
    ndarray of int16, shape of ``flux``
    """
    # float32 keeps 24 bits, the codes need 16: no float64 copy of a whole band of stamps
    inside = np.clip(np.nan_to_num(flux, nan=0.0, posinf=0.0, neginf=0.0), band.floor, band.ceiling).astype(np.float32)
    y = np.arcsinh(inside / np.float32(band.softening))
    y -= np.float32(band.offset)
    y /= np.float32(band.scale)
    half = STEPS // 2
    return np.clip(np.rint(y, out=y), -half, half, out=y).astype(np.int16)


def in_range(flux: NDArray[np.floating], band: Codec) -> NDArray[np.bool_]:
    """True where a flux (nanomaggies per pixel) is finite and has a code of its own."""
    inside: NDArray[np.bool_] = np.isfinite(flux) & (flux >= band.floor) & (flux <= band.ceiling)
    return inside


def normalized(codes: NDArray[np.int16], band: Codec) -> NDArray[np.float32]:
    """Normalized values ``y``, dimensionless, of int16 codes; any shape."""
    y: NDArray[np.float32] = codes.astype(np.float32) * np.float32(band.scale) + np.float32(band.offset)
    return y


def decode(codes: NDArray[np.int16], band: Codec) -> NDArray[np.float32]:
    """Fluxes, nanomaggies per pixel, of int16 codes; any shape."""
    flux: NDArray[np.float32] = (np.sinh(normalized(codes, band).astype(np.float64)) * band.softening).astype(np.float32)
    return flux


def encode_invvar(invvar: NDArray[np.floating]) -> NDArray[np.uint8]:
    """One byte per inverse variance (1/nanomaggies^2), any shape: 0 = no data, 1..255 logarithmic.

    The largest relative error is 4.7 % (2.3 % in sigma) from `INVVAR_FIRST` to `INVVAR_LAST`; values outside get the nearest end.
    """
    good = np.isfinite(invvar) & (invvar > 0)
    logs = np.log(np.where(good, invvar, 1.0).astype(np.float32))
    codes = np.clip(np.rint((logs - np.float32(np.log(INVVAR_FIRST))) / np.float32(_INVVAR_STEP)), 0, 254) + 1
    return np.where(good, codes, 0).astype(np.uint8)


def decode_invvar(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Inverse variances (1/nanomaggies^2) of their bytes; any shape."""
    table = np.concatenate([[0.0], INVVAR_FIRST * np.exp(_INVVAR_STEP * np.arange(255))]).astype(np.float32)
    invvar: NDArray[np.float32] = table[codes]
    return invvar


def rounding(flux: ArrayLike, band: Codec) -> NDArray[np.float64]:
    """Largest rounding error, nanomaggies per pixel, at a flux: ``scale / 2 * sqrt(flux^2 + s^2)``."""
    error: NDArray[np.float64] = band.scale / 2 * np.hypot(np.asarray(flux, np.float64), band.softening)
    return error
