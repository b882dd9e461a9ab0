"""A fetched brick's images, whole, as the cut reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.stamps.flags import flag_plane
from galpipe.survey.coadd import read_band
from galpipe.survey.files import BrickFiles

Plane = NDArray[np.float32] | NDArray[np.integer]


class Planes:
    """Reads whole images of a brick.

    Parameters
    ----------
    files : BrickFiles
    bands : tuple of str
        Bands of the stamps, in order.
    keep : bool
        Hold what was read, for stamps that are cut in several goes: 52 MB an image.
    """

    def __init__(self, files: BrickFiles, bands: tuple[str, ...], keep: bool) -> None:
        self.files, self.bands = files, bands
        self._keep = keep
        self._held: dict[tuple[str, str], tuple[Plane, fits.Header]] = {}
        self._flags: NDArray[np.uint8] | None = None
        self._flags_read = False

    def has(self, band: str) -> bool:
        """Whether a band has pixels and their inverse variances."""
        return self.files.path("image", band) is not None and self.files.path("invvar", band) is not None

    def read(self, product: str, band: str) -> tuple[Plane, fits.Header]:
        """One image and its header.

        Raises
        ------
        NoWork
            If the brick does not have it.
        BadData
            If the file is corrupt.
        """
        found = self._held.pop((product, band), None) or read_band(self.files, product, band)
        if self._keep:
            self._held[product, band] = found
        return found

    def header(self, product: str, band: str) -> fits.Header:
        """The header of an image that is to be read next, which is then not decoded twice; raises as `read`."""
        found = self._held[product, band] = self.read(product, band)
        return found[1]

    def flags(self) -> NDArray[np.uint8] | None:
        """Bit b of each brick pixel: SATUR or ALLMASK of band b; None where the release has no maskbits."""
        if not self._flags_read:
            self._flags, self._flags_read = flag_plane(self.files, self.bands), True
        return self._flags

    def at(self, product: str, band: str, where: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[Any]:
        """An image's values at pixels (rows, columns), those outside taken from its edge."""
        plane, _ = self.read(product, band)
        rows, columns = (np.clip(values, 0, limit - 1) for values, limit in zip(where, plane.shape, strict=True))
        values: NDArray[Any] = plane[rows, columns]
        return values
