"""A run uses a Dask scheduler that already runs, and refuses one that cannot serve it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from galpipe.config import ClusterSettings, Settings
from galpipe.errors import ConfigurationError
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.spec import MockSummary
from tasks.cluster import connect
from tasks.context import RunContext
from tests.flows.command import REPOSITORY, galpipe
from tests.prefect_server import free_port

pytestmark = pytest.mark.slow


@contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """A scheduler and one worker as a site would start them; yields the address."""
    address = f"tcp://127.0.0.1:{free_port()}"
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    scheduler = ["scheduler", "--host", address, "--no-dashboard"]
    worker = ["worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder), *options]
    processes = [
        subprocess.Popen([sys.executable, "-m", "dask", *command], env=variables, cwd=folder, stderr=subprocess.DEVNULL)
        for command in (scheduler, worker)
    ]
    try:
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


def context(root: Path, address: str) -> RunContext:
    folder = shipped_folder()
    settings = Settings(cluster=ClusterSettings(address=address))
    return RunContext(root, "main", "test", settings, folder, model_hash(folder), "0")


@pytest.mark.usefixtures("shared_prefect")
def test_run_on_a_scheduler_by_address(mock_release: MockSummary, tmp_path: Path) -> None:
    with running(tmp_path, "--resources", "GPU=1") as address:
        config = tmp_path / "cluster.toml"
        config.write_text(f'[cluster]\naddress = "{address}"\n')
        region = f"bricks:{mock_release.bricks[0]}"
        command = ["run", "--release", mock_release.release, "--as", "mock", "--region", region, "--root", tmp_path / "root"]
        ended = galpipe([*command, "--config", config, "--json"])
    assert ended.status == 0, ended.err[-2000:]
    assert ended.json()["counts"]["done"] == 1
    assert 0 < ended.json()["worker_peak_memory"] < 3_000_000_000


def test_a_scheduler_without_the_resource_is_refused(tmp_path: Path) -> None:
    with (
        running(tmp_path) as address,
        pytest.raises(ConfigurationError, match="--resources GPU=1"),
        connect(context(tmp_path, address)),
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a Dask scheduler that answers"), connect(context(tmp_path, "tcp://127.0.0.1:9")):
        pass
