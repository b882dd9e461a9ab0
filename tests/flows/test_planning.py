"""What is refused before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.planning import plan_of
from flows.request import RunRequest
from galpipe.errors import ConfigurationError


@pytest.mark.parametrize("cut", [{"size": 128}, {"pixscale": 0.5}])
def test_a_cut_that_the_model_does_not_take_from_bricks(tmp_path: Path, cut: dict[str, Any]) -> None:
    request = RunRequest.build(str(tmp_path), "all", (str(tmp_path / "root"), "main"), {"settings": {"cut": cut}})
    with pytest.raises(ConfigurationError, match=r"cut\.size 152 and cut\.pixscale 0\.262 for bricks"):
        plan_of(request)


def test_a_list_is_bound_by_its_ids(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("17\n")
    options = {"settings": {"selection": {"name": f"ids:{ids}"}}}
    request = RunRequest.build(str(tmp_path), "all", (str(tmp_path / "root"), "main"), options)
    before = request.binding(request.context("run"))
    assert before.settings["selection"]["name"] == "ids"
    ids.write_text("18\n")
    assert request.binding(request.context("run")) != before
