"""Products appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from galpipe.commit import fault_point, recover_folder, remove_folder, replace_file, replace_folder, replace_together, sweep_asides
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


def test_files_get_their_names_together_or_not_at_all(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("old")
    with pytest.raises(ValueError, match="between"), replace_together() as replace:
        with replace(tmp_path / "a") as aside:
            aside.write_text("new")
        raise ValueError("between")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}
    with replace_together() as replace:
        for name in "ab":
            with replace(tmp_path / name) as aside:
                aside.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_a_disk_that_fills_up_with_the_second_file_leaves_both_as_they_were(tmp_path: Path) -> None:
    with pytest.raises(ResourceFailure, match="No space left"), replace_together() as replace:
        with replace(tmp_path / "a") as aside:
            aside.write_text("new")
        with replace(tmp_path / "b") as aside:
            aside.symlink_to("/dev/full")
            with aside.open("wb", buffering=0) as handle:
                handle.write(b"x")
    assert not list(tmp_path.iterdir())


def test_what_fails_before_a_file_is_written_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), replace_together():
        (tmp_path / "nowhere").read_bytes()


@pytest.mark.parametrize(("point", "named"), [("file.written", []), ("file.renamed", ["a"])])
def test_files_together_get_their_names_in_order(tmp_path: Path, point: str, named: list[str]) -> None:
    script = (
        f"from pathlib import Path\nfrom galpipe.commit import replace_together\nroot = Path({str(tmp_path)!r})\n"
        "with replace_together() as replace:\n    for name in 'ab':\n        with replace(root / name) as aside:\n"
        "            aside.write_text('new')\n"
    )
    killed_at(point, script)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".aside-")] == named


def test_folder_is_replaced(tmp_path: Path) -> None:
    final = tmp_path / "store.zarr"
    for text in ("one", "two"):
        with replace_folder(final) as aside:
            (aside / "inner").mkdir()
            (aside / "inner" / "x").write_text(text)
    assert (final / "inner" / "x").read_text() == "two"
    assert os.listdir(tmp_path) == ["store.zarr"]


def killed_at(point: str, script: str) -> None:
    """Run a script that is to die at a fault point."""
    environment = {**os.environ, "GALPIPE_FAULT": point}
    done = subprocess.run([sys.executable, "-c", script], env=environment, start_new_session=True, check=False)
    assert done.returncode == -9


@pytest.mark.parametrize("point", ["file.written", "folder.written", "folder.swapped"])
def test_kill_leaves_no_half_product(tmp_path: Path, point: str) -> None:
    script = (
        "from pathlib import Path\nfrom galpipe.commit import replace_file, replace_folder\n"
        f"root = Path({str(tmp_path)!r})\n"
        "with replace_file(root / 'file') as aside:\n    aside.write_text('new')\n"
        "with replace_folder(root / 'folder') as aside:\n    (aside / 'x').write_text('new')\n"
    )
    killed_at(point, script)
    assert (tmp_path / "folder").exists() == (point == "folder.swapped")
    assert (tmp_path / "file").exists() == point.startswith("folder")
    assert sweep_asides(tmp_path) == (0 if point == "folder.swapped" else 1)
    assert not [name for name in os.listdir(tmp_path) if name not in {"file", "folder"}]


WITHOUT_EXCHANGE = "galpipe.commit._exchange = lambda one, other: False\n"
"""As where the system cannot let two names change places."""


def replaced_and_killed(final: Path, point: str, setup: str = "") -> None:
    """An old folder whose replacement was killed."""
    with replace_folder(final) as aside:
        (aside / "x").write_text("old")
    script = (
        f"import galpipe.commit\nfrom pathlib import Path\n{setup}"
        f"with galpipe.commit.replace_folder(Path({str(final)!r})) as aside:\n    (aside / 'x').write_text('new')\n"
    )
    killed_at(point, script)


@pytest.mark.parametrize("setup", ["", WITHOUT_EXCHANGE], ids=["exchange", "renames"])
@pytest.mark.parametrize(("point", "content"), [("folder.written", "old"), ("folder.swapped", ""), ("folder.renamed", "new")])
@pytest.mark.parametrize("mend", [recover_folder, lambda final: sweep_asides(final.parent)], ids=["recover", "sweep"])
def test_a_killed_replacement_never_loses_the_folder(
    tmp_path: Path, setup: str, point: str, content: str, mend: Callable[[Path], object]
) -> None:
    final = tmp_path / "0001m002.zarr"
    replaced_and_killed(final, point, setup)
    there = final.exists()
    assert there or (setup and point == "folder.swapped")
    mend(final)
    assert (final / "x").read_text() == (content or ("new" if there else "old"))
    sweep_asides(tmp_path)
    assert os.listdir(tmp_path) == [final.name]


def test_the_system_here_exchanges_folders(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("renameat2 is Linux's")
    final = tmp_path / "store"
    replaced_and_killed(final, "folder.swapped")
    assert (final / "x").read_text() == "new"


def test_an_error_between_the_renames_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "store"
    with replace_folder(final) as aside:
        (aside / "x").write_text("old")
    monkeypatch.setattr("galpipe.commit._exchange", lambda one, other: False)
    with pytest.raises(ResourceFailure, match="No such file"), replace_folder(final) as aside:
        aside.rmdir()
    assert (final / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["store"]


def test_only_its_own_former_folder_comes_back(tmp_path: Path) -> None:
    for name, text in (("a.1-2.zarr", "other"), ("a", "own")):
        (tmp_path / f".aside-{name}.77-abcdef01.old").mkdir()
        (tmp_path / f".aside-{name}.77-abcdef01.old" / "x").write_text(text)
    assert recover_folder(tmp_path / "a") and not recover_folder(tmp_path / "a")
    assert (tmp_path / "a" / "x").read_text() == "own"
    assert not recover_folder(tmp_path / "b")


def test_a_removed_folder_does_not_come_back(tmp_path: Path) -> None:
    final = tmp_path / "brick"
    replaced_and_killed(final, "folder.swapped", WITHOUT_EXCHANGE)
    remove_folder(final)
    remove_folder(tmp_path / "nowhere" / "brick")
    assert not recover_folder(final) and not final.exists()
    sweep_asides(tmp_path)
    assert not os.listdir(tmp_path)


def test_a_half_deleted_folder_is_never_seen_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "brick"
    final.mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
    remove_folder(final)
    assert not final.exists() and not recover_folder(final)
    assert len(os.listdir(tmp_path)) == 1


def test_unknown_fault_point_is_refused() -> None:
    with pytest.raises(ValueError, match="fault point must be one of"):
        fault_point("nowhere")
