"""A second coordinator waits for the first, and one that is dead keeps nobody."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import catalogs.lease
from catalogs.lease import Held
from catalogs.ledger import Ledger


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogs.lease, "POLL_SECONDS", 0.01)


def test_the_second_waits_and_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first, over = ledger.lease("root", "first"), threading.Event()

        def end() -> None:
            while not caplog.records:
                time.sleep(0.01)
            over.set()
            first.release()

        threading.Thread(target=end).start()
        with caplog.at_level(logging.WARNING), ledger.lease("root", "second", wait=60):
            assert over.is_set()
        (told,) = caplog.messages
    assert "run 'first' at work on it (host" in told and f"process {os.getpid()}" in told
    assert "waiting for it to end, for 60 s at most" in told


def test_the_wait_is_bounded(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        ledger.lease("root", "first"),
        pytest.raises(Held, match="expected 'root' to be free, got run 'first' at work on it"),
    ):
        ledger.lease("root", "second", wait=0.05)


def test_a_killed_coordinator_whose_parent_did_not_look_holds_nothing(tmp_path: Path) -> None:
    """A zombie is still in the table of processes."""
    path = tmp_path / "ledger.sqlite"
    code = f"from catalogs.ledger import Ledger; Ledger({str(path)!r}).lease('root', 'dead', 3600); print('has it', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline().strip() == b"has it"
    with Ledger(path) as ledger:
        with pytest.raises(Held):
            ledger.lease("root", "next")
        os.kill(holder.pid, signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        with ledger.lease("root", "next") as lease:
            assert lease.owner == "next"
    holder.communicate()
