"""Which pixels of a brick the survey calls bad, per band."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from galpipe.survey.bits import allmask_bit, as_unsigned, bit_names, satur_bit
from galpipe.survey.coadd import Box, read_band
from galpipe.survey.files import BrickFiles


def flag_plane(files: BrickFiles, bands: tuple[str, ...], box: Box | None = None) -> NDArray[np.uint8] | None:
    """Bit b of each brick pixel, or of a part: SATUR or ALLMASK of band b; None where the release has no maskbits."""
    if files.path("maskbits") is None:
        return None
    plane, header = read_band(files, "maskbits", box=box)
    # int16 in DR9, int32 later, perhaps wider one day
    bits, names = as_unsigned(plane), bit_names(header)
    flags = np.zeros(bits.shape, np.uint8)
    for b, band in enumerate(bands):
        wanted = [bit for bit in (satur_bit(band, names), allmask_bit(band, names)) if bit is not None]
        value = bits.dtype.type(sum(1 << bit for bit in wanted if bit < 8 * bits.itemsize))
        flags |= ((bits & value) != 0).astype(np.uint8) << np.uint8(b)
    return flags
