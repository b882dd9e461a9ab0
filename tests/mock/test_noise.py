"""Noise as Lanczos interpolation leaves it, per camera."""

from __future__ import annotations

import numpy as np
import pytest

from galpipe.mock.noise import autocovariance, coadd_noise, flux_gain, lanczos, resample

# measured on real coadds (docs/realism.md): DECam cutout with invvar, 90Prime brick of DR6
MEASURED = {0.262: (0.12, -0.065, 0.04), 0.4533: (0.58, -0.04, -0.13)}


@pytest.mark.parametrize("native", list(MEASURED))
def test_autocorrelation_is_that_of_real_coadds(native: float) -> None:
    noise = coadd_noise(np.random.default_rng(0), (900, 900), native).astype(np.float64)
    target = np.array(autocovariance(native))
    for axis in (0, 1):
        for lag in (1, 2, 3):
            one, two = np.roll(noise, lag, axis), noise
            found = float((one * two).mean() / noise.var())
            assert found == pytest.approx(target[lag] / target[0], abs=0.01)
            assert found == pytest.approx(MEASURED[native][lag - 1], abs=0.035)
    assert noise.var() == pytest.approx(target[0] ** 2, rel=0.02)


def test_the_target_is_what_interpolated_white_noise_has() -> None:
    rng, native, count = np.random.default_rng(1), 0.4533, 400_000
    white = rng.standard_normal(count)
    position = np.arange(20, count // 2) * (0.262 / native)
    first = np.floor(position).astype(int)
    taps = first[:, None] + np.arange(-2, 4)
    weights = lanczos(position[:, None] - taps)
    noise = ((weights / weights.sum(axis=1, keepdims=True)) * white[taps]).sum(axis=1)
    for lag in range(4):
        assert (noise[lag:] * noise[: len(noise) - lag]).mean() == pytest.approx(autocovariance(native)[lag], abs=0.01)


def test_large_pixels_make_sums_scatter_more_than_inverse_variance_says() -> None:
    assert flux_gain(0.262) == pytest.approx(1.0, abs=0.01)
    assert flux_gain(0.4533) == pytest.approx((0.4533 / 0.262) ** 2, rel=0.02)
    noise = coadd_noise(np.random.default_rng(2), (1200, 1200), 0.4533)
    sums = noise.reshape(40, 30, 40, 30).sum(axis=(1, 3)) / 30
    assert sums.var() == pytest.approx(flux_gain(0.4533), rel=0.12)


def test_cutouts_are_moved_by_a_fraction_of_a_pixel() -> None:
    gy, gx = np.mgrid[:64, :64].astype(float)
    star = np.exp(-0.5 * ((gx - 31) ** 2 + (gy - 30) ** 2) / 2.5**2).astype(np.float32)
    moved = resample(star, (0.4, -0.3)).astype(float)
    assert moved.sum() == pytest.approx(float(star.sum()), rel=1e-3)
    center = [(moved * grid).sum() / moved.sum() for grid in (gx, gy)]
    assert np.abs(np.array(center) - [31, 30]) == pytest.approx([0.4, 0.3], abs=0.02)
    assert (center[0] - 31) * (center[1] - 30) < 0
