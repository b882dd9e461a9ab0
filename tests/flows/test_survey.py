"""The whole line, from a release served over HTTP to a published catalog, by the command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs.ledger import Ledger
from catalogs.verify import verify
from galpipe.layout import Layout
from galpipe.mock.server import MockServer
from galpipe.mock.spec import MockSummary
from tests.flows.command import Ended, arguments, galpipe, leftovers, one_worker, rows_of

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    root: Path
    server: MockServer
    ended: Ended

    @property
    def summary(self) -> dict[str, Any]:
        return self.ended.json()


KILLS = [("file.written:5", "none"), ("publish.partition:1", "bricks,stamps")]
"""Where the whole process group is killed, Prefect's side too (in a shard, in a publication); all points: test_exactly_once.py."""


@pytest.fixture(scope="module")
def server(mock_release: MockSummary) -> Iterator[MockServer]:
    with MockServer(mock_release.release) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(server: MockServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with Prefect's embedded server, as on a laptop."""
    root = tmp_path_factory.mktemp("unbroken")
    command = [item for item in arguments(server, root) if item != "--no-report"]
    return Run(root, server, galpipe(command))


with_api = pytest.mark.usefixtures("shared_prefect")


def table_of(run: Run) -> pa.Table:
    paths = [path for path in sorted((run.root / "catalog/main/mock").rglob("*.parquet")) if "outcomes" not in path.name]
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])


def test_run_ends_well_and_its_totals_agree(unbroken: Run, mock_release: MockSummary) -> None:
    assert unbroken.ended.status == 0, unbroken.ended.err
    counts = unbroken.summary["counts"]
    assert counts["bricks"] == counts["done"] == len(mock_release.bricks)
    assert counts["sources"] == mock_release.rows
    assert counts["sources"] == counts["predicted"] + counts["filtered"] + counts["failed"]
    assert counts["predicted"] == table_of(unbroken).num_rows > 20
    assert unbroken.summary["publication"]["rows"] == counts["predicted"]
    assert Path(unbroken.summary["report"]).read_text().count("data:image/png") > 20


def test_the_absent_band_is_told_not_hidden(unbroken: Run, mock_release: MockSummary) -> None:
    told = " ".join(item["reason"] for item in unbroken.summary["absent"])
    assert f"legacysurvey-{mock_release.bricks[1]}-image-g.fits.fz" in told
    rows = table_of(unbroken)
    without = rows.filter(pa.compute.equal(rows["brickname"], mock_release.bricks[1]))
    assert set(without["bands_used"].to_pylist()) == {"rz"}
    assert all(without["degraded"].to_pylist())


def test_every_task_answered(unbroken: Run) -> None:
    rows = table_of(unbroken)
    for column in (
        "smooth-or-featured_smooth_fraction",
        "lvm_mag_r",
        "lvm_half_light_radius",
        "lvm_position_angle",
        "z_mock",
        "n_detections",
        "embedding",
    ):
        assert rows[column].null_count == 0, column
    assert any(name.startswith("restoration_") for name in rows.column_names)
    assert rows["sep_mag"].null_count < rows.num_rows / 5


def test_verify_and_status_agree(unbroken: Run) -> None:
    checked = galpipe(["verify", "--root", unbroken.root, "--json"])
    assert (checked.status, checked.json()["failures"]) == (0, [])
    told = galpipe(["status", "--root", unbroken.root, "--json"])
    assert told.status == 0
    assert {row["status"] for row in told.json()["counts"]["stages"]} == {"done"}


def test_query_by_sql_and_by_cone(unbroken: Run, tmp_path: Path) -> None:
    expected = table_of(unbroken)
    count = galpipe(["query", "SELECT count(*) AS n FROM galaxies", "--root", unbroken.root, "--json"]).json()
    assert count == {"columns": ["n"], "rows": [[expected.num_rows]]} or count["rows"] == [[str(expected.num_rows)]]
    ra, dec = expected["ra"][0].as_py(), expected["dec"][0].as_py()
    near = galpipe(["query", "--cone", f"{ra},{dec},0.0003", "--columns", "source_id", "--root", unbroken.root, "--json"]).json()
    assert [str(expected["source_id"][0].as_py())] == [row[near["columns"].index("source_id")] for row in near["rows"]]
    file = tmp_path / "bright.fits"
    written = galpipe(["query", "SELECT source_id, ra, dec, mag_z FROM galaxies WHERE mag_z < 19", "--root", unbroken.root, "--out", file])
    assert written.status == 0
    assert file.stat().st_size > 2880
    refused = galpipe(["query", "COPY galaxies TO '/tmp/x.csv'", "--root", unbroken.root, "--json"])
    assert refused.status == 2


@with_api
def test_two_runs_give_equal_bytes_and_a_third_does_nothing(unbroken: Run, server: MockServer, tmp_path: Path) -> None:
    again = galpipe(arguments(server, tmp_path))
    assert again.status == 0
    assert rows_of(tmp_path) == rows_of(unbroken.root)
    before = len(server.requests)
    third = galpipe(arguments(server, tmp_path)).json()
    assert third["counts"]["up_to_date"] == third["counts"]["bricks"] == 2
    assert third["publication"]["status"] == "unchanged"
    asked = {request.path for request in server.requests[before:]}
    assert not [path for path in asked if path.endswith(".fz") and server.gets(path)[-1] in server.requests[before:]]


@with_api
@pytest.mark.parametrize(("fault", "keep"), KILLS)
def test_kill_then_run_again(unbroken: Run, server: MockServer, mock_release: MockSummary, tmp_path: Path, fault: str, keep: str) -> None:
    faults, root = tmp_path / "faults", tmp_path / "root"
    faults.mkdir()
    brick = mock_release.bricks[0]
    command = [*arguments(server, root, f"bricks:{brick}", keep), "--config", one_worker(tmp_path)]
    killed = galpipe(command, {"GALPIPE_FAULT": fault, "GALPIPE_FAULT_DIR": str(faults)})
    assert killed.status == -9, killed.err[-2000:]
    again = galpipe(command)
    assert again.status == 0, again.err[-2000:]
    expected = {path: data for path, data in rows_of(unbroken.root).items() if brick in path}
    assert rows_of(root) == expected
    predicted = sum(pq.read_metadata(root / "catalog/main" / path).num_rows for path in expected if "outcomes" not in path)
    assert again.json()["publication"]["rows"] == predicted > 0
    with Ledger(root / "ledger.sqlite") as ledger:
        assert verify(Layout(root), "main", ledger) == []
    kept = [path.name for path in (root / "bricks").rglob("*.fz")] + [path.name for path in (root / "stamps").rglob("*.zarr")]
    assert bool(kept) == (keep != "none")


def test_another_model_needs_a_switch(unbroken: Run, server: MockServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(unbroken.root / "catalog", root / "catalog")
    other = tmp_path / "other.toml"
    other.write_text('[selection]\nname = "galaxies-z21"\n')
    refused = galpipe([*arguments(server, root), "--config", other])
    assert refused.status == 2
    assert "galaxies-z21" in refused.json()["failures"][0]["reason"]


def test_requests_that_cannot_be_served(server: MockServer, tmp_path: Path) -> None:
    nowhere = galpipe(arguments(server, tmp_path, "cone:10,-60,0.1"))
    assert nowhere.status == 2
    assert "a region with bricks in it" in nowhere.json()["failures"][0]["reason"]
    unknown = galpipe(["run", "--release", "dr99", "--region", "all", "--root", tmp_path, "--json"])
    assert unknown.status == 2
    assert "dr99" in unknown.json()["failures"][0]["reason"]
    assert not leftovers(tmp_path)
