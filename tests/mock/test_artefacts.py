"""Each piece of dirt is where, and as strong, as specified."""

from __future__ import annotations

import numpy as np
import pytest

from galpipe.mock.artefacts import (
    OVERSUBTRACTION,
    SPIKE_SHARE,
    add_ghost,
    add_halo,
    add_spikes,
    bleed,
    enlarge,
    oversubtraction,
    sky_waves,
    spike_length,
    streaks,
    trail,
)
from galpipe.mock.cameras import camera
from galpipe.mock.psf import outer_profile

SHAPE = (600, 600)
CENTER = (300.0, 300.0)


def test_a_halo_falls_as_its_profile() -> None:
    image = np.zeros(SHAPE, np.float32)
    add_halo(image, CENTER, 1e5, camera("south", "g"), 1e-6)
    for pixels in (60, 120):
        expected = 1e5 * 0.262**2 * float(outer_profile(np.array(pixels * 0.262), camera("south", "g")))
        assert image[300, 300 + pixels] == pytest.approx(expected, rel=1e-4)
    assert image[300, 360] / image[300, 420] == pytest.approx(4, rel=0.1)


def test_a_subtracted_halo_may_leave_a_hole() -> None:
    image = np.zeros(SHAPE, np.float32)
    add_halo(image, CENTER, -1e4, camera("south", "r"), 1e-6)
    assert image[300, 360] < 0


@pytest.mark.parametrize(("region", "angles"), [("south", (45, 135, 225, 315)), ("north", (0, 90, 180, 270))])
def test_spikes_point_where_the_camera_has_its_vanes(region: str, angles: tuple[int, ...]) -> None:
    image = np.zeros(SHAPE, np.float32)
    add_spikes(image, CENTER, 3e4, camera(region, "g"), 1e-4)
    around = np.radians(np.arange(360))
    ring = image[np.round(300 + 60 * np.sin(around)).astype(int), np.round(300 + 60 * np.cos(around)).astype(int)]
    assert {int(k) for k in np.argsort(-ring)[:4]} <= {(angle + d) % 360 for angle in angles for d in (-1, 0, 1)}
    assert all(ring[angle] > 20 * ring[(angle + 22) % 360] for angle in angles)
    assert image.sum() < SPIKE_SHARE * 3e4


def test_spikes_of_faint_stars_are_not_drawn() -> None:
    image = np.zeros(SHAPE, np.float32)
    add_spikes(image, CENTER, 5.0, camera("south", "z"), 3e-3)
    assert not image.any() and spike_length(1e5, 3e-3) > 20


@pytest.mark.parametrize("axis", [0, 1])
def test_large_saturated_cores_bleed_along_the_columns(axis: int) -> None:
    gy, gx = np.mgrid[:600, :600]
    saturated = np.hypot(gx - 300, gy - 300) < 15
    saturated[50:53, 50:53] = True
    rim, lost = bleed(saturated, axis)
    assert not (rim & saturated).any() and rim[300 + 16, 300] and rim[50, 53]
    rows, columns = np.nonzero(lost)
    along, across = (columns, rows) if axis == 1 else (rows, columns)
    assert np.ptp(along) > 150 and np.ptp(across) < 10
    assert not lost[40:64, 40:64].any()


def test_sky_is_oversubtracted_beside_a_large_galaxy_only() -> None:
    gy, gx = np.mgrid[:600, :600]
    clean = (0.5 * np.exp(-np.hypot(gx - 150, gy - 150) / 30)).astype(np.float32)
    taken = oversubtraction(clean, 0.003)
    assert taken[150, 220] > 0.1 * OVERSUBTRACTION * 0.009
    assert taken[150, 150] <= OVERSUBTRACTION * 0.009
    assert abs(taken[520, 520]) < 2e-5 and taken.min() >= 0


def test_sky_waves_are_smooth_and_as_strong_as_asked() -> None:
    waves = sky_waves((640, 480), np.random.default_rng(0), 0.01).astype(float)
    assert waves.std() == pytest.approx(0.01, rel=0.25)
    assert (waves[:, 6:] * waves[:, :-6]).mean() > 0.9 * waves.var() > 3 * abs((waves[:, 150:] * waves[:, :-150]).mean())


def test_a_coarse_plane_is_enlarged_exactly() -> None:
    gy, gx = np.mgrid[:10, :8].astype(float)
    fine = enlarge(2 * gx + 3 * gy, (80, 64))
    inside = fine[8:-8, 8:-8]
    np.testing.assert_allclose(np.diff(inside, axis=1), 2 / 8, atol=1e-4)
    np.testing.assert_allclose(np.diff(inside, axis=0), 3 / 8, atol=1e-4)


def test_a_ghost_holds_its_share_of_the_star() -> None:
    image = np.zeros((1400, 1400), np.float32)
    add_ghost(image, (700.0, 700.0), 1e6, np.random.default_rng(4))
    assert 60 < image.sum() < 110
    assert (image > 0).sum() > 20_000


def test_a_trail_is_straight_and_as_wide_as_the_psf() -> None:
    for seed in range(6):
        rows, columns, profile = trail(SHAPE, np.random.default_rng(seed), 4.0)
        crest = profile > 0.9
        x, y = columns[crest].astype(float), rows[crest].astype(float)
        direction = np.linalg.svd(np.stack([x - x.mean(), y - y.mean()]), full_matrices=False)[1]
        assert direction[1] / direction[0] < 0.02
        image = np.zeros(SHAPE)
        image[rows, columns] = profile
        # the profile's area across it is that of a Gaussian of FWHM 4
        length = max(np.ptp(x), np.ptp(y)) if len(x) > 2 else 0
        if length > 300:
            assert image.sum() / np.hypot(np.ptp(x), np.ptp(y)) == pytest.approx(4.0 / 2.355 * np.sqrt(2 * np.pi), rel=0.08)


def test_cosmic_rays_are_short() -> None:
    hit = streaks(SHAPE, np.random.default_rng(0), 50)
    assert 80 < hit.sum() < 600
