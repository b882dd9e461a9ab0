"""Clean: what the rules let go goes, what a version that stays needs never does, and a kill at any moment harms nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_collection

from catalogs.clean import Rules, clean, plan, retained
from catalogs.collection import Binding, bind
from catalogs.hats import publish, version_folder, versions
from catalogs.lease import ROOT_LEASE
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from catalogs.provenance import provenance_id, read_inputs, record
from catalogs.query import open_catalog
from catalogs.versions import pin
from galpipe.config import CutSettings
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from galpipe.unit import Unit
from tests.catalogs.sky import FAR, UNITS, write_brick
from tests.catalogs.test_versions import contents, date_of

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = {number: f"2026-11-{20 + number}T12:00:00+00:00" for number in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Four versions, a day apart, with a search index each; read only."""
    layout = Layout(tmp_path_factory.mktemp("made") / "root")
    write_brick(layout, UNITS[0], 10)
    for number, created in DAY.items():
        write_brick(layout, FAR, 10 * number, seed=number)
        publish(layout, "main")
        date_of(layout, number, created)
        put(layout.search("main", number) / "index.json", 100)
    record(layout, "main", {"unit": str(FAR)})
    with Ledger(layout.ledger) as ledger:
        ledger.rebuild(layout, "main")
    return layout


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    subprocess.run(["cp", "-a", str(made.root), str(tmp_path / "root")], check=True)
    return Layout(tmp_path / "root")


def put(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def used(folder: Path) -> int:
    """Bytes of the files below a folder, each counted once."""
    found = {(stat := path.lstat()).st_ino: stat.st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    return sum(found.values())


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (Rules(), {1: "no rule", 2: "no rule", 3: "no rule", 4: "current"}),
        (Rules(keep_versions=1), {1: "pinned: the paper", 4: "current"}),
        (Rules(keep_versions=2), {1: "pinned: the paper", 3: "among the newest 2", 4: "current"}),
        (Rules(keep_days=3.5), {1: "pinned: the paper", 2: "younger than 3.5 days", 3: "younger than 3.5 days", 4: "current"}),
        (Rules(keep_versions=2, keep_days=0), {1: "pinned: the paper", 3: "among the newest 2", 4: "current"}),
    ],
)
def test_which_versions_stay(layout: Layout, rules: Rules, kept: dict[int, str]) -> None:
    if rules != Rules():
        pin(layout, "main", 1, "the paper")
    assert retained(layout, "main", rules, NOW) == kept


def test_the_current_and_the_newest_version_stay(layout: Layout) -> None:
    link = layout.hats("main") / "current"
    link.unlink()
    link.symlink_to("v2")
    assert retained(layout, "main", Rules(keep_versions=1), NOW) == {2: "current", 4: "newest"}
    link.unlink()
    assert retained(layout, "main", Rules(keep_versions=1), NOW) == {4: "newest"}


def test_a_dry_run_tells_the_bytes_that_a_clean_frees(layout: Layout) -> None:
    kept = contents(version_folder(layout, "main", 3)), contents(version_folder(layout, "main", 4))
    folders, rules = (layout.hats("main"), layout.root / "search"), Rules(keep_versions=2)
    before = sum(map(used, folders))
    told = plan(layout, "main", rules, NOW)
    assert sum(map(used, folders)) == before
    done = clean(layout, "main", rules, "test")
    assert done.items == told.items
    assert [item.kind for item in done.items] == ["version", "version", "search", "search"]
    assert before - sum(map(used, folders)) == done.bytes > 0
    assert versions(layout, "main") == [3, 4]
    assert (contents(version_folder(layout, "main", 3)), contents(version_folder(layout, "main", 4))) == kept
    assert is_valid_collection(version_folder(layout, "main", 3), strict=True)
    assert not layout.search("main", 2).exists()
    assert layout.search("main", 3).exists()
    # records stay, whatever version goes
    assert read_inputs(layout, "main", provenance_id({"unit": str(FAR)})) == {"unit": str(FAR)}
    with open_catalog(layout, version=3) as catalog:
        assert catalog.sql("SELECT count(*) AS n FROM galaxies")["n"].to_pylist() == [40]
    # numbers go on, and files of the newest are linked
    write_brick(layout, UNITS[1], 5)
    assert publish(layout, "main").version == 5


