"""Tasks of label files: learned frozen, partly and whole, calibrated on groups, usable as any model, refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli.model import train
from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.supervised import Recipe
from galpipe.heads.base import StampContext
from galpipe.heads.classes import Classes, column_part, expected_calibration_error, half_width, temperature
from galpipe.labels.groups import group_rows
from galpipe.labels.labelset import open_labels
from galpipe.labels.target import TargetSpec
from galpipe.lvm.encoder import LabelTask, ModelSettings
from galpipe.lvm.labelled import Wanted, learn_task, split
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import save_model
from tests.evaluate.test_fewshot import tinted, two_kinds
from tests.labels.makers import jpeg, parquet
from tests.lvm.toy import TINY, toy_stamps

KIND = TargetSpec("kind")


def base() -> Predictor:
    return Predictor(new_model(TINY, 1), {"name": "tiny", "version": "0", "scores": {"brick": {}}}, "abc", device_of("cpu"))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("task")
    labels = two_kinds(folder / "labels.parquet", 48)
    return folder / "model", learn_task(labels, Wanted("tint", KIND), base(), folder / "model")


class TestFrozen:
    def test_what_is_plain_is_learned_and_scored_on_other_galaxies(self, frozen: tuple[Path, dict[str, object]]) -> None:
        _, facts = frozen
        scores = facts["scores"]["after"]  # type: ignore[index]
        assert set(scores) == {"grz", "rz", "gz", "gr"} and scores["grz"]["auc"] > 0.95
        assert sum(facts["rows"].values()) == 48 and min(facts["rows"].values()) >= 4  # type: ignore[attr-defined]

    def test_the_model_answers_everything_it_did_and_the_task(self, frozen: tuple[Path, dict[str, object]]) -> None:
        before, after = base(), Predictor.load(frozen[0], device="cpu")
        table = after.predict(toy_stamps(3), batch=4)
        chances = np.stack([table[f"tint_{name}_probability"].to_numpy() for name in ("bright", "dark")])
        assert chances.sum(axis=0) == pytest.approx([1, 1, 1], abs=1e-5)
        assert table.schema.field("tint_dark_probability").metadata[b"learned"] == b"user labels"
        old = before.predict(toy_stamps(3), batch=4)
        assert set(old.column_names) < set(table.column_names)
        assert table["lvm_mag_r"].to_numpy() == pytest.approx(old["lvm_mag_r"].to_numpy(), abs=0.05)

    def test_the_card_tells_what_taught_it(self, frozen: tuple[Path, dict[str, object]]) -> None:
        card = json.loads((frozen[0] / "card.json").read_text())
        assert card["settings"]["tasks"] == [{"name": "tint", "classes": ["bright", "dark"], "zero": 0.0, "unit": 1.0}]
        assert card["began"] == {"name": "tiny", "version": "0", "hash": "abc"} and card["scores"] == {"brick": {}}
        assert card["tasks"]["tint"]["route"] == "JPEG route"
        assert "| grz | after |" in (frozen[0] / "MODEL_CARD.md").read_text()

    def test_a_second_task_joins_the_first(self, frozen: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
        labels = two_kinds(tmp_path / "labels.parquet", 40)
        start = Predictor.load(frozen[0], device="cpu")
        facts = learn_task(labels, Wanted("size", TargetSpec("size")), start, tmp_path / "two")
        assert set(facts["scores"]["after"]["grz"]) == {"galaxies", "r2", "rmse", "coverage"}
        table = Predictor.load(tmp_path / "two", device="cpu").predict(toy_stamps(2), batch=4)
        low, value, high = (table[f"size_value{end}"].to_numpy() for end in ("_lo", "", "_hi"))
        assert (low < value).all() and (value < high).all()
        assert table["tint_dark_probability"].null_count == 0
        with pytest.raises(ConfigurationError, match="a task of a new name"):
            learn_task(labels, Wanted("tint", KIND), start, tmp_path / "three")


@pytest.mark.parametrize("tune", ["partial", "full"])
def test_tuning_changes_what_it_says_and_leaves_the_start_alone(tmp_path: Path, tune: str) -> None:
    start = base()
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    fast = Recipe(epochs=3, patience=3, rate=3e-3, decay=0.0, batch=8)
    labels = two_kinds(tmp_path / "labels.parquet", 40)
    learn_task(labels, Wanted("tint", KIND, tune, recipe=fast), start, tmp_path / "model")  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in start.model.state_dict().items())
    model = Predictor.load(tmp_path / "model", device="cpu")
    assert model.model.names == ("tint",)
    moved = [
        name.split(".")[0] + "." + name.split(".")[1]
        for name, value in model.model.encoder.state_dict().items()
        if (value - before[f"encoder.{name}"]).abs().max() > 1e-3
    ]
    late = {"stages.3", "norms.3", "embed.0", "embed.2"}
    assert moved and (set(moved) <= late if tune == "partial" else set(moved) - late)
    assert model.predict(toy_stamps(2), batch=2).column_names[:2] == ["tint_bright_probability", "tint_dark_probability"]


def test_a_galaxy_is_in_one_part_only(tmp_path: Path) -> None:
    images = [tinted(index // 2, index % 4 < 2) for index in range(60)]
    kinds = ["bright" if index % 4 < 2 else "dark" for index in range(60)]
    labels = open_labels(parquet(tmp_path / "a.parquet", images, id=[str(index) for index in range(60)], kind=kinds))
    parts = split(labels, labels.target(KIND), (group_rows([labels]), "x"), [])
    where = {int(row): name for name, part in parts.by_name().items() for row in part.rows}
    assert len(where) == 60 and all(where[row] == where[row + 1] for row in range(0, 60, 2))


class TestRefused:
    def test_constant_targets_unknown_classes_and_columns(self, tmp_path: Path) -> None:
        labels = open_labels(parquet(tmp_path / "a.parquet", [jpeg(k) for k in range(3)], id=list("abc"), kind=["x"] * 3))
        with pytest.raises(BadData, match="at least two different values of kind, got only 'x'"):
            learn_task(labels, Wanted("tint", KIND), base(), tmp_path / "m")
        with pytest.raises(ConfigurationError, match="classes of kind among"):
            learn_task(labels, Wanted("tint", TargetSpec.parse("kind", "x,y")), base(), tmp_path / "m")
        with pytest.raises(ConfigurationError, match="a label column among"):
            learn_task(labels, Wanted("tint", TargetSpec("color")), base(), tmp_path / "m")
        assert not (tmp_path / "m").exists()

    def test_too_few_galaxies(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match="at least 4 galaxies in the part"):
            learn_task(two_kinds(tmp_path / "a.parquet", 6), Wanted("tint", KIND), base(), tmp_path / "m")

    def test_missing_images_are_counted_and_named(self, tmp_path: Path) -> None:
        images = [tinted(index, index % 2 == 0) for index in range(50)]
        images[7], images[9] = None, b"not a picture"  # type: ignore[call-overload]
        kinds = ["bright", "dark"] * 25
        labels = open_labels(parquet(tmp_path / "a.parquet", images, id=[f"g{index}" for index in range(50)], kind=kinds))
        facts = learn_task(labels, Wanted("tint", KIND), base(), tmp_path / "m")
        assert sorted(item["id"] for item in facts["dropped"]) == ["g7", "g9"] and sum(facts["rows"].values()) == 48

    @pytest.mark.parametrize("name", ["Tint", "3rd", "my task", ""])
    def test_names_that_make_no_columns(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="a task named in lower case"):
            Classes.of(LabelTask(name, ("a", "b")), TINY)

    def test_classes_that_share_a_column_and_tasks_that_share_a_name(self) -> None:
        with pytest.raises(ConfigurationError, match="columns have different names"):
            Classes.of(LabelTask("kind", ("E+", "e-")), TINY)
        with pytest.raises(ConfigurationError, match="heads of different names"):
            GalaxyModel(ModelSettings(**{**TINY.as_dict(), "tasks": (LabelTask("morphology", ("a", "b")),)}))
        with pytest.raises(ConfigurationError, match="a way to tune among"):
            Wanted("tint", KIND, "some")  # type: ignore[arg-type]


@given(st.text(max_size=12))
@settings(deadline=None, max_examples=50)
def test_any_class_becomes_part_of_a_column_s_name(name: str) -> None:
    assert set(column_part(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


def test_settings_with_tasks_come_back() -> None:
    whole = ModelSettings(tasks=(LabelTask("kind", ("a", "b")), LabelTask("metallicity", (), 8.7, 0.2)))
    assert ModelSettings.from_dict(json.loads(json.dumps(whole.as_dict()))) == whole


class TestCalibration:
    def test_the_temperature_that_the_answers_need_is_found(self) -> None:
        rng = np.random.default_rng(3)
        logits = rng.normal(0, 2, (4000, 3))
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        codes = np.array([rng.choice(3, p=row) for row in chances])
        found = temperature(logits * 2.5, codes)
        assert found == pytest.approx(2.5, rel=0.1)
        assert expected_calibration_error(chances, codes) < 0.03
        sure = np.eye(3)[logits.argmax(axis=1)]
        assert expected_calibration_error(sure, codes) > 0.2
        assert temperature(logits[:5], codes[:5]) == 1.0

    def test_the_interval_holds_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(4)
        held = []
        for _ in range(200):
            own, new = rng.standard_t(4, 60), rng.standard_t(4, 60)
            held.append((np.abs(new) <= half_width(np.zeros(60), own)).mean())
        assert np.mean(held) == pytest.approx(0.9, abs=0.015)

    def test_each_set_of_bands_has_its_own(self) -> None:
        head = Classes.of(LabelTask("kind", ("a", "b")), TINY)
        rng = np.random.default_rng(5)
        truth = rng.integers(0, 2, 400)
        strong = np.stack([-truth, truth], axis=1) * 2.0 + rng.normal(0, 2, (400, 2))
        weak = rng.normal(0, 2, (400, 2))
        head.calibrate({"answer": np.concatenate([strong, weak]), "truth": np.tile(truth, 2), "bands": np.repeat([7.0, 6.0], 400)})
        assert head.careful[6] > head.careful[7] and head.careful[1] == head.careful[6]
        valid = np.ones((1, 3, 9, 9), np.float32)
        valid[:, 0] = 0
        context = StampContext(pa.table({"ra": [0.0]}), 1, 4, 0.262, valid, valid)
        table = head.decode({"answer": np.array([[0, 3]], np.float32)}, context)
        assert table["kind_b_probability"][0].as_py() == pytest.approx(1 / (1 + np.exp(-3 / float(head.careful[6]))), abs=1e-5)


def test_command(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny", new_model(TINY, 1), {"name": "tiny", "version": "1"}, "")
    two_kinds(tmp_path / "a.parquet", 40)
    call = ["--root", str(tmp_path / "root"), "--model", str(tmp_path / "tiny"), "--task", "tint", "--labels", str(tmp_path / "a.parquet")]
    answer = CliRunner().invoke(train, [*call, "--target", "size", "--at-least", "20", "--set", "threads=1", "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["classes"] == ["no", "yes"] and told["counts"] == told["rows"] and told["failures"] == []
    folder = tmp_path / "root" / "models" / "tint" / "1"
    assert told["model"] == str(folder) and (folder / "card.json").exists()
    for wrong, what in ((["--task", "tint"], "--labels, --target"), ([*call, "--target", "kind", "--classes", "bright,blue"], "blue")):
        refused = CliRunner().invoke(train, [*wrong, "--root", str(tmp_path / "root"), "--model", str(tmp_path / "tiny"), "--json"])
        assert refused.exit_code == 2 and what in json.loads(refused.stdout)["failures"][0]["reason"]
