"""What lies in a catalog's folder: shards and outcomes, found by name, read by footer, remembered by size and time."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.outcomes import read_outcomes_meta
from catalogs.parquet import PARQUET
from catalogs.shard import read_shard_meta
from galpipe.commit import ASIDE, link
from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.unit import Unit

_OUTCOMES = ".outcomes.parquet"

_PLAIN = ("path", "size", "mtime_ns", "content_hash", "schema_hash", "rows", "counts", "model", "binding", "provenance_id")

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("content_hash", pa.string()),
        ("schema_hash", pa.string()),
        ("rows", pa.int64()),
        ("pixels", pa.map_(pa.int64(), pa.int64())),
        ("counts", pa.string()),
        ("model", pa.string()),
        ("binding", pa.string()),
        ("provenance_id", pa.int64()),
    ]
)


Content = TypeVar("Content")


class StaleInventory(Exception):
    """A shard or outcomes file was replaced after it was listed."""


@dataclass(frozen=True)
class Entry:
    """One shard or outcomes file.

    Parameters
    ----------
    path : str
        Relative to the catalog's folder.
    size, mtime_ns : int
        By which a file that did not change is known without opening it.
    content_hash : str
        From the footer.
    schema_hash : str
        From a shard's footer; empty for outcomes.
    rows : int
    pixels : dict
        A shard's rows by pixel at the partition order.
    counts : str
        JSON of an outcomes file's status, file, reason and counts.
    model, binding : str
        From a shard's footer: which model answered, and the hash of model and settings together.
    provenance_id : int
        From a shard's footer; 0 where an older inventory does not say it.
    """

    path: str
    size: int
    mtime_ns: int
    content_hash: str = ""
    schema_hash: str = ""
    rows: int = 0
    pixels: tuple[tuple[int, int], ...] = ()
    counts: str = ""
    model: str = ""
    binding: str = ""
    provenance_id: int = 0

    @property
    def placed_rows(self) -> int:
        """Rows that have a position."""
        return sum(count for _, count in self.pixels)


@dataclass(frozen=True)
class Inventory:
    """Everything a catalog consists of at one moment, sorted by path."""

    shards: tuple[Entry, ...]
    outcomes: tuple[Entry, ...]

    def state(self) -> str:
        """Hash of all content: two inventories with one state publish the same version."""
        body = [[entry.path, entry.content_hash] for entry in self.shards] + [
            [entry.path, entry.counts, entry.content_hash] for entry in self.outcomes
        ]
        return hashlib.sha256(json.dumps(body).encode()).hexdigest()

    def mixture(self) -> str:
        """`mixture` of the shards."""
        return mixture((entry.model, entry.binding) for entry in self.shards)

    def completeness(self) -> dict[str, dict[str, int]]:
        """Totals per ``release/region``: bricks by status, sources by outcome, rows, rows without a position."""
        totals: dict[str, Counter[str]] = {}
        for entry in self.outcomes:
            region = totals.setdefault("/".join(entry.path.split("/")[:2]), Counter())
            told = json.loads(entry.counts)
            region["bricks"] += 1
            region[f"bricks:{told['status']}"] += 1
            region.update({f"sources:{key}" if key != "sources" else key: value for key, value in told["counts"].items()})
        for entry in self.shards:
            region = totals.setdefault("/".join(entry.path.split("/")[:2]), Counter())
            region["rows"] += entry.rows
            region["rows_without_position"] += entry.rows - entry.placed_rows
        return {key: dict(sorted(value.items())) for key, value in sorted(totals.items())}


def mixture(made_by: Iterable[tuple[str, str]]) -> str:
    """How many shards there are of which model or settings; empty where all are of one.

    Parameters
    ----------
    made_by : iterable of (str, str)
        Model and binding of each shard. What a shard does not say counts as the same.
    """
    listed = list(made_by)
    for kind, names in (("model", [model for model, _ in listed]), ("settings", [binding for _, binding in listed])):
        counts = Counter(name for name in names if name)
        if len(counts) > 1:
            return ", ".join(f"{count} of {kind} {name[:12]}" for name, count in sorted(counts.items()))
    return ""


def _files(layout: Layout, name: str) -> Iterator[Path]:
    for path in sorted(layout.catalog(name).glob("*/*/*/*.parquet")):
        if not path.name.startswith(ASIDE):
            yield path


def shard_files(layout: Layout, name: str) -> Iterator[tuple[Unit, Path]]:
    """Every shard of a catalog, sorted by path."""
    for path in _files(layout, name):
        if not path.name.endswith(_OUTCOMES):
            yield layout.unit_of_shard(path, name), path


def outcomes_files(layout: Layout, name: str) -> Iterator[tuple[Unit, Path]]:
    """Every outcomes file of a catalog, sorted by path."""
    for path in _files(layout, name):
        if path.name.endswith(_OUTCOMES):
            yield layout.unit_of_shard(path.with_name(path.name.removesuffix(_OUTCOMES) + ".parquet"), name), path


def take(layout: Layout, name: str, known: Inventory | None = None, files: Iterable[Path] | None = None) -> Inventory:
    """List a catalog, or some of its files; footers are read only of files that an earlier inventory does not know.

    Raises
    ------
    BadData
        If a footer does not read.
    """
    listed = known.shards + known.outcomes if known else ()
    # an older galpipe did not list the hash of outcomes, why a brick has none, nor the provenance of shards
    whole = (entry for entry in listed if entry.content_hash and ('"reason"' in entry.counts or entry.provenance_id))
    earlier = {(entry.path, entry.size, entry.mtime_ns): entry for entry in whole}
    shards: list[Entry] = []
    outcomes: list[Entry] = []
    for path in _files(layout, name) if files is None else files:
        stat = path.stat()
        relative = path.relative_to(layout.catalog(name)).as_posix()
        entry = earlier.get((relative, stat.st_size, stat.st_mtime_ns)) or _read(path, relative, stat.st_size, stat.st_mtime_ns)
        (outcomes if relative.endswith(_OUTCOMES) else shards).append(entry)
    return Inventory(tuple(shards), tuple(outcomes))


def _read(path: Path, relative: str, size: int, mtime_ns: int) -> Entry:
    if relative.endswith(_OUTCOMES):
        told = read_outcomes_meta(path)
        ended = {"status": told.status, "file": told.file, "reason": told.reason}
        counts = json.dumps({**ended, "counts": dict(told.counts)}, sort_keys=True)
        return Entry(relative, size, mtime_ns, told.content_hash, rows=told.counts["sources"], counts=counts)
    meta = read_shard_meta(path)
    pixels = tuple(sorted(meta.pixels.items()))
    return Entry(
        relative,
        size,
        mtime_ns,
        meta.content_hash,
        meta.schema_hash,
        meta.rows,
        pixels,
        model=meta.model,
        binding=meta.binding,
        provenance_id=meta.provenance_id,
    )


def save(inventory: Inventory, folder: Path, before: Path | None = None) -> None:
    """Write an inventory beside the version that was made from it: a Parquet file for every 10 deg of RA.

    Parameters
    ----------
    inventory : Inventory
    folder : Path
    before : Path, optional
        The inventory of the version before, whose files are linked where they say the same: of a whole release, 40 MB otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slices: dict[str, list[Entry]] = {}
    for entry in inventory.shards + inventory.outcomes:
        slices.setdefault(entry.path.split("/")[2][:2], []).append(entry)
    for name, entries in sorted(slices.items()):
        sink = pa.BufferOutputStream()
        pq.write_table(_table(entries), sink, **PARQUET)
        content, path = sink.getvalue().to_pybytes(), folder / f"{name}.parquet"
        path.unlink(missing_ok=True)
        old = before / path.name if before else path
        if old.is_file() and old.read_bytes() == content:
            link(old, path)
        else:
            path.write_bytes(content)