def test_asides_of_killed_writers_go(layout: Layout) -> None:
    shard = layout.shard(FAR, "main")
    put(shard.with_name(".aside-1801p400.parquet.1-abc"), 1000)
    put(layout.hats("main") / ".aside-v5.1-abc" / "catalog" / "file", 2000)
    young, old = (put(layout.stamps(FAR, "grz152").parent / f".aside-{FAR.brick}.zarr.1-{end}" / "c", 4000) for end in "ab")
    os.utime(old.parent, (time.time() - 7200,) * 2)
    found = clean(layout, "main", Rules(), "test")
    assert sorted(item.bytes for item in found.items) == [1000, 2000, 4000]
    assert not list(layout.hats("main").glob(".aside-*"))
    assert (young.exists(), old.exists(), shard.exists(), versions(layout, "main")) == (True, False, True, [1, 2, 3, 4])


def test_stamps_and_bricks_that_are_done_go_on_request(layout: Layout) -> None:
    waiting, given = Unit("dr9", "south", "0003m002"), Unit("stamps", "all", FAR.brick)
    for unit in (FAR, UNITS[0], waiting, given):
        for cut in ("grz152", "grz64"):
            put(layout.stamps(unit, cut) / "zarr.json", 10)
        put(layout.brick_folder(unit) / "image-r.fits.fz", 1000)
    index_stamp(layout, 4, layout.stamps(FAR, "grz152"))
    index_stamp(layout, 1, layout.stamps(FAR, "grz64"))
    bind(layout, "main", Binding({"cut": vars(CutSettings())}, "mini", "m"))
    assert plan(layout, "main", Rules()).items == ()
    unused = plan(layout, "main", Rules(unused_stamps=True))
    assert ({item.path for item in unused.items}, unused.stamps_kept) == (
        {layout.stamps(unit, "grz64") for unit in (UNITS[0], waiting)},
        1,
    )
    found = clean(layout, "main", Rules(keep_versions=1, stamps=True, bricks=True), "test")
    stamps = {item.path for item in found.items if item.kind == "stamps"}
    # of a version that goes the index does not count any more
    assert stamps == {layout.stamps(UNITS[0], "grz152"), layout.stamps(UNITS[0], "grz64"), layout.stamps(FAR, "grz64")}
    assert found.stamps_kept == 1
    assert layout.stamps(FAR, "grz152").exists()
    bricks = [item for item in found.items if item.kind == "bricks"]
    assert {item.path for item in bricks} == {layout.brick_folder(FAR), layout.brick_folder(UNITS[0])}
    assert {item.bytes for item in bricks} == {1000}
    for unit in (waiting, given):
        assert layout.stamps(unit, "grz152").exists()
    assert layout.brick_folder(waiting).exists()
    assert not layout.brick_folder(FAR).exists()
    assert layout.shard(FAR, "main").exists()


def index_stamp(layout: Layout, version: int, store: Path) -> None:
    path = version_folder(layout, "main", version) / "stamps/dataset/Norder=5/Dir=0/Npix=7167.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"store": [layout.relative(store)]}), path)


def test_what_a_failed_brick_needs_to_be_tried_again_stays(layout: Layout) -> None:
    unit = UNITS[0]
    folder = layout.brick_folder(unit)
    folder.mkdir(parents=True)
    (folder / "tractor.fits").write_bytes(b"x" * 100)
    rules = Rules(bricks=True)
    assert folder in [item.path for item in plan(layout, "main", rules).items]
    meta = OutcomesMeta(unit, "resource", "", "out of memory", stage="catalog")
    write_outcomes(layout.outcomes(unit, "main"), empty(), meta)
    assert folder not in [item.path for item in plan(layout, "main", rules).items]


