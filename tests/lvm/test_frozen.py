from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from galpipe.errors import ConfigurationError
from galpipe.lvm import frozen
from galpipe.lvm.frozen import Extension, calibrate, extend_model
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.pack import read_pack, write_pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import load_model, read_card, save_model
from tests.lvm.toy import TINY, toy_pack

OLD = replace(TINY, heads=("morphology", "parameters"))
TRAINING = {"settings": {"seed": 1, "sky_seed": 1001, "bricks": 2, "held_bricks": 1, "sky": "plain", "pretrain_steps": 1}}
TRAINING |= {"stamps": 1, "training_bricks": ["a"], "real_stamps": 0, "seconds": 1.0, "code": "1", "sky_version": 1, "processor": "x"}  # type: ignore[dict-item]
TRAINING["settings"] |= {"finetune_steps": 1, "polish_steps": 1, "batch": 1, "threads": 1}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy packs in the places of mock bricks."""

    def toy_packs(specs: list[object], folder: Path, progress: object) -> list[Path]:
        paths = [folder / str(number) for number, _ in enumerate(specs)]
        for number, path in enumerate(paths):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_pack(path, toy_pack(60, number + (10 if folder.name == "held" else 0)))
        return paths

    monkeypatch.setattr(frozen, "mock_packs", toy_packs)
    return tmp_path / "work"


def test_a_trained_model_gets_a_new_head_and_answers_as_before(work: Path, tmp_path: Path) -> None:
    save_model(
        tmp_path / "old", new_model(OLD, 3), {"name": "toy", "version": "1", "training": TRAINING, "scores": {"0": {"morphology": []}}}, ""
    )
    extend_model(tmp_path / "old", Extension(("domain",), most=100), work, tmp_path / "new")
    card = read_card(tmp_path / "new")
    assert card["heads"] == {"morphology": 1, "parameters": 1, "domain": 1}
    assert card["training"]["frozen"]["learned"]["domain"]["stamps"] == 100
    assert set(card["scores"]["0"]) == {"morphology", "domain"}
    old, new = (Predictor(load_model(tmp_path / name).model, {}, "", device_of("cpu")) for name in ("old", "new"))
    stamps = toy_pack(8, 30).stamps()
    before, after = old.predict(stamps), new.predict(stamps)
    for name in before.column_names:
        assert after[name].equals(before[name]), name
    # calibrated in what was written, not only in memory
    held = read_pack(work / "packs" / "held" / "0").stamps()
    assert np.sort(new.predict(held)["out_of_domain"].to_numpy()).mean() == pytest.approx(0.5, abs=0.2)


def test_a_card_without_its_training_is_refused(work: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "old", new_model(OLD, 3), {}, "")
    with pytest.raises(ConfigurationError, match="what the model was trained on"):
        extend_model(tmp_path / "old", Extension(("domain",)), work, tmp_path / "new")


def test_heads_are_calibrated_on_every_set_of_bands() -> None:
    model = new_model(replace(TINY, heads=("morphology",)), 1)
    seen: list[tuple[int, ...]] = []

    def calibration(outputs: object, truth: object, context: object) -> dict[str, np.ndarray]:
        seen.append(tuple(context.valid[0].any(axis=(1, 2)).astype(int).tolist()))  # type: ignore[attr-defined]
        return {"rows": np.ones(len(truth.table))}  # type: ignore[attr-defined]

    gathered: dict[str, np.ndarray] = {}

    def take(values: dict[str, np.ndarray]) -> dict[str, float]:
        gathered.update(values)
        return {"rows": float(values["rows"].sum())}

    head = model.head("morphology")
    head.calibration = calibration  # type: ignore[method-assign, assignment]
    head.calibrate = take  # type: ignore[method-assign]
    facts = calibrate(Predictor(model, {}, "", device_of("cpu")), [toy_pack(5)])
    assert seen == [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert facts == {"morphology": {"rows": 35.0}}
