"""The published versions of a catalog: which there are, which one a user means, which ones must stay.

A version is named by its number (``3``, ``v3``), by a date or time (the newest one created at or before it) or as ``current``.
``hats/<name>/pins.json`` lists the versions that no retention removes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.hats import CURRENT, INVENTORY, manifest, one_publisher, version_folder, versions
from galpipe.commit import write_bytes
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout

PINS = "pins.json"
"""Name of the file, beside the versions, that says which of them stay."""

PARTITIONS = "dataset/Norder=*/Dir=*/Npix=*.parquet"
"""Where a version's partitions lie in its folder."""

_NUMBER = re.compile(r"v?(\d+)")


@dataclass(frozen=True)
class Pin:
    """Why a version stays."""

    note: str
    pinned: str
    """When, ISO, UTC."""


@dataclass(frozen=True)
class VersionInfo:
    """What a version is.

    Parameters
    ----------
    version : int
    created : str
        ISO, UTC.
    rows : int
    models : tuple of str
        Hashes of the models that made its shards; one, unless it was told to mix.
    partitions_written, partitions_linked : int
        Files that were new with this version, and those it took over from the version before.
    bytes, own_bytes : int
        All its files, and those among them that no other version shares: what removing it alone would free.
    current : bool
    pin : Pin or None
    """

    version: int
    created: str
    rows: int
    models: tuple[str, ...]
    partitions_written: int
    partitions_linked: int
    bytes: int
    own_bytes: int
    current: bool
    pin: Pin | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def partitions_of(folder: Path) -> list[Path]:
    """A version's Parquet partitions, sorted."""
    return sorted(folder.glob(PARTITIONS))


