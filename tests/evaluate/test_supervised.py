from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from galpipe.evaluate.linear import class_scores, linear_solution, number_scores
from galpipe.evaluate.supervised import Learner, Recipe, _held, _settle, fit


def test_batch_normalization_answers_with_the_statistics_of_the_examples() -> None:
    examples = torch.randn(50, 3, 8, 8) * 4 + 7
    network = nn.Sequential(nn.BatchNorm2d(3))
    _settle(network, lambda batch, _: network(batch), examples, np.arange(50))
    network.eval()
    answers = network(examples)
    assert answers.mean(dim=(0, 2, 3)).abs().max() < 1e-4 and answers.std(dim=(0, 2, 3)).sub(1).abs().max() < 1e-2
    assert network[0].momentum == 0.1


@pytest.mark.parametrize(("labels", "held"), [(1, 1), (2, 1), (5, 2), (10, 4), (100, 20)])
def test_a_fifth_is_held_but_never_more_than_half(labels: int, held: int) -> None:
    assert _held(labels) == held


def _halves(rows: int) -> tuple[torch.Tensor, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Examples whose brightness tells their class, but for a few."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2, rows)
    level = torch.from_numpy((codes + rng.normal(0, 0.4, rows)).astype(np.float32))
    return level[:, None, None, None].expand(rows, 1, 4, 4).contiguous(), codes


@pytest.mark.parametrize("rate", [1e-9, 50.0])
def test_what_begins_from_a_linear_solution_is_never_left_worse_for_it(rate: float) -> None:
    examples, codes = _halves(60)
    features = examples.mean(dim=(1, 2, 3))[:, None].double().numpy()
    network = nn.Linear(1, 2)

    def begin(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        weights, intercepts = linear_solution(features[rows], codes[rows], 2, 0)
        with torch.no_grad():
            network.weight.copy_(torch.from_numpy(weights))
            network.bias.copy_(torch.from_numpy(intercepts))

    learner = Learner(network, lambda batch, _: network(batch.mean(dim=(1, 2, 3))[:, None]), begin)
    scores = fit(learner, ((examples, examples), codes, 2), (Recipe(epochs=4, patience=4, rate=rate, decay=0.0, batch=8), 0))
    # steps that are far too large leave no epoch better than none, and then the answer is the linear one on all labels
    assert scores == pytest.approx(class_scores(features, codes, features, 2, 0, scaled=False), abs=1e-4)


@pytest.mark.parametrize("codes", [np.array([0, 2] * 20), np.array([0, 1, 2, 1] * 10), np.array([1] * 40)])
def test_a_last_layer_holds_what_the_linear_model_says(codes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    features = np.random.default_rng(0).normal(size=(40, 5)) + codes[:, None]
    weights, intercepts = linear_solution(features, codes, 3, 0)
    layer = torch.softmax(torch.from_numpy(features @ weights.T + intercepts), dim=1).numpy()
    if len(np.unique(codes)) > 1:
        assert layer == pytest.approx(class_scores(features, codes, features, 3, 0, scaled=False), abs=1e-5)
    else:
        assert (layer[:, 1] > 0.99).all()


def test_a_last_layer_holds_what_the_ridge_says() -> None:
    features = np.random.default_rng(0).normal(size=(40, 5)) + 3
    values = features @ np.arange(5.0) + 7
    weights, intercepts = linear_solution(features, values, 0, 0)
    assert (features @ weights.T + intercepts)[:, 0] == pytest.approx(number_scores(features, values, features, scaled=False))
