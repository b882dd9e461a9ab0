from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from flows.cli.evaluate import evaluate
from galpipe.errors import ConfigurationError
from galpipe.evaluate import objectives
from galpipe.evaluate.arms import ARMS, ASKED, Material, Rates
from galpipe.evaluate.fewshot import sides
from galpipe.evaluate.objectives import SHARES, Comparison, Folders, compare_objectives, learn, made_of
from galpipe.evaluate.objectives_figure import draw as draw_curves
from galpipe.evaluate.probes import Question, embedded, prepare
from galpipe.evaluate.trainings import draw
from galpipe.labels.answers import QUESTIONS, SIZE, HumanAnswers
from galpipe.labels.labelset import open_labels
from galpipe.labels.mapping import mapped_votes
from galpipe.labels.target import TargetSpec
from galpipe.lvm.card import card_text, with_objectives
from galpipe.lvm.contrast import vicreg
from galpipe.lvm.model import new_model
from galpipe.lvm.pack import write_pack
from galpipe.lvm.realset import PICTURE, RealSet, write_real
from galpipe.lvm.teacher import COMPONENTS, Lesson, write_lesson
from galpipe.lvm.train import TrainSettings
from galpipe.lvm.weights import load_model, model_hash, read_card, save_model
from tests.labels.makers import jpeg, parquet
from tests.lvm.toy import TINY, toy_pack

COUNT = 12
KINDS = Question("two kinds, 8 labels", "kinds.parquet", TargetSpec("kind"), 8)
WANTED = Comparison(seconds=0.4, seeds=2, bricks=1, model=TINY, rates=Rates(4, 4, 4, 3e-3), questions=(KINDS,))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """What a training would leave, and a label set, all tiny; the untuned teacher was asked already."""
    folder = tmp_path_factory.mktemp("objectives")
    places = Folders(folder / "training", folder / "labels", folder / "work")
    pack = toy_pack(COUNT)
    write_pack(places.training / "packs" / "train" / "a", toy_pack(COUNT, 5))
    rng = np.random.default_rng(3)
    answers = HumanAnswers(rng.random((COUNT, SIZE), np.float32), np.ones((COUNT, QUESTIONS), np.float32))
    votes, rows = (mapped_votes("mock", pack.sources),), (np.arange(COUNT),)
    pictures = np.zeros((COUNT, 3, PICTURE, PICTURE), np.uint8)
    write_real(places.training / "real", RealSet(pack, pictures, answers, votes, rows, {"toy": {"galaxies": COUNT, "answered": COUNT}}))
    lesson = Lesson(rng.standard_normal((COUNT, COMPONENTS), np.float32), answers)
    write_lesson(places.training / "lesson", lesson)
    write_lesson(places.work / ASKED, lesson)
    places.labels.mkdir()
    kinds = ["round" if row % 2 else "long" for row in range(30)]
    parquet(places.labels / KINDS.file, [jpeg(row) for row in range(30)], id=[str(row) for row in range(30)], kind=kinds)
    return places


def material(given: Folders) -> Material:
    return Material(given.training, given.work, WANTED.model, WANTED.rates, WANTED.seed, WANTED.bricks)


def test_every_arm_begins_with_the_same_encoder(given: Folders) -> None:
    first, *others = (ARMS[name](material(given)).model.encoder.state_dict() for name in ARMS)
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize("name", [name for name in ARMS if name != "none"])
def test_every_arm_learns(given: Folders, name: str) -> None:
    arm = ARMS[name](material(given))
    before = {key: value.clone() for key, value in arm.model.encoder.state_dict().items()}
    curve = learn(arm, replace(WANTED, seconds=4.0), lambda encoder: {})
    total = [sum(point["losses"].values()) for point in curve]
    assert total[-1] < total[0]
    assert any(not torch.equal(value, before[key]) for key, value in arm.model.encoder.state_dict().items())


