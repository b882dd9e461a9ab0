"""What a version remembers of its making, so that the next one writes again only what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hats.pixel_math.healpix_pixel import HealpixPixel

from catalogs.tiling import CELLS, Tiling, load_cells, name_of, pixel_of, save_cells

KEYS = "partitions.json"
"""Name of the file that remembers what each partition was made from."""

Strips = dict[HealpixPixel, dict[HealpixPixel, str]]


@dataclass
class Memory:
    """What `KEYS` of a version says; filled in while it is made.

    Parameters
    ----------
    basis : str
        Hash of what all its files share: schema, algorithm, width of margins.
    keys : dict
        Hash of what each partition was made from.
    strips : dict
        See `catalogs.margins`.
    stamps : dict
        Hash of what each partition of the index of stamps was made from.
    rows : dict
        Rows of each file, by catalog and partition.
    split : frozenset of HealpixPixel
        See `catalogs.tiling`.
    """

    basis: str = ""
    keys: dict[HealpixPixel, str] = field(default_factory=dict)
    strips: Strips = field(default_factory=dict)
    stamps: dict[HealpixPixel, str] = field(default_factory=dict)
    rows: dict[str, dict[HealpixPixel, int]] = field(default_factory=dict)
    split: frozenset[HealpixPixel] = frozenset()

    def count(self, catalog: str, pixel: HealpixPixel, rows: int) -> None:
        """Note the rows of a file."""
        self.rows.setdefault(catalog, {})[pixel] = rows

    def total(self, catalog: str) -> int:
        """Rows of all files of a catalog."""
        return sum(self.rows.get(catalog, {}).values())


def _named(values: Mapping[HealpixPixel, object]) -> dict[str, object]:
    return {name_of(pixel): value for pixel, value in sorted(values.items())}


def remember(folder: Path, memory: Memory, tiling: Tiling) -> None:
    """Write the memory of a version into its folder."""
    body = {
        "basis": memory.basis,
        "split": sorted(map(name_of, memory.split)),
        "keys": _named(memory.keys),
        "strips": _named({pixel: _named(parts) for pixel, parts in memory.strips.items()}),
        "stamps": _named(memory.stamps),
        "rows": {catalog: _named(rows) for catalog, rows in memory.rows.items()},
    }
    (folder / KEYS).write_text(json.dumps(body))
    save_cells(tiling.cells, folder / CELLS)


def recall(folder: Path | None, basis: str) -> tuple[Memory, Tiling]:
    """What a version remembers, and its splits.

    Parameters
    ----------
    folder : Path or None
        None before the first version.
    basis : str
        Of the version that is made: of one that was made otherwise only the splits are of use.
    """
    body = json.loads((folder / KEYS).read_text()) if folder else {}
    if folder is None or "basis" not in body:
        # an older galpipe kept a flat list, of partitions that are all written again
        return Memory(), Tiling({})
    split = frozenset(map(pixel_of, body["split"]))
    tiling = Tiling({}, split, load_cells(folder / CELLS))
    if body["basis"] != basis:
        return Memory(split=split), tiling
    strips = {pixel_of(name): {pixel_of(source): told for source, told in parts.items()} for name, parts in body["strips"].items()}
    keys, stamps = ({pixel_of(name): key for name, key in body[part].items()} for part in ("keys", "stamps"))
    rows = {catalog: {pixel_of(name): count for name, count in counts.items()} for catalog, counts in body["rows"].items()}
    return Memory(basis, keys, strips, stamps, rows, split), tiling
