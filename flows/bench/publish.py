"""Publishing a whole release again after a few bricks changed: bytes written over those of the partitions that changed.

The release is simulated: as many bricks as DR10 has, at real positions, each with as many rows as a brick has on average; what is decided
about them is decided by the code that publishes, and no file is written but those that are measured. Sizes are those of a shard with 315
columns and an embedding of 192 numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import Latitude, Longitude, SkyCoord
from cdshealpix.nested import lonlat_to_healpix
from hats.pixel_math.healpix_pixel import HealpixPixel
from numpy.typing import NDArray

from catalogs import inventory
from catalogs.hatsfiles import MAP_ORDER, METADATA_PARTITIONS
from catalogs.inventory import Entry, Inventory
from catalogs.margins import STRIP_ORDER, neighbours
from catalogs.memory import KEYS, Memory, remember
from catalogs.partitions import partition_key
from catalogs.resolve import Resolver
from catalogs.schema import PARTITION_ORDER
from catalogs.tiling import Limits, Tiling, tile
from flows.bench.figures import Figure, Size
from galpipe.survey.bricks import all_centers, brickids_of, geometry_of, known_brick, names_of
from galpipe.survey.neighbours import EDGE, touching

WHOLE_RELEASE = 366_898
CHANGED = 598
"""Bricks that DR10.1 replaced in DR10: they lie in 123 pixels of order 5."""

PATCHES = 70
"""Places that stand for them, where no list of names is given."""

ROWS, ROW_BYTES = 256, 1_400
"""Galaxies with z < 20 of an average brick; Parquet bytes of a row."""

FOOTER, LISTED = 120_000, 45_000
"""Bytes of a partition's footer, and of its share of ``_metadata``."""

GALACTIC = 15.0
"""The simulated footprint: beyond this galactic latitude (deg), from the south pole up."""

_SIDE = 4
_PER_RESOLVED = 14
_SAMPLE = 4000
_MAP_BYTES = 4 * 12 * 4**MAP_ORDER


@dataclass(frozen=True)
class Sky:
    """A release as its inventory has it."""

    stock: Inventory
    tiling: Tiling
    by_brick: dict[str, int]
    """Place of a brick's shard in the inventory."""
    strips: dict[HealpixPixel, dict[HealpixPixel, int]]
    """Pixels of `STRIP_ORDER` of each strip, by the partition that it is beside and the one that it lies in."""


def run(size: Size) -> list[Figure]:
    """Publish after a square degree changed, after the bricks of a fix changed, and after as many bricks all over the sky did."""
    listed = Path(size.bricks).read_text().split() if size.bricks else []
    sky = simulate(WHOLE_RELEASE, listed)
    names = sorted(sky.by_brick)
    random = np.random.default_rng(598)
    cases = {
        "degree": _near(names, 1, 16),
        "fix": listed or _near(names, PATCHES, CHANGED),
        "scattered": [str(name) for name in random.choice(names, CHANGED, replace=False)],
    }
    return [figure for case, changed in cases.items() for figure in figures(sky, case, changed)]


def simulate(bricks: int, more: Iterable[str] = ()) -> Sky:
    """A release of that many bricks, and of those named.

    Parameters
    ----------
    bricks : int
    more : iterable of str
    """
    ids, ra, dec = all_centers()
    latitude = SkyCoord(ra * u.deg, dec * u.deg).galactic.b.deg
    inside = np.flatnonzero(np.abs(latitude) > GALACTIC)
    chosen = ids[inside[np.argsort(dec[inside], kind="stable")]][:bricks]
    wanted = list(more)
    chosen = np.union1d(chosen, brickids_of(np.array(wanted))) if wanted else np.sort(chosen)
    names = [str(name) for name in names_of(chosen)]
    rows = np.random.default_rng(10).poisson(np.full(len(chosen), ROWS))
    shards = [
        Entry(_path(name), int(count) * ROW_BYTES + FOOTER, 0, f"{number:064x}", "s", int(count), pixels, provenance_id=number + 1)
        for number, (name, count, pixels) in enumerate(zip(names, rows, _pixels(chosen, rows), strict=True))
    ]
    outcomes = tuple(
        replace(entry, path=entry.path.replace(".parquet", ".outcomes.parquet"), counts="{}", pixels=(), provenance_id=0)
        for entry in shards
    )
    stock = Inventory(tuple(shards), outcomes)
    tiling = tile(stock, Path(), Tiling({}), Limits())
    strips = {pixel: {source: len(cells) for source, cells in neighbours(tiling, pixel).items()} for pixel in tiling.members}
    return Sky(stock, tiling, {name: place for place, name in enumerate(names)}, strips)


