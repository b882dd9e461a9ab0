"""A head taught anew leaves everything else as it was."""

from __future__ import annotations

from pathlib import Path

import torch

from galpipe.lvm.loop import LoopSettings
from galpipe.lvm.model import new_model
from galpipe.lvm.refit import refit
from tests.lvm.toy import TINY, toy_pack


def test_only_the_named_head_learns(tmp_path: Path) -> None:
    model = new_model(TINY, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = refit(model, ("restoration",), toy_pack(4), LoopSettings(2, 2, 1e-2, checkpoint=1), tmp_path)
    assert [item["step"] for item in history] == [1, 2]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("heads.restoration_head.") for name in changed)
