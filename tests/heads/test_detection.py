from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galpipe.heads.base import StampContext, Truth
from galpipe.heads.detection import AROUND, Detection, box_loss, cell_boxes, quality_target
from galpipe.heads.objectlist import candidates, find
from galpipe.heads.objectmatch import FALSE, IGNORED, match_boxes, match_centers, overlaps
from galpipe.heads.objectscore import FEATURES, best_threshold, covered_shares, fit_scoring
from galpipe.lvm.data import load_truth
from galpipe.lvm.encoder import Features, ModelSettings
from tests.lvm.toy import TINY, toy_pack


def objects(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 8)


def truth_of(listed: np.ndarray) -> Truth:
    segments = np.zeros((1, 152, 152), np.uint8)
    for index, (_, _, x0, y0, x1, y1, *_) in enumerate(listed.astype(int)):
        segments[0, y0 : y1 + 1, x0 : x1 + 1] = index + 1
    pack = dataclasses.replace(toy_pack(1), segments=segments, objects=listed, object_start=np.array([0, len(listed)]))
    return load_truth(pack, np.array([0]))


def context(count: int = 1) -> StampContext:
    pixels = np.zeros((count, 3, 160, 160), np.float32)
    return StampContext(pa.table({"ra": np.zeros(count), "dec": np.zeros(count)}), 152, 4, 0.262, pixels, np.ones_like(pixels))


PAIR = objects((40.4, 50.2, 35, 45, 46, 55, 0, 0), (44.0, 57.0, 42, 56, 47, 60, 1, 0))


def said(truth: Truth, quality: float = 3.0) -> torch.Tensor:
    """Maps (1, 11, 80, 80) that say what the targets say."""
    wanted = Detection.build(TINY).targets(truth)["maps"]
    maps = torch.zeros((1, 11, 80, 80))
    maps[:, 0] = torch.where(wanted[:, 2] >= 1, 5.0, -8.0)
    maps[:, 1:7], maps[:, 7], maps[:, 10] = wanted[:, 3:9], 18 * wanted[:, 9] - 9, quality
    return maps


def test_every_cell_around_a_center_says_the_same_box() -> None:
    truth = truth_of(PAIR)
    wanted = Detection.build(TINY).targets(truth)["maps"]
    assert wanted[0, 2].unique().tolist() == pytest.approx([0.0, AROUND, 1.0])
    assert int((wanted[0, 2] >= 1).sum()) == 2
    rows, columns = torch.nonzero(wanted[0, 2] > 0, as_tuple=True)
    corner = torch.stack([columns, rows, columns, rows], dim=1) * 2.0
    boxes = cell_boxes(wanted[0, 3:9, rows, columns].T) + corner
    known = torch.from_numpy(truth.objects[0][:, 2:6]) + torch.tensor([-0.5, -0.5, 0.5, 0.5])
    away = (boxes[:, None] - known[None]).abs().amax(dim=2).amin(dim=1)
    assert float(away.max()) < 1e-3
    # every box of a cell belongs to the object that is nearer to it
    assert 9 < len(rows) <= 18


def test_a_peak_one_cell_off_still_gives_the_box() -> None:
    truth = truth_of(PAIR[:1])
    maps = said(truth).numpy()[0]
    y, x = np.argwhere(maps[0] > 0)[0]
    maps[0, y, x], maps[0, y, x + 1] = -8.0, 5.0
    found = find(maps, np.full((160, 160), -9.0, np.float32), context())
    assert found.boxes[0] == pytest.approx(truth.objects[0][0, 2:6])


def test_box_loss_is_least_at_the_truth_and_pulls_toward_it() -> None:
    truth = truth_of(PAIR)
    wanted = Detection.build(TINY).targets(truth)["maps"]
    perfect = said(truth, quality=20.0)
    assert float(box_loss(perfect, wanted)) < 1e-3
    wrong = perfect.clone()
    wrong[:, 3:7] += 0.5
    wrong.requires_grad_()
    loss = box_loss(wrong, wanted)
    loss.backward()
    assert float(loss.detach()) > 0.2
    assert wrong.grad is not None and bool((wrong.grad[:, 3:7][wanted[:, 5:9] > 0] >= 0).all())
    assert float(box_loss(perfect, torch.zeros_like(wanted))) == 0.0


def test_quality_is_the_overlap_of_boxes() -> None:
    one = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    other = torch.tensor([[0.0, 0.0, 10.0, 5.0], [20.0, 0.0, 30.0, 10.0]])
    assert quality_target(one, other).tolist() == [0.5, 0.0]


