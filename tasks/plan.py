"""What is left to do: the plan's bricks against what the ledger says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import astropy.units as u
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix

from catalogs.ledger import Done, Ledger
from catalogs.provenance import read_inputs
from catalogs.shard import read_shard_meta
from galpipe.commit import sweep_asides
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import files_fingerprint
from galpipe.layout import Layout
from galpipe.stamps.store import store_summary
from galpipe.survey.bricks import brick_by_name
from galpipe.survey.files import load_brick_files
from galpipe.survey.remote import ask_again
from galpipe.unit import Receipt, Unit
from tasks.chain import chain, chains
from tasks.changes import Cause, Changes, differences, files_changed
from tasks.context import RunContext
from tasks.recipe import known_recipes, recipe_of

TILE_ORDER = 4
"""HEALPix order of a tile: about 13 square degrees, 200 bricks at most."""


def tile_of(unit: Unit) -> int:
    """The tile that owns a brick, by the brick's center."""
    center = brick_by_name(unit.brick)
    return int(lonlat_to_healpix(Longitude(center.ra * u.deg), Latitude(center.dec * u.deg), TILE_ORDER)[0])


def find_changes(context: RunContext, ledger: Ledger, units: Sequence[Unit], *, settled: bool = False) -> Changes:
    """The units that are not up to date, and why.

    A unit is up to date when its shard was made from the files it was fetched as, by today's settings and model, and is there;
    or when there was nothing to do in it. Bad data and failures of the far side are tried again: they may have been mended.
    Nothing is written.

    Parameters
    ----------
    context : RunContext
    ledger : Ledger
    units : sequence of Unit
    settled : bool
        Tell the files' fingerprints of units that are up to date too, so that the release can be asked for them.
    """
    judge = _Judge(context, ledger, units)
    causes = {unit: found for unit in units if (found := judge.causes(unit))}
    fetched = {unit: fetch for unit in (units if settled else causes) if (fetch := judge.reusable(unit, causes.get(unit, ())))}
    return Changes(len(units), causes, fetched)


def pending(context: RunContext, ledger: Ledger, units: Sequence[Unit]) -> list[Unit]:
    """`find_changes` without the reasons: the units that are not up to date."""
    return find_changes(context, ledger, units).to_do


EXAMINED = 1000
"""Footers read to look whether shards are whole, and provenance records read where recipes tell nothing: one by one takes a
millisecond. A larger plan trusts the ledger and that the file is there; `galpipe verify` reads everything."""

_FROM_FILES = frozenset({"never_done", "interrupted", "failed_before", "files_changed", "unknown", "forced"})

_NEVER, _INTERRUPTED, _FORCED = (Cause("never_done"),), (Cause("interrupted"),), (Cause("forced"),)

Key = tuple[str, str, str]


