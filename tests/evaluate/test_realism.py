"""The comparison of real and mock sky: what it measures, that its classifier cannot cheat, and the command as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from flows.__main__ import cli
from galpipe.errors import ConfigurationError
from galpipe.evaluate.classify import auc, cross_validate, logistic, network, telling_features
from galpipe.evaluate.features import GALAXY_FEATURES, NOISE_FEATURES, galaxy_features, noise_features, noise_stamps
from galpipe.evaluate.fields import BANDS, Field, Look, real_fields, survey_fields
from galpipe.evaluate.measure import LAGS, Measured, autocorrelation, measure, star_fwhm
from galpipe.evaluate.statistics import match_in_magnitude, noise_correlations, power_spectrum, star_profiles
from galpipe.mock.noise import autocovariance, coadd_noise

LOOK = Look({"g": 0.0017, "r": 0.0025, "z": 0.007}, {"g": 1.3, "r": 1.1, "z": 1.0}, 15.5)


@pytest.fixture(scope="module")
def mock_fields() -> list[Field]:
    return list(survey_fields([LOOK], 6, 3))


@pytest.fixture(scope="module")
def measured(mock_fields: list[Field]) -> list[Measured]:
    return [measure(field) for field in mock_fields]


def test_area_under_the_curve() -> None:
    assert auc(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True])) == 1
    assert auc(np.array([1.0, 2, 3, 4]), np.array([True, True, False, False])) == 0
    assert auc(np.array([1.0, 1, 1, 1]), np.array([True, False, True, False])) == 0.5
    assert np.isnan(auc(np.array([1.0]), np.array([True])))


def samples(shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twelve fields of ten samples; fields differ from each other, half of them are 'real' and shifted."""
    rng = np.random.default_rng(seed)
    field = np.repeat(np.arange(12), 10)
    values = rng.normal(size=(120, 4)) + 1.5 * rng.normal(size=(12, 4))[field]
    real = field % 2 == 0
    values[:, 0] += shift * real
    return values, real, np.array([f"f{n}" for n in field])


def test_what_is_alike_is_not_told_apart_and_what_differs_is() -> None:
    same = [cross_validate(*samples(0.0, seed), logistic(3.0)).auc for seed in range(6)]
    # the fields' own differences would give it away if a field lay on both sides
    assert abs(np.mean(same) - 0.5) < 0.17
    apart = cross_validate(*samples(12.0), logistic(1.0))
    assert apart.auc > 0.95 and apart.low > 0.85 and apart.low <= apart.auc <= apart.high
    assert (apart.real, apart.mock) == (60, 60)


def test_a_field_never_lies_on_both_sides() -> None:
    values, real, groups = samples(0.0)
    values[:, 1] = [float(name[1:]) for name in groups]
    seen: list[float] = []

    def spy(training: np.ndarray, _labels: np.ndarray, held: np.ndarray) -> np.ndarray:
        assert not set(training[:, 1]) & set(held[:, 1])
        seen.extend(held[:, 1])
        return np.zeros(len(held))

    assert cross_validate(values, real, groups, spy).auc == pytest.approx(0.5, abs=0.15)
    assert sorted(seen) == sorted(values[:, 1])


def test_the_network_sees_texture_that_moments_do_not_show() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal((60, 3, 16, 16)).astype(np.float32)
    smooth = np.stack([[coadd_noise(rng, (16, 16), 0.4533) for _ in range(3)] for _ in range(60)])
    smooth /= smooth.std()
    stamps = np.concatenate([white, smooth])
    real = np.repeat([True, False], 60)
    groups = np.array([f"f{k // 10}" for k in range(120)])
    assert cross_validate(stamps, real, groups, network(2)).auc > 0.9


def test_the_telling_feature_is_named() -> None:
    values, real, _ = samples(12.0)
    assert telling_features(values, real, ("a", "b", "c", "d"), 1)[0][0] == "a"


def test_matches_are_near_and_none_is_taken_twice() -> None:
    rng = np.random.default_rng(0)
    real, mock = rng.uniform(18, 23, 30), rng.uniform(17, 24, 400)
    rows = match_in_magnitude(real, mock, 3, 0)
    assert len(set(rows.tolist())) == len(rows) == 90
    assert abs(np.median(mock[rows]) - np.median(real)) < 0.3
    assert len(match_in_magnitude(np.array([10.0]), mock, 3, 0)) == 0


