"""The weights that come with the package."""

from __future__ import annotations

from dataclasses import replace

import galsim
import numpy as np
import pytest

from galpipe.config import SOFTENING
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import TEXT_FILE, WEIGHTS_FILE, load_model, shipped_folder
from galpipe.stamps.normalize import codec, encode
from galpipe.stamps.stampset import StampSet
from tests.lvm.toy import toy_stamps


def test_shipped_weights_are_small_and_described() -> None:
    folder = shipped_folder()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    assert not [path for path in folder.iterdir() if path.suffix in {".pt", ".pth", ".pkl", ".npy"}]
    text = (folder / TEXT_FILE).read_text()
    for part in ("## Training", "## Scores", "## Limits", "seed"):
        assert part in text
    assert (folder / WEIGHTS_FILE).exists()


def test_every_shipped_head_beats_the_constant_answer() -> None:
    card = load_model().card
    for brick, heads in card["scores"].items():
        assert set(heads) == set(card["heads"])
        for head, scores in heads.items():
            better = [score["beats_constant"] for score in scores if score["name"] != "purity"]
            assert sum(better) > 0.7 * len(better), (brick, head)


COLORS = {"g": 0.7, "r": 0.0, "z": -0.5}
"""Magnitudes minus r, of a galaxy as there are many."""


def plain_galaxies() -> tuple[StampSet, list[float], list[float]]:
    """Exponential disks in 1.2 arcsec seeing with the usual noise, drawn apart from the mock; and their r magnitudes and axis ratios."""
    rng = np.random.default_rng(4)
    stamps, magnitudes, ratios = toy_stamps(6), [17.4, 17.7, 18.0, 18.3, 18.6, 18.9], [0.95, 0.8, 0.65, 0.5, 0.4, 0.3]
    image = np.zeros_like(stamps.image)
    for index, (mag, ratio) in enumerate(zip(magnitudes, ratios, strict=True)):
        for b, band in enumerate(MODEL_BANDS):
            total = 10 ** (0.4 * (22.5 - mag - COLORS[band]))
            disk = galsim.Exponential(half_light_radius=1.1, flux=total).shear(q=ratio, beta=0.7 * galsim.radians)
            seen = galsim.Convolve(disk, galsim.Moffat(beta=3.5, fwhm=1.2))
            flux = seen.drawImage(nx=152, ny=152, scale=0.262, offset=(0.5, 0.5), dtype=float).array
            image[index, b] = encode(flux + rng.normal(0, 0.6 * SOFTENING[band], flux.shape), codec(SOFTENING[band]))
    return replace(stamps, image=image), magnitudes, ratios


def test_shipped_weights_find_and_measure_a_plain_galaxy() -> None:
    stamps, magnitudes, ratios = plain_galaxies()
    table = Predictor.load(device="cpu", threads=1).predict(stamps)
    assert table["lvm_mag_r"].to_pylist() == pytest.approx(magnitudes, abs=0.3)
    assert table["lvm_axis_ratio"].to_pylist() == pytest.approx(ratios, abs=0.2)
    for found in table["detections"].to_pylist():
        assert any(abs(item["x"] - 76) < 2 and abs(item["y"] - 76) < 2 and item["class"] == "galaxy" for item in found)
