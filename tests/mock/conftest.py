from __future__ import annotations

import pytest

from galpipe.mock.spec import MockSummary
from tests.mock_fixtures import build


@pytest.fixture(scope="session")
def mock_release(tmp_path_factory: pytest.TempPathFactory) -> MockSummary:
    """The tiny release of the whole suite."""
    return build(tmp_path_factory)
