"""Fault points count across processes and end whom the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galpipe import faults
from galpipe.commit import replace_file
from galpipe.errors import ResourceFailure
from galpipe.faults import FAULT_POINTS, Pass, fault_point

TEAM = """
import os, subprocess, sys, time
from galpipe.faults import fault_point, note_worker
if len(sys.argv) > 1:
    note_worker()
    if sys.argv[1] == "worker":
        fault_point("file.written")
    time.sleep(60)
else:
    worker = subprocess.Popen([sys.executable, "-c", os.environ["TEAM"], os.environ["WHO"]])
    while os.environ["WHO"] == "coordinator" and not os.path.exists(os.environ["GALPIPE_FAULT_DIR"] + f"/workers/{worker.pid}"):
        time.sleep(0.02)
    if os.environ["WHO"] == "coordinator":
        fault_point("file.written")
    print("worker", worker.wait(), flush=True)
"""


@pytest.mark.parametrize("who", ["coordinator", "worker"])
@pytest.mark.parametrize("whom", faults.WHOM)
def test_whom(tmp_path: Path, who: str, whom: str) -> None:
    """Whoever passes the point, those die who were named, and nobody else."""
    environment = {**os.environ, "TEAM": TEAM, "WHO": who, faults.FAULT: "file.written", faults.FOLDER: str(tmp_path), faults.VICTIM: whom}
    team = subprocess.Popen([sys.executable, "-c", TEAM], env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True)
    status = team.wait(60)
    assert status == (0 if whom == "worker" else -9)
    if whom == "worker":
        assert team.stdout is not None
        assert team.stdout.read().strip() == "worker -9"
    if whom == "coordinator":
        os.killpg(team.pid, 9)
    assert faults.struck(tmp_path) == Pass("file.written", 1, "")


def test_passes_are_counted_however_many_pass_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(faults.FOLDER, str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: fault_point("ledger.after", f"stage {number}"), range(200)))
    assert sorted(item.number for item in faults.passes(tmp_path)) == list(range(1, 201))
    assert faults.struck(tmp_path) is None


def test_nothing_happens_where_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.FOLDER, raising=False)
    monkeypatch.setenv(faults.FAULT, "file.renamed")
    fault_point("file.written")
    with pytest.raises(ValueError, match="fault point must be one of"):
        fault_point("nowhere")


def test_a_full_disk_stays_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = tmp_path / "faults"
    faulty.mkdir()
    for name, value in {faults.FAULT: "file.written:2", faults.FOLDER: str(faulty), faults.VICTIM: faults.DISK}.items():
        monkeypatch.setenv(name, value)
    for number in range(3):
        if number:
            with pytest.raises(ResourceFailure, match=r"file\d: expected room to write the product, got No space left"):
                write(tmp_path / f"file{number}")
        else:
            write(tmp_path / f"file{number}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faults", "file0"]


def write(path: Path) -> None:
    with replace_file(path) as aside:
        aside.write_text("whole")


@given(st.sampled_from(FAULT_POINTS), st.integers(1, 10**6), st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])))
def test_a_pass_is_read_back(point: str, number: int, where: str) -> None:
    assert Pass.parse(str(Pass(point, number, where))) == Pass(point, number, where)