class _Judge:
    """What the ledger, the recipes on record and the shards say of a plan's units."""

    def __init__(self, context: RunContext, ledger: Ledger, units: Sequence[Unit]) -> None:
        self._context, self._small = context, len(units) <= EXAMINED
        self._links, self._today = chains(context), recipe_of(context)
        self._shards, self._left = _Shards(context.layout, context.name), EXAMINED
        self._past = [(recipe.chains(), differences(recipe, self._today)) for recipe in known_recipes(context)]
        releases = {unit.release for unit in units}
        states = partial(_states, ledger, context.name, releases.pop() if len(releases) == 1 else "")
        self._failed: dict[Key, str] = {}
        self._fetched = self._of(states("fetch"), "fetch", "done")
        self._empty = self._of(states("cut"), "cut", "no_work")
        self._made = self._of(states("catalog"), "catalog", "done")

    def _of(self, rows: Iterator[tuple[Key, str, str]], stage: str, wanted: str) -> dict[Key, str]:
        """Fingerprints of the units with a status; failures are noted."""
        found = {}
        for key, status, fingerprint in rows:
            if status == wanted:
                found[key] = fingerprint
            elif status not in ("done", "no_work"):
                self._failed[key] = f"{stage}: {status}"
        return found

    def causes(self, unit: Unit) -> tuple[Cause, ...]:
        """Why a unit is to be done; empty if it is up to date."""
        key = (unit.release, unit.region, unit.brick)
        fetch, made = self._fetched.get(key), self._made.get(key)
        if fetch is None:
            return self._unfetched(key)
        links = self._links(fetch)
        if self._empty.get(key) == links.cut:
            return _FORCED if self._context.force else ()
        if made == links.catalog:
            return self._shard(unit, made) or (_FORCED if self._context.force else ())
        if key in self._failed:
            return self._unfetched(key)
        return self._made_otherwise(unit, key, fetch)

    def _unfetched(self, key: Key) -> tuple[Cause, ...]:
        if key in self._failed:
            return (Cause("failed_before", self._failed[key]),)
        return _INTERRUPTED if key in self._made else _NEVER

    def _shard(self, unit: Unit, fingerprint: str) -> tuple[Cause, ...]:
        if not self._shards.has(unit):
            return (Cause("shard_missing"),)
        if not self._small:
            return ()
        try:
            meta = read_shard_meta(self._context.layout.shard(unit, self._context.name))
        except BadData as error:
            return (Cause("shard_damaged", error.expected),)
        return () if meta.fingerprint == fingerprint else (Cause("shard_damaged", "not the one that the ledger knows"),)

    def _made_otherwise(self, unit: Unit, key: Key, fetch: str) -> tuple[Cause, ...]:
        """Why a shard, or the finding that there is nothing to do, is not what today's recipe makes of the files."""
        made, empty = self._made.get(key), self._empty.get(key)
        if made is None and empty is None:
            return _INTERRUPTED
        for place, (links_of, different) in enumerate(self._past):
            links = links_of(fetch)
            if different and (empty == links.cut if empty else made == links.catalog):
                # most bricks of a catalog were made by one recipe
                self._past.insert(0, self._past.pop(place))
                return different
        if self._left <= 0:
            return (Cause("unknown"),)
        self._left -= 1
        return self._by_record(unit) or (Cause("unknown"),)

    def _by_record(self, unit: Unit) -> tuple[Cause, ...]:
        """The same from the shard's provenance record and the files that lie here now."""
        layout, name = self._context.layout, self._context.name
        try:
            made_from = read_inputs(layout, name, read_shard_meta(layout.shard(unit, name)).provenance_id)
        except (BadData, ConfigurationError):
            return ()
        found: list[Cause] = []
        now = load_brick_files(layout.brick_folder(unit), unit)
        if now is not None:
            old, new = dict(made_from["files"]), now.checksums
            changed = [item for item in sorted(old.keys() | new.keys()) if old.get(item) != new.get(item)]
            found += [files_changed(unit, changed)] if changed else []
        if "model" in made_from:
            today = self._today
            past = replace(today, cut=made_from["cut"], selection=made_from["selection"], batch=made_from["infer"]["batch"])
            if made_from["model"] != today.model:
                past = replace(past, model=made_from["model"], encoder="")
            found += differences(past, today)
        return tuple(found)

    def reusable(self, unit: Unit, causes: tuple[Cause, ...]) -> str:
        """Fingerprint of a unit's files if none of its causes asks for them again; else empty."""
        if self._context.force or any(cause.kind in _FROM_FILES for cause in causes):
            return ""
        return self._fetched.get((unit.release, unit.region, unit.brick), "")


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


def note_changed(ledger: Ledger, run_id: str, name: str, changed: Mapping[Unit, tuple[str, ...]]) -> None:
    """Have the ledger say that files changed at the source: whatever becomes of this run, the next one fetches them.

    Parameters
    ----------
    ledger : Ledger
    run_id, name : str
    changed : mapping
        Names of the files by unit.
    """
    text = "the release has other files now, which were not fetched yet"
    receipts = [Receipt(unit, "fetch", "remote_failure", file=names[0], reason=f"{unit}: {text}") for unit, names in changed.items()]
    if receipts:
        ledger.record(receipts, run_id, name)


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
