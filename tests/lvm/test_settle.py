"""Heads that learn on a finished encoder leave it, and morphology, as they were."""

from __future__ import annotations

from pathlib import Path

import torch

from galpipe.lvm.finetune import settle
from galpipe.lvm.loop import LoopSettings
from galpipe.lvm.model import new_model
from tests.lvm.toy import TINY, toy_pack


def test_only_heads_that_people_did_not_teach_learn(tmp_path: Path) -> None:
    model, pack = new_model(TINY, 1), toy_pack(4)
    for head in model.head_list():
        head.prepare(pack.sources)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = settle(model, pack, LoopSettings(2, 2, 1e-2, checkpoint=1), tmp_path)
    assert [item["step"] for item in history] == [1, 2]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    taught = tuple(f"heads.{name}_head." for name in ("parameters", "detection", "restoration"))
    assert all(any(name.startswith(head) for name in changed) for head in taught)
    assert all(name.startswith(taught) for name in changed)
    assert all(value.requires_grad for value in model.parameters())