def test_the_budget_is_kept_to_a_step_and_probes_are_free(given: Folders) -> None:
    arm = ARMS["contrast"](material(given))
    steps: list[float] = []

    def slow(encoder: torch.nn.Module) -> dict[str, dict[str, float]]:
        assert not encoder.training
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        return {}

    began = time.process_time()
    curve = learn(arm, WANTED, slow, steps.append)
    took = time.process_time() - began
    longest = max(np.diff([0.0, *steps]))
    assert [point["share"] for point in curve] == list(SHARES)
    for point in curve:
        assert point["share"] * WANTED.seconds <= point["seconds"] < point["share"] * WANTED.seconds + longest + 1e-9
    # the probes' 1.2 s are beyond the budget
    assert curve[-1]["seconds"] < took - 4 * 0.3 + 1e-3
    assert curve[-1]["steps"] == len(steps)


def test_a_second_call_runs_nothing_and_a_killed_one_goes_on(given: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places, wanted = replace(given, work=tmp_path / "work"), replace(WANTED, arms=("none", "reconstruction"))

    def killed(name: str, used: int, budget: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_objectives(wanted, places, killed)
    assert sorted(path.name for path in places.work.iterdir()) == ["none.json"]
    ran: list[str] = []
    real_run = objectives.run_arm

    def watched(name: str, *rest: Any) -> dict[str, Any]:
        ran.append(name)
        return real_run(name, *rest)

    monkeypatch.setattr(objectives, "run_arm", watched)
    found = compare_objectives(wanted, places)
    assert ran == ["reconstruction"]
    assert compare_objectives(wanted, places) == found and len(ran) == 1
    with pytest.raises(ConfigurationError, match=r"none\.json.*'files'"):
        compare_objectives(wanted, replace(places, labels=tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match=r"none\.json.*'seed': 2"):
        compare_objectives(replace(wanted, seed=2), places)


def test_a_probe_asks_as_few_shot_does(given: Folders) -> None:
    probe = prepare(given.labels, KINDS, 3)
    labels = open_labels(given.labels / KINDS.file)
    learned, asked, _ = sides(labels, None, KINDS.target)
    assert probe.facts["rows"] == {"training": len(learned.rows), "test": len(asked.rows)}
    names = probe.stamps.sources["id"].to_pylist()
    for seed, (rows, codes) in enumerate(probe.draws):
        drawn = draw(learned.answers, KINDS.shots, 2, seed)
        assert [int(names[row]) for row in rows] == learned.rows[drawn].tolist() and codes.tolist() == learned.answers[drawn].tolist()
    assert [int(names[row]) for row in probe.asked] == asked.rows.tolist()
    encoder = new_model(TINY, 1).eval().encoder
    score = probe.score(encoder)
    assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1 and score["error"] == pytest.approx(score["std"] / 2**0.5)
    assert embedded(encoder, probe.stamps).shape == (len(probe.stamps), TINY.embedding)


def test_vicreg_wants_views_alike_and_galaxies_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.randn(4000, 3, generator=generator)
    same = vicreg(spread * 2, spread * 2)
    assert same["alike"] == 0 and same["spread"] == 0 and same["apart"] < 0.1
    collapsed = vicreg(torch.ones(8, 3), torch.ones(8, 3))
    assert collapsed["spread"] == pytest.approx(25 * (1 - 0.01)) and collapsed["apart"] == 0
    # three copies of one number: six covariances of 4 squared, for each view, over 3
    copies = spread[:, :1].expand(-1, 3) * 2
    assert vicreg(copies, copies)["apart"] == pytest.approx(2 * 6 * 16 / 3, rel=0.1)
    assert vicreg(spread, spread + 1)["alike"] == pytest.approx(25)


def compared() -> dict[str, Any]:
    def point(seconds: float, mean: float) -> dict[str, Any]:
        return {"seconds": seconds, "steps": round(seconds), "scores": {"kinds": {"mean": mean, "error": 0.01}}}

    arms = {
        "none": {"what": "nothing", "curve": [point(0, 0.61)]},
        "truth": {"what": "mock", "curve": [point(10, 0.7), point(20, 0.81)]},
    }
    probe = {"name": "kinds", "set": "toy_kinds", "labels": 8, "seeds": 2, "rows": {"training": 9, "test": 7}}
    costs = {"tuning": 800.0, "asking": 123.0}
    return {"settings": {"seconds": 20.0, "threads": 1, "seed": 1}, "probes": [probe], "costs": costs, "arms": arms}


def toy_folder(folder: Path) -> Path:
    """A model with the card of a training."""
    training: dict[str, Any] = {"stamps": 12, "train_bricks": ["a"], "calibration_bricks": [], "held_bricks": ["a"], "seconds": 60.0}
    training |= {"began": "", "code": "1", "sky_version": 1, "processor": "AVX2", "real_stamps": 0, "real_sets": {}}
    settings = TrainSettings(model=TINY)
    training["settings"] = json.loads(json.dumps(asdict(settings)))
    card = {"name": "toy", "version": "1", "training": training, "scores": {}}
    save_model(folder, new_model(TINY, 1), card, card_text(card, TINY))
    return folder


def test_the_card_shows_the_comparison_and_the_weights_stay(tmp_path: Path) -> None:
    folder = toy_folder(tmp_path / "model")
    before, weights = model_hash(folder), (folder / "model.safetensors").read_bytes()
    with_objectives(folder, compared())
    with_objectives(folder, compared())
    text = (folder / "MODEL_CARD.md").read_text()
    assert text.count("## How the objectives compare") == 1 and text.index("How the objectives") < text.index("## Limits")
    assert "| truth | mock | 20 | 20 | 0.810 ± 0.010 |" in text and "800 s by the clock" in text and "123 s of processor time" in text
    assert read_card(folder)["objectives"] == compared()
    assert load_model(folder).model_hash == before and (folder / "model.safetensors").read_bytes() == weights
    save_model(tmp_path / "bare", new_model(TINY, 1), {"name": "toy", "version": "1"}, "")
    with pytest.raises(ConfigurationError, match="card of a model trained with heads"):
        with_objectives(tmp_path / "bare", compared())
    assert "objectives" not in read_card(tmp_path / "bare")


def test_the_command_draws_and_writes_what_is_finished(tmp_path: Path) -> None:
    folder, work = toy_folder(tmp_path / "model"), tmp_path / "work"
    work.mkdir()
    told = compared()
    wanted, folders = Comparison(seconds=20.0, arms=tuple(told["arms"])), Folders(tmp_path, tmp_path, work)
    for name, arm in told["arms"].items():
        (work / f"{name}.json").write_text(json.dumps(arm | {"probes": told["probes"], "bound": made_of(folders, wanted)}))
    asked = ["--training", str(tmp_path), "--labels", str(tmp_path), "--work", str(work), "--seconds", "20", "--arms", "none,truth"]
    written = ["--plot", str(tmp_path / "curves.png"), "--table", str(tmp_path / "table.md"), "--into", str(folder)]
    result = CliRunner().invoke(evaluate, ["objectives", *asked, *written, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["arms"] == told["arms"] and found["costs"] == {"tuning": None, "asking": None}
    assert "| truth | mock | 20 | 20 | 0.810 ± 0.010 |" in (tmp_path / "table.md").read_text()
    assert "## How the objectives compare" in (folder / "MODEL_CARD.md").read_text() and (tmp_path / "curves.png").stat().st_size > 1000
    refused = CliRunner().invoke(evaluate, ["objectives", *asked[:-1], "none,magic", "--json"])
    assert refused.exit_code == 2 and "'magic'" in refused.stdout


def test_curves_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_bytes(draw_curves(compared()))
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 500 and len(np.unique(np.asarray(image.convert("L")))) > 10