def test_measured_noise_is_that_of_the_resampled_coadd(measured: list[Measured]) -> None:
    bare = np.array(autocovariance(0.262)) / autocovariance(0.262)[0]
    found = np.array(noise_correlations(measured)["z"][0])
    one = LAGS.index((0, 1)), LAGS.index((1, 0))
    # the cutout service interpolates once more: neighbors correlate more than in the coadd, next-nearest anticorrelate
    assert all(found[k] > bare[1] + 0.02 for k in one)
    assert found[LAGS.index((0, 2))] < 0
    frequency, power = power_spectrum(measured, "z")
    assert power[np.searchsorted(frequency, 0.45)] < 0.6 * power[np.searchsorted(frequency, 0.1)]


def test_depth_and_seeing_are_near_those_asked_for(measured: list[Measured]) -> None:
    for band in BANDS:
        # some exposures cover a field in part, and galaxies' outskirts count as noise: never deeper, somewhat shallower
        assert 0.93 < np.median([m.sigma[band] for m in measured]) / LOOK.sigma[band] < 1.35
        seen = [value for value in (star_fwhm(m, band) for m in measured) if value]
        if len(seen) > 2:
            assert np.median(seen) == pytest.approx(LOOK.fwhm[band], rel=0.2)
    assert star_profiles(measured, "r").values.shape[1] == len(star_profiles(measured, "r").radius)


def test_features_are_finite_and_named(measured: list[Measured]) -> None:
    noise = np.concatenate([noise_features(m) for m in measured[:2]])
    galaxies, magnitude = galaxy_features(measured[0])
    assert noise.shape[1] == len(NOISE_FEATURES) and np.isfinite(noise).all() and len(noise) > 20
    assert galaxies.shape == (len(magnitude), len(GALAXY_FEATURES)) and np.isfinite(galaxies).all()
    assert noise_stamps(measured[0]).shape[1:] == (3, 24, 24)


def test_correlation_of_a_known_pattern() -> None:
    stripes = np.tile([1.0, -1.0], (40, 20))
    everywhere = np.ones((40, 40), bool)
    assert autocorrelation(stripes, everywhere, (0, 1)) == pytest.approx(-1)
    assert autocorrelation(stripes, everywhere, (1, 0)) == pytest.approx(1)
    assert np.isnan(autocorrelation(stripes, np.zeros((40, 40), bool), (0, 1)))


def test_without_real_cutouts_the_reason_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least six real g, r, z cutouts, got 0"):
        real_fields(tmp_path)


def test_the_command_writes_tables_and_plots(tmp_path: Path, mock_fields: list[Field]) -> None:
    (tmp_path / "real" / "stamps").mkdir(parents=True)
    for k, field in enumerate(mock_fields):
        cube = np.stack([field.planes[band] for band in BANDS]).astype(np.float32)
        fits.writeto(tmp_path / "real" / "stamps" / f"cutout_{k}.fits", cube)
    out = tmp_path / "out"
    asked = ["evaluate", "realism", "--real", str(tmp_path / "real"), "--out", str(out), "--fields", "6", "--seed", "9"]
    done = CliRunner().invoke(cli, [*asked, "--no-plain", "--no-networks", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((out / "realism.json").read_text())
    assert result["fields"] == {"real": 6, "survey": 6}
    assert [(e["what"], e["by"]) for e in result["classifier"]] == [("noise patches", "features"), ("galaxies", "features")]
    # real and mock come from the same code here: nothing tells them apart
    assert result["classifier"][0]["auc"] < 0.65 and result["classifier"][1]["interval"][0] < 0.65
    text = (out / "realism.md").read_text()
    assert text.count("| noise patches | survey |") == 2 and "| galaxies |" in text
    for name in ("noise", "profiles", "population", "scores", "mock"):
        assert (out / f"realism-{name}.png").stat().st_size > 1000
    assert {path.name for path in out.glob("pictures-*.png")} == {"pictures-fields.png", "pictures-galaxies.png"}
