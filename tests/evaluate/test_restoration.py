"""Restoration's figures on planes whose answer is known, the classical methods, and the whole measurement on toy stamps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from flows.cli.restoration import text
from galpipe.evaluate import restoration
from galpipe.evaluate.restoration_figure import draw
from galpipe.evaluate.restored import Scene, figures, sources, summary
from galpipe.evaluate.restorers import SNR_EDGES, Degraded, Lucy, Wavelet, bin_of, fill
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from tests.lvm.toy import TINY, toy_pack

NOISE = 0.02
FWHM, WANTED = 6.0, 5.1
SIGMA = WANTED / 2.3548


def disk(sigma: float, flux: float, place: tuple[float, float] = (50.0, 50.0), ratio: float = 1.0) -> np.ndarray:
    rows, columns = np.indices((101, 101))
    image = np.exp(-((columns - place[0]) ** 2 / sigma**2 + (rows - place[1]) ** 2 / (ratio * sigma) ** 2) / 2)
    return (flux * image / image.sum()).astype(np.float32)


@pytest.fixture(scope="module")
def case() -> tuple[Degraded, Scene]:
    """A bright galaxy and a star, blurred, noisy, with a streak missing."""
    clean = disk(5.0, 60.0, ratio=0.6) + disk(SIGMA, 8.0, (80.0, 25.0))
    between = np.sqrt(FWHM**2 - WANTED**2) / 2.3548
    flux = gaussian_filter(clean, between) + np.random.default_rng(3).normal(0, NOISE, clean.shape)
    valid = np.ones(clean.shape, bool)
    valid[20:80, 60:62] = False
    stamp = Degraded(np.where(valid, flux, 0).astype(np.float32), valid, FWHM, WANTED, NOISE)
    return stamp, Scene(clean, np.ones_like(valid), (50.0, 50.0), 0.01)


def test_the_truth_has_no_error(case: tuple[Degraded, Scene]) -> None:
    stamp, scene = case
    found = figures(scene.clean, scene, stamp)
    assert found["psnr"] > 100
    for name in ("flux", "r50", "ellipticity", "false_sources", "lost_sources"):
        assert found[name] == pytest.approx(0, abs=1e-9)
    assert found["true_sources"] == 2
    assert found["chi2"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", [Lucy(10, True), Lucy(6, False), Wavelet("BayesShrink", 1.0, 3)])
def test_classical_methods_improve_what_they_are_given(case: tuple[Degraded, Scene], method: Lucy | Wavelet) -> None:
    stamp, scene = case
    before, after = figures(stamp.flux, scene, stamp), figures(method(stamp), scene, stamp)
    assert after["psnr_center"] > before["psnr_center"]
    assert abs(after["r50"]) < 0.6 * abs(before["r50"])
    assert abs(after["flux"]) < 0.02


def test_gaps_do_not_stay_holes(case: tuple[Degraded, Scene]) -> None:
    stamp, scene = case
    filled = fill(stamp.flux, stamp.valid)
    assert np.array_equal(filled[stamp.valid], stamp.flux[stamp.valid])
    assert np.abs(filled - scene.clean)[~stamp.valid].max() < 0.5 * scene.clean[~stamp.valid].max()
    assert not fill(np.ones((20, 20), np.float32), np.zeros((20, 20), bool)).any()


def test_sources_are_false_where_the_truth_is_dark_and_lost_where_the_image_is(case: tuple[Degraded, Scene]) -> None:
    stamp, scene = case
    invented = scene.clean + disk(SIGMA, 8.0, (25.0, 80.0))
    assert sources(invented, scene, stamp)["false_sources"] == 1
    without = scene.clean - disk(SIGMA, 8.0, (80.0, 25.0))
    found = sources(without, scene, stamp)
    assert (found["lost_sources"], found["false_sources"]) == (1, 0)
    hidden = dataclasses.replace(stamp, valid=stamp.valid & (np.arange(101)[None, :] < 70))
    assert sources(without, scene, hidden)["lost_sources"] == 0


def test_a_smoothed_image_is_larger_rounder_and_disagrees_with_the_data(case: tuple[Degraded, Scene]) -> None:
    stamp, scene = case
    found = figures(gaussian_filter(scene.clean, 3.0), scene, stamp)
    assert found["r50"] > 0.1
    assert found["ellipticity"] < -0.02
    assert found["chi2"] > figures(scene.clean, scene, stamp)["chi2"] + 0.2


def test_intervals_come_from_the_galaxies() -> None:
    rng = np.random.default_rng(2)
    rows = [
        {"psnr": value, "flux": value / 100, "false_sources": 1.0, "found_sources": 4.0, "lost_sources": 0.0, "true_sources": 2.0}
        for value in rng.normal(30, 2, 400)
    ]
    found = summary(rows)
    assert found["psnr"]["high"] - found["psnr"]["low"] == pytest.approx(2 * 1.96 * 2 / 20, rel=0.2)
    assert found["flux"]["low"] < found["flux"]["value"] < found["flux"]["high"]
    assert (found["false"]["value"], found["false"]["of"]) == (0.25, 1600)


def test_bins_of_snr() -> None:
    assert [bin_of(value) for value in (-3, 0, 9.9, 10, 299, 1e9)] == [0, 0, 0, 1, 3, 4]
    assert all(len(items) == len(SNR_EDGES) - 1 for items in restoration.TUNED.values())


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(new_model(TINY, 3), {}, "0" * 16, device_of("cpu"))


def test_every_method_is_measured_on_the_same_stamps(predictor: Predictor) -> None:
    settings = restoration.Settings(("r", "g"), 3, 2)
    result = restoration.measure(predictor, {"toy": toy_pack(4)}, settings)
    assert {item["method"] for item in result["results"]} == set(restoration.METHODS)
    for band in ("r", "g"):
        counts = [
            sum(item["galaxies"] for item in result["results"] if item["band"] == band and item["method"] == m) for m in result["methods"]
        ]
        assert counts == [3] * len(restoration.METHODS)
        assert result["target"][band]["input_fwhm"] == pytest.approx(1.2 / 0.85)
    ours = next(item for item in result["results"] if item["method"] == "lvm")["metrics"]
    assert {"coverage_68", "coverage_95", "coverage_center_68"} <= set(ours)
    assert "Infinity" not in json.dumps(result["results"])
    assert "richardson-lucy" in text(result)
    assert draw(result["results"], "r").startswith(b"\x89PNG")


def test_batches_of_any_size_see_the_same_pixels(predictor: Predictor) -> None:
    pack = toy_pack(4)
    whole, parts = restoration.degraded(pack, np.arange(4)), restoration.degraded(pack, np.arange(2, 4))
    assert np.array_equal(whole.pixels[2:].numpy(), parts.pixels.numpy())
    assert not whole.valid[0].equal(whole.valid[1])


def test_real_stamps_are_compared_with_what_they_were(predictor: Predictor) -> None:
    pack = toy_pack(2)
    bare = dataclasses.replace(pack, clean=None, segments=None, objects=None, object_start=None)
    truth = restoration.truth_of(bare, np.arange(2))
    assert truth.clean[:, :, 4:-4, 4:-4].std() > restoration.truth_of(pack, np.arange(2)).clean.std()
    assert not truth.known[:, 0].any()
    result = restoration.measure(predictor, {"real": bare}, restoration.Settings(stamps=2))
    assert sum(item["galaxies"] for item in result["results"] if item["method"] == "stamp") == 2


def test_tuning_names_the_best_of_each_bin() -> None:
    found = restoration.tune(toy_pack(2), 2)
    assert set(found) == set(restoration.GRID)
    assert sum(item["galaxies"] for item in found["wavelet"]) == 2


def test_the_plot_is_written_where_asked(predictor: Predictor, tmp_path: Path) -> None:
    result = restoration.measure(predictor, {"toy": toy_pack(2)}, restoration.Settings(stamps=2))
    (tmp_path / "plot.png").write_bytes(draw(result["results"], "r"))
    assert (tmp_path / "plot.png").stat().st_size > 10_000
