"""What is left to do: the plan's bricks against what the ledger says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import astropy.units as u
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix

from catalogs.ledger import Done, Ledger
from catalogs.outcomes import read_outcomes_meta
from catalogs.provenance import read_inputs
from catalogs.shard import read_shard_meta
from galpipe.commit import sweep_asides
from galpipe.fingerprint import files_fingerprint
from galpipe.layout import Layout
from galpipe.stamps.store import store_summary
from galpipe.survey.bricks import brick_by_name
from galpipe.survey.files import BrickFiles, FileRecord, load_brick_files
from galpipe.survey.releases import Release
from galpipe.survey.remote import ask_again, changed_remotely
from galpipe.unit import Unit
from tasks.chain import chain, chains
from tasks.context import RunContext

TILE_ORDER = 4
"""HEALPix order of a tile: about 13 square degrees, 200 bricks at most."""


def tile_of(unit: Unit) -> int:
    """The tile that owns a brick, by the brick's center."""
    center = brick_by_name(unit.brick)
    return int(lonlat_to_healpix(Longitude(center.ra * u.deg), Latitude(center.dec * u.deg), TILE_ORDER)[0])


def pending(context: RunContext, ledger: Ledger, units: Sequence[Unit]) -> list[Unit]:
    """The units that are not up to date.

    A unit is up to date when its shard was made from the files it was fetched as, by today's settings and model, and is there;
    or when there was nothing to do in it. Bad data and failures of the far side are tried again: they may have been mended.
    """
    if context.force:
        return list(units)
    releases = {unit.release for unit in units}
    states = partial(_states, ledger, context.name, releases.pop() if len(releases) == 1 else "")
    fetched = {key: fingerprint for key, status, fingerprint in states("fetch") if status == "done"}
    empty = {key: fingerprint for key, status, fingerprint in states("cut") if status == "no_work"}
    made = {key: fingerprint for key, status, fingerprint in states("catalog") if status == "done"}
    links_of, shards = chains(context), _Shards(context.layout, context.name)

    def up_to_date(unit: Unit) -> bool:
        key = (unit.release, unit.region, unit.brick)
        if key not in fetched:
            return False
        links = links_of(fetched[key])
        if key in empty:
            return empty[key] == links.cut
        return made.get(key) == links.catalog and shards.has(unit)

    return [unit for unit in units if not up_to_date(unit)]


def _states(ledger: Ledger, name: str, release: str, stage: str) -> Iterator[tuple[tuple[str, str, str], str, str]]:
    for row in ledger.states(stage, name, release):
        yield row[:3], row[3], row[4]


class _Shards:
    """Which shards are there, asked folder by folder: a release has 366,898 of them in 3,600 folders."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout, self._name = layout, name
        self._found: dict[tuple[str, str, str], frozenset[str]] = {}

    def has(self, unit: Unit) -> bool:
        group = (unit.release, unit.region, unit.brick[:3])
        if group not in self._found:
            folder = self._layout.shard_group(unit, self._name)
            self._found[group] = frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
        return self._layout.shard_file(unit) in self._found[group]


def changed_at_source(context: RunContext, release: Release, units: Iterable[Unit]) -> list[Unit]:
    """Finished units whose files the release has otherwise now: fixed in place, or there where they were absent.

    What a shard was made from is in its provenance record, so this works where the files were not kept.
    """
    listed = sorted(units)

    def changed(unit: Unit) -> bool:
        files = _settled_files(context, release, unit)
        return files is not None and bool(changed_remotely(release, files))

    # the source bounds the requests that are open at a time
    with ThreadPoolExecutor(context.settings.fetch.connections, "check") as pool:
        return [unit for unit, yes in zip(listed, pool.map(changed, listed), strict=True) if yes]


def _settled_files(context: RunContext, release: Release, unit: Unit) -> BrickFiles | None:
    """The files that a unit's shard, or its having none, was made from; None for a unit that left no trace."""
    layout = context.layout
    shard, outcomes = layout.shard(unit, context.name), layout.outcomes(unit, context.name)
    kept = load_brick_files(layout.brick_folder(unit), unit)
    if shard.exists():
        made_from = read_inputs(layout, context.name, read_shard_meta(shard).provenance_id)
        checksums, absent = made_from["files"], set(made_from["absent"])
    elif kept is not None:
        checksums, absent = kept.checksums, set(kept.absent)
    elif outcomes.exists():
        # without rows nothing else is known than the file for want of which there was nothing to do
        checksums, absent = {}, {read_outcomes_meta(outcomes).file}
    else:
        return None
    told = {(item.name, item.sha256): item for item in kept.records if item.sha256} if kept else {}
    records = []
    for item in release.wanted_files(unit, context.settings.fetch, context.settings.fetch.bands):
        head = (item.name, item.path, item.product, item.band)
        if item.name in absent:
            records.append(FileRecord(*head, "absent"))
        elif item.name in checksums:
            sha256 = checksums[item.name]
            records.append(told.get((item.name, sha256)) or FileRecord(*head, "unverified", sha256))
    return BrickFiles(unit, layout.brick_folder(unit), tuple(records))


def fetch_again(context: RunContext, units: Iterable[Unit]) -> None:
    """Have the next fetch of units ask for every file again: verified, fetched where it differs, and no longer absent for ever."""
    for unit in units:
        ask_again(context.layout.brick_folder(unit), unit)


def store_is_current(context: RunContext, unit: Unit, made: Mapping[Unit, Done]) -> bool:
    """Whether a unit's shard was made from the stamps that lie in its store now.

    Parameters
    ----------
    context : RunContext
    unit : Unit
    made : mapping
        From ``ledger.done("catalog", ...)``.
    """
    attrs = store_summary(context.layout.stamps(unit, context.settings.cut.name))["attrs"]
    links = chain(files_fingerprint(attrs["checksums"], attrs["absent"]), context)
    shard = made.get(unit)
    current = shard is not None and shard.status == "done" and shard.fingerprint == links.catalog
    return current and context.layout.shard(unit, context.name).exists()


ABANDONED_SECONDS = 3600.0
"""A worker that lost its coordinator may still be writing files or stamps: only what nobody touched for this long is nobody's."""


def sweep(context: RunContext, units: Iterable[Unit]) -> int:
    """Delete what a killed run left half-written around units that are about to be done; returns how many entries went."""
    layout, cut = context.layout, context.settings.cut.name
    listed = list(units)
    shards = {layout.shard(unit, context.name).parent for unit in listed}
    stores = {layout.stamps(unit, cut).parent for unit in listed}
    bricks = {layout.brick_folder(unit).parent for unit in listed}
    return sum(sweep_asides(folder) for folder in shards) + sum(sweep_asides(folder, ABANDONED_SECONDS) for folder in stores | bricks)
