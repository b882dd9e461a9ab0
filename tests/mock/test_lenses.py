from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from galpipe.config import SOFTENING
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.mock.lenses import SEEN, WINDOW, Behind, Deflector, draw_arcs, inject, sky_noise
from tests.lvm.toy import toy_pack

SCALE = 0.262
SHARP = np.array([0.3])
POINT = Behind(magnitude=22.5, g_r=0.4, r_z=0.3, radius=0.06, n=1.0, axis_ratio=0.99, pa=0.0, x=0.0, y=0.0)
GRID = (np.arange(WINDOW) - WINDOW // 2) * SCALE


def test_a_galaxy_without_a_lens_keeps_its_flux_and_place() -> None:
    seen = draw_arcs(replace(POINT, x=1.5, y=-2.0, radius=0.2), None, SHARP, ("r",), SCALE)[0]
    assert seen.sum() == pytest.approx(1.0, rel=0.03)
    x, y = (seen.sum(axis=0) * GRID).sum() / seen.sum(), (seen.sum(axis=1) * GRID).sum() / seen.sum()
    assert (x, y) == pytest.approx((1.5, -2.0), abs=0.03)


def test_a_galaxy_right_behind_the_lens_is_a_ring_at_the_einstein_radius() -> None:
    seen = draw_arcs(POINT, Deflector(2.0, 0.98, 30.0), SHARP, ("r",), SCALE)[0]
    radius = np.hypot(*np.meshgrid(GRID, GRID))
    assert (seen * radius).sum() / seen.sum() == pytest.approx(2.0, abs=0.12)
    assert seen[WINDOW // 2, WINDOW // 2] < 0.1 * seen.max()


@pytest.mark.parametrize(("off", "magnification"), [(0.5, 4.0), (2.0, 1.5)])
def test_magnification_is_that_of_the_isothermal_sphere(off: float, magnification: float) -> None:
    # two images at x +- 1 inside the Einstein radius, one at x + 1 outside: 2 / off and 1 + 1 / off
    seen = draw_arcs(replace(POINT, x=off), Deflector(1.0, 0.98, 0.0), SHARP, ("r",), SCALE)[0]
    assert seen.sum() == pytest.approx(magnification, rel=0.08)
    x = (seen.sum(axis=0) * GRID).sum() / seen.sum()
    centroid = (off + 1) if off > 1 else ((off + 1) * (1 / off + 1) + (off - 1) * (1 / off - 1)) / (2 / off)
    assert x == pytest.approx(centroid, abs=0.12)


def test_arcs_have_the_source_s_colors() -> None:
    seen = draw_arcs(POINT, Deflector(1.5, 0.7, 0.0), np.full(3, 1.2), MODEL_BANDS, SCALE)
    g, r, z = seen.sum(axis=(1, 2))
    assert -2.5 * np.log10(g / r) == pytest.approx(POINT.g_r, abs=0.02)
    assert -2.5 * np.log10(r / z) == pytest.approx(POINT.r_z, abs=0.02)


def test_injection_adds_light_near_the_center_only_and_is_repeatable() -> None:
    stamps = toy_pack(6).stamps()
    made = inject(stamps, np.random.default_rng(4))
    again = inject(stamps, np.random.default_rng(4))
    assert (made.stamps.image == again.stamps.image).all()
    assert (made.einstein >= 0.8).all()
    assert (made.snr >= SEEN).all()
    first = stamps.size // 2 - WINDOW // 2
    outside = np.ones((stamps.size, stamps.size), dtype=bool)
    outside[first : first + WINDOW, first : first + WINDOW] = False
    assert (made.stamps.image[:, :, outside] == stamps.image[:, :, outside]).all()
    for row in range(6):
        added = made.stamps.flux(row) - stamps.flux(row)
        assert (added.sum(axis=(1, 2)) > 0).all()
    assert (inject(stamps, np.random.default_rng(4), lensed=False).einstein == 0).all()
    assert made.stamps.sources is stamps.sources


def test_noise_is_measured_at_the_border() -> None:
    wanted = np.array([SOFTENING[band] for band in MODEL_BANDS])
    assert sky_noise(toy_pack(3).stamps()) == pytest.approx(np.tile(wanted, (3, 1)), rel=0.1)
