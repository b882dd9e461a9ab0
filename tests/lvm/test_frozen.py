from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from galpipe.errors import ConfigurationError
from galpipe.heads.base import head_class
from galpipe.lvm import frozen
from galpipe.lvm.frozen import Extension, extend_model
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.pack import read_pack, write_pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.train import TrainSettings
from galpipe.lvm.weights import load_model, read_card, save_model
from tests.lvm.toy import TINY, toy_pack

OLD = replace(TINY, heads=("morphology", "parameters"))
TRAINING: dict[str, Any] = {
    "settings": asdict(TrainSettings(model=OLD, bricks=2, held_bricks=1, calibration_bricks=1, sky="plain")),
    "stamps": 1,
    "train_bricks": ["a"],
    "calibration_bricks": ["c"],
    "held_bricks": ["b"],
    "real_sets": {},
    "real_stamps": 0,
    "began": "",
    "seconds": 1.0,
    "code": "1",
    "sky_version": 1,
    "processor": "x",
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy packs in the places of mock bricks."""

    def toy_packs(specs: list[object], folder: Path, progress: object) -> list[Path]:
        paths = [folder / str(number) for number, _ in enumerate(specs)]
        for number, path in enumerate(paths):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_pack(path, toy_pack(60, number) if folder.name == "train" else toy_pack(110, 10 if folder.name == "held" else 20))
        return paths

    monkeypatch.setattr(frozen, "mock_packs", toy_packs)
    return tmp_path / "work"


def test_a_trained_model_gets_a_new_head_and_answers_as_before(work: Path, tmp_path: Path) -> None:
    save_model(
        tmp_path / "old", new_model(OLD, 3), {"name": "toy", "version": "1", "training": TRAINING, "scores": {"0": {"morphology": []}}}, ""
    )
    extend_model(tmp_path / "old", Extension(("domain",), most=116), work, tmp_path / "new")
    card = read_card(tmp_path / "new")
    assert card["heads"] == {name: head_class(name).version for name in ("morphology", "parameters", "domain")}
    assert card["training"]["frozen"]["learned"]["domain"]["stamps"] == 116
    assert set(card["scores"]["0"]) == {"morphology", "domain"}
    old, new = (Predictor(load_model(tmp_path / name).model, {}, "", device_of("cpu")) for name in ("old", "new"))
    stamps = toy_pack(8, 30).stamps()
    before, after = old.predict(stamps), new.predict(stamps)
    for name in before.column_names:
        assert after[name].equals(before[name]), name
    # calibrated in what was written, not only in memory
    held = read_pack(work / "plain" / "packs" / "calibration" / "0").stamps()
    level = (np.arange(110) + 1) / 110
    assert np.sort(new.predict(held)["out_of_domain"].to_numpy()) == pytest.approx(level, abs=0.05)


def test_a_card_without_its_training_is_refused(work: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "old", new_model(OLD, 3), {}, "")
    with pytest.raises(ConfigurationError, match="what the model was trained on"):
        extend_model(tmp_path / "old", Extension(("domain",)), work, tmp_path / "new")
