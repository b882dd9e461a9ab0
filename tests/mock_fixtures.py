"""A tiny mock release that the whole suite shares."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from galpipe.mock.release import make_release
from galpipe.mock.spec import MockSpec, MockSummary

if TYPE_CHECKING:
    import pytest

TINY = MockSpec(bricks=2, seed=3, galaxies=30, faint=60, stars=40, missing_bands=((1, "g"),))
"""Two neighbouring bricks g, r, z like DR9 south; the second one has no g band."""


def build(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    """Write the tiny release, once per session however many fixtures ask; read only."""
    return _build(tmp_path_factory.getbasetemp() / "mock-release" / "dr9")


@cache
def _build(folder: Path) -> MockSummary:
    return make_release(folder, TINY)
