"""Sets of bands: calibration is learned, and applied, for each of them (science.md section 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from galpipe.heads.base import StampContext
from galpipe.lvm.inputs import MODEL_BANDS

LEAST_VALID = 0.3
"""Share of valid pixels from which on a band counts as there, as in the column ``bands_used``."""

SETS = 2 ** len(MODEL_BANDS)


def band_sets(context: StampContext) -> NDArray[np.int64]:
    """Which bands each stamp has, as bits in the model's order, shape (N,)."""
    used = present(context)
    return np.asarray((used << np.arange(used.shape[1])).sum(axis=1), np.int64)


def present(context: StampContext) -> NDArray[np.bool_]:
    """Which bands of the model each stamp has, shape (N, 3)."""
    inside = slice(context.margin, context.margin + context.size)
    return np.asarray(context.valid[:, :, inside, inside].mean(axis=(2, 3)) >= LEAST_VALID)


def name_of(bands: int) -> str:
    """``grz`` for all bands of the model, ``none`` for no band."""
    return "".join(band for bit, band in enumerate(MODEL_BANDS) if bands >> bit & 1) or "none"


def fill_unmeasured(constants: Tensor, measured: NDArray[np.int_], *, smallest: bool) -> None:
    """Give sets of bands that were not measured the most careful constant of those that were; changes ``constants``.

    Parameters
    ----------
    constants : Tensor
        Shape (`SETS`, ...).
    measured : ndarray
        Sets that have their own constant.
    smallest : bool
        Whether the smallest constant is the most careful, else the largest.
    """
    if not len(measured):
        return
    own = constants[[int(bands) for bands in measured]]
    careful = own.amin(dim=0) if smallest else own.amax(dim=0)
    for bands in range(len(constants)):
        if bands not in measured:
            constants[bands] = careful
