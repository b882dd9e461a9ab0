"""What is left to do after files, lists, ledgers and the release itself have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from catalogs.join import Origin, build_shard
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from catalogs.provenance import record
from catalogs.shard import ShardMeta, write_shard
from galpipe.config import FetchSettings, SelectionSettings, Settings
from galpipe.mock.server import MockServer
from galpipe.survey.files import BrickFiles
from galpipe.survey.releases import Release, open_release
from galpipe.survey.remote import fetch_brick
from galpipe.unit import Receipt, Unit
from tasks.chain import chain, fetch_fingerprint
from tasks.context import RunContext
from tasks.plan import fetch_again, find_changes, note_changed, pending
from tasks.remote import ask_source
from tests.catalogs.sky import HEADS, make_outcomes, make_predictions, make_sources
from tests.survey.fake_release import BRICK, UNIT, bytes_of, coadd_path, image_bytes, make_tree, tractor_bytes, tractor_columns, write_list

IMAGE = coadd_path("image", "g")
MASK, TABLE = IMAGE.replace("image-g", "maskbits"), f"south/tractor/{BRICK[:3]}/tractor-{BRICK}.fits"
FETCH = FetchSettings(products=("image",), bands=("g", "r"), retries=1, timeout=5.0, back_off=0.01)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A brick without r, with published checksums."""
    return make_tree(tmp_path / "tree", {IMAGE: bytes_of(4000), MASK: bytes_of(2000, 1), TABLE: bytes_of(3000, 2)})


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(tmp_path / "root", "main", "run", Settings(fetch=FETCH), tmp_path, "model", "code")


def changed_at_source(context: RunContext, release: Release, units: list[Unit]) -> list[Unit]:
    return list(ask_source(context, release, dict.fromkeys(units, "fetch"), remember=True).changed)


def publish_sums(tree: Path) -> None:
    write_list(tree, str(Path(IMAGE).parent), f"legacysurvey_dr9_south_coadd_{BRICK[:3]}_{BRICK}.sha256sum")


def fetched(context: RunContext, release: Release) -> BrickFiles:
    return fetch_brick(release, UNIT, FETCH, context.layout.brick_folder(UNIT))


def finish(context: RunContext, files: BrickFiles) -> None:
    """Shard, outcomes and provenance of a brick, as the last stage writes them."""
    layout, links = context.layout, chain(fetch_fingerprint(files), context)
    sources = make_sources(UNIT, 4)
    identifier = record(layout, "main", {"unit": str(UNIT), "files": files.checksums, "absent": list(files.absent)})
    shard = build_shard(sources, make_predictions(sources), HEADS, Origin(UNIT, identifier))
    write_shard(layout.shard(UNIT, "main"), shard, ShardMeta(UNIT, links.catalog, identifier, "model", {"predicted": 4}))
    write_outcomes(layout.outcomes(UNIT, "main"), make_outcomes(UNIT, shard), OutcomesMeta(UNIT, fingerprint=links.catalog))


def settle(context: RunContext, files: BrickFiles) -> None:
    """The outcomes of a brick in which there was nothing to do."""
    cut = chain(fetch_fingerprint(files), context).cut
    meta = OutcomesMeta(UNIT, "no_work", f"tractor-{BRICK}.fits", "a Tractor table, got absent", cut)
    write_outcomes(context.layout.outcomes(UNIT, "main"), empty(), meta)


def forget_files(context: RunContext) -> None:
    folder = context.layout.brick_folder(UNIT)
    for path in folder.iterdir():
        path.unlink()


def test_what_changed_at_the_source_is_known_to_the_next_run_too(context: RunContext, tree: Path) -> None:
    """The run that asked may be killed before it fetched: its lists would not tell of the change again."""
    publish_sums(tree)
    release = open_release(str(tree), "dr9")
    finish(context, fetched(context, release))
    with Ledger(context.layout.ledger) as ledger:
        ledger.restore(context.layout, "main")
        assert find_changes(context, ledger, [UNIT]).to_do == []
        (tree / IMAGE).write_bytes(bytes_of(4000, 9))
        publish_sums(tree)
        noted = partial(note_changed, ledger, "run", "main")
        answer = ask_source(context, release, {UNIT: "fetch"}, remember=noted)
        assert list(answer.changed) == [UNIT]
        # killed here
        changes = find_changes(context, ledger, [UNIT])
        assert changes.of("failed_before") == [UNIT] and not changes.fetched
        assert "other files now" in ledger.failures("main")[0].reason


