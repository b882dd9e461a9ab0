"""Ask the release what it changed, in few requests: its lists of Tractor tables, one per 0.1 deg of RA, by conditional requests.

What each list said, and which bricks agreed with it, is kept under the root. A list that is the same as then (HTTP 304) settles all
its bricks without a byte; of one that changed only the bricks are looked at whose own lines did.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalogs.outcomes import read_outcomes_meta
from catalogs.provenance import read_inputs
from catalogs.shard import read_shard_meta
from galpipe.commit import write_bytes
from galpipe.config import FetchSettings
from galpipe.errors import BadData, ConfigurationError
from galpipe.survey.checksums import parse_checksums
from galpipe.survey.files import BrickFiles, FileRecord, load_brick_files
from galpipe.survey.neighbours import stamp_neighbours_of
from galpipe.survey.releases import Release
from galpipe.survey.remote import changed_remotely
from galpipe.survey.sources import Source
from galpipe.survey.transfer import Downloaded, Fresh, Limiter, RemoteState
from galpipe.unit import Unit
from tasks.context import RunContext

OWN_LISTS = 200
"""Bricks up to which each brick's own list is asked for as well; it tells of images that were fixed without the Tractor table."""

DIFFERS = "differs"

Group = tuple[str, str, str]
"""Release, region and ``brick[:3]``."""


@dataclass(frozen=True)
class Answer:
    """What a release said.

    Parameters
    ----------
    changed : mapping
        Names of the files that it has otherwise now, by unit.
    bricks, requests, unchanged : int
        Bricks asked for, requests made, lists that were the same as before.
    own_lists : bool
        Whether each brick's own list was asked for.
    """

    changed: Mapping[Unit, tuple[str, ...]] = field(default_factory=dict)
    bricks: int = 0
    requests: int = 0
    unchanged: int = 0
    own_lists: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        counts = {"bricks": self.bricks, "requests": self.requests, "unchanged": self.unchanged}
        return counts | {"changed": len(self.changed), "own_lists": self.own_lists}


