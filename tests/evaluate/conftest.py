"""The small benchmark, drawn once for every test that measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from galpipe.evaluate.benchmark import SMALL, benchmark_packs


@pytest.fixture(scope="session")
def small_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the drawn small benchmark; read only. What it draws is checked against the pinned digest."""
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark_packs(folder, SMALL)
    return folder
