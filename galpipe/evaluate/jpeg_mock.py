"""Mock stamps for the paired test of the JPEG route: one brick of the mock sky, cut like any other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.mocksky import cut_local
from galpipe.mock.release import make_release
from galpipe.mock.spec import MockSpec
from galpipe.stamps.stampset import StampSet
from galpipe.unit import Unit

FAINT, STARS = 600, 150


def mock_stamps(count: int, seed: int) -> StampSet:
    """Stamps of about ``count`` mock galaxies with z < 20, at most so many; the release is deleted afterwards.

    Parameters
    ----------
    count : int
    seed : int
        Of the sky.
    """
    # blends and masks take a few sources away
    spec = MockSpec(bricks=1, seed=seed, galaxies=round(count * 1.2) + 4, faint=FAINT, stars=STARS, bands=MODEL_BANDS, workers=1)
    with tempfile.TemporaryDirectory(prefix="galpipe-jpeg-") as folder:
        summary = make_release(Path(folder) / "dr9", spec)
        stamps = cut_local(Path(folder) / "dr9", Unit(spec.like, summary.region, spec.brick_list()[0].name)).stamps
    return stamps.take(np.arange(min(count, len(stamps))))
