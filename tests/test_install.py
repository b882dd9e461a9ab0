"""``pip install -e .`` in a fresh environment gives a command that works from any folder."""

from __future__ import annotations

import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from galpipe.code_version import VERSION

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed script. Dependencies come from this environment by a path file: only our own installation is fresh."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--editable", REPOSITORY]
    subprocess.run(install, check=True)
    return folder / "bin" / "galpipe"


def run(command: Path, *arguments: str, folder: Path) -> str:
    return subprocess.run([command, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_every_verb_has_help(command: Path, tmp_path: Path) -> None:
    text = run(command, "--help", folder=tmp_path)
    verbs = [line.split()[0] for line in text.split("Commands:\n")[1].splitlines() if line.startswith("  ") and line[2] != " "]
    assert {"demo", "mock", "run", "stamps", "status", "verify", "query", "publish", "train", "models", "doctor"} <= set(verbs)
    for verb in verbs:
        assert "Usage: " in run(command, verb, "--help", folder=tmp_path)


def test_version_is_the_projects(command: Path, tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert VERSION in run(command, "--version", folder=tmp_path)


def test_wrong_use_ends_with_2(command: Path, tmp_path: Path) -> None:
    ended = subprocess.run([command, "query", "--root", str(tmp_path / "none")], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2
    assert "expected one of SQL" in ended.stderr
