"""What is refused before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalogs.collection import Binding, bind
from catalogs.join import Origin, build_shard
from catalogs.ledger import Ledger
from catalogs.shard import ShardMeta, write_shard
from flows.cli.process import change_lines
from flows.planning import dry_run, plan_of
from flows.request import ROOT_LEASE, RunRequest
from galpipe.errors import ConfigurationError
from galpipe.unit import Receipt
from tasks.chain import chain
from tests.catalogs.sky import HEADS, make_predictions, make_sources
from tests.survey.fake_release import UNIT, make_tree


@pytest.mark.parametrize("cut", [{"size": 128}, {"pixscale": 0.5}])
def test_a_cut_that_the_model_does_not_take_from_bricks(tmp_path: Path, cut: dict[str, Any]) -> None:
    request = RunRequest.build(str(tmp_path), "all", (str(tmp_path / "root"), "main"), {"settings": {"cut": cut}})
    with pytest.raises(ConfigurationError, match=r"cut\.size 152 and cut\.pixscale 0\.262 for bricks"):
        plan_of(request)


def test_a_list_is_bound_by_its_ids(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("17\n")
    options = {"settings": {"selection": {"name": f"ids:{ids}"}}}
    request = RunRequest.build(str(tmp_path), "all", (str(tmp_path / "root"), "main"), options)
    before = request.binding(request.context("run"))
    assert before.settings["selection"]["name"] == "ids"
    ids.write_text("18\n")
    assert request.binding(request.context("run")) != before


def files_under(root: Path) -> dict[Path, bytes]:
    # SQLite's readers leave marks in the memory that they share
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and not path.name.endswith("-shm")}


class TestDryRun:
    @pytest.fixture
    def done(self, tmp_path: Path) -> tuple[Path, Path]:
        """A release of one brick, and a root in which it is done; what it was bound to is another model."""
        tree, root = make_tree(tmp_path / "dr9", {}), tmp_path / "root"
        context = self.request(tree, root).context("run")
        links = chain("fetched", context)
        sources = make_sources(UNIT, 2)
        shard = build_shard(sources, make_predictions(sources), HEADS, Origin(UNIT, 7))
        write_shard(context.layout.shard(UNIT, "main"), shard, ShardMeta(UNIT, links.catalog, 7))
        stages = {"fetch": links.fetch, "cut": links.cut, "catalog": links.catalog}
        with Ledger(context.layout.ledger) as ledger:
            ledger.record([Receipt(UNIT, stage, "done", fingerprint=text) for stage, text in stages.items()], "run", "main")
        bind(context.layout, "main", Binding({}, "other", "other"))
        return tree, root

    def request(self, tree: Path, root: Path, **options: Any) -> RunRequest:
        return RunRequest.build(str(tree), "all", (str(root), "main"), options)

    @pytest.mark.parametrize("options", [{}, {"force": True}, {"check_remote": True}])
    def test_it_tells_and_writes_nothing_while_another_run_holds_the_root(self, done: tuple[Path, Path], options: dict[str, Any]) -> None:
        tree, root = done
        with Ledger(root / "ledger.sqlite") as ledger, ledger.lease(ROOT_LEASE, "another run"):
            before = files_under(root)
            plan = dry_run(self.request(tree, root, **options))
            assert files_under(root) == before
        told = [cause["text"] for cause in plan["changes"]["causes"]]
        assert told == (["up to date, but forced"] if options.get("force") else [])
        assert plan["counts"]["to_do"] == len(told) == plan["changes"]["to_do"]
        assert [note for note in plan["notes"] if "--switch" in note]

    def test_what_a_lost_ledger_knew_is_read_from_the_files(self, done: tuple[Path, Path]) -> None:
        tree, root = done
        for path in root.glob("ledger.sqlite*"):
            path.unlink()
        before = files_under(root)
        dry_run(self.request(tree, root))
        assert files_under(root) == before
        assert not list(root.glob("ledger.sqlite*"))

    def test_the_lines_for_people(self) -> None:
        causes = [
            {"text": "new head `rings`", "bricks": 5, "units": [f"dr9/south/000{number}m002" for number in range(5)]},
            {"text": "files changed (image-g)", "bricks": 1, "units": ["dr9/south/0009m002"]},
        ]
        changes = {"up_to_date": 10, "to_do": 6, "redo": {"brick": 1, "inference": 0, "heads": 5}, "causes": causes}
        assert change_lines(changes, None) == [
            "  changes  10 up to date, 6 to do: 1 from the files on, 5 only the heads that differ",
            "    5 new head `rings`: 0000m002 0001m002 0002m002 ...",
            "    1 files changed (image-g): 0009m002",
        ]
        asked = {"requests": 3, "bricks": 900, "unchanged": 2, "own_lists": False}
        assert "3 requests for 900 bricks, 2 lists unchanged; only their Tractor tables' lists" in change_lines({}, asked)[0]
