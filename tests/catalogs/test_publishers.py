"""Two publishers of one catalog: the second waits, and both end in one version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from catalogs.hats import manifest, publish, version_folder, versions
from galpipe.layout import Layout
from tests.catalogs.sky import UNITS, write_brick
from tests.flows.command import REPOSITORY

OTHER = """
import sys
from pathlib import Path
from catalogs.hats import publish
from galpipe.layout import Layout
print("ready", flush=True)
print(publish(Layout(Path(sys.argv[1])), "main").status)
"""


def test_a_publisher_that_finds_another_waits(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for unit in UNITS:
        write_brick(layout, unit, 7)
    other: list[subprocess.Popen[str]] = []

    def meanwhile(done: int, total: int) -> None:
        """While this process has the lock, another one comes."""
        if not other:
            command = [sys.executable, "-c", OTHER, str(tmp_path)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            other.append(subprocess.Popen(command, cwd=REPOSITORY, **pipes))  # type: ignore[call-overload]
            assert other[0].stderr is not None
            assert "another publisher is at work" in other[0].stderr.readline()
            assert other[0].poll() is None

    first = publish(layout, "main", meanwhile)
    out, _ = other[0].communicate(timeout=60)
    assert first.status == "published"
    assert out.split() == ["ready", "unchanged"]
    assert versions(layout, "main") == [1]
    assert manifest(version_folder(layout, "main"))["rows"] == 21
