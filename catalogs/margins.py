"""The margin cache: beside each partition, the rows of its neighbours that lie just beyond its border.

A search or match near a border needs what lies on the other side; with the cache no reader opens eight neighbours for it. As in
hats-import, the margin of a partition is everything in the order-13 pixels (26 arcsec) that touch its border: all rows within
`MARGIN_ARCSEC` and some more; and pixels without rows of their own have one too, as a position there may match a row beyond.

What a neighbour gives is a *strip*. A version remembers the hash of every strip, so that a margin is written again only if one of its
strips changed, and takes the others from its file of the version before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.pixel_math.healpix_pixel import HealpixPixel
from hats.pixel_math.pixel_margins import get_margin
from numpy.typing import NDArray

from catalogs.schema import HEALPIX, HEALPIX_ORDER
from catalogs.tiling import Tiling, first_cell

MARGIN_ARCSEC = 10.0
"""Rows this near to a partition are in its margin: three times the widest match of galaxies between surveys."""

STRIP_ORDER = 13
"""HEALPix order of the pixels that strips consist of: the finest whose pixels are nowhere narrower than `MARGIN_ARCSEC`."""

_SHIFT = 2 * (HEALPIX_ORDER - STRIP_ORDER)

Strips = Mapping[HealpixPixel, Mapping[HealpixPixel, str]]
"""Hash of each strip that has rows: by the partition that it is beside, and the one that it lies in."""


@dataclass(frozen=True)
class MarginWork:
    """What margins are made from.

    Parameters
    ----------
    tiling : Tiling
        The version's partitions.
    written, gone : frozenset of HealpixPixel
        Partitions whose rows are not those of the version before, and partitions of that version that are none any more.
    partition : callable
        File of a partition in this version.
    before : mapping
        Strips of the version before.
    margin_before : callable
        File of a partition's margin in the version before.
    """

    tiling: Tiling
    written: frozenset[HealpixPixel]
    gone: frozenset[HealpixPixel]
    partition: Callable[[HealpixPixel], Path]
    before: Strips
    margin_before: Callable[[HealpixPixel], Path]


@dataclass
class Margin:
    """The margin of one partition.

    Parameters
    ----------
    pixel : HealpixPixel
    strips : dict
        Hash of each strip, by the partition that it lies in; empty where nothing lies near.
    rows : list of pyarrow.Table
        Its rows; empty where they are those of the version before.
    """

    pixel: HealpixPixel
    strips: dict[HealpixPixel, str] = field(default_factory=dict)
    rows: list[pa.Table] = field(default_factory=list)
    unchanged: bool = False


def margins(work: MarginWork) -> Iterator[Margin]:
    """The margin of every partition, those near to changes last and in the order in which they are complete.

    No more is held than the strips of margins that wait for a neighbour.
    """
    wanted = {pixel: neighbours(work.tiling, pixel) for pixel in sorted(_concerned(work))}
    # a pixel without rows that was split since is no pixel of the tiling any more
    for pixel in sorted(set(work.tiling.members) | {pixel for pixel in work.before if pixel not in work.tiling.split | work.gone}):
        if pixel not in wanted:
            yield Margin(pixel, dict(work.before.get(pixel, {})), unchanged=True)
    asked: dict[HealpixPixel, dict[HealpixPixel, NDArray[np.int64]]] = {}
    open_margins = {pixel: Margin(pixel) for pixel in wanted}
    waiting: dict[HealpixPixel, set[HealpixPixel]] = {}
    for pixel, sources in wanted.items():
        kept = {source: known for source in sources if (known := _known(work, pixel, source)) is not None}
        open_margins[pixel].strips.update({source: told for source, told in kept.items() if told})
        waiting[pixel] = set(sources) - set(kept)
        for source in waiting[pixel]:
            asked.setdefault(source, {})[pixel] = sources[source]
        if not waiting[pixel]:
            yield _complete(work, open_margins.pop(pixel))
    for source in sorted(asked, key=lambda pixel: first_cell(pixel, HEALPIX_ORDER)):
        for pixel, strip in read_strips(work.partition(source), asked[source]).items():
            if strip.num_rows:
                open_margins[pixel].strips[source] = hash_rows(strip)
                open_margins[pixel].rows.append(strip)
            waiting[pixel].discard(source)
            if not waiting[pixel]:
                yield _complete(work, open_margins.pop(pixel))


def neighbours(tiling: Tiling, pixel: HealpixPixel) -> dict[HealpixPixel, NDArray[np.int64]]:
    """Partitions that touch a pixel, with the pixels of `STRIP_ORDER` along the border."""
    return tiling.owners(_border(pixel), STRIP_ORDER)


def _border(pixel: HealpixPixel) -> NDArray[np.int64]:
    return np.array(get_margin(pixel.order, pixel.pixel, STRIP_ORDER - pixel.order), np.int64)


def _concerned(work: MarginWork) -> set[HealpixPixel]:
    """Pixels that are new partitions, and those that touch one whose rows changed or that is gone."""
    found = {pixel for pixel in work.tiling.members if pixel not in work.before}
    for pixel in work.written | work.gone:
        border = _border(pixel)
        found |= set(work.tiling.owners(border, STRIP_ORDER)) | work.tiling.vacant(border, STRIP_ORDER)
    for pixel in work.gone & work.tiling.split:
        # its own margin went with it: parts of it that have no rows are beside a neighbour's rows all the same
        for neighbour in work.tiling.owners(_border(pixel), STRIP_ORDER):
            found |= work.tiling.vacant(_border(neighbour), STRIP_ORDER)
    # rows that went away leave a pixel without any, beside its neighbours
    return found | {pixel for pixel in work.gone if pixel not in work.tiling.split}


def _known(work: MarginWork, pixel: HealpixPixel, source: HealpixPixel) -> str | None:
    """The hash of a strip that is what it was, empty without rows; None for one that must be read."""
    if source in work.written or pixel not in work.before or source not in work.before:
        return None
    return work.before[pixel].get(source, "")


def _complete(work: MarginWork, margin: Margin) -> Margin:
    """Fetch the strips that did not change from the margin of the version before; or all of it, if none did."""
    before = work.before.get(margin.pixel)
    if before is not None and before == margin.strips:
        margin.rows, margin.unchanged = [], True
        return margin
    read = pa.concat_tables(margin.rows)[HEALPIX].to_numpy() if margin.rows else np.zeros(0, np.int64)
    there = set(work.tiling.owners(np.unique(read >> _SHIFT), STRIP_ORDER))
    missing = sorted(set(margin.strips) - there)
    if missing:
        old = pq.read_table(work.margin_before(margin.pixel), partitioning=None)
        index = old[HEALPIX].to_numpy()
        for source in missing:
            low = first_cell(source, HEALPIX_ORDER)
            margin.rows.append(old.filter(pa.array((index >= low) & (index < low + (1 << 2 * (HEALPIX_ORDER - source.order))))))
    return margin


def read_strips(path: Path, wanted: Mapping[HealpixPixel, NDArray[np.int64]]) -> dict[HealpixPixel, pa.Table]:
    """The strips of a partition.

    Parameters
    ----------
    path : Path
        The partition's file.
    wanted : mapping
        Pixels of `STRIP_ORDER` of each strip, by the partition that it is beside.
    """
    cells = pq.read_table(path, columns=[HEALPIX], partitioning=None)[HEALPIX].to_numpy() >> _SHIFT
    inside = {pixel: np.isin(cells, strip) for pixel, strip in wanted.items()}
    near = np.logical_or.reduce(list(inside.values()))
    table = pq.read_table(path, partitioning=None).filter(pa.array(near)) if near.any() else pq.read_schema(path).empty_table()
    return {pixel: table.filter(pa.array(mask[near])) for pixel, mask in inside.items()}


def hash_rows(table: pa.Table) -> str:
    """sha256 of rows, as Arrow's stream has them."""
    sink = pa.BufferOutputStream()
    whole = table.combine_chunks().replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, whole.schema) as stream:
        stream.write_table(whole)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]
