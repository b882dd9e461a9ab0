from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from galpipe.errors import BadData
from galpipe.labels.answers import (
    ATTRIBUTES,
    BINARY,
    GZ2_QUESTIONS,
    QUESTIONS,
    SIZE,
    answer_loss,
    human_answers,
    places,
    soft_answers,
)


def efigi() -> pa.Table:
    values = {name: [0.5, -1.0] for name in ATTRIBUTES} | {"T": [-6.0, 11.0]}
    return pa.table(values | {"Bar_Length": [1.0, 0.0]})


def gz2(featured: float) -> pa.Table:
    columns = {}
    for question, count in GZ2_QUESTIONS.items():
        for answer in range(count):
            columns[f"{question}_a{answer:02d}_x_weighted_fraction"] = [1.0 if answer == 0 else 0.0]
    columns["t01_smooth_or_features_a00_x_weighted_fraction"] = [1 - featured]
    columns["t01_smooth_or_features_a01_x_weighted_fraction"] = [featured]
    return pa.table(columns)


def test_undetermined_attributes_say_nothing() -> None:
    found = human_answers("sdss_efigi_attributes", efigi())
    bar = ATTRIBUTES.index("Bar_Length")
    assert found.values[:, bar].tolist() == [1.0, 0.0] and found.weights[:, bar].tolist() == [1.0, 1.0]
    assert found.weights[1, : BINARY - 1].sum() == 1.0
    assert found.values[:, BINARY - 1].tolist() == [0.0, 1.0]
    assert not found.weights[:, BINARY:].any()


def test_a_question_weighs_as_many_as_were_asked_it() -> None:
    found = human_answers("sdss_gz2_votes", gz2(0.25))
    weights = dict(zip(GZ2_QUESTIONS, found.weights[0, BINARY:], strict=True))
    assert weights["t01_smooth_or_features"] == 1 and weights["t07_rounded"] == pytest.approx(0.75)
    # everybody who saw features said edge-on, so nobody was asked for bars
    assert weights["t02_edgeon"] == pytest.approx(0.25) and weights["t03_bar"] == 0
    assert weights["t09_bulge_shape"] == pytest.approx(0.25)


def test_sets_that_only_measure_answer_nothing() -> None:
    assert not human_answers("sdss_gz1_classes", pa.table({"label": ["spiral", "elliptical"]})).weights.any()


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BadData, match="Bar_Length"):
        human_answers("sdss_efigi_attributes", efigi().drop_columns(["Bar_Length"]), "here.parquet")
    with pytest.raises(BadData, match="t03_bar"):
        human_answers("sdss_gz2_votes", gz2(0.5).drop_columns(["t03_bar_a00_x_weighted_fraction"]))


def test_the_truth_has_the_least_loss_and_silence_none() -> None:
    told = human_answers("sdss_gz2_votes", gz2(0.25))
    values, weights = torch.from_numpy(told.values), torch.from_numpy(told.weights)
    right = torch.full((1, SIZE), -9.0)
    for place in places():
        right[:, place] = torch.log(values[:, place] + 1e-6)
    least = float(answer_loss(right, values, weights))
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = right + torch.from_numpy(rng.normal(0, 1, right.shape).astype(np.float32))
        assert float(answer_loss(other, values, weights)) > least
    assert float(answer_loss(right, values, torch.zeros(1, QUESTIONS))) == 0


def test_a_network_s_answers_are_shares() -> None:
    said = soft_answers(torch.randn(4, SIZE, generator=torch.Generator().manual_seed(1)))
    for place in places():
        assert said.values[:, place].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (said.values >= 0).all() and (said.weights[:, :BINARY] == 1).all() and (said.weights <= 1).all()
