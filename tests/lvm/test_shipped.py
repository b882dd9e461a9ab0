"""The weights that come with the package."""

from __future__ import annotations

import pytest

from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import TEXT_FILE, WEIGHTS_FILE, load_model, shipped_folder
from tests.lvm.toy import toy_pack, toy_stamps


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


def test_shipped_weights_find_and_measure_a_plain_galaxy() -> None:
    table = Predictor.load(device="cpu", threads=1).predict(toy_stamps(4))
    truth = toy_pack(4).sources["mag_r"].to_pylist()
    assert table["lvm_mag_r"].to_pylist() == pytest.approx(truth, abs=1.0)
    assert min(table["n_detections"].to_pylist()) >= 1
