"""What a killed run left is put in order by the next."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from catalogs.ledger import ledger_of
from catalogs.provenance import describe, record
from catalogs.shard import read_shard_meta
from galpipe.commit import ASIDE
from galpipe.layout import Layout
from galpipe.unit import Receipt
from tasks.mend import close_killed, sweep_catalog
from tests.catalogs.sky import UNITS, write_brick


def test_the_rows_of_a_killed_run_are_known_as_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_brick(layout, UNITS[0], 5)
    identifier = read_shard_meta(layout.shard(UNITS[0], "main")).provenance_id
    with ledger_of(layout) as ledger:
        for run_id in ("killed", "own"):
            ledger.start_run(run_id, "main", {})
        ledger.record([Receipt(UNITS[0], "catalog", "done"), Receipt(UNITS[1], "catalog", "done")], "killed", "main")
        assert close_killed(layout, ledger, "main", "own") == ["killed"]
        assert {run["run_id"]: run["status"] for run in ledger.runs("main")} == {"killed": "killed", "own": "running"}
        assert close_killed(layout, ledger, "main", "own") == []
    noted = pq.read_table(layout.catalog("main") / "provenance" / "runs" / "killed.parquet")
    assert noted["provenance_id"].to_pylist() == [identifier]


def test_a_damaged_shard_of_a_killed_run_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is found by the plan and made anew; before that no run gets so far."""
    layout = Layout(tmp_path)
    for unit in UNITS[:2]:
        write_brick(layout, unit, 5)
    whole = read_shard_meta(layout.shard(UNITS[1], "main")).provenance_id
    layout.shard(UNITS[0], "main").write_bytes(b"PAR1 cut off")
    with ledger_of(layout) as ledger:
        ledger.start_run("killed", "main", {})
        ledger.record([Receipt(unit, "catalog", "done") for unit in UNITS[:2]], "killed", "main")
        assert close_killed(layout, ledger, "main", "own") == ["killed"]
    noted = pq.read_table(layout.catalog("main") / "provenance" / "runs" / "killed.parquet")
    assert noted["provenance_id"].to_pylist() == [whole]
    layout.ledger.unlink()
    with ledger_of(layout) as ledger:
        ledger.restore(layout, "main")
        assert set(ledger.done("catalog", "main")) == {UNITS[1]}
    assert layout.shard(UNITS[0], "main").name in caplog.text


def test_half_written_records_go(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    identifier = record(layout, "main", {"unit": "x"})
    folder = layout.catalog("main") / "provenance" / f"{identifier % 1000:03d}"
    for place in (layout.catalog("main"), layout.recipes("main"), folder, folder.parent):
        place.mkdir(exist_ok=True)
        (place / f"{ASIDE}x.json.1-00").touch()
    assert sweep_catalog(layout, "main") == 4
    assert not list(layout.catalog("main").rglob(f"{ASIDE}*"))
    assert describe(layout, "main", identifier)


def test_a_shard_of_an_unfinished_brick_is_not_taken_for_done(tmp_path: Path) -> None:
    """A run died between writing its first shard and recording it: the ledger was not lost, the brick is to be done again."""
    layout = Layout(tmp_path)
    write_brick(layout, UNITS[0], 5)
    with ledger_of(layout) as ledger:
        ledger.start_run("killed", "main", {})
        assert ledger.restore(layout, "main") == 0
        assert not ledger.done("catalog", "main")
    layout.ledger.unlink()
    with ledger_of(layout) as ledger:
        assert ledger.restore(layout, "main") == 2
        assert UNITS[0] in ledger.done("catalog", "main")