def test_each_object_is_found_once_and_ignored_ones_excuse() -> None:
    true = objects((20, 20, 15, 15, 25, 25, 0, 0), (60, 60, 55, 55, 65, 65, 0, 1), (100, 100, 98, 98, 102, 102, 0, 0))
    boxes = np.array([[15, 15, 25, 24], [16, 16, 26, 26], [50, 50, 60, 60], [56, 56, 58, 58], [95, 95, 105, 105]], np.float32)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert match_boxes(boxes, centers, true).tolist() == [0, FALSE, FALSE, IGNORED, FALSE]
    assert match_centers(centers, true).tolist() == [0, FALSE, IGNORED, IGNORED, 2]
    assert match_boxes(boxes[:0], centers[:0], true).tolist() == []
    assert match_boxes(boxes, centers, true[:0]).tolist() == [FALSE] * 5
    iou, share = overlaps(boxes[:1], true[:1, 2:6])
    assert iou[0, 0] == pytest.approx(110 / 121)
    assert share[0, 0] == pytest.approx(1.0)


def test_a_box_within_a_stronger_one_is_told() -> None:
    boxes = np.array([[0, 0, 9, 9], [2, 2, 3, 3], [5, 0, 14, 9]], np.float32)
    assert covered_shares(boxes).tolist() == [0.0, 1.0, 0.5]
    assert covered_shares(boxes[:0]).tolist() == []


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=30), st.integers(0, 5))
def test_the_threshold_is_where_f1_is_best(listed: list[tuple[float, bool]], missed: int) -> None:
    scores = np.array([score for score, _ in listed], np.float32)
    right = np.array([float(hit) for _, hit in listed])
    true = float(right.sum() + missed)

    def f1(threshold: float) -> float:
        kept = scores >= threshold
        return 2 * float(right[kept].sum()) / max(kept.sum() + max(true, 1.0), 1.0)

    threshold, best = best_threshold(np.unique(scores).astype(np.float32), np.zeros(len(np.unique(scores))), 1.0)
    assert best == 0.0 and threshold <= scores.max()
    if len(set(scores.tolist())) == len(scores):
        threshold, best = best_threshold(scores, right, true)
        assert best == pytest.approx(max(f1(value) for value in scores))
        assert f1(threshold) == pytest.approx(best)


def test_calibrated_scores_are_chances() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(0, 1, (6000, len(FEATURES)))
    features[:, 0] = 1
    coefficients = np.linspace(-1, 1, len(FEATURES))
    chance = 1 / (1 + np.exp(-features @ coefficients))
    right = (rng.random(6000) < chance).astype(float)
    fitted = fit_scoring(features, right, right.sum(), np.ones(6000, bool))
    assert fitted.coefficients == pytest.approx(coefficients, abs=0.12)
    assert np.abs(fitted.scores(features) - chance).mean() < 0.02


def test_calibration_learns_that_fragments_are_no_objects() -> None:
    """Strong peaks whose box lies inside a stronger one are false here; the uncalibrated score cannot tell."""
    head = Detection.build(ModelSettings(**TINY.as_dict() | {"heads": ("detection",)}))
    rng = np.random.default_rng(2)
    gathered: dict[str, list[np.ndarray]] = {}
    for _ in range(40):
        x, y = rng.uniform(30, 120, 2)
        truth = truth_of(objects((x, y, int(x) - 9, int(y) - 9, int(x) + 9, int(y) + 9, 0, 0)))
        maps = said(truth).numpy()[0]
        row, column = np.argwhere(maps[0] > 0)[0]
        maps[:, row + 3, column] = maps[:, row, column]
        maps[0, row + 3, column], maps[3:7, row + 3, column] = 4.0, np.log(3.0)
        batch = head.calibration({"maps": maps[None], "foreground": np.full((1, 160, 160), 9.0, np.float32)}, truth, context())
        for name, values in batch.items():
            gathered.setdefault(name, []).append(values)
    facts = head.calibrate({name: np.concatenate(parts) for name, parts in gathered.items()})
    assert facts["f1_before"] == pytest.approx(2 / 3)
    assert facts["f1_after"] == 1.0
    assert facts["calibration_error_after"] < facts["calibration_error_before"]
    table = head.decode({"maps": maps[None], "foreground": np.full((1, 160, 160), 9.0, np.float32)}, context())
    assert table["n_detections"].to_pylist() == [1]
    listed = candidates(maps, np.zeros((160, 160), np.float32), context())
    assert len(listed.boxes) == 2
    # the constants are part of the weights
    again = Detection.build(TINY)
    again.load_state_dict(head.state_dict())
    assert again.scoring().threshold == pytest.approx(facts["threshold"])


def test_calibration_without_both_kinds_changes_nothing() -> None:
    head = Detection.build(TINY)
    empty = {f"feature_{name}": np.zeros(0) for name in FEATURES} | {"right": np.zeros(0), "full": np.zeros(0), "true": np.zeros(1)}
    before = head.scoring()
    assert head.calibrate(empty) == {}
    assert np.array_equal(head.scoring().coefficients, before.coefficients)


def test_the_loss_of_a_batch_has_gradients_everywhere() -> None:
    head = Detection.build(TINY)
    targets = head.targets(truth_of(PAIR))
    decoded = torch.randn(1, TINY.decoder, 80, 80)
    features = Features((), torch.zeros(1), torch.zeros(1), torch.zeros(1), decoded, None)  # type: ignore[arg-type]
    loss = head.loss(head(features), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert all(value.grad is not None and bool((value.grad != 0).any()) for value in head.parameters())
