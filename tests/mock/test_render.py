"""Drawing: fluxes add up, positions and angles are where the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from galpipe.mock.pixels import SATURATION, conditions, correlated_noise, expose, outside
from galpipe.mock.render import draw_frame
from galpipe.mock.sky import SOURCE, Catalog
from galpipe.mock.spec import MockSpec
from galpipe.survey.bricks import brick_at, brick_wcs


def one_source(kind: str, **values: float) -> Catalog:
    source = np.zeros(1, SOURCE)
    source["kind"], source["flux"], source["bulge_n"], source["pattern"] = kind, 50.0, 2.0, 7
    source["bulge_q"] = source["disk_q"] = 0.5
    source["bulge_re"] = source["disk_re"] = source["half_light_radius"] = 2.0
    source["bar_length"], source["ring_radius"], source["pitch"], source["spin"] = 1.5, 2.5, 20.0, 1.0
    for name, value in values.items():
        source[name] = value
    return source


CASES = {
    "star": one_source("star"),
    "elliptical": one_source("smooth_elliptical", bulge=1.0),
    "spiral": one_source("disk_spiral", bulge=0.2, arms=2, arm_strength=0.9),
    "barred": one_source("disk_barred", bulge=0.1, arms=2, arm_strength=0.5, bar=0.25),
    "ring": one_source("ring", bulge=0.1, ring=0.5),
    "irregular": one_source("irregular", clumps=0.5),
    "merger": one_source("merger", tail=0.3),
    "lens": one_source("lens", bulge=1.0, einstein=2.0, arc=0.2),
    "edge-on": one_source("edge_on", bulge=0.1, dust=0.5, disk_q=0.15),
}


@pytest.mark.parametrize("name", list(CASES))
def test_all_the_flux_is_drawn(name: str) -> None:
    drawn = draw_frame(CASES[name], np.array([1000.3]), np.array([2000.7]), {"r": 1.2})
    assert drawn.clean["r"].sum() == pytest.approx(50.0, rel=0.03)
    assert drawn.clean["r"].min() > -1e-3


@pytest.mark.parametrize(("x", "y"), [(1000.0, 2000.0), (999.51, 2000.49), (1.2, 3598.4)])
def test_a_star_is_where_it_should_be(x: float, y: float) -> None:
    image = draw_frame(CASES["star"], np.array([x]), np.array([y]), {"r": 1.2}).clean["r"]
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert (column, row) == (round(x), round(y))


def test_structure_and_bulge_share_their_center() -> None:
    at = (np.array([500.37]), np.array([500.81]))
    image = draw_frame(one_source("ring", disk_q=1.0, ring=0.5), *at, {"r": 1.2}).clean["r"].astype(float)
    gy, gx = np.mgrid[:3600, :3600]
    assert (image * gx).sum() / image.sum() == pytest.approx(500.37, abs=0.02)
    assert (image * gy).sum() / image.sum() == pytest.approx(500.81, abs=0.02)


@pytest.mark.parametrize("kind", ["smooth_elliptical", "edge_on"])
def test_position_angle_is_east_of_north(kind: str) -> None:
    source = one_source(kind, bulge=float(kind == "smooth_elliptical"), pa=30.0, bulge_q=0.3, disk_q=0.3)
    image = draw_frame(source, np.array([300.0]), np.array([300.0]), {"r": 1.2}).clean["r"][:601, :601].astype(float)
    gy, gx = np.mgrid[:601, :601] - 300.0
    xx, yy, xy = ((image * moment).sum() / image.sum() for moment in (gx**2, gy**2, gx * gy))
    # the major axis points along (-sin PA, cos PA): north is +y, east is -x
    assert np.degrees(0.5 * np.arctan2(-2 * xy, yy - xx)) == pytest.approx(30.0, abs=1.0)


def test_the_brightest_source_owns_a_pixel() -> None:
    pair = np.concatenate([one_source("star"), one_source("star", flux=5.0)])
    owner = draw_frame(pair, np.array([100.0, 110.0]), np.array([100.0, 100.0]), {"r": 1.2}).owner
    assert owner[100, 100] == 1 and owner[100, 110] == 2 and owner[0, 0] == 0


def test_coadd_products_hang_together() -> None:
    area = brick_at(150.1, 2.2)
    clean = np.zeros((3600, 3600), np.float32)
    clean[100:110, 100:110] = 2 * SATURATION["r"]
    products = expose(clean, "r", conditions(MockSpec(), area), np.random.default_rng(1))
    good = products.invvar > 0
    assert products.saturated[105, 105] and products.image[105, 105] == 10.0 and not good[105, 105]
    assert ((products.nexp > 0) | ~good).all()
    assert (products.image[products.psfsize == 0] == 0).all()
    pull = (products.image * np.sqrt(products.invvar))[good & (clean == 0)]
    assert abs(float(pull.mean())) < 0.01 and 0.7 < float(pull.std()) < 1.0


def test_noise_keeps_its_power_in_sums() -> None:
    noise = correlated_noise(np.random.default_rng(0), (1000, 1000))
    sums = noise.reshape(50, 20, 50, 20).sum(axis=(1, 3)) / 20
    assert sums.std() == pytest.approx(1.0, abs=0.06)
    assert np.mean(noise[:, 1:] * noise[:, :-1]) > 0.05


def test_pixels_outside_the_brick() -> None:
    area = brick_at(150.1, 60.0)
    mask = outside(area)
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 3600, (2, 2000))
    ra, dec = brick_wcs(area).all_pix2world(x, y, 0)
    expected = (ra < area.ra1) | (ra >= area.ra2) | (dec < area.dec1) | (dec >= area.dec2)
    assert (mask[y, x] == expected).mean() > 0.999
