"""Publish a catalog as a versioned HATS catalog that LSDB, DuckDB and plain Parquet readers open.

``hats/<name>/v<N>/`` is a HATS collection (galaxies, margin cache, index of stamps), complete and never changes; ``current`` points at
the newest. A version is built aside: files whose shards did not change are hard links to the version before, the others are written from
the shards, rows are counted in and out, `hats` validates the whole, and only then is the folder renamed and the pointer moved. One
publisher works at a time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from catalogs import inventory
from catalogs.inventory import Inventory, StaleInventory
from catalogs.partitions import Build, Built, build
from catalogs.tiling import Limits
from galpipe.commit import ASIDE, fault_point, fsync_folder, refusals, replace_folder
from galpipe.errors import ConfigurationError, ResourceFailure
from galpipe.layout import Layout

INVENTORY, MANIFEST, COMPLETENESS = "inventory", "galpipe.json", "completeness.json"
CURRENT, LOCK = "current", ".publish.lock"

_ATTEMPTS = 3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishResult:
    """What a call of `publish` did.

    Parameters
    ----------
    status : str
        ``published`` (a new version, or a finished one that a killed publisher had not pointed at), ``unchanged`` (the newest
        version already shows this content), ``nothing`` (there is no shard, so no schema to publish).
    version : int
        Version that ``current`` points at; 0 when there is none.
    path : Path
    rows : int
        Published rows.
    rows_without_position : int
        Rows of the shards that HATS cannot hold.
    resolved : dict
        Rows at the edges of bricks, by what became of them (`catalogs.resolve`): left out as ``duplicate`` or as the
        ``neighbour``'s, or ``rescued``.
    partitions_written, partitions_linked, margins_written, margins_linked : int
    partitions : dict
        Partitions by HEALPix order; more than one order where some were split.
    stamps : dict
        Rows by whether the stamp is ``kept`` under the root or ``absent`` (`catalogs.stampindex`).
    bytes_written, bytes_linked : int
        Of all files of the version, those that are new and those that the version before has too.
    """

    status: Literal["published", "unchanged", "nothing"]
    version: int
    path: Path
    rows: int = 0
    rows_without_position: int = 0
    partitions_written: int = 0
    partitions_linked: int = 0
    resolved: dict[str, int] = field(default_factory=dict)
    margins_written: int = 0
    margins_linked: int = 0
    partitions: dict[str, int] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    bytes_written: int = 0
    bytes_linked: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"path": str(self.path)}


def versions(layout: Layout, name: str) -> list[int]:
    """Numbers of the complete versions of a catalog, ascending."""
    found = (path.name for path in layout.hats(name).glob("v*") if path.is_dir())
    return sorted(int(text[1:]) for text in found if text[1:].isdigit())


def version_folder(layout: Layout, name: str, version: int | None = None) -> Path:
    """Folder of a version; the one that ``current`` points at by default.

    Raises
    ------
    ConfigurationError
        If there is no such version.
    """
    folder = layout.hats(name)
    path = folder / CURRENT if version is None else folder / f"v{version}"
    if not path.is_dir():
        have = [f"v{number}" for number in versions(layout, name)]
        wanted = "a published version" if version is None else f"version v{version}"
        raise ConfigurationError(f"{wanted} of catalog {name!r}", f"versions {have}", file=str(path))
    return path.resolve()


def manifest(folder: Path) -> dict[str, Any]:
    """What a version says about itself: state, version, rows, created."""
    body: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return body


def completeness(folder: Path) -> dict[str, dict[str, int]]:
    """Totals per ``release/region`` at the moment of a version."""
    body: dict[str, dict[str, int]] = json.loads((folder / COMPLETENESS).read_text())
    return body


@contextmanager
def one_publisher(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait while another publisher is at work. A lock ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("another publisher is at work in %s: waiting for it to end", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def publish(layout: Layout, name: str, progress: Callable[[int, int], None] | None = None, limits: Limits | None = None) -> PublishResult:
    """Make the shards of a catalog its newest HATS version.

    Parameters
    ----------
    layout : Layout
    name : str
    progress : callable, optional
        Called with (partitions done, partitions).
    limits : Limits, optional
        What a partition may hold before it is split; one that was split stays so.

    Returns
    -------
    PublishResult

    Raises
    ------
    BadData
        If a shard does not read, has another schema than the others, or rows are lost; nothing is published then.
    ConfigurationError
        If shards are of more than one model or of other settings: a version mixes nothing.
    ResourceFailure
        If the disk is full, or shards keep changing while they are read.
    """
    folder = layout.hats(name)
    with refusals(folder), one_publisher(folder):
        for left in folder.glob(f"{ASIDE}*"):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        for _ in range(_ATTEMPTS):
            try:
                return _publish(layout, name, progress, limits or Limits())
            except StaleInventory as error:
                _LOG.info("%s; starting again", error)
    raise ResourceFailure("shards that keep still while they are published", f"changes in {_ATTEMPTS} attempts", file=str(folder))


def _publish(layout: Layout, name: str, progress: Callable[[int, int], None] | None, limits: Limits) -> PublishResult:
    folder = layout.hats(name)
    newest = max(versions(layout, name), default=0)
    previous = folder / f"v{newest}" if newest else None
    stock = inventory.take(layout, name, inventory.load(previous / INVENTORY) if previous else None)
    if mixed := stock.mixture():
        raise ConfigurationError(f"shards of one model and configuration in catalog {name!r}", f"{mixed}; run the other bricks again")
    if previous and manifest(previous)["state"] == stock.state():
        return _keep(folder, newest)
    if not stock.shards:
        return PublishResult("nothing", _pointed(folder), folder)
    version = newest + 1
    final = folder / f"v{version}"
    with replace_folder(final) as aside:
        made = build(Build(layout, name, aside, previous, stock, limits), progress)
        inventory.save(stock, aside / INVENTORY, previous / INVENTORY if previous else None)
        _describe(aside, stock, version, made)
    fault_point("publish.pointer", final)
    _point(folder, version)
    return PublishResult(
        "published",
        version,
        final,
        made.rows,
        sum(entry.rows - entry.placed_rows for entry in stock.shards),
        made.written,
        made.linked,
        made.resolved,
        made.margins_written,
        made.margins_linked,
        made.partitions,
        made.stamps,
        *_bytes(final, previous),
    )


def _bytes(folder: Path, previous: Path | None) -> tuple[int, int]:
    """Bytes of a version's files that are new, and of those that are the version before's."""
    before = set(_files(previous)) if previous else set()
    found = _files(folder)
    return sum(size for file, size in found.items() if file not in before), sum(size for file, size in found.items() if file in before)


def _files(folder: Path) -> dict[tuple[int, int], int]:
    """Bytes by file, whatever its names."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return {(item.st_dev, item.st_ino): item.st_size for item in found}


