"""What was fetched for one brick: one record per wanted file, and the JSON file that says so."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from galpipe.errors import BadData
from galpipe.unit import Unit

FETCH_FILE = "fetch.json"
"""Written last into a brick's folder: its presence says that every wanted file was dealt with."""

NEIGHBOUR = "@"
"""Stands between product and brick name in the product of a file that is a neighbouring brick's: ``image@0007p802``."""

FileStatus = Literal["verified", "unverified", "absent"]


@dataclass(frozen=True)
class FileRecord:
    """One wanted file of a brick.

    Parameters
    ----------
    name : str
        File name in the brick's folder, as published.
    path : str
        Path in the release tree.
    product : str
        ``image``, ``invvar``, ``nexp``, ``psfsize``, ``maskbits``, ``tractor``; for a neighbour's file with its name (`NEIGHBOUR`).
    band : str
        Band letter, empty for a file of all bands.
    status : str
        ``verified`` (published sha256), ``unverified`` (none published: decoded instead) or ``absent`` (404).
    sha256, bytes : str, int
        Of the file as stored; empty and 0 when absent.
    etag, last_modified, url : str
        What the server said; `url` is where it came from.
    """

    name: str
    path: str
    product: str
    band: str
    status: FileStatus
    sha256: str = ""
    bytes: int = 0
    etag: str = ""
    last_modified: str = ""
    url: str = ""


@dataclass(frozen=True)
class BrickFiles:
    """The fetched files of one brick.

    Parameters
    ----------
    unit : Unit
    folder : Path
        Where the files lie.
    records : tuple of FileRecord
        One per wanted file, absent ones included, sorted by name.
    """

    unit: Unit
    folder: Path
    records: tuple[FileRecord, ...]

    def record(self, product: str, band: str = "") -> FileRecord | None:
        """The record of a product, or None if it was not wanted."""
        found = (item for item in self.records if (item.product, item.band) == (product, band))
        return next(found, None)

    def path(self, product: str, band: str = "") -> Path | None:
        """Where a product lies; None if it is absent or was not wanted."""
        item = self.record(product, band)
        return None if item is None or item.status == "absent" else self.folder / item.name

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands whose image is present, in the order g, r, i, z, then others."""
        present = {item.band for item in self.records if item.product == "image" and item.status != "absent"}
        return sort_bands(present)

    @property
    def neighbours(self) -> tuple[BrickFiles, ...]:
        """Images of neighbouring bricks that lie here too, because stamps reach into them; sorted by name, absent files included."""
        found: dict[str, list[FileRecord]] = {}
        for item in self.records:
            product, _, brick = item.product.partition(NEIGHBOUR)
            if brick:
                found.setdefault(brick, []).append(replace(item, product=product))
        units = [replace(self.unit, brick=brick) for brick in sorted(found)]
        return tuple(BrickFiles(unit, self.folder, tuple(found[unit.brick])) for unit in units)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the wanted files that the release does not have."""
        return tuple(item.name for item in self.records if item.status == "absent")

    @property
    def checksums(self) -> dict[str, str]:
        """sha256 by file name, absent files left out: what a fetch's fingerprint is made of."""
        return {item.name: item.sha256 for item in self.records if item.status != "absent"}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.bytes for item in self.records)

    def counts(self) -> dict[str, int]:
        """Files by status, for a run's summary."""
        totals = {"verified": 0, "unverified": 0, "absent": 0}
        for item in self.records:
            totals[item.status] += 1
        return totals

    def to_json(self) -> str:
        """Text for `FETCH_FILE`."""
        return json.dumps({"unit": str(self.unit), "files": [asdict(item) for item in self.records]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, folder: Path) -> BrickFiles:
        """Read back what `to_json` wrote.

        Raises
        ------
        BadData
            If the text is not such a record.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            records = tuple(FileRecord(**item) for item in content["files"])
            return cls(Unit.parse(content["unit"]), folder, records)
        except (ValueError, KeyError, TypeError) as error:
            raise BadData("the record of a fetched brick", repr(error), file=str(folder / FETCH_FILE)) from error


def sort_bands(bands: set[str]) -> tuple[str, ...]:
    """Band letters from blue to red; letters that are not g, r, i, z come last."""
    return tuple(sorted(bands, key=lambda band: ("griz".find(band) % 5, band)))


CAPITAL_BANDS = ("Y",)
"""Bands that are written with a capital letter."""


def plain_names(columns: list[str]) -> list[str]:
    """Column names in lower case, but for a band at the end, which stays as it is in file names: ``flux_Y``, ``nexp_Y``.

    Parameters
    ----------
    columns : list of str
        All names of a table: one in capitals throughout does not tell how its bands are written.
    """
    capitals = all(name == name.upper() for name in columns)
    plain = []
    for name in columns:
        stem, _, band = name.rpartition("_")
        # WISE_Y is a coordinate
        kept = band in CAPITAL_BANDS and stem != "WISE" if capitals else stem == stem.lower()
        plain.append(f"{stem.lower()}_{band}" if stem and len(band) == 1 and kept else name.lower())
    return plain


def load_brick_files(folder: Path, unit: Unit) -> BrickFiles | None:
    """The record of a fetched brick; None if there is none, it is unreadable or it is of another brick."""
    try:
        found = BrickFiles.from_json((folder / FETCH_FILE).read_text(), folder)
    except (OSError, UnicodeDecodeError, BadData):
        return None
    return found if found.unit == unit else None
