"""Bit masks of the survey: read from a file's own header, the published tables as the fallback."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASKBITS: dict[str, int] = {
    "NPRIMARY": 0,
    "BRIGHT": 1,
    "SATUR_G": 2,
    "SATUR_R": 3,
    "SATUR_Z": 4,
    "ALLMASK_G": 5,
    "ALLMASK_R": 6,
    "ALLMASK_Z": 7,
    "WISEM1": 8,
    "WISEM2": 9,
    "BAILOUT": 10,
    "MEDIUM": 11,
    "GALAXY": 12,
    "CLUSTER": 13,
    "SATUR_I": 14,
    "ALLMASK_I": 15,
    "SUB_BLOB": 16,
    "RESOLVED": 17,
    "MCLOUDS": 18,
    "WISE_GAIA": 19,
}
"""Bit number of each MASKBITS name, DR11's set; earlier releases use the same numbers and leave the newest unset
(https://www.legacysurvey.org/dr10/bitmasks/)."""

FITBITS: dict[str, int] = {
    "FORCED_POINTSOURCE": 0,
    "FIT_BACKGROUND": 1,
    "HIT_RADIUS_LIMIT": 2,
    "HIT_SERSIC_LIMIT": 3,
    "FROZEN": 4,
    "BRIGHT": 5,
    "MEDIUM": 6,
    "GAIA": 7,
    "TYCHO2": 8,
    "LARGEGALAXY": 9,
    "WALKER": 10,
    "RUNNER": 11,
    "GAIA_POINTSOURCE": 12,
    "ITERATIVE": 13,
}
"""Bit number of each FITBITS name (DR9 and later)."""

FORCED_PSF_MASKS = ("BRIGHT", "GALAXY", "CLUSTER")
"""Masks inside which the survey fits every source but the large galaxy itself as PSF."""

_PREFIXES = {"MBIT": MASKBITS, "FBIT": FITBITS}


def bit_names(header: Mapping[str, Any], kind: str = "MBIT") -> dict[str, int]:
    """Bit number of each name, from the cards ``MBIT_n`` (DR8: ``MBITNn``) of a header.

    Parameters
    ----------
    header : mapping
        FITS header of a maskbits image or Tractor table.
    kind : str
        ``MBIT`` (maskbits) or ``FBIT`` (fitbits).

    Returns
    -------
    dict
        The published table when the header names no bit.
    """
    pattern = re.compile(rf"{kind}[_N](\d+)")
    found = {}
    for key in header:
        match = pattern.fullmatch(str(key))
        if match:
            found[str(header[key]).strip().upper()] = int(match.group(1))
    return found or dict(_PREFIXES[kind])


def satur_bit(band: str, names: Mapping[str, int] | None = None) -> int | None:
    """Bit of "saturated in this band"; None where the release has no such bit."""
    return (MASKBITS if names is None else names).get(f"SATUR_{band.upper()}")


def allmask_bit(band: str, names: Mapping[str, int] | None = None) -> int | None:
    """Bit of "masked in all exposures of this band"; None where the release has no such bit."""
    return (MASKBITS if names is None else names).get(f"ALLMASK_{band.upper()}")


def mask_value(names: Mapping[str, int], wanted: tuple[str, ...]) -> int:
    """The sum of the values of the bits that exist among the wanted names."""
    return sum(1 << names[name] for name in wanted if name in names)


def mask_values(bits: NDArray[np.generic]) -> NDArray[np.int64]:
    """Masks as int64, each bit where it was: the highest bit of a narrower signed type is a bit, not a sign.

    Parameters
    ----------
    bits : ndarray of int
        Any integer type and shape.
    """
    return as_unsigned(bits).astype(np.uint64).view(np.int64)


def as_unsigned(bits: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """The same bits as the unsigned type of the same width, without a copy."""
    unsigned: NDArray[np.unsignedinteger] = bits.view(bits.dtype.str.replace("i", "u"))
    return unsigned
