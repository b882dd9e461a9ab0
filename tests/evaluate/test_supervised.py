from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from galpipe.evaluate.supervised import _held, _settle


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
