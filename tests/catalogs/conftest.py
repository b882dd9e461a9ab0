"""A root with one published version of fake bricks; modules that need another define their own ``layout``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from catalogs.hats import publish
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, write_brick


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("made") / "root")
    for unit in (*UNITS, FAR):
        write_brick(layout, unit, 25)
    publish(layout, "main")
    return layout


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    subprocess.run(["cp", "-a", str(made.root), str(tmp_path / "root")], check=True)
    return Layout(tmp_path / "root")
