"""Give back disk: old versions, what killed writers left, and products that can be made again.

What stays, whatever the rules say: the version that ``current`` points at and the newest one, pinned versions, every shard, outcomes
file, provenance record and model, and every stamp that a version which stays has in its index. Files that versions share are hard links,
so that a version loses nothing when another one goes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.collection import read_binding
from catalogs.hats import CURRENT, one_publisher, versions
from catalogs.hatsfiles import STAMPS as STAMP_INDEX
from catalogs.lease import ROOT_LEASE, Lease
from catalogs.ledger import ledger_of
from catalogs.outcomes import read_outcomes_meta
from catalogs.versions import created_at, partitions_of, pins
from galpipe.commit import ASIDE, FORMER, remove_folder, sweep_asides
from galpipe.config import CutSettings
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from galpipe.unit import STAMPS

ABANDONED = 3600.0
"""Seconds: what others may write without the root's lease (a lost worker, a search index) is nobody's after this."""

_RENEWED = 30.0
"""Seconds between renewals of the lease."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rules:
    """What may go.

    Parameters
    ----------
    keep_versions : int, optional
        Keep so many of the newest versions.
    keep_days : float, optional
        Keep versions younger than this. With both, a version stays that either keeps; with neither, all stay.
    bricks : bool
        Remove fetched files of bricks that are done.
    stamps : bool
        Remove stamps of bricks that are done, but for those in the index of a version that stays.
    unused_stamps : bool
        Remove stamps of cut settings that no catalog uses now, but for the same.

    Raises
    ------
    ConfigurationError
        If a number makes no sense.
    """

    keep_versions: int | None = None
    keep_days: float | None = None
    bricks: bool = False
    stamps: bool = False
    unused_stamps: bool = False

    def __post_init__(self) -> None:
        if self.keep_versions is not None and self.keep_versions < 1:
            raise ConfigurationError("at least one version to keep", repr(self.keep_versions))
        if self.keep_days is not None and not self.keep_days >= 0:
            raise ConfigurationError("a number of days to keep, 0 or more", repr(self.keep_days))


@dataclass(frozen=True)
class Item:
    """One thing that goes: a folder, or the unfinished products in it.

    Parameters
    ----------
    kind : str
        ``version``, ``search`` (index of a version that is no more), ``stamps``, ``bricks`` or ``asides``.
    path : Path
    bytes : int
        What that frees; of files that versions share, only those that no other has.
    """

    kind: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class Sweep:
    """What a clean removes, and which versions it keeps and why."""

    items: tuple[Item, ...]
    kept: dict[int, str]
    stamps_kept: int = 0
    """Stores that stay because a version has them in its index."""

    @property
    def bytes(self) -> int:
        """Freed in all."""
        return sum(item.bytes for item in self.items)

    def as_dict(self, layout: Layout) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        kinds = Counter(item.kind for item in self.items)
        sizes: Counter[str] = Counter()
        for item in self.items:
            sizes[item.kind] += item.bytes
        return {
            "counts": {**kinds, "bytes": self.bytes, "stamps_kept": self.stamps_kept},
            "bytes": dict(sizes),
            "kept": {f"v{version}": reason for version, reason in self.kept.items()},
            "removed": [asdict(item) | {"path": layout.relative(item.path)} for item in self.items if item.kind in ("version", "search")],
        }


def retained(layout: Layout, name: str, rules: Rules, now: datetime) -> dict[int, str]:
    """Which versions of a catalog stay, and why.

    Raises
    ------
    BadData
        If a manifest or the list of pins does not read: nothing may go then.
    """
    listed, pinned = versions(layout, name), pins(layout, name)
    link = layout.hats(name) / CURRENT
    current = link.resolve().name if link.exists() else ""
    kept: dict[int, str] = {}
    for version in listed:
        made = created_at(layout.hats(name) / f"v{version}")
        if f"v{version}" == current:
            kept[version] = "current"
        elif version == listed[-1]:
            # the next one is numbered after it, and links its files
            kept[version] = "newest"
        elif version in pinned:
            kept[version] = f"pinned: {pinned[version].note}" if pinned[version].note else "pinned"
        elif rules.keep_versions is None and rules.keep_days is None:
            kept[version] = "no rule"
        elif rules.keep_versions is not None and version in listed[-rules.keep_versions :]:
            kept[version] = f"among the newest {rules.keep_versions}"
        elif rules.keep_days is not None and made > now - timedelta(days=rules.keep_days):
            kept[version] = f"younger than {rules.keep_days:g} days"
    return kept