def _path(brick: str) -> str:
    return f"dr10/south/{brick[:3]}/{brick}.parquet"


def _pixels(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> list[tuple[tuple[int, int], ...]]:
    """Rows of each brick by pixel at the partition order, by the share of its area."""
    place, step = geometry_of(ids), (np.arange(_SIDE) + 0.5) / _SIDE
    across = place["ra1"][:, None] + (place["ra2"] - place["ra1"])[:, None] * step
    up = place["dec1"][:, None] + (place["dec2"] - place["dec1"])[:, None] * step
    ra, dec = np.repeat(across, _SIDE, axis=1).ravel(), np.tile(up, (1, _SIDE)).ravel()
    found = np.asarray(lonlat_to_healpix(Longitude(ra % 360, u.deg), Latitude(dec, u.deg), PARTITION_ORDER), np.int64)
    listed = []
    for points, count in zip(found.reshape(len(ids), -1), rows.tolist(), strict=True):
        pixels, times = np.unique(points, return_counts=True)
        shares = (times * count) // points.size
        shares[0] += count - shares.sum()
        listed.append(tuple((int(pixel), int(share)) for pixel, share in zip(pixels, shares, strict=True) if share))
    return listed


def _near(names: list[str], patches: int, bricks: int) -> list[str]:
    """Bricks around some places of the release, equally far apart in it: the nearest of each, by turns."""
    ids = brickids_of(np.array(names))
    place = geometry_of(ids)
    points = SkyCoord(place["ra"] * u.deg, place["dec"] * u.deg).cartesian.xyz.value.T
    centers = points[np.linspace(0, len(names), patches, endpoint=False).astype(int) + len(names) // (2 * patches)]
    found: dict[str, None] = {}
    ordered = [np.argsort(((points - center) ** 2).sum(axis=1))[: 2 * bricks // patches + 2] for center in centers]
    for rank in range(2 * bricks // patches + 2):
        found |= dict.fromkeys(names[int(order[rank])] for order in ordered)
    return list(found)[:bricks]


def figures(sky: Sky, case: str, changed: list[str]) -> list[Figure]:
    """What a version writes after some bricks changed.

    Parameters
    ----------
    sky : Sky
    case : str
        Begins the figures' names.
    changed : list of str
        Bricks.
    """
    written = rewritten(sky, changed)
    own = sum(partition_bytes(sky, pixel) for pixel in written)
    beside = {pixel for source in written for pixel in sky.strips[source]}
    margin = sum(margin_bytes(sky, pixel) for pixel in beside)
    books = book_bytes(sky, changed)
    every = own + margin + books
    bricks = sum(sky.stock.shards[sky.by_brick[name]].rows * ROW_BYTES for name in changed)
    parts = f"{own / 1e6:.0f} MB of partitions, {margin / 1e6:.0f} MB of {len(beside)} margins, {books / 1e6:.0f} MB of lists and maps"
    return [
        Figure(f"{case}_partitions", float(len(written)), "files", f"of {len(sky.tiling.members)}, after {len(changed)} bricks changed"),
        Figure(f"{case}_written", every / 1e6, "MB", parts),
        Figure(f"{case}_over_partitions", every / own, "ratio", "bytes written over those of the partitions that changed"),
        Figure(f"{case}_over_bricks", every / bricks, "ratio", "bytes written over those of the rows of the bricks that changed"),
    ]


def rewritten(sky: Sky, changed: Iterable[str]) -> list[HealpixPixel]:
    """Partitions whose key differs once shards and outcomes of some bricks have another content."""
    new = {sky.by_brick[name] for name in changed}
    shards, outcomes = (
        tuple(
            replace(entry, content_hash=f"{'f':>064}"[:64] + entry.content_hash[1:]) if place in new else entry
            for place, entry in enumerate(kind)
        )
        for kind in (sky.stock.shards, sky.stock.outcomes)
    )
    before, after = Resolver(Path(), sky.stock.outcomes), Resolver(Path(), outcomes)
    # the outcomes of a brick decide about rows of the bricks that touch it, and of no others
    concerned = set(new)
    for name in changed:
        area = known_brick(name)
        concerned |= {sky.by_brick[other.name] for other in (touching(area) if area else ()) if other.name in sky.by_brick}
    place_of = {entry.path: place for place, entry in enumerate(sky.stock.shards)}
    near = {HealpixPixel(PARTITION_ORDER, pixel) for place in concerned for pixel, _ in shards[place].pixels}
    found = []
    for pixel in sorted(near):
        members = sky.tiling.members[pixel]
        now = tuple((shards[place_of[entry.path]], rows) for entry, rows in members)
        if partition_key(members, "", before) != partition_key(now, "", after):
            found.append(pixel)
    return found


def partition_bytes(sky: Sky, pixel: HealpixPixel) -> int:
    """Of a partition's file."""
    return FOOTER + ROW_BYTES * sum(rows for _, rows in sky.tiling.members[pixel])


def margin_bytes(sky: Sky, pixel: HealpixPixel) -> int:
    """Of the file of a margin, were all of its strips full: the most that it can be."""
    cells = sum(sky.strips[pixel].values())
    dense = ROWS / (0.25**2) * (4 * np.pi * np.degrees(1) ** 2 / (12 * 4**STRIP_ORDER))
    return FOOTER + int(ROW_BYTES * dense * cells)


def book_bytes(sky: Sky, changed: Iterable[str]) -> int:
    """Of all other files of the version: inventory, memory, resolved rows, map, footers."""
    tiling, slices = sky.tiling, {name[:2] for name in changed}
    listed = sum(name[:2] in slices for name in sky.by_brick) * _inventory_bytes(sky)
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        strips = {pixel: dict.fromkeys(sources, "f" * 32) for pixel, sources in sky.strips.items()}
        counts = {pixel: sum(rows for _, rows in members) for pixel, members in tiling.members.items()}
        memory = Memory("b" * 64, dict.fromkeys(tiling.members, "k" * 64), strips, {}, {"catalog": counts, "margin": counts})
        remember(Path(place), memory, tiling)
        remembered = (Path(place) / KEYS).stat().st_size
    rows = sum(entry.rows for entry in sky.stock.shards)
    resolved = int(rows * _PER_RESOLVED * 4 * EDGE / 900)
    metadata = 2 * LISTED * len(tiling.members) if len(tiling.members) <= METADATA_PARTITIONS else 0
    return int(listed) + remembered + resolved + metadata + _MAP_BYTES + 3 * FOOTER


def _inventory_bytes(sky: Sky) -> float:
    """Of a brick's two lines in the inventory, measured on some, with hashes and times that do not compress, as real ones."""
    random = np.random.default_rng(1)

    def real(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        times, sizes = random.integers(1 << 60, size=len(entries)).tolist(), random.integers(99_999, size=len(entries)).tolist()
        return tuple(
            replace(entry, content_hash=random.bytes(32).hex(), mtime_ns=times[place], size=entry.size + sizes[place])
            for place, entry in enumerate(entries)
        )

    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        folder = Path(place) / "inventory"
        inventory.save(Inventory(real(sky.stock.shards[:_SAMPLE]), real(sky.stock.outcomes[:_SAMPLE])), folder)
        return sum(path.stat().st_size for path in folder.iterdir()) / min(_SAMPLE, len(sky.stock.shards))
