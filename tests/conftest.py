"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from galpipe.mock.spec import MockSummary
from tests.mock_fixtures import build
from tests.prefect_server import prefect_server

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


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server that all runs of the suite share."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as address:
        yield address


@pytest.fixture
def shared_prefect(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands started by the test use the shared server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
