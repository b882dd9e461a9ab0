from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from galpipe.errors import ConfigurationError
from galpipe.galaxyzoo import ANSWERS, slices
from galpipe.heads.base import Head, StampContext, Truth, head_class
from galpipe.heads.detection import Detection
from galpipe.heads.morphology import QUESTIONS, Morphology
from galpipe.heads.objectlist import box_iou, decode_runs, encode_runs, find, to_sky
from galpipe.heads.parameters import Parameters
from galpipe.heads.quantities import QUANTITIES, SIZE, angle_difference, decode_angle, encode_angle, encoded_truth
from galpipe.heads.redshiftpdf import BINS
from galpipe.heads.votes import dirichlet_multinomial_loss
from galpipe.lvm.data import load_truth
from galpipe.lvm.encoder import ModelSettings
from tests.lvm.toy import TINY, toy_pack

HEADS = ("morphology", "parameters", "detection", "restoration", "domain", "lens")


def context(count: int = 2) -> StampContext:
    pixels = np.zeros((count, 3, 160, 160), np.float32)
    return StampContext(toy_pack(count).sources, 152, 4, 0.262, pixels, np.ones_like(pixels))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_found_by_its_module_s_name(name: str) -> None:
    head = head_class(name).build(TINY)
    assert isinstance(head, Head)
    assert head.name == name
    names = [column.name for column in head.columns()]
    assert len(set(names)) == len(names)
    assert all(column.description for column in head.columns())


def test_a_module_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a subclass of Head"):
        head_class("sep_baseline")


def test_the_tree_has_ten_questions_and_34_answers() -> None:
    assert len(QUESTIONS) == 10
    assert len(ANSWERS) == 34
    assert "spiral-arm-count_more-than-4" in ANSWERS


def test_vote_fractions_add_up_and_lie_in_their_interval() -> None:
    rng = np.random.default_rng(1)
    head = Morphology.build(TINY)
    raw = {"concentration": np.exp(rng.uniform(-3, 5, (6, 34))).astype(np.float32)}
    columns = head.decode(raw, context(6))
    assert list(columns) == [column.name for column in head.columns()]
    for question, answers in QUESTIONS.items():
        parts = [np.asarray(columns[f"{question}_{answer}_fraction"]) for answer in answers]
        assert np.sum(parts, axis=0) == pytest.approx(1.0, abs=1e-5)
        asked = np.asarray(columns[f"{question}_proportion_asked"])
        assert ((asked >= 0) & (asked <= 1)).all()
        for answer, middle in zip(answers, parts, strict=True):
            low, high = (np.asarray(columns[f"{question}_{answer}_fraction_{end}"]) for end in ("lo", "hi"))
            assert ((low >= 0) & (low <= middle) & (middle <= high) & (high <= 1)).all()


def test_a_question_is_asked_as_often_as_its_parents_say() -> None:
    concentration = np.ones((1, 34), np.float32)
    concentration[0, slices()["smooth-or-featured"]] = [1, 3, 0]
    concentration[0, slices()["disk-edge-on"]] = [1, 1]
    concentration[0, slices()["has-spiral-arms"]] = [3, 1]
    columns = Morphology.build(TINY).decode({"concentration": concentration + 1e-6}, context(1))
    assert columns["has-spiral-arms_proportion_asked"][0].as_py() == pytest.approx(0.375, abs=1e-4)
    assert columns["spiral-winding_proportion_asked"][0].as_py() == pytest.approx(0.28125, abs=1e-4)
    assert columns["merging_proportion_asked"][0].as_py() == pytest.approx(1.0, abs=1e-4)


def test_vote_loss_is_the_dirichlet_multinomial_likelihood() -> None:
    concentration, counts = np.array([[2.0, 3.0, 0.5]]), np.array([[4, 1, 2]])
    loss = dirichlet_multinomial_loss(torch.tensor(concentration), torch.tensor(counts, dtype=torch.float64))
    # scipy's includes the number of orders in which the votes can come, which no model changes
    orders = stats.multinomial.logpmf(counts[0], 7, [1 / 3] * 3) + 7 * np.log(3)
    assert float(loss) == pytest.approx(-(stats.dirichlet_multinomial.logpmf(counts[0], concentration[0], 7) - orders))


def test_unasked_questions_cost_nothing() -> None:
    loss = dirichlet_multinomial_loss(torch.rand(3, 4) + 0.1, torch.zeros(3, 4))
    assert loss.abs().max() < 1e-5


@given(angle=st.floats(0, 179.99))
def test_angles_come_back(angle: float) -> None:
    vector = encode_angle(np.array([angle]))
    back, sigma = decode_angle(vector, np.full((1, 2), 0.1))
    assert angle_difference(back, np.array([angle]))[0] < 1e-6
    assert 0 < sigma[0] <= 0.68 * 90


def test_the_angle_has_no_jump_at_half_a_turn() -> None:
    low, high = encode_angle(np.array([0.05])), encode_angle(np.array([179.95]))
    assert np.abs(low - high).max() < 0.01
    head = Parameters.build(TINY)
    mean = np.zeros((1, SIZE), np.float32)
    mean[0, -2:] = (1.0, -1e-9)
    columns = head.decode({"mean": mean, "log_variance": np.zeros_like(mean), "redshift": np.zeros((1, BINS), np.float32)}, context(1))
    assert 0 <= columns["lvm_position_angle"][0].as_py() < 180


@given(values=st.lists(st.floats(0.05, 5.0), min_size=1, max_size=5), which=st.integers(0, len(QUANTITIES) - 1))
def test_quantities_come_back(values: list[float], which: int) -> None:
    item = QUANTITIES[which]
    kept = np.clip(values, item.low, item.high)
    back, sigma = item.decode(item.encode(kept), np.full(len(kept), 0.1))
    assert back == pytest.approx(kept, rel=1e-9)
    assert (sigma > 0).all()


