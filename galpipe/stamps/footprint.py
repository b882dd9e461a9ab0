"""Where the stamps of a store lie on the sky, without reading a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from galpipe.stamps.stampset import plain_wcs


def corners(sources: pa.Table, attrs: Mapping[str, Any], size: int, pixscale: float) -> NDArray[np.float64]:
    """Outer corners of first stamps (see `galpipe.stamps.stampset`).

    Parameters
    ----------
    sources : pyarrow.Table
        N sources of a store, or some of them.
    attrs : mapping
        The stamps' attributes, for the projection of the brick.
    size : int
        Pixels on a side.
    pixscale : float
        Arcsec per pixel.

    Returns
    -------
    ndarray of float64, shape (N, 4, 2)
        RA and Dec, degrees, in the order south-east, south-west, north-west, north-east (counter-clockwise with east to the left).
        NaN for a stamp without a position.
    """
    out = np.full((len(sources), 4, 2), np.nan)
    edges = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [size - 0.5, size - 0.5], [-0.5, size - 0.5]])
    cards = attrs.get("wcs")
    x0, y0 = (_column(sources, name) for name in ("stamp_x0", "stamp_y0"))
    placed = np.isfinite(x0) & np.isfinite(y0) & (cards is not None)
    if cards is not None and placed.any():
        pixels = edges[None] + np.stack([x0[placed], y0[placed]], axis=-1)[:, None]
        out[placed] = WCS(fits.Header(cards)).all_pix2world(pixels.reshape(-1, 2), 0).reshape(-1, 4, 2)
    ra, dec, dx, dy = (_column(sources, name) for name in ("ra", "dec", "stamp_dx", "stamp_dy"))
    for row in np.flatnonzero(~placed & np.isfinite(ra + dec + dx + dy)):
        own = plain_wcs((ra[row], dec[row]), (size // 2 + dx[row], size // 2 + dy[row]), pixscale)
        out[row] = own.all_pix2world(edges, 0)
    out[..., 0] %= 360.0
    return out


def _column(sources: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in sources.column_names:
        return np.full(len(sources), np.nan)
    values: NDArray[np.float64] = sources[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