def _table(entries: Iterable[Entry]) -> pa.Table:
    rows: list[dict[str, Any]] = [{key: getattr(entry, key) for key in _PLAIN} | {"pixels": list(entry.pixels)} for entry in entries]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def load(folder: Path, slices: Collection[str] | None = None) -> Inventory:
    """Read what `save` wrote, or only some of its files by name, or the one file of an older galpipe.

    Nothing is known of what an older one wrote otherwise.
    """
    older = folder.with_name(f"{folder.name}.parquet")
    entries: list[Entry] = []
    for path in sorted(folder.glob("*.parquet")) or [older]:
        if slices is not None and path != older and path.stem not in slices:
            continue
        table = pq.read_table(path, partitioning=None)
        if "provenance_id" not in table.schema.names:
            table = table.append_column("provenance_id", pa.array([0] * table.num_rows, pa.int64()))
        if table.schema.names != _SCHEMA.names:
            return Inventory((), ())
        entries += [Entry(**{key: row[key] for key in _PLAIN}, pixels=tuple(row["pixels"])) for row in table.to_pylist()]
    entries.sort(key=lambda entry: entry.path)
    outcomes = tuple(entry for entry in entries if entry.path.endswith(_OUTCOMES))
    return Inventory(tuple(entry for entry in entries if not entry.path.endswith(_OUTCOMES)), outcomes)


def read_listed(folder: Path, entry: Entry, read: Callable[[Path], tuple[Content, str]]) -> Content:
    """What a file holds, if it is still the one that was listed.

    Parameters
    ----------
    folder : Path
        Of the catalog.
    entry : Entry
    read : callable
        Gives the content of a path and the content hash in its footer.

    Raises
    ------
    BadData
        If the file does not read.
    StaleInventory
        If it is gone or was replaced.
    """
    path = folder / entry.path
    try:
        content, told = read(path)
    except BadData as error:
        if path.exists():
            raise
        raise StaleInventory(f"{entry.path} is gone") from error
    if told != entry.content_hash:
        raise StaleInventory(f"{entry.path} was replaced")
    return content
