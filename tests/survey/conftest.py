"""Settings that fail fast, and files that are slow to make."""

from __future__ import annotations

import pytest

from galpipe.config import FetchSettings
from tests.survey.fake_release import image_bytes


@pytest.fixture
def quick() -> FetchSettings:
    """One product of one band, tiny waits."""
    return FetchSettings(products=("image",), bands=("g",), retries=3, timeout=5.0, back_off=0.01)


@pytest.fixture(scope="session")
def brick_image() -> bytes:
    """A whole 3600 x 3600 coadd, losslessly compressed."""
    return image_bytes()
