"""A table as DR8 wrote it: an exponential and a de Vaucouleurs shape side by side, COMP where later releases fit SER."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from galpipe.mock.spec import ReleaseStyle
from galpipe.mock.tractor import Fit

Columns = dict[str, NDArray[np.generic]]

PARTS = tuple(f"{name}{end}" for name in ("r", "e1", "e2") for end in ("", "_ivar"))
"""Ends of the columns of a shape."""

_BLOB_BITS = {1: 0, 11: 1, 13: 2, 12: 3}
"""Bit of brightblob by bit of maskbits: BRIGHT, MEDIUM, CLUSTER, GALAXY."""


def as_published(style: ReleaseStyle, fitted: Fit) -> Fit:
    """A fit with the columns and types of its release; only DR8's differ from what the fitter gives."""
    return replace(fitted, columns=two_profiles(fitted.columns, style.gaia)) if style.two_profiles else fitted


def two_profiles(columns: Mapping[str, NDArray[np.generic]], gaia: str) -> Columns:
    """DR8's columns from those of a single profile, without drawing anything.

    Parameters
    ----------
    columns : mapping
        By Tractor name, as `galpipe.mock.tractor.fit` gives them.
    gaia : str
        ref_cat of Gaia in the release.
    """
    types = np.where(columns["type"] == "SER", "COMP", columns["type"])
    both = types == "COMP"
    # the share of the bulge rises from 0 at n = 1 to 1 at n = 4
    share = np.clip((columns["sersic"].astype(float) - 1) / 3, 0.05, 0.95)
    found = {name: values for name, values in columns.items() if not name.startswith(("shape_", "sersic", "fitbits"))}
    found |= {"type": types, "fracdev": np.where(both, share, (types == "DEV").astype(float)), "fracdev_ivar": np.where(both, 100.0, 0.0)}
    for part in PARTS:
        values = columns[f"shape_{part}"]
        found[f"shapedev_{part}"] = np.where(both | (types == "DEV"), values, 0)
        found[f"shapeexp_{part}"] = np.where(both | (types == "EXP") | (types == "REX"), values, 0)
    bits = columns["maskbits"].astype(np.int64)
    blob = [((bits >> mask) & 1) << bit for mask, bit in _BLOB_BITS.items()]
    found["brightblob"] = np.bitwise_or.reduce(blob)
    found["gaia_pointsource"] = (columns["ref_cat"] == gaia) & (types == "PSF")
    return found
