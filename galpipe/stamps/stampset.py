"""A set of stamps in memory: pixels as codes, one row of facts per stamp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from galpipe.errors import BadData
from galpipe.stamps.normalize import Codec, codec, decode, decode_invvar, normalized

FILLED = np.uint8(1 << 7)
"""Mask bit of pixels outside the frame or without any data in the file."""


@dataclass(frozen=True)
class StampSet:
    """N stamps of the same bands, size and scale, ``[band, y, x]``, north up, east left.

    Parameters
    ----------
    image : ndarray of int16, shape (N, B, S, S)
        Codes of ``asinh(flux / softening)``, flux divided by the source's ``mw_transmission`` (see `galpipe.stamps.normalize`).
    invvar_code : ndarray of uint8, shape (N, B, S, S)
        Codes of the inverse variance of the dereddened flux; 0 = no data.
    mask : ndarray of uint8, shape (N, S, S)
        Bit b: band b is masked here (invvar 0, SATUR or ALLMASK of that band, not finite, out of the codes' range); bit 7: filled.
    sources : pyarrow.Table, N rows
        Tractor subset and per-stamp columns ``stamp_dx``, ``stamp_dy`` (source minus center of its nearest pixel, pixels), ``stamp_x0``,
        ``stamp_y0`` (brick pixel of ``[0, 0]``, of its first corner in a coarse stamp), ``valid_frac_<b>``, ``nexp_<b>``, ``pixscale``,
        ``dereddened`` (every band that has pixels was divided by a transmission), ``coarse_pixscale`` and ``coarse_valid_frac_<b>``
        of the source's second stamp, null where it has none, near the poles ``mosaic_frac`` (share of pixels from neighbouring bricks).
    bands : tuple of str
    pixscale : float
        Arcsec per pixel.
    softening : tuple of float
        s_b per band, nanomaggies per pixel.
    attrs : dict
        JSON-ready: unit, checksums, settings, WCS cards of the brick, ``binning`` (brick pixels on a side of a pixel) if not 1.
    """

    image: NDArray[np.int16]
    invvar_code: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    sources: pa.Table
    bands: tuple[str, ...]
    pixscale: float
    softening: tuple[float, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, bands, size = len(self.sources), len(self.bands), self.image.shape[-1]
        wanted = {"image": (count, bands, size, size), "invvar_code": (count, bands, size, size), "mask": (count, size, size)}
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise BadData(f"{name} of shape {shape}", repr(getattr(self, name).shape))
        if len(self.softening) != bands:
            raise BadData(f"{bands} softenings", repr(self.softening))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def size(self) -> int:
        """Pixels on a side."""
        return int(self.image.shape[-1])

    @property
    def binning(self) -> int:
        """Pixels of the brick on a side of one of the stamps' pixels; 1 but for coarse stamps."""
        return int(self.attrs.get("binning", 1))

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """The flux codec of each band."""
        return tuple(codec(value) for value in self.softening)

    def flux(self, index: int) -> NDArray[np.float32]:
        """Dereddened flux of one stamp, nanomaggies per pixel, shape (B, S, S)."""
        return np.stack([decode(self.image[index, b], band) for b, band in enumerate(self.codecs)])

    def observed_flux(self, index: int) -> NDArray[np.float32]:
        """Flux of one stamp as the survey's coadd has it (not dereddened), nanomaggies per pixel, shape (B, S, S)."""
        transmission = np.array([self.transmission(band)[index] for band in self.bands], np.float32)
        flux: NDArray[np.float32] = self.flux(index) * transmission[:, None, None]
        return flux

    def transmission(self, band: str) -> NDArray[np.float64]:
        """``mw_transmission_<band>`` that the pixels were divided by, shape (N,); 1 where the table has none."""
        return usable_transmission(self.sources, band)

    def normalized(self) -> NDArray[np.float32]:
        """``asinh(flux / s_b)`` of all stamps, dimensionless, shape (N, B, S, S)."""
        out = np.empty(self.image.shape, np.float32)
        for b, band in enumerate(self.codecs):
            out[:, b] = normalized(self.image[:, b], band)
        return out

    def invvar(self) -> NDArray[np.float32]:
        """Inverse variance of the dereddened flux, 1/nanomaggies^2, shape (N, B, S, S); 0 where masked."""
        return decode_invvar(self.invvar_code) * self.valid()

    def valid(self) -> NDArray[np.bool_]:
        """True where a band's pixel may be used, shape (N, B, S, S)."""
        bits = (1 << np.arange(len(self.bands), dtype=np.uint8))[None, :, None, None]
        good: NDArray[np.bool_] = (self.mask[:, None] & (bits | FILLED)) == 0
        return good

    def wcs(self, index: int) -> WCS | None:
        """Celestial projection of one stamp's pixels; None for a stamp without a position."""
        row = {name: self.sources[name][index].as_py() for name in ("stamp_x0", "stamp_y0", "stamp_dx", "stamp_dy", "ra", "dec")}
        cards = self.attrs.get("wcs")
        if cards is not None and row["stamp_x0"] is not None:
            return WCS(_binned_cards(cards, (row["stamp_x0"], row["stamp_y0"]), self.binning))
        if row["ra"] is None or row["dec"] is None:
            return None
        half = self.size // 2
        return plain_wcs((row["ra"], row["dec"]), (half + row["stamp_dx"], half + row["stamp_dy"]), self.pixscale)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> StampSet:
        """The stamps of some rows, in that order."""
        index = np.asarray(rows, np.int64)
        parts = (self.image[index], self.invvar_code[index], self.mask[index], self.sources.take(pa.array(index)))
        return StampSet(*parts, self.bands, self.pixscale, self.softening, self.attrs)


def _binned_cards(cards: dict[str, Any], first: tuple[int, int], binning: int) -> fits.Header:
    """The brick's projection for a stamp that begins at a brick pixel (x, y) and has larger pixels."""
    header = fits.Header(cards)
    for axis, start in enumerate(first, 1):
        # FITS counts pixel centers from 1, so that the edge both grids share lies at 0.5
        header[f"CRPIX{axis}"] = (header[f"CRPIX{axis}"] - start - 0.5) / binning + 0.5
        for other in (1, 2):
            if f"CD{other}_{axis}" in header:
                header[f"CD{other}_{axis}"] *= binning
    return header


def plain_wcs(crval: tuple[float, float], crpix: tuple[float, float], pixscale: float) -> WCS:
    """TAN projection, north up, east left; ``crpix`` is 0-based, ``pixscale`` in arcsec, ``crval`` in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = list(crval)
    wcs.wcs.crpix = [crpix[0] + 1, crpix[1] + 1]
    wcs.wcs.cd = [[-pixscale / 3600, 0.0], [0.0, pixscale / 3600]]
    return wcs


def usable_transmission(sources: pa.Table, band: str) -> NDArray[np.float64]:
    """``mw_transmission_<band>`` per row, shape (N,); 1 where the column is absent, null, not finite or not positive."""
    return np.where(has_transmission(sources, band), _transmission(sources, band), 1.0)


def has_transmission(sources: pa.Table, band: str) -> NDArray[np.bool_]:
    """Whether ``mw_transmission_<band>`` can be divided by, per row, shape (N,): it is there, finite and positive."""
    values = _transmission(sources, band)
    good: NDArray[np.bool_] = np.isfinite(values) & (values > 0)
    return good


def _transmission(sources: pa.Table, band: str) -> NDArray[np.float64]:
    name = f"mw_transmission_{band}"
    if name not in sources.column_names:
        return np.full(len(sources), np.nan)
    values: NDArray[np.float64] = sources[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def concatenate(sets: Sequence[StampSet]) -> StampSet:
    """Stamps of several sets in one, rows in order; attributes are those of the first set.

    Raises
    ------
    BadData
        If there is no set, or bands, size, scale or softening differ.
    """
    kinds = {(item.bands, item.size, item.pixscale, item.softening) for item in sets}
    if len(kinds) != 1:
        raise BadData("stamps of one kind (bands, size, pixscale, softening)", repr(sorted(kinds)))
    first = sets[0]
    arrays = [np.concatenate([getattr(item, name) for item in sets]) for name in ("image", "invvar_code", "mask")]
    table = pa.concat_tables([item.sources for item in sets])
    return StampSet(arrays[0], arrays[1], arrays[2], table, first.bands, first.pixscale, first.softening, first.attrs)