def plan(layout: Layout, name: str, rules: Rules, now: datetime | None = None) -> Sweep:
    """What a clean would remove; nothing is changed.

    Parameters
    ----------
    layout : Layout
    name : str
        Only this catalog's versions go; bricks and stamps are shared by all catalogs of the root.
    rules : Rules
    now : datetime, optional
        UTC; the present by default.

    Raises
    ------
    ConfigurationError
        If the root has no such catalog, or a catalog does not say its cut settings where they decide.
    BadData
        If what would have to be kept cannot be read.
    """
    _check_there(layout, name)
    kept = retained(layout, name, rules, now or datetime.now(UTC))
    gone = [layout.hats(name) / f"v{version}" for version in versions(layout, name) if version not in kept]
    items = [Item("version", folder, size) for folder, size in zip(gone, _freed(gone), strict=True)]
    items += [Item("search", folder, _size(folder)) for folder in _searches(layout, name, kept)]
    stamps_kept = 0
    if rules.stamps or rules.unused_stamps:
        stores, stamps_kept = _stores(layout, rules, _indexed(layout, name, kept))
        items += [Item("stamps", folder, _size(folder)) for folder in stores]
    if rules.bricks:
        items += [Item("bricks", folder, _size(folder)) for folder in _bricks(layout)]
    items += [
        Item("asides", folder, size) for folder, older in _aside_folders(layout, name) if (size := _aside_bytes(folder, older)) is not None
    ]
    return Sweep(tuple(items), kept, stamps_kept)


def clean(layout: Layout, name: str, rules: Rules, owner: str, progress: Progress | None = None) -> Sweep:
    """Remove what `plan` lists, made again under the root's lease and the publisher's lock.

    Every folder is renamed before it is deleted: killed at any moment, what stays is whole, and the next clean does the rest.

    Parameters
    ----------
    layout : Layout
    name : str
    rules : Rules
    owner : str
        Who the lease says is at work.
    progress : callable, optional
        Called with (items done, items).

    Raises
    ------
    ConfigurationError
        If a run is at work on the root, and as `plan`.
    BadData, ResourceFailure
        As `plan` and `galpipe.commit.remove_folder`.
    """
    _check_there(layout, name)
    with ExitStack() as held:
        lease = held.enter_context(held.enter_context(ledger_of(layout)).lease(ROOT_LEASE, owner))
        # a version that is being made is not listed yet, but its index names stamps
        for catalog in _names(layout) if rules.stamps or rules.unused_stamps else [name]:
            held.enter_context(one_publisher(layout.hats(catalog)))
        found = plan(layout, name, rules)
        ages = dict(_aside_folders(layout, name))
        renewed = time.monotonic()
        for done, item in enumerate(found.items, 1):
            renewed = _renew(lease, renewed)
            if item.kind == "asides":
                sweep_asides(item.path, ages.get(item.path, ABANDONED))
            else:
                remove_folder(item.path)
            if progress:
                progress(done, len(found.items))
    return found


def _check_there(layout: Layout, name: str) -> None:
    if not (layout.catalog(name).is_dir() or layout.hats(name).is_dir()):
        raise ConfigurationError(f"a catalog {name!r} under {layout.root}", "none")


def _renew(lease: Lease, renewed: float) -> float:
    if time.monotonic() - renewed < _RENEWED:
        return renewed
    lease.renew()
    return time.monotonic()


def _freed(folders: list[Path]) -> list[int]:
    """Bytes that go with each of some folders, taken one after the other: a file goes with its last name."""
    names: Counter[tuple[int, int]] = Counter()
    freed = []
    for folder in folders:
        total = 0
        for path in folder.rglob("*"):
            stat = path.lstat()
            if path.is_dir() or path.is_symlink():
                continue
            names[stat.st_dev, stat.st_ino] += 1
            total += stat.st_size if names[stat.st_dev, stat.st_ino] == stat.st_nlink else 0
        freed.append(total)
    return freed


def _size(folder: Path) -> int:
    return _freed([folder])[0]


