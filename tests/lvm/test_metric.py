"""The embedding's metric: what people said stretches the axes along which it shows, and no answer of a head changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from galpipe.evaluate.linear import class_scores
from galpipe.evaluate.scores import auc
from galpipe.heads.classes import Classes
from galpipe.labels.answers import QUESTIONS, SIZE, HumanAnswers, nothing
from galpipe.lvm.distill import turn_loss
from galpipe.lvm.encoder import LabelTask
from galpipe.lvm.inputs import joined_inputs, stamp_inputs, turned_inputs
from galpipe.lvm.metric import KEPT, answers_metric, set_metric
from galpipe.lvm.model import new_model
from galpipe.lvm.realset import PICTURE, RealSet
from galpipe.lvm.weights import load_model, save_model
from tests.lvm.toy import TINY, toy_pack

GALAXIES = 400


def told_by(embeddings: np.ndarray, axis: int) -> HumanAnswers:
    """People who see one axis of the embedding only."""
    values, weights = np.zeros((len(embeddings), SIZE), np.float32), np.zeros((len(embeddings), QUESTIONS), np.float32)
    values[:, 0], weights[:, 0] = 1 / (1 + np.exp(-embeddings[:, axis])), 1
    return HumanAnswers(values, weights)


def test_the_axis_that_people_see_becomes_the_longest() -> None:
    embeddings = np.random.default_rng(1).standard_normal((GALAXIES, 12)) * np.linspace(1, 9, 12)
    matrix, told = answers_metric(embeddings, told_by(embeddings, 3))
    length = np.linalg.norm(matrix * embeddings.std(axis=0)[:, None], axis=1)
    assert told == 1 and length.argmax() == 3 and length[3] > 3 * np.delete(length, 3).max()
    assert np.var(embeddings @ matrix, axis=0).mean() == pytest.approx(1)
    # nothing is lost: what no answer asked for keeps its share
    assert np.linalg.cond(matrix * embeddings.std(axis=0)[:, None]) < 2 * np.sqrt(12 / KEPT)


def test_few_labels_of_a_like_kind_go_further() -> None:
    rng = np.random.default_rng(2)
    embeddings = rng.standard_normal((1300, 40))
    matrix, _ = answers_metric(embeddings[:GALAXIES], told_by(embeddings[:GALAXIES], 5))
    kind = (embeddings[:, 5] + 0.5 * embeddings[:, 6] > 0).astype(np.int64)
    scores = {}
    for name, seen in (("plain", embeddings), ("metric", embeddings @ matrix)):
        got = [class_scores(seen[k : k + 30], kind[k : k + 30], seen[1000:], 2, 0, scaled=False) for k in range(500, 620, 30)]
        scores[name] = float(np.mean([auc(kind[1000:] == 1, item[:, 1]) for item in got]))
    assert scores["metric"] > scores["plain"] + 0.1


def test_heads_answer_as_before_and_the_file_keeps_the_metric(tmp_path: Path) -> None:
    model = new_model(TINY, 1).eval()
    pack = toy_pack(60)
    inputs = stamp_inputs(pack.stamps())
    pictures = np.zeros((60, 3, PICTURE, PICTURE), np.uint8)
    with torch.inference_mode():
        before = model(inputs)
    answers = told_by(before.embedding.numpy(), 2)
    real = RealSet(pack, pictures, answers, (), (), {})
    told = set_metric(model, real, tmp_path)
    assert told["answers"] == 1 and told["galaxies"] == 60 and 1 <= told["axes"] <= TINY.embedding
    again = new_model(TINY, 1).eval()
    assert set_metric(again, real, tmp_path) == told and torch.equal(again.encoder.metric, model.encoder.metric)
    # another encoder in the same folder does not get this one's
    other = new_model(TINY, 2).eval()
    set_metric(other, real, tmp_path)
    assert not torch.allclose(other.encoder.metric, model.encoder.metric, atol=0.1)
    save_model(tmp_path / "m", model, {"name": "toy", "version": "1"}, "")
    loaded = load_model(tmp_path / "m").model
    for one, close in ((model, 1e-3), (loaded, 5e-2)):
        with torch.inference_mode():
            after = one(inputs)
        assert not torch.allclose(after.embedding, before.embedding, atol=0.1)
        for head in ("morphology", "parameters"):
            for key, value in before.heads[head].items():
                assert torch.allclose(after.heads[head][key].float(), value.float(), rtol=close, atol=close), (head, key)


def test_without_answers_nothing_changes(tmp_path: Path) -> None:
    model = new_model(TINY, 1)
    pack = toy_pack(4)
    assert set_metric(model, RealSet(pack, np.zeros((4, 3, PICTURE, PICTURE), np.uint8), nothing(4), (), (), {}), tmp_path) == {}
    assert torch.equal(model.encoder.metric, torch.eye(TINY.embedding))


def test_turning_costs_nothing_where_the_embedding_does_not_turn() -> None:
    inputs = stamp_inputs(toy_pack(3).stamps())
    both = joined_inputs(inputs, turned_inputs(inputs, 1))
    assert len(both) == 6 and torch.equal(both.pixels[:3], inputs.pixels) and not torch.equal(both.pixels[3:], inputs.pixels)
    galaxies = torch.randn(5, 8)
    assert float(turn_loss(torch.cat([galaxies, galaxies]))) == 0
    assert float(turn_loss(torch.cat([galaxies, galaxies.flip(0)]))) > 0.5
    # one galaxy, as a rank of many may have, must not blow up
    assert float(turn_loss(torch.randn(2, 8))) == 0


def test_a_task_of_a_label_file_answers_as_before() -> None:
    head = Classes.of(LabelTask("kind", ("a", "b")), TINY)
    head.center.copy_(torch.randn(TINY.embedding))
    head.spread.copy_(torch.rand(TINY.embedding) + 0.5)
    matrix = torch.randn(TINY.embedding, TINY.embedding, dtype=torch.float64) + 3 * torch.eye(TINY.embedding)
    inputs = stamp_inputs(toy_pack(3).stamps())
    seen = new_model(TINY, 1).eval().encoder(inputs)
    before = head(seen)["answer"]
    head.rebase(matrix)
    after = head(replace(seen, embedding=(seen.embedding.double() @ matrix).float()))["answer"]
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-3)
