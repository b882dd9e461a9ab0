"""Where a stream's stamps lie, and how some of them are read: Zarr stores of bricks, Stein-layout HDF5, files of labelled images.

A shard is one of these files. Labels are not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.config import SOFTENING, STAMP_SIZE, SURVEY_PIXSCALE
from galpipe.errors import BadData, ConfigurationError
from galpipe.labels.labelset import LabelSet, open_labels
from galpipe.lvm.inputs import MODEL_BANDS, valid_pixels
from galpipe.lvm.pack import pack_stamps
from galpipe.stamps.readers import HDF5
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import read_pixels, store_summary

STORE = ".zarr"
TABLES = (".parquet",)

TOLD = tuple(f"{name}_{band}" for name in ("psfsize", "psfdepth") for band in MODEL_BANDS)
"""Columns that the model is told beside the pixels."""


@dataclass(frozen=True)
class Shard:
    """One file or store.

    Parameters
    ----------
    path : str
    kind : str
        ``store`` or ``labels`` (anything that `galpipe.labels` opens).
    rows : int
    mark : str
        Changes with the content: the store's content hash, a file's size.
    """

    path: str
    kind: Literal["store", "labels"]
    rows: int
    mark: str


@dataclass(frozen=True)
class Refused:
    """A stamp, or a whole shard (row -1), that trains nothing, and why."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True)
