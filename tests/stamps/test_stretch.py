"""Every stretch is what its makers published, and its way back undoes it where nothing was lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.stamps.render import to_rgb
from galpipe.stamps.stretch import BANDS, DR2_RGB, EFIGI, GZ_DECALS, PLANES, SKYSERVER, STRETCHES, Stretch, channels_inside, griz_picture


def pixel(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1, 1)


def test_published_values() -> None:
    """dr2_rgb of g=.01, r=.015, z=.02 is (0.2566, 0.2809, 0.3121), plane 2 being g."""
    assert DR2_RGB.picture(pixel(0.01, 0.015, 0.02))[0, 0].tolist() == [round(255 * value) for value in (0.2566, 0.2809, 0.3121)]


@pytest.mark.parametrize(("name", "grey"), [("dr2_rgb", 32), ("gz_decals", 17), ("skyserver_fitted", 4), ("efigi_symbolic", 20)])
def test_empty_sky_has_the_grey_of_the_real_pictures(name: str, grey: int) -> None:
    assert np.abs(STRETCHES[name].picture(pixel(0, 0, 0))[0, 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("stretch", STRETCHES.values(), ids=STRETCHES)
@settings(deadline=None)
@given(st.floats(0.0, 0.06), st.floats(0.3, 1.0), st.floats(0.7, 2.0))
def test_the_way_back_is_within_a_step_of_the_picture(stretch: Stretch, red: float, blue: float, infrared: float) -> None:
    """Colors of galaxies, from sky to 23 mag per square arcsec."""
    true = np.array([red * blue, red, red * infrared])
    picture = stretch.picture(pixel(*true))
    flux, known = stretch.flux(picture)
    assert known.all() or (picture == 0).any()
    # what the picture of the result differs by is what 8 bits cannot tell
    assert np.abs(stretch.picture(flux).astype(int) - picture.astype(int)).max() <= 1
    assert not known.all() or np.all(np.abs(flux[:, 0, 0] - true) < 0.004 + 0.1 * true)


def test_the_survey_stretch_is_the_one_that_reports_draw() -> None:
    flux = np.random.default_rng(1).exponential(0.1, (3, 9, 7)).astype(np.float32)
    assert np.array_equal(DR2_RGB.picture(flux), to_rgb(flux))


def test_rows_and_bands_keep_their_places() -> None:
    flux = np.zeros((3, 4, 5), np.float32)
    flux[BANDS.index("r"), 3, 0] = 0.05
    for stretch in STRETCHES.values():
        picture = stretch.picture(flux)
        assert picture[0, 0].argmax() == PLANES["r"] and picture[3, 4, 1] < picture[0, 0, 1]
        assert np.unravel_index(stretch.flux(picture)[0][1].argmax(), (4, 5)) == (3, 0)


def test_clipped_channels_are_not_known() -> None:
    """White in one channel says nothing of any band: the mean of all is what was stretched."""
    picture = DR2_RGB.picture(pixel(0.6, 0.3, 0.2))
    assert picture[0, 0, PLANES["g"]] == 255 > picture[0, 0, PLANES["z"]]
    assert not DR2_RGB.flux(picture)[1].any()
    assert channels_inside(picture)[:, 0, 0].tolist() == [False, True, True]
    assert not SKYSERVER.flux(SKYSERVER.picture(pixel(-0.1, 0.1, 0.1)))[1][0, 0, 0]


def test_volunteers_pictures_take_extreme_colors_for_mild_ones() -> None:
    """Light in z alone and a mild color have the same picture; the colors of galaxies come back."""
    only_z = GZ_DECALS.picture(pixel(0.0, 0.0, 1.0))
    flux, _ = GZ_DECALS.flux(only_z)
    assert flux[2, 0, 0] < 0.5 and np.array_equal(GZ_DECALS.picture(flux), only_z)
    flux, known = GZ_DECALS.flux(GZ_DECALS.picture(pixel(0.03, 0.08, 0.14)))
    assert known.all() and np.allclose(flux[:, 0, 0], [0.03, 0.08, 0.14], rtol=0.05)


@pytest.mark.parametrize("stretch", STRETCHES.values(), ids=STRETCHES)
def test_noise_does_not_grow(stretch: Stretch) -> None:
    """Sky noise of a typical brick: what comes back is never wider, and no pixel of it becomes a star."""
    sky = np.stack([np.random.default_rng(2).normal(0, sigma, (200, 200)) for sigma in (0.003, 0.006, 0.015)])
    flux, _ = stretch.flux(stretch.picture(sky))
    spread = flux.std(axis=(1, 2)) / sky.std(axis=(1, 2))
    assert spread.min() > 0.5 and spread.max() < 1.05 and np.all(flux.max(axis=(1, 2)) < 3 * sky.max(axis=(1, 2)))


def test_only_stretches_with_published_constants_are_photometric() -> None:
    assert [item.photometric for item in (DR2_RGB, GZ_DECALS, SKYSERVER, EFIGI)] == [True, True, False, False]


def test_griz_pictures_mix_bands() -> None:
    """Channels are 0.25 i + 0.75 z, 0.5 r + 0.5 i, 0.75 g + 0.25 r of the stretched bands, scales 1.5 times those of grz."""
    flux = np.array([0.01, 0.02, 0.03, 0.04])
    x = 1.5 * np.array([6.0, 3.4, 3.0, 2.2]) * flux + 0.03
    g, r, i, z = x * np.arcsinh(20 * x.mean()) / np.sqrt(20) / x.mean()
    expected = [0.25 * i + 0.75 * z, 0.5 * r + 0.5 * i, 0.75 * g + 0.25 * r]
    assert griz_picture(pixel(*flux))[0, 0].tolist() == [round(255 * value) for value in expected]
