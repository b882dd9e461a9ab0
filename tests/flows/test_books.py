"""The verbs that look into the books, on catalogs made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalogs.hats import publish
from catalogs.ledger import Ledger
from catalogs.shard import read_shard
from flows.cli.books import ledger, provenance, status, verify
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, write_brick


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A published catalog without a ledger."""
    layout = Layout(tmp_path)
    for unit in (UNITS[0], FAR):
        write_brick(layout, unit, 10)
    publish(layout, "main")
    return layout


def asked(command: object, layout: Layout, *words: str) -> Result:
    return CliRunner().invoke(command, [*words, "--root", str(layout.root), "--json"])  # type: ignore[arg-type]


def test_status_and_verify_need_no_ledger(layout: Layout) -> None:
    told = json.loads(asked(status, layout).stdout)
    assert [(row["region"], row["rows"]) for row in told["counts"]["stages"] if row["stage"] == "catalog"] == [("north", 10), ("south", 10)]
    assert "galpipe ledger rebuild" in told["note"]
    found = asked(verify, layout)
    assert (found.exit_code, json.loads(found.stdout)["counts"]) == (0, {"problems": 0})
    assert not layout.ledger.exists()
    layout.shard(FAR, "main").unlink()
    found = asked(verify, layout)
    assert found.exit_code == 1
    assert str(FAR) in {item["unit"] for item in json.loads(found.stdout)["failures"]}


def test_a_lost_or_damaged_ledger_is_made_again(layout: Layout) -> None:
    made = asked(ledger, layout, "rebuild")
    assert (made.exit_code, json.loads(made.stdout)["counts"]) == (0, {"main": 4})
    with Ledger(layout.ledger) as opened:
        before = opened.done("catalog", "main")
    layout.ledger.write_bytes(b"\0" * 5000)
    broken = asked(status, layout)
    assert broken.exit_code == 2
    assert "galpipe ledger rebuild" in json.loads(broken.stdout)["failures"][0]["reason"]
    mended = asked(ledger, layout, "rebuild")
    assert mended.exit_code == 0, mended.output
    assert json.loads(mended.stdout)["set_aside"].endswith("ledger.sqlite.damaged-1")
    with Ledger(layout.ledger) as opened:
        assert opened.done("catalog", "main") == before
    assert asked(verify, layout).exit_code == 0
    assert asked(ledger, layout, "rebuild", "--name", "other").exit_code == 2


def test_provenance_takes_either_id(layout: Layout) -> None:
    table, meta = read_shard(layout.shard(FAR, "main"))
    told = json.loads(asked(provenance, layout, str(table["source_id"][0].as_py())).stdout)
    assert (told["unit"], told["id"]) == (str(FAR), str(meta.provenance_id))
    assert [item["version"] for item in told["published"]] == [1]
    # the model of a catalog made by hand is nowhere
    assert told["model"] is None
    assert json.loads(asked(provenance, layout, str(meta.provenance_id)).stdout)["inputs"]["unit"] == str(FAR)
    assert asked(provenance, layout, "17").exit_code == 2