class Shards:
    """All shards of a stream, in the order of the paths given and of names.

    Parameters
    ----------
    found : tuple of Shard
    refused : tuple of Refused
        Shards that cannot be opened.
    """

    found: tuple[Shard, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def rows(self) -> list[int]:
        """Rows of each."""
        return [shard.rows for shard in self.found]

    def digest(self) -> str:
        """Hash of names and contents, wherever they lie: a stream of another digest is another stream."""
        lines = "\n".join(f"{Path(shard.path).name} {shard.rows} {shard.mark}" for shard in self.found)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Content:
    """Some stamps in memory.

    Parameters
    ----------
    image : ndarray of int16, shape (N, 3, S, S)
        Codes of g, r, z.
    mask : ndarray of uint8, shape (N, S, S)
        As in a training pack; all bits set where the stamp is refused.
    told : ndarray of float64, shape (N, 6)
        The columns `TOLD`, NaN where not known.
    refused : tuple of Refused
    """

    image: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    told: npt.NDArray[np.float64]
    refused: tuple[Refused, ...] = ()

    def __len__(self) -> int:
        return len(self.image)


def find_shards(paths: Sequence[Path]) -> Shards:
    """Open every store and file under some paths as far as to know its rows.

    Parameters
    ----------
    paths : sequence of Path
        Stores, HDF5 and label files, or folders: of a folder all stores and HDF5 files below it, and the Parquet files in it.

    Raises
    ------
    ConfigurationError
        If a path is not there or holds nothing, or stamps are not of the model's size, pixel scale, softening and bands.
    BadData
        If nothing at all can be opened.
    """
    found: dict[str, Shard] = {}
    refused = []
    for path in paths:
        for place in _places(path):
            name = str(place.resolve())
            if name in found:
                continue
            try:
                found[name] = _describe(place, name)
            except BadData as error:
                refused.append(Refused(name, -1, f"expected {error.expected}, got {error.got}"))
    kept = tuple(shard for shard in found.values() if shard.rows)
    if not kept:
        raise BadData("at least one stamp to train on", refused[0].reason if refused else "empty stores", file=str(paths[0]))
    return Shards(kept, tuple(refused))


def _places(path: Path) -> list[Path]:
    if not path.exists():
        raise ConfigurationError("a store, file or folder of stamps", "nothing", file=str(path))
    if path.is_file() or path.suffix == STORE:
        return [path]
    below = sorted(_below(path))
    tables = [item for item in sorted(path.iterdir()) if item.is_file() and item.suffix.lower() in TABLES]
    # a folder with one subfolder of images per class is a label set itself
    return below + tables or [path]


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        stores = [name for name in folders if name.endswith(STORE) and not name.startswith(".")]
        # unfinished products begin with a dot
        folders[:] = [name for name in folders if not name.endswith(STORE) and not name.startswith(".")]
        yield from (Path(place) / name for name in [*stores, *(name for name in files if name.lower().endswith(HDF5))])


def _describe(place: Path, name: str) -> Shard:
    if place.suffix == STORE:
        summary = store_summary(place)
        _check_store(place, summary)
        return Shard(name, "store", int(summary["rows"]), str(summary["content_hash"])[:16])
    labels = _opened(name)
    size = place.stat().st_size if place.is_file() else 0
    return Shard(name, "labels", len(labels), str(size))


def _check_store(place: Path, summary: dict[str, Any]) -> None:
    """A store that was cut in another way is a wrong request, not a damaged file."""
    bands, softening = tuple(summary["bands"]), tuple(summary["softening"])
    if not set(bands) & set(MODEL_BANDS):
        raise ConfigurationError(f"a band among {MODEL_BANDS}", repr(bands), file=str(place))
    if summary["pixscale"] != SURVEY_PIXSCALE:
        raise ConfigurationError(f"stamps of {SURVEY_PIXSCALE} arcsec per pixel", repr(summary["pixscale"]), file=str(place))
    for band, value in zip(bands, softening, strict=True):
        if band in MODEL_BANDS and value != SOFTENING[band]:
            raise ConfigurationError(f"softening {SOFTENING[band]} in {band}", repr(value), file=str(place))
    try:
        shape = json.loads((place / "image" / "zarr.json").read_text())["shape"]
    except (OSError, ValueError, KeyError) as error:
        raise BadData("a store with an array image", f"{type(error).__name__}: {error}", file=str(place)) from error
    if shape[0] != summary["rows"]:
        raise BadData(f"{summary['rows']} stamps", f"{shape[0]}", file=str(place))
    if shape[-1] != STAMP_SIZE:
        raise ConfigurationError(f"stamps of {STAMP_SIZE} pixels", str(shape[-1]), file=str(place))


@lru_cache(maxsize=8)
def _opened(name: str) -> LabelSet:
    # of files only: the metadata of all rows is in memory, and is read once per process
    return open_labels(Path(name))


def read_shard(shard: Shard, first: int, last: int) -> Content:
    """Stamps of rows ``first`` to ``last`` (not included); what cannot be read comes blank, with its name and reason."""
    try:
        content = _from_store(shard, first, last) if shard.kind == "store" else _from_labels(shard, first, last)
    except BadData as error:
        reason = f"expected {error.expected}, got {error.got}"
        return _blank(last - first, tuple(Refused(shard.path, row, reason) for row in range(first, last)))
    return _without_empty(content, shard, first)


def _from_store(shard: Shard, first: int, last: int) -> Content:
    stamps = read_pixels(Path(shard.path), slice(first, last), TOLD)
    if len(stamps) != last - first:
        raise BadData(f"rows {first} to {last}", f"{len(stamps)} stamps", file=shard.path)
    packed = pack_stamps(stamps)
    return Content(packed.image, packed.mask, _told(stamps))


def _from_labels(shard: Shard, first: int, last: int) -> Content:
    blank = _blank(last - first, ())
    refused = []
    for batch in _opened(shard.path).batches(rows=range(first, last)):
        refused += [Refused(shard.path, item.row, f"{item.id}: {item.reason}") for item in batch.dropped]
        if batch.stamps is not None:
            packed, places = pack_stamps(batch.stamps), batch.rows - first
            blank.image[places], blank.mask[places], blank.told[places] = packed.image, packed.mask, _told(batch.stamps)
    return Content(blank.image, blank.mask, blank.told, tuple(refused))


def _told(stamps: StampSet) -> npt.NDArray[np.float64]:
    result = np.full((len(stamps), len(TOLD)), np.nan)
    for place, name in enumerate(TOLD):
        if name in stamps.sources.column_names:
            result[:, place] = stamps.sources[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return result


def _blank(count: int, refused: tuple[Refused, ...]) -> Content:
    shape = (count, STAMP_SIZE, STAMP_SIZE)
    image = np.zeros((count, len(MODEL_BANDS), STAMP_SIZE, STAMP_SIZE), np.int16)
    return Content(image, np.full(shape, 255, np.uint8), np.full((count, len(TOLD)), np.nan), refused)


def _without_empty(content: Content, shard: Shard, first: int) -> Content:
    """Refuse stamps that show nothing: no valid pixel, or one value in every band (a lost chunk of a store reads as zeros)."""
    flat = content.image.reshape(*content.image.shape[:2], -1)
    seen = valid_pixels(content.mask, MODEL_BANDS).any(axis=(2, 3))
    shows = (seen & (flat.min(axis=2) != flat.max(axis=2))).any(axis=1)
    known = {item.row for item in content.refused}
    empty = [row for row in np.flatnonzero(~shows).tolist() if first + row not in known]
    if not empty:
        return content
    mask = np.array(content.mask)
    mask[empty] = 255
    reasons = tuple(Refused(shard.path, first + row, "expected pixels that differ, got none, or one value in every band") for row in empty)
    return Content(content.image, mask, content.told, content.refused + reasons)