def _searches(layout: Layout, name: str, kept: dict[int, str]) -> list[Path]:
    """Indexes of versions that go or are gone."""
    found = layout.search(name, 1).parent.glob("v*")
    return sorted(path for path in found if path.name[1:].isdigit() and int(path.name[1:]) not in kept)


def _names(layout: Layout) -> list[str]:
    return sorted({path.name for part in ("catalog", "hats") for path in (layout.root / part).glob("*") if path.is_dir()})


def _indexed(layout: Layout, name: str, kept: dict[int, str]) -> set[Path]:
    """Stores that the stamps of a version that stays lie in; of other catalogs every version stays."""
    found: set[Path] = set()
    for catalog in _names(layout):
        for version in kept if catalog == name else versions(layout, catalog):
            for path in partitions_of(layout.hats(catalog) / f"v{version}" / STAMP_INDEX):
                stores = pc.unique(pq.ParquetFile(path).read(columns=["store"])["store"])
                found |= {layout.root / store for store in stores.to_pylist()}
    return found


def _stores(layout: Layout, rules: Rules, indexed: set[Path]) -> tuple[list[Path], int]:
    """Stores that go, and how many stay for a version's sake. What files gave cannot be made again: it always stays."""
    used = _cuts_in_use(layout) if rules.unused_stamps else set()
    found, spared = [], 0
    for path in sorted((layout.root / "stamps").glob("*/*/*/*/*.zarr")):
        cut, release = path.relative_to(layout.root / "stamps").parts[:2]
        unused = rules.unused_stamps and cut not in used
        if release == STAMPS or path.name.startswith(ASIDE) or not (unused or (rules.stamps and _is_done(layout, path))):
            continue
        if path in indexed:
            spared += 1
        else:
            found.append(path)
    return found, spared


def _cuts_in_use(layout: Layout) -> set[str]:
    used = set()
    for name in _names(layout):
        binding = read_binding(layout, name)
        if binding is None:
            raise ConfigurationError(f"the cut settings of catalog {name!r}", "none", file=str(layout.collection(name)))
        values = binding.settings["cut"]
        used.add(CutSettings(**values | {"bands": tuple(values["bands"])}).name)
    return used


def _bricks(layout: Layout) -> list[Path]:
    """Fetched files of bricks that are done; what was fetched and not used yet stays."""
    found = (layout.root / "bricks").glob("*/*/*/*")
    return sorted(path for path in found if path.is_dir() and not path.name.startswith(ASIDE) and _is_done(layout, path))


def _is_done(layout: Layout, path: Path) -> bool:
    """Whether catalogs have what they make of a brick, and none is to try it again; the path ends in release, region, group and brick."""
    release, region, group = path.parts[-4:-1]
    told = [
        read_outcomes_meta(found).status
        for found in (layout.root / "catalog").glob(f"*/{release}/{region}/{group}/{path.stem}.outcomes.parquet")
    ]
    return bool(told) and all(status in ("done", "no_work") for status in told)


def _aside_folders(layout: Layout, name: str) -> Iterator[tuple[Path, float]]:
    """Folders in which writers leave unfinished products, and how old these must be. Trainings (models/) look after their own."""
    yield layout.hats(name), 0.0
    yield layout.search(name, 1).parent, ABANDONED
    for part, age in (("catalog", 0.0), ("stamps", ABANDONED), ("bricks", ABANDONED)):
        for folder in _tree(layout.root / part):
            yield folder, age


def _tree(folder: Path) -> Iterator[Path]:
    """A folder and those below it, not into products or unfinished ones."""
    if not folder.is_dir():
        return
    yield folder
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.suffix != ".zarr" and not path.name.startswith(ASIDE):
            yield from _tree(path)


def _aside_bytes(folder: Path, older_than: float) -> int | None:
    """Bytes of the unfinished products in a folder; None where there are none."""
    newest = time.time() - older_than
    found = [path for path in folder.glob(f"{ASIDE}*") if path.lstat().st_mtime <= newest] if folder.is_dir() else []
    if not found:
        return None
    # a folder that was moved aside for a successor is put back if there is none
    going = [path for path in found if not path.name.endswith(FORMER)]
    return sum(_size(path) if path.is_dir() and not path.is_symlink() else path.lstat().st_size for path in going)
