"""The survey's own fixes in place: which bricks of DR10.1 and of DR9's release 9012 would be found again."""

from __future__ import annotations

import gzip
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from galpipe.commit import write_bytes
from galpipe.config import FetchSettings, Settings
from galpipe.mock.server import MockServer
from galpipe.survey.files import FETCH_FILE, BrickFiles, FileRecord
from galpipe.survey.releases import Release, open_release
from galpipe.survey.remote import changed_remotely, fetch_brick, load_brick_files
from galpipe.unit import Unit
from tasks.context import RunContext
from tasks.remote import ask_source
from tests.survey.fake_release import bytes_of, table_bytes, write, write_list

LISTED, OTHERS = 5, 5


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    fetch = FetchSettings(bands=("g", "r", "i", "z"), products=("image", "invvar"), connections=8, back_off=0.01)
    return RunContext(tmp_path / "root", "main", "run", Settings(fetch=fetch), tmp_path, "model", "code")


def changed_at_source(context: RunContext, release: Release, units: list[Unit]) -> list[Unit]:
    return list(ask_source(context, release, dict.fromkeys(units, "fetch"), remember=True).changed)


def changed_paths(tables: Path) -> dict[str, set[str]]:
    """Paths that DR10.1 replaced, by brick; a Tractor list belongs to all bricks of its folder and is left out."""
    by_brick: dict[str, set[str]] = defaultdict(set)
    with gzip.open(tables / "dr10.1-changed-paths.txt.gz", "rt") as lines:
        for line in lines:
            path = line.strip().removeprefix("./")
            parts = path.split("/")
            if parts[1] == "coadd":
                by_brick[parts[3]].add(path)
            elif parts[1] == "tractor" and path.endswith(".fits"):
                by_brick[parts[3].removeprefix("tractor-").removesuffix(".fits")].add(path)
    return by_brick


def publish(tree: Path, brick: str, bands: str, seed: int) -> None:
    """A brick's wanted files and lists, some bytes each."""
    coadd, tractor = f"south/coadd/{brick[:3]}/{brick}", f"south/tractor/{brick[:3]}"
    names = [f"{coadd}/legacysurvey-{brick}-{product}-{band}.fits.fz" for product in ("image", "invvar") for band in bands]
    for place, path in enumerate([*names, f"{coadd}/legacysurvey-{brick}-maskbits.fits.fz", f"{tractor}/tractor-{brick}.fits"]):
        write(tree, path, bytes_of(50, seed + place))


def lists(tree: Path, bricks: list[str], label: str) -> None:
    for brick in bricks:
        write_list(tree, f"south/coadd/{brick[:3]}/{brick}", f"legacysurvey_{label}_south_coadd_{brick[:3]}_{brick}.sha256sum")
        write_list(tree, f"south/tractor/{brick[:3]}", f"legacysurvey_{label}_south_tractor_{brick[:3]}.sha256sum")


def test_the_bricks_of_dr10_1_are_found_by_their_lists(shared_data: Path, tmp_path: Path, context: RunContext) -> None:
    changed = changed_paths(shared_data / "tables")
    assert len(changed) == 598
    with gzip.open(shared_data / "tables" / "dr10-bricknames.csv.gz", "rt") as names:
        every = names.read().split()[1:]
    fixed = sorted(changed)[:: len(changed) // LISTED][:LISTED]
    # neighbours, which share their Tractor lists with fixed bricks
    kept = [name for name in every if name[:3] in {brick[:3] for brick in fixed} and name not in changed][:OTHERS]
    assert len(kept) == OTHERS
    tree, bricks = tmp_path / "dr10", sorted([*fixed, *kept])
    for seed, brick in enumerate(bricks):
        publish(tree, brick, "griz", 100 * seed)
    write(tree, "south/survey-bricks-dr10-south.fits.gz", table_bytes(bricks, "griz"))
    lists(tree, bricks, "dr10")
    release, units = open_release(str(tree)), [Unit("dr10", "south", brick) for brick in bricks]
    for unit in units:
        files = fetch_brick(release, unit, context.settings.fetch, context.layout.brick_folder(unit))
        # near the pole neighbours are asked for as well
        own = [item.status for item in files.records if unit.brick in item.name]
        assert own == ["verified"] * 10
    assert changed_at_source(context, open_release(str(tree)), units) == []

    replaced = {brick: {path for path in changed[brick] if (tree / path).exists() and path.endswith((".fz", ".fits"))} for brick in fixed}
    for path in set().union(*replaced.values()):
        (tree / path).write_bytes(b"10002" + (tree / path).read_bytes())
    lists(tree, bricks, "dr10")
    assert changed_at_source(context, open_release(str(tree)), units) == [unit for unit in units if unit.brick in fixed]
    for unit in units:
        before = load_brick_files(context.layout.brick_folder(unit), unit)
        assert before is not None
        assert set(changed_remotely(open_release(str(tree)), before)) == {path.rpartition("/")[2] for path in replaced.get(unit.brick, ())}


def test_the_bricks_of_9012_are_found_by_last_modified_where_no_list_is_published(
    shared_data: Path, tmp_path: Path, context: RunContext
) -> None:
    table = Table.read(shared_data / "tables" / "dr9-south-patched-bricks.fits")
    patched = np.char.strip(np.asarray(table["BRICKNAME"]).astype(str)).tolist()
    assert len(patched) == 1691
    with gzip.open(shared_data / "tables" / "dr10-bricknames.csv.gz", "rt") as names:
        others = sorted(set(names.read().split()[1:]) - set(patched))
    fixed = patched[:: len(patched) // LISTED][:LISTED]
    bricks = sorted([*fixed, *others[:: len(others) // OTHERS][:OTHERS]])
    tree = tmp_path / "dr9"
    for brick in bricks:
        publish(tree, brick, "grz", 0)
    write(tree, "south/survey-bricks-dr9-south.fits.gz", table_bytes(bricks))
    units = [Unit("dr9", "south", brick) for brick in bricks]
    with MockServer(tree) as server:
        release = open_release(server.url, "dr9", context.settings.fetch)
        for unit in units:
            remember(context, release, unit)
        assert changed_at_source(context, release, units) == []
        for brick in fixed:
            for path in (tree / "south" / "coadd" / brick[:3] / brick).iterdir():
                # the same number of bytes: only the time tells
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 3600))
        assert changed_at_source(context, release, units) == [unit for unit in units if unit.brick in fixed]


def remember(context: RunContext, release: Release, unit: Unit) -> None:
    """The record of a fetch without published sums, as `fetch_brick` writes it once the files decoded."""
    records = []
    for item in release.wanted_files(unit, context.settings.fetch, context.settings.fetch.bands):
        told = release.source.state(item.path)
        head = (item.name, item.path, item.product, item.band)
        if told is None:
            records.append(FileRecord(*head, "absent"))
        else:
            records.append(FileRecord(*head, "unverified", "0" * 64, told.size or 0, "", told.last_modified))
    folder = context.layout.brick_folder(unit)
    write_bytes(folder / FETCH_FILE, BrickFiles(unit, folder, tuple(records)).to_json().encode())
