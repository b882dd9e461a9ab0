"""The survey-like PSF: transform and profile agree, wings differ per band and camera."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import j0

from galpipe.mock.cameras import CAMERAS, camera
from galpipe.mock.psf import core_profile, core_transform, outer_profile, size_over_fwhm


@pytest.mark.parametrize("key", list(CAMERAS))
def test_transform_and_profile_are_one_another(key: tuple[str, str]) -> None:
    radius = np.geomspace(1e-3, 400, 20_000)
    profile = core_profile(radius, 1.1, CAMERAS[key])
    for k in (0.0, 0.5, 1.5, 4.0):
        hankel = np.trapezoid(2 * np.pi * radius * profile * j0(k * radius), radius)
        assert core_transform(np.array(k), 1.1, CAMERAS[key]) == pytest.approx(hankel, abs=4e-3)


@pytest.mark.parametrize("key", list(CAMERAS))
def test_psfsize_is_from_the_norm(key: tuple[str, str]) -> None:
    radius = np.geomspace(1e-3, 200, 20_000)
    profile = core_profile(radius, 1.0, CAMERAS[key])
    area = 1 / np.trapezoid(2 * np.pi * radius * profile**2, radius)
    assert size_over_fwhm(CAMERAS[key]) == pytest.approx(2.3548 * np.sqrt(area / 4 / np.pi), rel=0.01)
    assert 1.2 < size_over_fwhm(CAMERAS[key]) < 1.5


def test_outer_wings_are_the_published_ones() -> None:
    far = np.array([20.0, 40.0])
    for band, weight in (("g", 0.00045), ("r", 0.00033)):
        light = outer_profile(far, camera("south", band))
        assert np.log(light[1] / light[0]) / np.log(2) == pytest.approx(-2, abs=0.08)
        assert light[1] * 1600 == pytest.approx(weight, rel=0.02)
    z = outer_profile(far, camera("south", "z"))
    expected = 0.0145 * 0.7 / (np.pi * 17.65**2) * (1 + (far / 17.65) ** 2) ** -1.7
    np.testing.assert_allclose(z, expected, rtol=1e-6)