@dataclass
class _Listed:
    """One list of Tractor tables: what it says, and which bricks were found to agree with it."""

    state: RemoteState = field(default_factory=lambda: RemoteState(None))
    sums: dict[str, str] = field(default_factory=dict)
    agreed: dict[str, list[str]] = field(default_factory=dict)
    exists: bool = False
    same: bool = False

    @classmethod
    def load(cls, path: Path) -> _Listed:
        """What was kept; empty where nothing was, or it does not read."""
        try:
            body = json.loads(gzip.decompress(path.read_bytes()))
            return cls(RemoteState(None, *body["state"]), body["sums"], body["agreed"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        """Keep it for the next time."""
        body = {"state": [self.state.etag, self.state.last_modified], "sums": self.sums, "agreed": self.agreed}
        write_bytes(path, gzip.compress(json.dumps(body, sort_keys=True).encode(), 6, mtime=0))


Changed = Mapping[Unit, tuple[str, ...]]


def ask_source(
    context: RunContext,
    release: Release,
    fetched: Mapping[Unit, str],
    *,
    remember: bool | Callable[[Changed], None],
    own_lists: bool | None = None,
) -> Answer:
    """Finished bricks whose files the release has otherwise now: fixed in place, or there where they were absent.

    What a shard was made from is in its provenance record, so this works where the files were not kept.

    Parameters
    ----------
    context : RunContext
    release : Release
    fetched : mapping of Unit to str
        Bricks to ask for, with the fingerprint of their files.
    remember : bool or callable
        Keep what the lists said; a dry run does not. Called with what changed first, where it can be called: once the lists are kept,
        nobody else would tell of it again.
    own_lists : bool, optional
        Ask for each brick's own list too; default is for at most `OWN_LISTS` bricks.

    Raises
    ------
    RemoteFailure
        If the release does not answer.
    """
    counted = _Counted(release.source)
    asker = _Asker(context, replace(release, source=counted), len(fetched) <= OWN_LISTS if own_lists is None else own_lists)
    # the source bounds the requests that are open at a time
    with ThreadPoolExecutor(context.settings.fetch.connections, "check") as pool:
        asker.read_lists(pool, fetched)
        units = sorted(fetched)
        names = pool.map(lambda unit: asker.changed(unit, fetched[unit]), units)
        changed = {unit: found for unit, found in zip(units, names, strict=True) if found}
        # near the poles a brick has images of its neighbours, whose lists told nothing of it the first time
        beside = [unit for unit in units if unit not in changed and any(replace(unit, brick=name) in changed for name in _neighbours(unit))]
        names = pool.map(lambda unit: asker.changed(unit, fetched[unit], beside=True), beside)
        changed |= {unit: found for unit, found in zip(beside, names, strict=True) if found}
    if callable(remember):
        remember(changed)
    if remember:
        asker.remember()
    return Answer(changed, len(units), counted.requests, asker.unchanged, asker.own_lists)


class _Asker:
    """One look at a release."""

    def __init__(self, context: RunContext, release: Release, own_lists: bool) -> None:
        self._context, self._release, self.own_lists = context, release, own_lists
        self._lists: dict[Group, _Listed] = {}
        self._lock, self.unchanged = threading.Lock(), 0

    def read_lists(self, pool: ThreadPoolExecutor, units: Mapping[Unit, str]) -> None:
        """Ask for every list that concerns these units."""
        groups = sorted({(unit.release, unit.region, brick[:3]) for unit in units for brick in (unit.brick, *_neighbours(unit))})
        self._lists = dict(zip(groups, pool.map(self._read_list, groups), strict=True))
        self.unchanged = sum(found.same for found in self._lists.values())

    def _read_list(self, group: Group) -> _Listed:
        _, region, folder = group
        kept = _Listed.load(self._context.layout.remote(*group))
        came = self._release.source.read_unless(self._release.tractor_list(region, folder), kept.state if kept.sums else RemoteState(None))
        if came.status == "same":
            kept.exists = kept.same = True
            return kept
        sums = parse_checksums(came.content.decode("utf-8", "replace")) if came.status == "new" else {}
        return _Listed(came.state, sums, kept.agreed, bool(sums))

    def _list_of(self, unit: Unit, brick: str) -> _Listed:
        return self._lists[unit.release, unit.region, brick[:3]]

    def changed(self, unit: Unit, fetch: str, *, beside: bool = False) -> tuple[str, ...]:
        """Names of a unit's files that changed; one beside a changed brick is looked at whatever its own table's line says."""
        own, table = self._list_of(unit, unit.brick), f"tractor-{unit.brick}.fits"
        bricks = (unit.brick, *_neighbours(unit))
        token = ",".join(self._list_of(unit, brick).sums.get(f"tractor-{brick}.fits", "") for brick in bricks)
        before = own.agreed.get(unit.brick)
        agrees = own.exists and before is not None and before[:2] == [fetch, token]
        known = RemoteState(None, *before[2:]) if agrees and before else RemoteState(None)
        came = self._own_list(unit, known) if self.own_lists else None
        if agrees and not beside and (came is None or came.status == "same"):
            return ()
        files = settled_files(self._context, self._release, unit)
        if files is None:
            return ()
        record = files.record("tractor")
        listed = own.exists and record is not None and own.sums.get(table, "") == record.sha256
        moved = before is not None and before[0] == fetch and before[1] != token
        names: tuple[str, ...] = ()
        if not listed or moved or beside or came is not None:
            came = came or self._own_list(unit, RemoteState(None))
            if own.exists:
                self._release.keep_checksums(self._release.tractor_list(unit.region, unit.brick[:3]), own.sums)
            names = changed_remotely(self._release, files)
        said = came.state if came else RemoteState(None)
        with self._lock:
            own.agreed.pop(unit.brick, None)
            if listed or names:
                # no list says DIFFERS: such a brick is looked at until it was fetched again
                own.agreed[unit.brick] = [fetch, DIFFERS if names else token, said.etag, said.last_modified]
        return names

    def _own_list(self, unit: Unit, known: RemoteState) -> Fresh:
        """The list of a brick's coadds."""
        path = self._release.coadd_list(unit)
        came = self._release.source.read_unless(path, known)
        if came.status == "new":
            self._release.keep_checksums(path, parse_checksums(came.content.decode("utf-8", "replace")))
        return came

    def remember(self) -> None:
        """Keep what was found, list by list."""
        for group, found in self._lists.items():
            if found.exists:
                found.save(self._context.layout.remote(*group))


def _neighbours(unit: Unit) -> tuple[str, ...]:
    return tuple(other.name for other in stamp_neighbours_of(unit.brick))


def settled_files(context: RunContext, release: Release, unit: Unit) -> BrickFiles | None:
    """The files that a unit's shard, or its having none, was made from; None for a unit that left no trace."""
    layout = context.layout
    shard, outcomes = layout.shard(unit, context.name), layout.outcomes(unit, context.name)
    kept = load_brick_files(layout.brick_folder(unit), unit)
    made_from = _made_from(context, shard) if shard.exists() else None
    if made_from is not None:
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


def _made_from(context: RunContext, shard: Path) -> dict[str, Any] | None:
    """The inputs on record for a shard; None where shard or record are damaged."""
    try:
        return read_inputs(context.layout, context.name, read_shard_meta(shard).provenance_id)
    except (BadData, ConfigurationError):
        return None


class _Counted:
    """A source that counts what it is asked."""

    def __init__(self, source: Source) -> None:
        self._source, self._lock = source, threading.Lock()
        self.requests = 0

    @property
    def base(self) -> str:
        """The tree's root."""
        return self._source.base

    def _count(self) -> Source:
        with self._lock:
            self.requests += 1
        return self._source

    def read_small(self, path: str) -> bytes | None:
        """As `Source.read_small`."""
        return self._count().read_small(path)

    def read_unless(self, path: str, known: RemoteState) -> Fresh:
        """As `Source.read_unless`."""
        return self._count().read_unless(path, known)

    def list_names(self, folder: str) -> list[str] | None:
        """As `Source.list_names`."""
        return self._count().list_names(folder)

    def size(self, path: str) -> int | None:
        """As `Source.size`."""
        return self._count().size(path)

    def state(self, path: str) -> RemoteState | None:
        """As `Source.state`."""
        return self._count().state(path)

    def download(self, path: str, part: Path, settings: FetchSettings, limiter: Limiter) -> Downloaded | None:
        """As `Source.download`."""
        return self._count().download(path, part, settings, limiter)
