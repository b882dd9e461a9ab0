"""The batch renderer draws what GalSim draws, where the truth says, with each band's own shift."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from galpipe.mock.cameras import camera
from galpipe.mock.canvas import draw_view
from galpipe.mock.fourier import View
from galpipe.mock.psf import core_transform
from galpipe.mock.sky import Catalog
from tests.mock.test_render import CASES, one_source

FWHM = 0.9


def view(count: int = 1, shift: tuple[float, float] = (0.0, 0.0)) -> View:
    cameras = {band: camera("south", band) for band in "gr"}
    fwhm = {band: np.full(count, FWHM) for band in "gr"}
    return View(cameras, {"g": 0.003, "r": 0.004}, fwhm, {"g": (0.0, 0.0), "r": shift})


def draw(catalog: Catalog, x: float = 150.0, y: float = 150.0, shift: tuple[float, float] = (0.0, 0.0)) -> dict[str, np.ndarray]:
    return draw_view(catalog, (np.array([x]), np.array([y])), view(shift=shift), (301, 301)).clean


@pytest.mark.parametrize("name", list(CASES))
def test_all_the_flux_is_drawn(name: str) -> None:
    images = draw(CASES[name], 150.3, 149.8)
    assert images["r"].sum() == pytest.approx(50.0, rel=0.03)
    assert images["r"].min() > -1e-3


def test_a_galaxy_is_the_one_that_galsim_draws() -> None:
    source = one_source("smooth_elliptical", bulge=1.0, pa=30.0, bulge_q=0.5, bulge_re=1.2, bulge_n=2.5)
    image = draw(source, 150.3, 149.6)["r"]
    core = camera("south", "r").core
    psf = (1 - core[1]) * galsim.Moffat(beta=core[0], fwhm=FWHM) + core[1] * galsim.Moffat(beta=2.2, fwhm=core[2] * FWHM)
    profile = galsim.Sersic(n=2.5, half_light_radius=1.2 * 0.5**0.5, flux=50.0).shear(q=0.5, beta=120 * galsim.degrees)
    offset = galsim.PositionD(0.3, -0.4)
    expected = galsim.Convolve(profile, psf).drawImage(nx=301, ny=301, scale=0.262, method="no_pixel", offset=offset, dtype=float).array
    assert np.abs(image - expected).max() < 4e-3 * expected.max()


def test_a_star_has_the_psf() -> None:
    image = draw(one_source("star"), 150.0, 150.0)["r"].astype(float)
    k = 2 * np.pi * np.fft.rfftfreq(301) / 0.262
    row = np.abs(np.fft.rfft2(image))[0] / 50.0
    assert np.abs(row - core_transform(k, FWHM, camera("south", "r"))).max() < 0.02


def test_bands_are_shifted_against_each_other() -> None:
    images = draw(one_source("smooth_elliptical", bulge=1.0), shift=(0.6, -0.4))
    gy, gx = np.mgrid[:301, :301]
    moved = [float((images["r"] * g).sum() / images["r"].sum() - (images["g"] * g).sum() / images["g"].sum()) for g in (gx, gy)]
    assert moved == pytest.approx([0.6, -0.4], abs=0.03)
    star = draw(one_source("star"), shift=(0.6, -0.4))
    assert np.unravel_index(int(star["r"].argmax()), (301, 301)) == (150, 151)


def test_position_angle_is_east_of_north() -> None:
    image = draw(one_source("smooth_elliptical", bulge=1.0, pa=30.0, bulge_q=0.3))["r"].astype(float)
    gy, gx = np.mgrid[:301, :301] - 150.0
    xx, yy, xy = ((image * moment).sum() / image.sum() for moment in (gx**2, gy**2, gx * gy))
    assert np.degrees(0.5 * np.arctan2(-2 * xy, yy - xx)) == pytest.approx(30.0, abs=1.0)


def test_clumps_lie_at_the_same_places_in_every_band_and_are_blue() -> None:
    smooth = one_source("irregular", disk_q=0.8)
    clumpy = one_source("irregular", clumps=0.6, disk_q=0.8)
    images = draw(clumpy)
    base = draw(smooth)
    blobs = {band: images[band] - base[band] for band in "gr"}
    assert np.corrcoef(blobs["g"].ravel(), blobs["r"].ravel())[0, 1] > 0.9
    assert blobs["g"].max() > 1.1 * blobs["r"].max()


def test_the_nea_grows_with_the_source() -> None:
    catalog = np.concatenate([one_source("star"), one_source("smooth_elliptical", bulge=1.0)])
    drawn = draw_view(catalog, (np.array([80.0, 200.0]), np.array([150.0, 150.0])), view(2), (301, 301))
    assert 20 < drawn.nea[0, 1] < 120 < drawn.nea[1, 1]
    assert drawn.owner[150, 80] == 1 and drawn.owner[150, 200] == 2
