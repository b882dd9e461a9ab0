"""The verbs versions, diff and clean, and --as-of and --live, on a catalog without models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from catalogs.hats import publish
from flows.__main__ import cli
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, write_brick
from tests.catalogs.test_versions import date_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions, a day apart, and a brick done since."""
    layout = Layout(tmp_path_factory.mktemp("made") / "root")
    write_brick(layout, UNITS[0], 10)
    for number in (1, 2, 3):
        write_brick(layout, FAR, 10 * number, seed=number)
        publish(layout, "main")
        date_of(layout, number, f"2026-11-{20 + number}T12:00:00+00:00")
    write_brick(layout, UNITS[2], 7)
    return layout.root


def ask(root: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(cli, [*arguments, "--root", str(root), "--json"], prog_name="galpipe")
    assert done.exit_code == status, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def shown(root: Path, *arguments: str) -> str:
    done = CliRunner().invoke(cli, [*arguments, "--root", str(root)], prog_name="galpipe")
    assert done.exit_code == 0, done.output
    return done.stdout


COUNT = "SELECT count(*) AS n FROM galaxies"


def test_as_of_and_live(root: Path) -> None:
    assert ask(root, "query", COUNT, "--as-of", "v1")["rows"] == [["20"]]
    assert ask(root, "query", COUNT, "--as-of", "2026-11-22T18:00")["rows"] == [["30"]]
    assert ask(root, "query", COUNT)["rows"] == [["40"]]
    assert ask(root, "query", COUNT, "--live")["rows"] == [["47"]]
    assert len(ask(root, "query", "--cone", "0.1,0,1", "--columns", "source_id", "--live")["rows"]) == 17
    assert len(ask(root, "query", "--cone", "180.1,40,1", "--columns", "source_id", "--live")["rows"]) == 30
    told = ask(root, "query", COUNT, "--as-of", "2026-11-01", status=2)
    assert "v1 (2026-11-21T12:00:00Z), v2" in told["failures"][0]["reason"]


def test_versions_are_listed_and_pinned(root: Path) -> None:
    listed = ask(root, "versions")["versions"]
    assert [(item["version"], item["rows"], item["current"]) for item in listed] == [(1, 20, False), (2, 30, False), (3, 40, True)]
    assert ask(root, "versions", "pin", "2026-11-21", "--note", "the paper")["version"] == 1
    assert "pinned the paper" in shown(root, "versions").splitlines()[0]
    assert "v3    2026-11-23T12:00:00Z  40 rows  model mini" in shown(root, "versions")
    assert ask(root, "versions", "unpin", "1")["pinned"] is False
    assert ask(root, "versions", "unpin", "1", status=2)["status"] == "failed"
    assert ask(root, "versions", "--name", "nobody", status=2)["failures"][0]["kind"] == "configuration"


def test_diff_tells_and_writes(root: Path, tmp_path: Path) -> None:
    files = tmp_path / "rows.parquet", tmp_path / "changes.png"
    told = ask(root, "diff", "1", "main@2026-11-22", "--out", str(files[0]), "--out", str(files[1]))
    assert told["counts"]["added"] == 10
    assert told["counts"]["changed"] == 10
    assert told["columns"]["flux_r"]["changed"] == 10
    assert pq.read_table(files[0]).num_rows == 20
    assert files[1].stat().st_size > 10_000
    text = shown(root, "diff", "1", "2")
    assert "10 added, 0 removed, 10 changed, 10 as they were" in text
    assert "1 partitions compared, " in text
    assert "a file name ending in .png or one of" in ask(root, "diff", "1", "2", "--out", "x.doc", status=2)["failures"][0]["reason"]


def test_clean_says_what_it_would_do_and_does_it(root: Path) -> None:
    told = ask(root, "clean", "--keep-versions", "2", "--dry-run")
    assert told["kept"] == {"v2": "among the newest 2", "v3": "current"}
    assert [item["path"] for item in told["removed"]] == ["hats/main/v1"]
    assert len(ask(root, "versions")["versions"]) == 3
    done = ask(root, "clean", "--keep-versions", "2")
    assert (done["counts"]["version"], done["counts"]["bytes"]) == (1, told["counts"]["bytes"])
    assert len(ask(root, "versions")["versions"]) == 2
    assert "0 B would be freed" in shown(root, "clean", "--dry-run")
