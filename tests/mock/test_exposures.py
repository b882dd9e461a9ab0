"""Coadds of the survey-like sky: seams, patches, masks, noise; the same for the same seed; the plain sky untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from galpipe.errors import ConfigurationError
from galpipe.mock import exposures, release, sky
from galpipe.mock.cameras import camera, galactic_latitude, star_count, survey_conditions
from galpipe.mock.exposures import Coverage, Stars, add_transients, core_fwhm, coverage, expose_survey
from galpipe.mock.pixels import SATURATION
from galpipe.mock.psf import size_over_fwhm
from galpipe.mock.sky import SOURCE
from galpipe.mock.spec import BY_LATITUDE, MockSpec
from galpipe.mock.survey import Scene, survey_pixels
from galpipe.survey.bricks import brick_at

AREA = brick_at(150.1, 2.2)
SPEC = MockSpec(sky="survey")
NOBODY = np.zeros(0, SOURCE)
NOWHERE = np.zeros(0)
NO_STARS = Stars(NOWHERE, NOWHERE, NOWHERE)


def flat(count: int, shape: tuple[int, int] = (400, 400), sigma: float = 0.004) -> Coverage:
    full = np.ones(shape, np.float32)
    return Coverage(np.full(shape, count, np.int16), full / np.float32(sigma**2), 1.2 * full, 0 * full)


def test_exposures_leave_seams_in_count_depth_and_psf() -> None:
    state = replace(survey_conditions(SPEC, AREA), exposures={"g": 3, "r": 5, "i": 3, "z": 3})
    cover = coverage(np.random.default_rng(3), state, "r", camera("south", "r"), (3600, 700))
    counts = np.unique(cover.nexp)
    assert len(counts) >= 3 and counts.max() <= 5
    steps = [len(np.unique(image[cover.nexp > 0])) for image in (cover.ivar, cover.psfsize, cover.sky)]
    assert min(steps) >= 4
    assert ((cover.ivar > 0) == (cover.nexp > 0)).all() and (cover.psfsize[cover.nexp == 0] == 0).all()
    # the PSF that sources are drawn with steps at the same seams
    row = cover.psfsize[:, 350]
    edge = int(np.argmax(np.abs(np.diff(row))))
    ratio = size_over_fwhm(camera("south", "r"))
    fwhm = core_fwhm(cover, camera("south", "r"), np.array([350.0, 350.0]), np.array([edge, edge + 1.0]), 1.2)
    assert fwhm * ratio == pytest.approx([row[edge] or 1.2, row[edge + 1] or 1.2], rel=1e-5)


def test_saturated_pixels_are_patched_with_ten() -> None:
    clean = np.zeros((400, 400), np.float32)
    clean[200:204, 200:204] = 2 * SATURATION["r"]
    products = expose_survey(clean, flat(4), NO_STARS, ("r", camera("south", "r"), 0.004), np.random.default_rng(0))
    assert (products.image[200:204, 200:204] == 10).all() and (products.invvar[198:206, 198:206] == 0).all()
    assert abs(products.image[199, 199]) < 0.1
    assert products.saturated[202, 202] and products.nexp[202, 202] == 0


def test_noise_is_as_the_inverse_variance_says() -> None:
    products = expose_survey(
        np.zeros((400, 400), np.float32), flat(4), NO_STARS, ("g", camera("south", "g"), 0.004), np.random.default_rng(1)
    )
    good = products.invvar > 0
    pull = products.image[good] * np.sqrt(products.invvar[good])
    # interpolation lowers the scatter of single pixels
    assert 1.4826 * np.median(np.abs(pull - np.median(pull))) == pytest.approx(0.893, abs=0.02)
    assert abs(np.median(pull)) < 0.2


def test_without_exposure_there_is_nothing() -> None:
    cover = flat(1)
    cover.nexp[:, :50], cover.ivar[:, :50], cover.psfsize[:, :50] = 0, 0, 0
    products = expose_survey(np.ones((400, 400), np.float32), cover, NO_STARS, ("g", camera("south", "g"), 0.004), np.random.default_rng(2))
    assert not products.image[:, :50].any() and not products.invvar[:, :50].any()


@pytest.mark.parametrize("count", [1, 5])
def test_satellites_are_masked_where_exposures_overlap_and_left_where_they_do_not(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposures, "SATELLITES", 400.0 / count)
    monkeypatch.setattr(exposures, "COSMICS", 0)
    image, cover = np.zeros((300, 300), np.float32), flat(count, (300, 300))
    usual = float(cover.ivar[0, 0])
    add_transients(image, cover.nexp, cover.ivar, 0.004, np.random.default_rng(5), 4.0)
    crossed, masked = (image > 0.002).mean(), (cover.nexp < count).mean()
    assert crossed > 0.02
    # a masked exposure takes its share of the inverse variance with it
    np.testing.assert_allclose(cover.ivar, usual * cover.nexp / count, rtol=1e-4)
    assert masked == 0 if count == 1 else masked > 1.5 * crossed


def test_a_cosmic_ray_costs_one_exposure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposures, "SATELLITES", 0.0)
    monkeypatch.setattr(exposures, "COSMICS", 2000)
    image, cover = np.zeros((300, 300), np.float32), flat(4, (300, 300))
    add_transients(image, cover.nexp, cover.ivar, 0.004, np.random.default_rng(5), 4.0)
    assert not image.any() and set(np.unique(cover.nexp)) == {3, 4}


def scene(seed: int = 1, side: int = 200) -> Scene:
    stars = np.zeros(1, SOURCE)
    stars["kind"], stars["flux"] = "star", 3000.0
    spec = replace(SPEC, seed=seed)
    bright = (stars, np.array([100.0]), np.array([90.0]))
    return Scene(spec, AREA, survey_conditions(spec, AREA), ("g", "z"), bright, (NOBODY, NOWHERE, NOWHERE), (side, side))


def test_a_scene_is_the_same_for_the_same_seed() -> None:
    one, two, other = (survey_pixels(scene(seed))[1] for seed in (1, 1, 2))
    for band in ("g", "z"):
        assert one[band].image.tobytes() == two[band].image.tobytes()
        assert one[band].image.tobytes() != other[band].image.tobytes()


def test_conditions_are_drawn_together_and_per_camera() -> None:
    south = [survey_conditions(replace(SPEC, seed=seed), AREA) for seed in range(300)]
    seeing = np.array([[state.seeing[band] for band in "grz"] for state in south])
    sigma = np.array([[state.sigma[band] for band in "grz"] for state in south])
    assert np.corrcoef(np.log(seeing).T)[0, 1] > 0.4
    assert np.corrcoef(np.log(seeing[:, 1]), np.log(sigma[:, 1]))[0, 1] < -0.1
    assert np.median(seeing, axis=0) == pytest.approx([1.30, 1.20, 1.15], rel=0.03)
    high = brick_at(200.0, 60.0)
    north = [survey_conditions(replace(SPEC, seed=seed, center=(200.0, 60.0)), high) for seed in range(100)]
    assert np.median([state.seeing["g"] for state in north]) > 1.2 * np.median(seeing[:, 0])
    dusty = brick_at(85.0, 30.0)
    assert abs(galactic_latitude(dusty)) < 10 < abs(galactic_latitude(high))
    assert star_count(dusty) > 4 * star_count(high)
    assert survey_conditions(SPEC, dusty).ebv > 2 * survey_conditions(SPEC, high).ebv


def test_only_the_survey_sky_takes_stars_by_latitude() -> None:
    assert MockSpec(sky="survey", stars=BY_LATITUDE).stars == BY_LATITUDE
    with pytest.raises(ConfigurationError, match="no negative number"):
        MockSpec(stars=BY_LATITUDE)
    with pytest.raises(ConfigurationError, match="a mock sky among"):
        MockSpec(sky="clear")


def test_the_plain_sky_runs_none_of_the_new_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object) -> None:
        raise AssertionError("the plain sky must not come here")

    for name in ("survey_frame", "survey_conditions", "background_sky", "survey_fit"):
        monkeypatch.setattr(release, name, never)
    drawn: list[str] = []
    monkeypatch.setattr(release, "draw_frame", lambda *_args: drawn.append("draw") or _Stop.here())
    with pytest.raises(_Stop):
        release.make_frame(MockSpec(bricks=1, galaxies=3, faint=3, stars=3), 0)
    assert drawn == ["draw"]


class _Stop(Exception):
    @classmethod
    def here(cls) -> None:
        raise cls


def test_the_plain_catalog_takes_the_same_random_numbers_as_before() -> None:
    spec = MockSpec(galaxies=40, faint=30, stars=20)
    rng = np.random.default_rng([spec.seed, AREA.brickid])
    parts = [sky._bright(rng, 40), sky._faint(rng, 30, spec.faint_limit), sky._stars(rng, 20)]
    ra = rng.uniform(AREA.ra1, AREA.ra2, 90)
    found = sky.brick_sky(spec, AREA)
    assert found["flux"][:40].tobytes() != b"" and (found["pattern"] == np.concatenate(parts)["pattern"]).all()
    alone = ~np.isin(np.arange(90), np.flatnonzero(found["kind"] == "merger"))
    assert (np.isclose(found["ra"], ra) & alone).sum() > 60
