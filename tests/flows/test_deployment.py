"""A deployment of the survey flow is served, triggered with parameters, and makes a catalog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalogs.query import open_catalog
from galpipe.layout import Layout
from galpipe.mock.server import MockServer
from galpipe.mock.spec import MockSummary
from tests.flows.command import REPOSITORY

pytestmark = pytest.mark.slow

SERVE = "from flows.survey import survey\nif __name__ == '__main__':\n    survey.serve(name='region', pause_on_shutdown=False)\n"


def variables(api: str, home: Path) -> dict[str, str]:
    own = {"PREFECT_API_URL": api, "PREFECT_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


@pytest.fixture
def served(prefect_api: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which a deployment ``survey/region`` is being served."""
    environment = variables(prefect_api, tmp_path / "prefect")
    script = tmp_path / "serve_survey.py"
    script.write_text(SERVE)
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, script], env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for_deployment(environment, server)
        yield environment
    finally:
        server.terminate()
        server.wait(60)


def _wait_for_deployment(environment: dict[str, str], server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        command = [sys.executable, "-m", "prefect", "deployment", "inspect", "survey/region"]
        if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(1)
    raise RuntimeError("the deployment survey/region did not appear")


def test_a_served_deployment_is_triggered_and_makes_a_catalog(served: dict[str, str], mock_release: MockSummary, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with MockServer(mock_release.release) as server:
        parameters = {
            "release": server.url,
            "region": f"bricks:{mock_release.bricks[0]}",
            "root": str(root),
            "options": {"alias": "mock", "quiet": True, "settings": {"cluster": {"workers": 1}}},
        }
        command = [sys.executable, "-m", "prefect", "deployment", "run", "survey/region", "--params", json.dumps(parameters), "--watch"]
        done = subprocess.run([*command, "--watch-timeout", "250"], env=served, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "serve.log").read_text()[-3000:]
    with open_catalog(Layout(root)) as catalog:
        assert catalog.sql("SELECT count(*) AS n FROM galaxies").to_pylist()[0]["n"] > 10