def created_at(folder: Path) -> datetime:
    """When a version was made, UTC.

    Raises
    ------
    BadData
        If its manifest does not read.
    """
    try:
        return _utc(datetime.fromisoformat(manifest(folder)["created"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData("a version's manifest with its time", f"{type(error).__name__}: {error}", file=str(folder)) from error


def describe(layout: Layout, name: str, version: int) -> VersionInfo:
    """What there is to know of a version without reading rows.

    Raises
    ------
    ConfigurationError
        If there is no such version.
    BadData
        If its manifest does not read.
    """
    folder = version_folder(layout, name, version)
    told = manifest(folder)
    written, linked = _partitions(layout, name, version, told)
    return VersionInfo(
        version,
        created_at(folder).isoformat(),
        int(told["rows"]),
        _models(folder),
        written,
        linked,
        *_sizes(folder),
        (layout.hats(name) / CURRENT).resolve() == folder,
        pins(layout, name).get(version),
    )


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of all files below a folder, and of those that have no name elsewhere; one of several names counts once."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = Counter((stat.st_dev, stat.st_ino) for stat in found)
    files = {(stat.st_dev, stat.st_ino): stat for stat in found}
    own = [stat.st_size for key, stat in files.items() if names[key] == stat.st_nlink]
    return sum(stat.st_size for stat in files.values()), sum(own)


def _models(folder: Path) -> tuple[str, ...]:
    # an older galpipe wrote one file
    files = sorted((folder / INVENTORY).glob("*.parquet")) or [folder / f"{INVENTORY}.parquet"]
    columns = [pq.ParquetFile(path).read(columns=["model"]) for path in files]
    return tuple(sorted({model for table in columns if table.num_columns for model in pc.unique(table["model"]).to_pylist() if model}))


def _partitions(layout: Layout, name: str, version: int, told: dict[str, Any]) -> tuple[int, int]:
    if "partitions_written" in told:
        return int(told["partitions_written"]), int(told["partitions_linked"])
    # an older galpipe did not write it down: what the version before has too was linked
    before = layout.hats(name) / f"v{version - 1}"
    known = {path.stat().st_ino for path in partitions_of(before)}
    files = partitions_of(layout.hats(name) / f"v{version}")
    linked = sum(path.stat().st_ino in known for path in files)
    return len(files) - linked, linked


def as_of(layout: Layout, name: str, wanted: int | str | None) -> int | None:
    """The number of the version that somebody means.

    Parameters
    ----------
    layout : Layout
    name : str
    wanted : int, str or None
        ``3``, ``v3``, ``current``, or an ISO date or time (UTC unless it says otherwise; a date is the end of its day). None is
        ``current``.

    Returns
    -------
    int or None
        None for the current one.

    Raises
    ------
    ConfigurationError
        If the text is none of these, or there is no such version; the message lists those there are, with their dates.
    """
    if wanted is None or wanted == "current":
        return None
    numbered = _NUMBER.fullmatch(str(wanted).strip())
    if numbered:
        number = int(numbered[1])
        if number not in versions(layout, name):
            raise ConfigurationError(f"a version of catalog {name!r}", f"v{number}; there are {_listed(layout, name)}")
        return number
    moment = _moment(str(wanted).strip())
    older = [number for number in versions(layout, name) if created_at(layout.hats(name) / f"v{number}") <= moment]
    if not older:
        had = f"none at {moment.isoformat(timespec='seconds')}; there are {_listed(layout, name)}"
        raise ConfigurationError(f"a version of catalog {name!r} created at or before {wanted!r}", had)
    return max(older)


def _moment(text: str) -> datetime:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return datetime.combine(day, time.max, UTC)
    try:
        return _utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise ConfigurationError("a version (3, v3, current) or an ISO date or time such as 2026-11-24T16:00", repr(text)) from error


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _listed(layout: Layout, name: str) -> str:
    dated = [f"v{number} ({created_at(layout.hats(name) / f'v{number}'):%Y-%m-%dT%H:%M:%SZ})" for number in versions(layout, name)]
    return ", ".join(dated) or "none"


def reference(layout: Layout, text: str, name: str = "main") -> tuple[str, int]:
    """Catalog and version number behind ``VERSION`` or ``NAME@VERSION``.

    Parameters
    ----------
    layout : Layout
    text : str
        The version as in `as_of`; nothing after the ``@`` is the current one.
    name : str
        Catalog of a text without a name.

    Raises
    ------
    ConfigurationError
        As `as_of`.
    """
    given, at, wanted = text.rpartition("@")
    of = given if at else name
    number = as_of(layout, of, wanted or None)
    return of, int(version_folder(layout, of, number).name[1:])


def pins(layout: Layout, name: str) -> dict[int, Pin]:
    """The pinned versions of a catalog.

    Raises
    ------
    BadData
        If the list does not read: nothing may be removed then.
    """
    path = layout.hats(name) / PINS
    if not path.exists():
        return {}
    try:
        return {int(number): Pin(**body) for number, body in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BadData("a readable list of pinned versions", f"{type(error).__name__}: {error}", file=str(path)) from error


def pin(layout: Layout, name: str, version: int, note: str = "") -> None:
    """Keep a version whatever the retention says; a second pin replaces the note.

    Raises
    ------
    ConfigurationError
        If there is no such version.
    """
    version_folder(layout, name, version)
    # under the lock, so that nobody removes it meanwhile
    with one_publisher(layout.hats(name)):
        version_folder(layout, name, version)
        _write_pins(layout, name, pins(layout, name) | {version: Pin(note, datetime.now(UTC).isoformat(timespec="seconds"))})


def unpin(layout: Layout, name: str, version: int) -> None:
    """Let the retention decide about a version again.

    Raises
    ------
    ConfigurationError
        If it is not pinned.
    """
    version_folder(layout, name, version)
    with one_publisher(layout.hats(name)):
        pinned = pins(layout, name)
        if version not in pinned:
            raise ConfigurationError(f"a pinned version of catalog {name!r}", f"v{version}; pinned are {sorted(pinned)}")
        _write_pins(layout, name, {number: item for number, item in pinned.items() if number != version})


def _write_pins(layout: Layout, name: str, pinned: dict[int, Pin]) -> None:
    body = {str(number): asdict(item) for number, item in sorted(pinned.items())}
    write_bytes(layout.hats(name) / PINS, (json.dumps(body, indent=1) + "\n").encode())
