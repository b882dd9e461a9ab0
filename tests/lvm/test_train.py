from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from galpipe.errors import BadData, ConfigurationError
from galpipe.lvm import train
from galpipe.lvm.card import card_text
from galpipe.lvm.evaluate import evaluate
from galpipe.lvm.finetune import finetune
from galpipe.lvm.loop import LoopSettings, rate_at
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.pack import Pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.pretrain import pretrain
from galpipe.lvm.train import TrainSettings
from galpipe.lvm.weights import WEIGHTS_FILE, save_model, take_over
from tests.lvm.toy import TINY, toy_pack


@pytest.fixture(scope="module")
def pack() -> Pack:
    return toy_pack(8)


class Interrupted(Exception):
    pass


def stop_after(step: int) -> object:
    def progress(_: str, done: int, __: int) -> None:
        if done == step:
            raise Interrupted

    return progress


def test_every_loss_falls_on_a_toy_batch(pack: Pack, tmp_path: Path) -> None:
    model = new_model(TINY, 1)
    history = finetune(model, pack, LoopSettings(40, batch=8, rate=3e-3, warmup=5, checkpoint=10), tmp_path)
    for name in ("morphology", "parameters", "detection", "restoration"):
        assert history[-1][name] < history[0][name], name


def test_reconstruction_falls_and_a_resumed_run_ends_the_same(pack: Pack, tmp_path: Path) -> None:
    settings = LoopSettings(12, batch=4, rate=3e-3, warmup=3, checkpoint=4)
    straight = new_model(TINY, 1)
    history = pretrain(straight, pack, settings, tmp_path / "straight")
    assert history[-1]["reconstruction"] < history[0]["reconstruction"]
    broken = new_model(TINY, 1)
    with pytest.raises(Interrupted):
        pretrain(broken, pack, settings, tmp_path / "broken", stop_after(6))  # type: ignore[arg-type]
    again = new_model(TINY, 2)
    pretrain(again, pack, settings, tmp_path / "broken")
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(pack: Pack, tmp_path: Path) -> None:
    pretrain(new_model(TINY, 1), pack, LoopSettings(2, batch=4, checkpoint=2), tmp_path)
    with pytest.raises(ConfigurationError, match="a checkpoint of settings"):
        pretrain(new_model(TINY, 1), pack, LoopSettings(3, batch=4, checkpoint=2), tmp_path)


def test_rate_warms_up_and_falls() -> None:
    settings = LoopSettings(100, rate=1.0, warmup=10)
    assert rate_at(0, settings) == pytest.approx(0.1)
    assert rate_at(10, settings) == pytest.approx(1.0)
    assert rate_at(99, settings) < 0.02


def test_every_head_is_scored_beside_a_constant(pack: Pack) -> None:
    predictor = Predictor(new_model(TINY, 1), {}, "", device_of("cpu"))
    scores = evaluate(predictor, pack, pack.sources, batch=4)
    assert set(scores) == set(TINY.heads)
    # the toy sky has no lens to score
    assert all((part or name == "lens") and all(item["count"] >= 0 for item in part) for name, part in scores.items())
    training: dict[str, Any] = {
        "stamps": 8,
        "real_stamps": 5,
        "seconds": 60.0,
        "began": "",
        "code": "1",
        "sky_version": 1,
        "processor": "AVX2",
    }
    training |= {
        "train_bricks": ["a"],
        "calibration_bricks": [],
        "held_bricks": ["a"],
        "real_sets": {"rings": {"galaxies": 5, "answered": 0}},
    }
    training["settings"] = asdict(TrainSettings(model=TINY))
    text = card_text({"name": "toy", "version": "0", "training": training, "scores": {"a": scores}}, TINY)
    assert "| restoration |" in text
    assert "## Limits" in text
    assert "| rings | 5 | 0 |" in text
    assert "masked reconstruction" in text and "Began from mini 2" not in text
    training["began"] = "mini 2 (abc)"
    assert "Began from mini 2" in card_text({"name": "toy", "version": "0", "training": training, "scores": {}}, TINY)


def test_a_training_can_begin_from_another_model(tmp_path: Path) -> None:
    first, other = new_model(TINY, 1), new_model(replace(TINY, embedding=24), 2)
    save_model(tmp_path / "first", first, {"name": "toy", "version": "1"}, "")
    taken, new = take_over(other, tmp_path / "first")
    assert taken > 50 and new > 0 and taken + new == len(other.state_dict())
    name = "encoder.stem.first.weight"
    assert torch.equal(other.state_dict()[name], first.state_dict()[name].half().float())
    (tmp_path / "first" / WEIGHTS_FILE).write_bytes(b"other")
    with pytest.raises(BadData, match="weights with sha256"):
        take_over(other, tmp_path / "first")


def test_a_model_without_its_calibration_never_stands_where_users_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(train, "calibrate", killed)
    settings, bricks = TrainSettings(model=TINY), {"train": [], "calibration": [], "held": []}
    with pytest.raises(Interrupted):
        train.finish(settings, new_model(TINY, 1), (toy_pack(4), bricks), {}, (tmp_path / "work", tmp_path / "out"))
    assert not (tmp_path / "out").exists() and (tmp_path / "work" / "unfinished" / WEIGHTS_FILE).exists()


def test_a_work_folder_of_another_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(train, "mock_bricks", stop)
    places = train.Places(tmp_path / "work", tmp_path / "out")
    settings = TrainSettings(model=TINY)
    # twice the same goes on; labels that were learned must not reach a training without them
    for wanted, error in (
        (settings, Interrupted),
        (settings, Interrupted),
        (replace(settings, without="sdss_gz2_votes"), ConfigurationError),
    ):
        with pytest.raises(error):
            train.train_model(wanted, places)
    (tmp_path / "old" / settings.sky / "distill-checkpoint").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="checkpoints alone"):
        train.train_model(settings, train.Places(tmp_path / "old", tmp_path / "out"))
