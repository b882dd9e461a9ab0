from __future__ import annotations

import pytest
import torch

from galpipe.lvm.hyperbolic import asinh, sinh

VALUES = torch.cat([torch.linspace(-3, 3, 101), torch.linspace(-12, 12, 49)])


def test_the_fast_ones_are_what_they_are_called() -> None:
    assert sinh(VALUES).numpy() == pytest.approx(torch.sinh(VALUES).numpy(), rel=1e-6, abs=1e-7)
    assert asinh(8e4 * VALUES).numpy() == pytest.approx(torch.asinh(8e4 * VALUES).numpy(), abs=1e-5)
    assert asinh(sinh(VALUES)).numpy() == pytest.approx(VALUES.numpy(), abs=1e-5)