def test_parameters_stay_in_their_range() -> None:
    head = Parameters.build(TINY)
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 50, (20, SIZE)).astype(np.float32)
    raw = {"mean": mean, "log_variance": mean / 50, "redshift": rng.normal(0, 20, (20, BINS)).astype(np.float32)}
    columns = head.decode(raw, context(20))
    assert list(columns) == [column.name for column in head.columns()]
    for item in QUANTITIES:
        values, low, high = (np.asarray(columns[item.column + end]) for end in ("", "_lo95", "_hi95"))
        assert ((values >= np.float32(item.low)) & (values <= np.float32(item.high))).all()
        assert ((low <= values) & (values <= high)).all()
        assert np.isfinite(np.asarray(columns[f"{item.column}_sigma"])).all()
    low, middle, high = (np.asarray(columns[f"z_mock{end}"]) for end in ("_lo", "", "_hi"))
    assert ((low >= 0) & (low <= middle) & (middle <= high) & (high <= 2)).all()
    pdf = np.array([row.as_py() for row in columns["z_mock_pdf"]], np.float64)
    assert pdf.shape == (20, BINS) and pdf.sum(axis=1) == pytest.approx(1.0, abs=0.02)


def test_magnitudes_are_learned_without_dust_and_round_galaxies_have_no_angle() -> None:
    table = toy_pack(2).sources
    table = table.set_column(table.column_names.index("axis_ratio"), "axis_ratio", pa.array([0.5, 0.95]))
    dusty = table.append_column("mw_transmission_r", pa.array([0.5, 1.0]))
    bare, corrected = encoded_truth(table), encoded_truth(dusty)
    assert bare[0, 1] - corrected[0, 1] == pytest.approx(2.5 * np.log10(2), abs=1e-4)
    assert corrected[1, 1] == bare[1, 1]
    assert np.isfinite(bare[0, -2:]).all()
    assert np.isnan(bare[1, -2:]).all()


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_masks_come_back_from_their_runs(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    assert np.array_equal(decode_runs(encode_runs(mask), mask.shape), mask)


def perfect_maps(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs that say exactly what the targets say."""
    targets = {name: value.numpy() for name, value in Detection.build(TINY).targets(truth).items()}
    wanted = targets["maps"][0]
    maps = np.zeros((11, 80, 80), np.float32)
    maps[0] = np.where(wanted[2] >= 1, 5.0, -8.0)
    maps[1:3], maps[3:7], maps[7] = wanted[3:5], wanted[5:9], np.where(wanted[9] > 0, 9.0, -9.0)
    maps[8:10] = np.nan_to_num(targets["pointers"][0])
    return maps, np.where(targets["foreground"][0] == 1, 9.0, -9.0).astype(np.float32)


def test_detection_decodes_what_its_targets_encode() -> None:
    pack = toy_pack(1)
    segments = np.zeros((1, 152, 152), np.uint8)
    segments[0, 40:61, 30:51], segments[0, 100:111, 90:121], segments[0, 0:5, 0:5] = 1, 2, 255
    rows = [[40, 50, 30, 40, 50, 60, 0, 0], [104.5, 105.25, 90, 100, 120, 110, 1, 0], [2, 2, 0, 0, 4, 4, 0, 1]]
    pack = dataclasses.replace(pack, segments=segments, objects=np.array(rows, np.float32), object_start=np.array([0, 3]))
    truth = load_truth(pack, np.array([0]))
    maps, foreground = perfect_maps(truth)
    found = find(maps, foreground, context(1))
    assert len(found.scores) == 2
    order = np.argsort(found.centers[:, 0])
    assert found.centers[order] == pytest.approx(np.array([[44, 54], [108.5, 109.25]]), abs=1e-3)
    assert found.boxes[order] == pytest.approx(truth.objects[0][:2, 2:6], abs=1e-3)
    assert (found.stars[order] > 0.5).tolist() == [False, True]
    assert [int((found.owner == index).sum()) for index in order] == [21 * 21, 11 * 31]
    table = Detection.build(TINY).decode({"maps": maps[None], "foreground": foreground[None]}, context(1))
    listed = table["detections"][0].as_py()
    assert table["n_detections"][0].as_py() == len(listed) == 2
    star = next(item for item in listed if item["class"] == "star")
    assert star["area"] == 11 * 31
    mask = decode_runs(star["mask_rle"], (int(star["y1"] - star["y0"]) + 1, int(star["x1"] - star["x0"]) + 1))
    assert mask.sum() == star["area"]


def test_positions_cross_ra_zero() -> None:
    anchor = np.array([359.9999, 60.0, 76.0, 76.0])
    assert to_sky(76, 76, anchor, 0.262) == pytest.approx((359.9999, 60.0))
    ra, dec = to_sky(66, 86, anchor, 0.262)
    assert ra == pytest.approx(359.9999 + 10 * 0.262 / 3600 / np.cos(np.deg2rad(60)) - 360, abs=1e-6)
    assert dec == pytest.approx(60 + 10 * 0.262 / 3600, abs=1e-6)


def test_box_overlap_counts_inclusive_pixels() -> None:
    box = np.array([0.0, 0.0, 9.0, 9.0])
    assert box_iou(box, box) == pytest.approx(1.0)
    assert box_iou(box, box + 5) == pytest.approx(25 / 175)
    assert box_iou(box, box + 20) == 0


def test_model_settings_come_back() -> None:
    assert ModelSettings.from_dict({**TINY.as_dict(), "depths": [1, 1, 1, 1]}) == TINY
    with pytest.raises(ConfigurationError, match="model settings of this version"):
        ModelSettings.from_dict({"wings": 2})