def test_a_catalog_that_does_not_say_its_cut_settings_stops_it(layout: Layout) -> None:
    with pytest.raises(ConfigurationError, match="the cut settings of catalog 'main', got none"):
        plan(layout, "main", Rules(unused_stamps=True))


def test_a_run_at_work_keeps_it_away(layout: Layout) -> None:
    with Ledger(layout.ledger) as ledger, ledger.lease(ROOT_LEASE, "a run"):
        with pytest.raises(ConfigurationError, match="'the root folder' to be free, got run 'a run' at work"):
            clean(layout, "main", Rules(keep_versions=1), "test")
        assert plan(layout, "main", Rules(keep_versions=1)).bytes > 0
    assert versions(layout, "main") == [1, 2, 3, 4]


def test_wrong_rules_and_no_catalog(layout: Layout) -> None:
    with pytest.raises(ConfigurationError, match="at least one version to keep, got 0"):
        Rules(keep_versions=0)
    with pytest.raises(ConfigurationError, match="a number of days to keep, 0 or more, got -1"):
        Rules(keep_days=-1)
    with pytest.raises(ConfigurationError, match="a catalog 'nobody'"):
        clean(layout, "nobody", Rules(), "test")
    assert not layout.hats("nobody").exists()


KILLED = """
import os, shutil, signal, subprocess, sys
from pathlib import Path
from catalogs.clean import Rules, clean
from galpipe.layout import Layout

source, work = Path(sys.argv[1]), Path(sys.argv[2])
steps = 0

def counted(real, limit):
    def call(*arguments, **options):
        global steps
        if steps == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return real(*arguments, **options)
    return call

for limit in map(int, sys.argv[3:]):
    root = work / str(limit)
    subprocess.run(["cp", "-a", str(source), str(root)], check=True)
    child = os.fork()
    if not child:
        # what deletes and renames, counted from the first
        for name in ("rename", "unlink", "rmdir", "replace"):
            setattr(os, name, counted(getattr(os, name), limit))
        clean(Layout(root), "main", Rules(keep_versions=2), "test")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(limit, os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


def test_killed_before_any_step_every_kept_version_is_whole_and_the_next_clean_ends_it(layout: Layout, tmp_path: Path) -> None:
    put(layout.hats("main") / ".aside-v9.1-abc" / "file", 10)
    kept = {number: contents(version_folder(layout, "main", number)) for number in (3, 4)}
    steps = [0, 1, 2, 3, 6, 20, 100, 1000]
    command = [sys.executable, "-c", KILLED, str(layout.root), str(tmp_path / "work"), *map(str, steps)]
    (tmp_path / "work").mkdir()
    said = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    ended = dict(map(int, line.split()) for line in said.stdout.splitlines())
    killed = [limit for limit in steps if ended[limit] == signal.SIGKILL]
    # the last one came after the end
    assert len(killed) >= 6 and {ended[limit] for limit in steps} == {0, int(signal.SIGKILL)}
    for limit in killed:
        root = Layout(tmp_path / "work" / str(limit))
        whole = contents(version_folder(layout, "main", 1)), contents(version_folder(layout, "main", 2))
        for number in versions(root, "main"):
            # one that was to go is there as a whole or not at all
            found = contents(version_folder(root, "main", number))
            assert found == (kept[number] if number in kept else whole[number - 1])
        assert {3, 4} <= set(versions(root, "main"))
    for limit in killed[::4]:
        root = Layout(tmp_path / "work" / str(limit))
        clean(root, "main", Rules(keep_versions=2), "again")
        assert versions(root, "main") == [3, 4]
        assert sorted(path.name for path in root.search("main", 1).parent.iterdir()) == ["v3", "v4"]
        assert not list(root.hats("main").glob(".aside-*"))
        assert plan(root, "main", Rules(keep_versions=2)).items == ()
