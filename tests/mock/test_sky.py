"""The true sky: the same for every frame, with sizes and indices that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from galpipe.errors import ConfigurationError
from galpipe.mock.cameras import star_count
from galpipe.mock.populations import comoving_distance, single_component
from galpipe.mock.release import frame_sources
from galpipe.mock.sky import KINDS, brick_sky
from galpipe.mock.spec import BY_LATITUDE, MockSpec
from galpipe.mock.universe import background_sky, survey_count, survey_spec
from galpipe.survey.bricks import brick_at, row_column


def test_a_brick_has_the_same_sources_for_every_spec_with_its_seed() -> None:
    area = brick_at(150.1, 2.2)
    one, two = brick_sky(MockSpec(seed=5), area), brick_sky(MockSpec(seed=5, bricks=8, like="dr10"), area)
    assert one.tobytes() == two.tobytes()
    assert brick_sky(MockSpec(seed=6), area).tobytes() != one.tobytes()


def test_sources_lie_in_their_brick_and_count_as_asked() -> None:
    area = brick_at(359.99, -30.0)
    sky = brick_sky(MockSpec(seed=1, galaxies=400, faint=100, stars=20), area)
    row, column = row_column(sky["ra"], sky["dec"])
    assert (row == area.row).all() and (column == area.column).all()
    assert len(sky) == 520 and (sky["kind"] == "star").sum() == 20
    assert set(KINDS) <= set(sky["kind"][~sky["faint"]])
    bright = (sky["kind"] != "star") & ~sky["faint"]
    assert (sky["flux"][bright, 3] > 10).mean() > 0.95


def test_neighbouring_frames_share_the_sources_at_their_border() -> None:
    spec = MockSpec(galaxies=50, faint=50, stars=10)
    left, right = spec.brick_list()
    seen = [frame_sources(spec, area, set())[0] for area in (left, right)]
    keys = [{(int(s["brickid"]), int(s["number"])) for s in catalog} for catalog in seen]
    shared = keys[0] & keys[1]
    assert shared and {brickid for brickid, _ in shared} >= {left.brickid, right.brickid}
    flux = [{(int(s["brickid"]), int(s["number"])): s["flux"].tobytes() for s in catalog} for catalog in seen]
    assert all(flux[0][key] == flux[1][key] for key in shared)


def test_a_brick_without_galaxies_keeps_its_stars() -> None:
    area = brick_at(150.1, 2.2)
    assert set(brick_sky(MockSpec(), area, empty=True)["kind"]) == {"star"}


def test_merging_galaxies_lie_beside_their_partner() -> None:
    sky = brick_sky(MockSpec(galaxies=300, faint=0, stars=0), brick_at(10.0, 0.0))
    pairs = sky[sky["kind"] == "merger"]
    assert len(pairs) % 2 == 0 and len(pairs) > 0
    apart = 3600 * np.hypot(pairs["dec"][0::2] - pairs["dec"][1::2], pairs["ra"][0::2] - pairs["ra"][1::2])
    assert (apart < 30).all()
    np.testing.assert_allclose(pairs["redshift"][0::2], pairs["redshift"][1::2])


@pytest.mark.parametrize(("bulge", "n", "expected"), [(0.0, 4.0, 1.0), (1.0, 4.0, 4.0), (1.0, 1.0, 1.0)])
def test_a_single_component_is_found_again(bulge: float, n: float, expected: float) -> None:
    radius, index = single_component(np.array([bulge]), np.array([1.5]), np.array([n]), np.array([1.5]))
    np.testing.assert_allclose(radius, 1.5, rtol=2e-3)
    np.testing.assert_allclose(index, expected, atol=0.051)


def test_a_small_bulge_pulls_the_radius_in_and_the_index_up() -> None:
    radius, index = single_component(np.array([0.3]), np.array([0.4]), np.array([3.0]), np.array([2.0]))
    assert 0.4 < radius[0] < 2.0
    assert index[0] > 1.0


def test_distance_at_redshift_one() -> None:
    # Hogg (1999) distance measures for H0 = 70, Omega_m = 0.3
    np.testing.assert_allclose(comoving_distance(np.array([1.0])), 3303.8, rtol=1e-3)


def test_refused_requests() -> None:
    with pytest.raises(ConfigurationError, match="like among"):
        MockSpec(like="dr3")
    with pytest.raises(ConfigurationError, match="at least one brick"):
        MockSpec(bricks=0)
    with pytest.raises(ConfigurationError, match="which has no north"):
        MockSpec(like="dr10", center=(200.0, 40.0))
    with pytest.raises(ConfigurationError, match="at least one band in every brick"):
        MockSpec(bands=("g",), missing_bands=((0, "g"),))


def test_bricks_of_a_block_are_neighbours_and_wrap_at_ra_zero() -> None:
    names = [area.name for area in MockSpec(bricks=2, center=(359.99, 0.0)).brick_list()]
    assert names == ["3598p000", "0001p000"]
    block = MockSpec(bricks=9).brick_list()
    assert len({area.name for area in block}) == 9
    assert len({area.row for area in block}) == 3


def test_the_survey_sky_is_as_crowded_as_asked_and_its_background_goes_on() -> None:
    spec = survey_spec(MockSpec(galaxies=250))
    area = brick_at(150.1, 2.2)
    sky, faint = brick_sky(spec, area), background_sky(spec, area, empty=False)
    assert spec.sky == "survey" and spec.stars == BY_LATITUDE and spec.faint == survey_count(23.7)
    assert 6500 < len(sky) < 8500
    magnitude = 22.5 - 2.5 * np.log10(sky["flux"][sky["kind"] != "star", 3])
    beyond = 22.5 - 2.5 * np.log10(faint["flux"][:, 3])
    # no step in the counts where the fitter's catalog ends
    near = ((magnitude > 23.4) & (magnitude < 23.7)).sum(), ((beyond > 23.7) & (beyond < 24.0)).sum()
    assert 1.0 < near[1] / near[0] < 1.6
    assert len(brick_sky(spec, area, empty=True)) == star_count(area) and len(background_sky(spec, area, empty=True)) == 0
    assert survey_count(20.0) == 0


def test_bulges_of_the_survey_sky_are_redder_than_their_disks() -> None:
    sky = brick_sky(survey_spec(MockSpec(galaxies=400)), brick_at(150.1, 2.2))
    mixed = sky[(sky["bulge"][:, 1] > 0.05) & (sky["bulge"][:, 1] < 0.9) & ~sky["faint"]]
    assert len(mixed) > 100
    assert (mixed["bulge"][:, 0] < mixed["bulge"][:, 1]).all() and (mixed["bulge"][:, 3] > mixed["bulge"][:, 1]).all()