def _describe(aside: Path, stock: Inventory, version: int, made: Built) -> None:
    (aside / COMPLETENESS).write_text(json.dumps(stock.completeness(), indent=1) + "\n")
    lost = sum(entry.rows - entry.placed_rows for entry in stock.shards)
    body = {
        "state": stock.state(),
        "version": version,
        "rows": made.rows,
        "rows_without_position": lost,
        "resolved": made.resolved,
        "partitions": made.partitions,
        "stamps": made.stamps,
        "shards": len(stock.shards),
        "partitions_written": made.written,
        "partitions_linked": made.linked,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (aside / MANIFEST).write_text(json.dumps(body, indent=1) + "\n")


def _pointed(folder: Path) -> int:
    link = folder / CURRENT
    return int(link.readlink().name[1:]) if link.is_symlink() else 0


def _keep(folder: Path, newest: int) -> PublishResult:
    told = manifest(folder / f"v{newest}")
    # a publisher killed between renaming and pointing left a whole version: adopt it
    adopted = _pointed(folder) != newest
    if adopted:
        _point(folder, newest)
    status: Literal["published", "unchanged"] = "published" if adopted else "unchanged"
    lost, resolved = told["rows_without_position"], told.get("resolved", {})
    more = {"partitions": told.get("partitions", {}), "stamps": told.get("stamps", {})}
    return PublishResult(status, newest, folder / f"v{newest}", told["rows"], lost, resolved=resolved, **more)


def _point(folder: Path, version: int) -> None:
    """Move ``current`` in one step."""
    aside = folder / f"{ASIDE}{CURRENT}.{uuid.uuid4().hex[:8]}"
    aside.symlink_to(f"v{version}")
    os.replace(aside, folder / CURRENT)
    fsync_folder(folder)
