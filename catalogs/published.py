"""Check the published version: its own totals, every partition, and each brick's rows in them against its shard.

Partitions are read one at a time; of the shards a count and a sum per brick and partition is kept (`catalogs.rowhash`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.catalog.partition_info import PartitionInfo
from hats.io.paths import pixel_catalog_file
from numpy.typing import NDArray

from catalogs import hatsfiles
from catalogs.completeness import COMPLETENESS, by_brick, read_by_brick, totals
from catalogs.hats import CURRENT, INVENTORY, manifest, version_folder
from catalogs.inventory import Entry, load
from catalogs.partitions import RESOLVED_FILE
from catalogs.problem import Problem
from catalogs.rowhash import row_sums
from catalogs.schema import HEALPIX, HEALPIX_ORDER
from catalogs.validity import schema_units, unit_problems
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from galpipe.unit import Unit

_NAME = re.compile(r"^.*dataset/")
"""What stands before a partition's name within its catalog."""

_PIXEL = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)\.parquet$")

Key = tuple[int, str]
"""Index of a partition (-1 for none) and brick."""


@dataclass(frozen=True)
class _Partition:
    """One published file and the order-29 pixels that it may hold."""

    path: Path
    start: int
    end: int


class VersionCheck:
    """The current version beside its shards, which are handed in one by one.

    Parameters
    ----------
    layout : Layout
    name : str
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name
        self.partitions: list[_Partition] = []
        self.folder: Path | None = None
        self._trouble: list[Problem] = []
        self._entries: dict[str, Entry] = {}
        self._made_from: dict[str, tuple[str, int]] = {}
        self._expected: dict[Key, tuple[int, int]] = {}
        self._stale: set[str] = set()
        self._gone = np.zeros(0, np.int64)
        if (layout.hats(name) / CURRENT).exists():
            self._open()

    def _open(self) -> None:
        self.folder = version_folder(self.layout, self.name)
        for path in self.folder.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"):
            match = _PIXEL.search(path.as_posix())
            if match:
                order, pixel = int(match[1]), int(match[2])
                shift = 2 * (HEALPIX_ORDER - order)
                self.partitions.append(_Partition(path, pixel << shift, (pixel + 1) << shift))
        self.partitions.sort(key=lambda item: item.start)
        try:
            stock = load(self.folder / INVENTORY)
            resolved = pq.read_table(self.folder / RESOLVED_FILE)
        except (OSError, pa.ArrowInvalid, BadData) as error:
            self._trouble.append(self._problem(self.folder, f"expected a readable inventory and {RESOLVED_FILE}, got {error}"))
            return
        self._entries = {entry.path: entry for entry in stock.shards}
        self._gone = resolved.filter(pc.not_equal(resolved["reason"], "rescued"))["source_id"].to_numpy()
        if mixed := stock.mixture():
            self._trouble.append(self._problem(self.folder, f"expected shards of one model and configuration in this version, got {mixed}"))
        self._trouble += [self._problem(self.folder / COMPLETENESS, what) for what in _completeness(self.folder, stock.completeness())]
        told = read_by_brick(self.folder)
        if told is not None and not told.equals(by_brick(stock)):
            self._trouble.append(self._problem(self.folder, "expected the completeness by brick of the inventory, got another"))

    def _problem(self, path: Path, what: str, unit: str = "") -> Problem:
        # the file as the pointer names it is the same one
        return Problem(unit, self.layout.relative(path), what)

    def add(self, unit: Unit, shard: Path, table: pa.Table, content_hash: str) -> None:
        """One shard as it is now."""
        if self.folder is None:
            return
        relative = shard.relative_to(self.layout.catalog(self.name)).as_posix()
        entry = self._entries.pop(relative, None)
        if entry is None or entry.content_hash != content_hash:
            self._stale.add(str(unit))
            return
        placed = table.filter(table[HEALPIX].is_valid())
        if len(self._gone):
            placed = placed.filter(pc.invert(pc.is_in(placed["source_id"], pa.array(self._gone))))
        for key, value in _sums(placed, self._partition_of(placed[HEALPIX].to_numpy())).items():
            self._expected[key] = value

    def _partition_of(self, healpix: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of each row's partition; -1 where no file covers it."""
        if not self.partitions:
            return np.full(len(healpix), -1)
        starts, ends = (np.array([getattr(item, name) for item in self.partitions]) for name in ("start", "end"))
        place = np.searchsorted(starts, healpix, side="right") - 1
        return np.where((place >= 0) & (healpix < ends[place]), place, -1)

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong, once all shards were added."""
        if self.folder is None:
            return
        yield from self._trouble
        self._stale |= {_unit_of(path) for path in self._entries}
        if self._stale:
            what = (
                f"expected the shards that it was made from, got {len(self._stale)} others since, first {min(self._stale)} (publish again?)"
            )
            yield self._problem(self.folder, what)
        rows: dict[str, int] = {}
        for index, item in enumerate(self.partitions):
            yield from self._of_partition(index, item, rows)
        for (index, unit), (count, _) in sorted(self._expected.items()):
            if index == -1:
                yield self._problem(self.folder, f"expected a partition for {count} rows of the shard, got none", unit)
        yield from self._totals(self.folder, rows)

    def _of_partition(self, index: int, item: _Partition, rows: dict[str, int]) -> Iterator[Problem]:
        try:
            with pa.OSFile(str(item.path), "rb") as handle:
                table = pq.ParquetFile(handle, page_checksum_verification=True).read()
        except (OSError, pa.ArrowInvalid) as error:
            yield self._problem(item.path, f"expected a readable partition, got {error}")
            return
        rows[item.path.as_posix()] = table.num_rows
        for what in _partition_problems(table, item):
            yield self._problem(item.path, what)
        found = _sums(table, np.full(table.num_rows, index))
        wanted = {key: value for key, value in self._expected.items() if key[0] == index}
        for key in sorted(found.keys() | wanted.keys()):
            unit = key[1]
            (have, has), (want, wants) = found.get(key, (0, 0)), wanted.get(key, (0, 0))
            if unit in self._stale:
                continue
            if have != want:
                yield self._problem(item.path, f"expected {want} rows of the brick's shard, got {have}", unit)
            elif has != wants:
                yield self._problem(item.path, "expected the values of the brick's shard, got others", unit)

    def _totals(self, folder: Path, rows: dict[str, int]) -> Iterator[Problem]:
        """galpipe.json and _metadata against the files."""
        try:
            told = int(manifest(folder)["rows"])
        except (BadData, OSError, ValueError, KeyError) as error:
            yield self._problem(folder, f"expected a readable galpipe.json, got {error}")
        else:
            if len(rows) == len(self.partitions) and told != sum(rows.values()):
                yield self._problem(folder, f"expected {told} published rows by galpipe.json, got {sum(rows.values())}")
        try:
            listed, by = _listed(folder)
        except (OSError, pa.ArrowInvalid) as error:
            yield self._problem(folder / "dataset" / "_metadata", f"expected readable metadata, got {error}")
            return
        have = {_NAME.sub("", name): count for name, count in rows.items()}
        for name in sorted(listed.keys() - {_NAME.sub("", item.path.as_posix()) for item in self.partitions}):
            lacks = "the partition" if listed[name] is None else f"the partition of {listed[name]} rows"
            yield self._problem(folder / "dataset" / name, f"expected {lacks} that {by} lists, got no file")
        for name in sorted(have):
            wanted = listed.get(name, 0)
            if wanted is not None and wanted != have[name]:
                yield self._problem(folder / "dataset" / name, f"expected {wanted} rows by {by}, got {have[name]}")


def _unit_of(path: str) -> str:
    release, region, _, file = path.split("/")
    return f"{release}/{region}/{file.removesuffix('.parquet')}"


def _sums(table: pa.Table, partition: NDArray[np.int64]) -> dict[Key, tuple[int, int]]:
    """Rows, and their sum, by partition and brick."""
    if not table.num_rows:
        return {}
    units = pc.binary_join_element_wise(*(table[name] for name in ("release_name", "region", "brickname")), "/")
    coded = pc.fill_null(units, "").combine_chunks().dictionary_encode()
    names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    pairs, groups = np.unique(partition * len(names) + codes, return_inverse=True)
    counts, sums = np.bincount(groups, minlength=len(pairs)), row_sums(table, groups, len(pairs))
    keys = [(int(pair // len(names)), names[int(pair % len(names))]) for pair in pairs]
    return {key: (int(count), int(value)) for key, count, value in zip(keys, counts, sums, strict=True)}


def _partition_problems(table: pa.Table, item: _Partition) -> Iterator[str]:
    healpix, ids = table[HEALPIX].to_numpy(), table["source_id"].to_numpy()
    outside = int(((healpix < item.start) | (healpix >= item.end)).sum())
    if outside:
        yield f"expected rows of this pixel only, got {outside} of others"
    if (np.diff(healpix) < 0).any():
        yield f"expected rows in the order of {HEALPIX}, got another"
    if len(np.unique(ids)) != len(ids):
        yield f"expected each source_id once, got {len(ids) - len(np.unique(ids))} more"
    yield from unit_problems(table.schema, schema_units())


def _listed(folder: Path) -> tuple[dict[str, int | None], str]:
    """Rows by partition file and the file that says so; of many partitions no file has the rows (`hatsfiles.METADATA_PARTITIONS`): None."""
    path = folder / "dataset" / "_metadata"
    if not path.exists():
        pixels = PartitionInfo.read_from_dir(folder).get_healpix_pixels()
        if len(pixels) > hatsfiles.METADATA_PARTITIONS:
            return {_NAME.sub("", pixel_catalog_file(folder, pixel).as_posix()): None for pixel in pixels}, "partition_info.csv"
    metadata, found = pq.read_metadata(path), dict[str, int]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        name = _NAME.sub("", group.column(0).file_path)
        found[name] = found.get(name, 0) + group.num_rows
    return dict(found), "_metadata"


def _completeness(folder: Path, expected: dict[str, dict[str, int]]) -> Iterator[str]:
    try:
        told = json.loads((folder / COMPLETENESS).read_text())
        if told != expected:
            yield "expected the totals of the version's inventory, got others"
        if (whole := manifest(folder).get("totals")) is not None and whole != totals(expected):
            yield f"expected {totals(expected)} in galpipe.json, got {whole}"
    except (OSError, ValueError, BadData, ConfigurationError) as error:
        yield f"expected readable totals, got {error}"