class TestLostLedger:
    def restored(self, context: RunContext) -> tuple[int, list[Receipt], bool]:
        with Ledger(context.layout.ledger) as ledger:
            found = ledger.restore(context.layout, "main")
            kept = [*ledger.receipts("fetch"), *ledger.receipts("cut"), *ledger.receipts("catalog", "main")]
            return found, kept, pending(context, ledger, [UNIT]) == []

    def test_finished_bricks_are_not_done_again(self, context: RunContext, tree: Path) -> None:
        finish(context, fetched(context, open_release(str(tree), "dr9")))
        forget_files(context)
        found, receipts, nothing_to_do = self.restored(context)
        assert (found, [item.stage for item in receipts], nothing_to_do) == (2, ["fetch", "catalog"], True)
        assert receipts[0].reason == f"absent: legacysurvey-{BRICK}-image-r.fits.fz"
        # and once only
        assert self.restored(context)[0] == 0

    def test_other_settings_are_still_noticed(self, context: RunContext, tree: Path) -> None:
        finish(context, fetched(context, open_release(str(tree), "dr9")))
        other = replace(context, settings=replace(context.settings, selection=SelectionSettings("galaxies-z21")))
        assert self.restored(other)[2] is False

    def test_a_brick_with_nothing_to_do_stays_settled(self, context: RunContext, tree: Path) -> None:
        (tree / TABLE).unlink()
        settle(context, fetched(context, open_release(str(tree), "dr9")))
        found, receipts, nothing_to_do = self.restored(context)
        assert (found, [(item.stage, item.status) for item in receipts], nothing_to_do) == (
            2,
            [("fetch", "done"), ("cut", "no_work")],
            True,
        )

    def test_rows_of_other_catalogs_stay(self, context: RunContext, tree: Path) -> None:
        finish(context, fetched(context, open_release(str(tree), "dr9")))
        newer = Receipt(UNIT, "fetch", "done", fingerprint="newer")
        with Ledger(context.layout.ledger) as ledger:
            ledger.record([newer], "run", "another")
            ledger.restore(context.layout, "main")
            assert list(ledger.receipts("fetch")) == [newer]

    def test_a_new_catalog_has_nothing_to_restore(self, context: RunContext) -> None:
        with Ledger(context.layout.ledger) as ledger:
            assert ledger.restore(context.layout, "main") == 0


def test_an_edited_list_of_ids_is_done_again(context: RunContext, tree: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("17\n")
    listed = replace(context, settings=replace(context.settings, selection=SelectionSettings(f"ids:{ids}")))
    finish(listed, fetched(listed, open_release(str(tree), "dr9")))
    with Ledger(listed.layout.ledger) as ledger:
        ledger.rebuild(listed.layout, "main")
        assert pending(listed, ledger, [UNIT]) == []
        ids.write_text("17\n18\n")
        assert pending(listed, ledger, [UNIT]) == [UNIT]


class TestCheckRemote:
    @pytest.mark.parametrize("keep", [True, False])
    @pytest.mark.parametrize("end", [finish, settle])
    def test_a_file_that_came_later_is_noticed(
        self, context: RunContext, tree: Path, end: Callable[[RunContext, BrickFiles], None], keep: bool
    ) -> None:
        content = (tree / TABLE).read_bytes()
        (tree / TABLE).unlink()
        with MockServer(tree) as server:
            end(context, fetched(context, open_release(server.url, "dr9", FETCH)))
            if not keep:
                forget_files(context)
            assert changed_at_source(context, open_release(server.url, "dr9", FETCH), [UNIT]) == []
            (tree / TABLE).write_bytes(content)
            assert changed_at_source(context, open_release(server.url, "dr9", FETCH), [UNIT]) == [UNIT]

    def test_a_fixed_file_is_noticed_by_its_published_sum(self, context: RunContext, tree: Path) -> None:
        finish(context, fetched(context, open_release(str(tree), "dr9")))
        forget_files(context)
        (tree / IMAGE).write_bytes(b"fixed")
        publish_sums(tree)
        assert changed_at_source(context, open_release(str(tree), "dr9"), [UNIT]) == [UNIT]

    def test_without_published_sums_the_server_is_asked(self, context: RunContext, tmp_path: Path) -> None:
        files = {IMAGE: image_bytes(), TABLE: tractor_bytes(tractor_columns())}
        tree = make_tree(tmp_path / "bare", files, published=False)
        with MockServer(tree) as server:
            release = open_release(server.url, "dr9", FETCH)
            first = fetched(context, release)
            finish(context, first)
            assert changed_at_source(context, release, [UNIT]) == []
            (tree / TABLE).write_bytes(tractor_bytes(tractor_columns(5)))
            assert changed_at_source(context, release, [UNIT]) == [UNIT]
            fetch_again(context, [UNIT])
            assert fetched(context, release).checksums[f"tractor-{BRICK}.fits"] != first.checksums[f"tractor-{BRICK}.fits"]

    def test_a_brick_that_left_no_trace_is_no_change(self, context: RunContext, tree: Path) -> None:
        assert changed_at_source(context, open_release(str(tree), "dr9"), [UNIT]) == []


def test_fetch_again_asks_for_what_was_absent(context: RunContext, tree: Path) -> None:
    with MockServer(tree) as server:
        assert fetched(context, open_release(server.url, "dr9", FETCH)).bands == ("g",)
        target = tree / coadd_path("image", "r")
        target.write_bytes(bytes_of(5000, 3))
        publish_sums(tree)
        assert fetched(context, open_release(server.url, "dr9", FETCH)).bands == ("g",)
        fetch_again(context, [UNIT])
        assert fetched(context, open_release(server.url, "dr9", FETCH)).bands == ("g", "r")
        # what was proven is not sent again
        assert len(server.gets(IMAGE)) == 1
