"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from galpipe.mock.spec import MockSummary
from tests.mock_fixtures import build

# one thread per process: two cores are shared by workers, servers and the suite itself
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real survey files and labels, which never enter the repository."""
    folder = Path(os.environ.get("GALPIPE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real survey files are not here ({folder}); set GALPIPE_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def mock_release(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    """Two small neighbouring bricks like DR9 south, the second without g; made once, read only."""
    return build(tmp_path_factory)
