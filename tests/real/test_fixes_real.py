"""The survey's own fixes in place: which bricks of DR10.1 and of DR9's release 9012 would be found again."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from galpipe.commit import write_bytes
from galpipe.config import FetchSettings, Settings
from galpipe.mock.server import MockServer, Request
from galpipe.survey.files import FETCH_FILE, BrickFiles, FileRecord
from galpipe.survey.neighbours import stamp_neighbours_of
from galpipe.survey.releases import Release, open_release
from galpipe.survey.remote import changed_remotely, fetch_brick, load_brick_files
from galpipe.unit import Unit
from tasks.context import RunContext
from tasks.remote import Answer, ask_source
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


def sha_of(name: str, version: int) -> str:
    return hashlib.sha256(f"{name} {version}".encode()).hexdigest()


class Lists:
    """The lists of DR10.1 as a server has them, before and after the fix, and no image at all."""

    def __init__(self, tree: Path, bricks: set[str], changed: dict[str, set[str]]) -> None:
        self._tree, self._bricks, self._changed = tree, sorted(bricks), changed

    def names(self, brick: str) -> list[str]:
        """Images in r and mask; of a fixed brick r only where the survey's own list of paths has it."""
        image, mask = f"legacysurvey-{brick}-image-r.fits.fz", f"legacysurvey-{brick}-maskbits.fits.fz"
        there = brick not in self._changed or any(path.endswith(image) for path in self._changed[brick])
        return [image, mask] if there else [mask]

    def write(self, fixed: bool) -> None:
        tables: dict[str, list[str]] = defaultdict(list)
        for brick in self._bricks:
            version, group = int(fixed and brick in self._changed), brick[:3]
            coadd = [f"{sha_of(name, version)}  {name}" for name in self.names(brick)]
            self._replace(f"south/coadd/{group}/{brick}/legacysurvey_dr10_south_coadd_{group}_{brick}.sha256sum", coadd)
            tables[group].append(f"{sha_of(f'tractor-{brick}.fits', version)}  tractor-{brick}.fits")
        for group, lines in tables.items():
            self._replace(f"south/tractor/{group}/legacysurvey_dr10_south_tractor_{group}.sha256sum", lines)

    def _replace(self, path: str, lines: list[str]) -> None:
        # a list without a change keeps its ETag
        content = ("\n".join(lines) + "\n").encode()
        if not (self._tree / path).exists() or (self._tree / path).read_bytes() != content:
            write(self._tree, path, content)

    def fetched(self, context: RunContext, release: Release, unit: Unit) -> None:
        """What a fetch before the fix left on record."""
        records = []
        for item in release.wanted_files(unit, context.settings.fetch, context.settings.fetch.bands):
            head = (item.name, item.path, item.product, item.band)
            there = item.product == "tractor" or item.name in self.names(item.path.split("/")[3])
            records.append(FileRecord(*head, "verified", sha_of(item.name, 0), 1) if there else FileRecord(*head, "absent"))
        folder = context.layout.brick_folder(unit)
        folder.mkdir(parents=True)
        (folder / FETCH_FILE).write_text(BrickFiles(unit, folder, tuple(records)).to_json())


def test_every_brick_of_dr10_1_is_found_with_a_request_per_list(shared_data: Path, tmp_path: Path, context: RunContext) -> None:
    """All 598, and one of the survey's other bricks in each of their 252 groups, from a web server that counts."""
    context = replace(context, settings=Settings(fetch=replace(context.settings.fetch, bands=("r",), products=("image",))))
    changed = changed_paths(shared_data / "tables")
    with gzip.open(shared_data / "tables" / "dr10-bricknames.csv.gz", "rt") as names:
        others = {name[:3]: name for name in sorted(names.read().split()[1:], reverse=True) if name not in changed}
    bricks = sorted({*changed, *(others[group] for group in {brick[:3] for brick in changed} if group in others)})
    near = {brick: {other.name for other in stamp_neighbours_of(brick)} for brick in bricks}
    tree, units = tmp_path / "dr10", [Unit("dr10", "south", brick) for brick in bricks]
    lists = Lists(tree, {*bricks, *(name for found in near.values() for name in found)}, changed)
    lists.write(fixed=False)
    write(tree, "south/survey-bricks-dr10-south.fits.gz", table_bytes(bricks, "r"))
    fetched = dict.fromkeys(units, "fetch")
    with MockServer(tree) as server:
        release = open_release(server.url, "dr10", context.settings.fetch)
        for unit in units:
            lists.fetched(context, release, unit)
        release.label("south")
        tables = len(list(tree.glob("south/tractor/*/*.sha256sum")))

        def ask() -> tuple[Answer, list[Request]]:
            before = len(server.requests)
            return ask_source(context, release, fetched, remember=True), server.requests[before:]

        first, requests = ask()
        assert (first.changed, first.requests, len(requests)) == ({}, tables, tables)
        again, requests = ask()
        # the same lists once more: not a byte
        assert (again.changed, again.unchanged, sum(item.sent for item in requests)) == ({}, tables, 0)
        assert {item.status for item in requests} == {304} and len(requests) == tables
        lists.write(fixed=True)
        fix, requests = ask()
        own = {unit.brick for unit, files in fix.changed.items() if any(unit.brick in name for name in files)}
        assert own == set(changed) and len(own) == 598
        # bricks near the pole have their neighbours' images in them
        assert {unit.brick for unit in fix.changed} == set(changed) | {brick for brick in bricks if near[brick] & set(changed)}
        for unit, files in fix.changed.items():
            wanted = {f"tractor-{unit.brick}.fits"} | {name for brick in (unit.brick, *near[unit.brick]) for name in lists.names(brick)}
            assert set(files) == {name for name in wanted if any(brick in name for brick in changed)}
        asked = {item.path.split("/")[3] for item in requests if "/coadd/" in item.path}
        # the brick's own lists only of those that changed, and of what lies beside them
        assert asked <= {name for unit in fix.changed for name in (unit.brick, *near[unit.brick])}
        assert {item.method for item in requests} == {"GET"}
        after, _ = ask()
        assert after.changed == fix.changed


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
