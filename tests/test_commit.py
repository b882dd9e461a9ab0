"""Products appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from galpipe.commit import fault_point, replace_file, replace_folder, sweep_asides
from galpipe.errors import ResourceFailure


def test_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "a.txt"
    with replace_file(final) as aside:
        aside.write_text("one")
        assert not final.exists()
    with replace_file(final) as aside:
        aside.write_text("two")
        assert final.read_text() == "one"
    assert final.read_text() == "two"
    assert os.listdir(final.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old")
    with pytest.raises(ValueError, match="halfway"), replace_file(final) as aside:
        aside.write_text("half")
        raise ValueError("halfway")
    assert final.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    # the device that is always full
    with pytest.raises(ResourceFailure, match="No space left"), replace_file(tmp_path / "a") as aside:
        aside.symlink_to("/dev/full")
        with aside.open("wb", buffering=0) as handle:
            handle.write(b"x")
    assert not (tmp_path / "a").exists()


def test_folder_is_replaced(tmp_path: Path) -> None:
    final = tmp_path / "store.zarr"
    for text in ("one", "two"):
        with replace_folder(final) as aside:
            (aside / "inner").mkdir()
            (aside / "inner" / "x").write_text(text)
    assert (final / "inner" / "x").read_text() == "two"
    assert os.listdir(tmp_path) == ["store.zarr"]


@pytest.mark.parametrize("point", ["file.written", "folder.written", "folder.swapped"])
def test_kill_leaves_no_half_product(tmp_path: Path, point: str) -> None:
    script = (
        "from pathlib import Path\nfrom galpipe.commit import replace_file, replace_folder\n"
        f"root = Path({str(tmp_path)!r})\n"
        "with replace_file(root / 'file') as aside:\n    aside.write_text('new')\n"
        "with replace_folder(root / 'folder') as aside:\n    (aside / 'x').write_text('new')\n"
    )
    environment = {**os.environ, "GALPIPE_FAULT": point}
    done = subprocess.run([sys.executable, "-c", script], env=environment, start_new_session=True, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "folder").exists()
    assert (tmp_path / "file").exists() == point.startswith("folder")
    assert sweep_asides(tmp_path) == 1
    assert not [name for name in os.listdir(tmp_path) if name not in {"file"}]


def test_unknown_fault_point_is_refused() -> None:
    with pytest.raises(ValueError, match="fault point must be one of"):
        fault_point("nowhere")
