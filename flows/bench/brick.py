"""A brick to measure on: a mock one, made, fetched from a folder and cut in a temporary root."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from galpipe.code_version import code_version
from galpipe.config import FetchSettings, Settings
from galpipe.errors import RemoteFailure
from galpipe.layout import Layout
from galpipe.lvm.registry import model_folder
from galpipe.lvm.weights import model_hash
from galpipe.mock.release import make_release
from galpipe.mock.spec import MockSpec
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import open_release
from galpipe.survey.remote import BrickFiles, fetch_brick
from galpipe.unit import Unit
from tasks.context import RunContext

MODEL = "shipped"


@dataclass(frozen=True)
class BenchBrick:
    """A fetched mock brick.

    Parameters
    ----------
    root : Path
    settings : Settings
    unit : Unit
    files : BrickFiles
    """

    root: Path
    settings: Settings
    unit: Unit
    files: BrickFiles

    def context(self) -> RunContext:
        """A run on the brick, with the model that comes with the package.

        Raises
        ------
        ConfigurationError
            If there is no such model.
        """
        return bench_context(self.root, self.settings)


def bench_context(root: Path, settings: Settings) -> RunContext:
    """A run under a root, with the model that comes with the package.

    Raises
    ------
    ConfigurationError
        If there is no such model.
    """
    folder = model_folder(MODEL, root / "models")
    return RunContext(root, "bench", "bench", settings, folder, model_hash(folder), code_version())


@contextmanager
def mock_brick(galaxies: int) -> Iterator[BenchBrick]:
    """Make one brick with about ``galaxies`` selected sources; gone when the block ends.

    Raises
    ------
    RemoteFailure
        If the brick that was just made is not whole.
    """
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        root = Path(place)
        made = make_release(root / "mock-dr9", MockSpec(bricks=1, galaxies=galaxies, faint=galaxies // 2, stars=50, workers=1))
        settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")))
        release = open_release(str(made.release), "mock-dr9", settings.fetch)
        unit = make_plan(release, "all", settings.fetch).units[0]
        files = fetch_brick(release, unit, settings.fetch, Layout(root).brick_folder(unit))
        if files.absent:
            raise RemoteFailure("a whole mock brick", f"absent: {files.absent}", unit=str(unit))
        yield BenchBrick(root, settings, unit, files)
