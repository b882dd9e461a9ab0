"""Cone searches and id look-ups on a synthetic version of 10 million rows, beside LSDB on the same files."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import astropy.units as u
import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import cone_search, healpix_to_lonlat
from hats.catalog.dataset.table_properties import TableProperties
from hats.catalog.partition_info import PartitionInfo
from hats.io import write_parquet_metadata
from hats.io.paths import pixel_catalog_file
from hats.pixel_math.healpix_pixel import HealpixPixel
from numpy.typing import NDArray

from catalogs.hats import CURRENT, MANIFEST
from catalogs.parquet import published_options
from catalogs.query import Catalog, open_catalog
from catalogs.schema import HEALPIX, HEALPIX_ORDER, PARTITION_ORDER, SCHEMA_VERSION
from flows.bench.figures import Figure, Size
from galpipe.layout import Layout
from galpipe.survey.bricks import BRICKS, ids_at

ROWS_PER_GALAXY = 40_000
"""With the default size 10 million rows."""

DENSITY = 25_000
"""Rows per square degree: 10 million lie on 400, as all sources of the survey do (its galaxies to z = 20 are a sixth of that)."""

PIXEL_AREA = 41_252.96 / (12 * 4**PARTITION_ORDER)
MIDDLE = (180.0, 30.0)
RADIUS = 1 / 60
QUESTIONS = 40
"""Positions, and ids, asked for in each repeat."""

FLOATS = ("flux_g", "flux_r", "flux_i", "flux_z", "flux_ivar_g", "flux_ivar_r", "flux_ivar_z")
MORE_FLOATS = ("mag_r", "shape_r", "sersic", "ebv", "z_phot_median", "psfsize_r")

SEED = 5


@dataclass(frozen=True)
class _Asked:
    """What is asked for: positions (deg) and ids of rows that there are."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    ids: NDArray[np.int64]


@dataclass(frozen=True)
class Spent:
    """Seconds of one question, by the clock and of the processor."""

    wall: float
    processor: float


def run(size: Size) -> list[Figure]:
    """Write a version, ask it the same cones as LSDB in turns, look up ids; other cones and ids in each repeat.

    Raises
    ------
    RuntimeError
        If LSDB and the catalog find other rows.
    """
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        layout = Layout(Path(place))
        rows = write_version(layout, ROWS_PER_GALAXY * size.galaxies)
        theirs = lsdb.open_catalog(layout.hats("main") / "v1")
        with open_catalog(layout) as ours:
            sides: dict[str, Callable[[float, float], int]] = {
                "ours": lambda ra, dec: ours.cone(ra, dec, RADIUS).num_rows,
                "lsdb": lambda ra, dec: len(theirs.cone_search(ra, dec, RADIUS * 3600).compute(progress_bar=False)),
            }
            asked = [_questions(layout, repeat) for repeat in range(size.repeats + 1)]
            cones = _cones(sides, asked)
            lookups = _lookups(ours, asked)
            sums = _sums(ours, size.repeats)
    told = f"{rows} rows of 20 columns, {len(cones['ours'])} cones of 1 arcmin, every column, warm"
    middle, tail = _middle(cones["lsdb"]) / _middle(cones["ours"]), _tail(cones["lsdb"]) / _tail(cones["ours"])
    return [
        Figure("lsdb_over_cone", middle, "ratio", f"LSDB's median over ours: {told}"),
        Figure("lsdb_over_cone_p95", tail, "ratio", "the same of the 95th percentiles"),
        Figure("cone_p95", _tail(cones["ours"]), "ms", "95th percentile of a cone search"),
        Figure("cone_median", _middle(cones["ours"]), "ms", "median of a cone search"),
        Figure(
            "cone_p95_processor",
            _tail(cones["ours"], "processor"),
            "ms",
            "95th percentile of its processor time",
        ),
        Figure("lsdb_cone_p95", _tail(cones["lsdb"]), "ms", "95th percentile of LSDB's"),
        Figure("id_p95", _tail(lookups), "ms", f"95th percentile of {len(lookups)} look-ups of an id"),
        Figure("id_median", _middle(lookups), "ms", "median of a look-up of an id"),
        Figure("id_p95_processor", _tail(lookups, "processor"), "ms", "95th percentile of its processor time"),
        Figure("sums", sums * 1e3, "ms", "median time of a count, a mean and a maximum over every row by SQL"),
    ]


def _middle(spent: list[Spent]) -> float:
    """Median wall time, ms."""
    return float(np.median([item.wall for item in spent])) * 1e3


def _tail(spent: list[Spent], which: Literal["wall", "processor"] = "wall") -> float:
    """95th percentile, ms."""
    return float(np.percentile([getattr(item, which) for item in spent], 95)) * 1e3


def _cones(sides: dict[str, Callable[[float, float], int]], asked: list[_Asked]) -> dict[str, list[Spent]]:
    """Seconds of each cone by each side, in turns; the first lot of questions warms both up."""
    seconds: dict[str, list[Spent]] = {name: [] for name in sides}
    for number, lot in enumerate(asked):
        for ra, dec in zip(lot.ra.tolist(), lot.dec.tolist(), strict=True):
            found = {}
            for name, side in sides.items():
                started, used = time.perf_counter(), time.process_time()
                found[name] = side(ra, dec)
                if number:
                    seconds[name].append(Spent(time.perf_counter() - started, time.process_time() - used))
            if len(set(found.values())) > 1:
                raise RuntimeError(f"expected the same rows within 1 arcmin of {ra}, {dec}, got {found}")
    return seconds


def _lookups(catalog: Catalog, asked: list[_Asked]) -> list[Spent]:
    seconds = []
    for number, lot in enumerate(asked):
        for identifier in lot.ids.tolist():
            started, used = time.perf_counter(), time.process_time()
            found = catalog.by_id([identifier])
            if number:
                seconds.append(Spent(time.perf_counter() - started, time.process_time() - used))
            if found.num_rows != 1:
                raise RuntimeError(f"expected one row {identifier}, got {found.num_rows}")
    return seconds


def _sums(catalog: Catalog, repeats: int) -> float:
    question = "SELECT count(*), avg(flux_r), max(shape_r) FROM galaxies WHERE mag_r < 5 AND maskbits = 0"
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        catalog.sql(question)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def _questions(layout: Layout, number: int) -> _Asked:
    """Positions of rows, moved by up to an arcmin, and ids of others."""
    rng = np.random.default_rng([SEED, 1, number])
    files = sorted((layout.hats("main") / "v1").glob("dataset/*/*/*.parquet"))
    ra, dec, ids = [], [], []
    for path in rng.choice(np.array(files), QUESTIONS):
        table = pq.read_table(path, columns=["ra", "dec", "source_id"], partitioning=None)
        one, other = rng.integers(table.num_rows, size=2).tolist()
        ra.append(table["ra"][one].as_py() + rng.uniform(-RADIUS, RADIUS))
        dec.append(table["dec"][one].as_py() + rng.uniform(-RADIUS, RADIUS))
        ids.append(table["source_id"][other].as_py())
    return _Asked(np.array(ra), np.array(dec), np.array(ids, np.int64))


def write_version(layout: Layout, rows: int) -> int:
    """A version of random rows that `hats`, LSDB and `open_catalog` read, partition by partition.

    Returns
    -------
    int
        Rows, about as many as asked for.
    """
    folder = layout.hats("main") / "v1"
    pixels = _pixels(rows)
    written = 0
    for pixel, table in _partitions(pixels, rows // len(pixels)):
        path = Path(str(pixel_catalog_file(folder, HealpixPixel(PARTITION_ORDER, pixel))))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **published_options(table.schema))
        written += table.num_rows
    write_parquet_metadata(folder)
    PartitionInfo([HealpixPixel(PARTITION_ORDER, pixel) for pixel in pixels]).write_to_file(catalog_path=folder)
    TableProperties(
        catalog_name="main",
        catalog_type="object",
        total_rows=written,
        ra_column="ra",
        dec_column="dec",
        healpix_column=HEALPIX,
        healpix_order=HEALPIX_ORDER,
    ).to_properties_file(folder)
    (folder / MANIFEST).write_text(json.dumps({"version": 1, "schema_version": SCHEMA_VERSION, "rows": written}))
    (layout.hats("main") / CURRENT).symlink_to("v1")
    return written


def _pixels(rows: int) -> list[int]:
    """Neighbouring partitions that hold the rows at the survey's density."""
    wanted = max(1, round(rows / DENSITY / PIXEL_AREA))
    center = Longitude(MIDDLE[0], u.deg), Latitude(MIDDLE[1], u.deg)
    near, _, _ = cone_search(*center, 30 * u.deg, PARTITION_ORDER, flat=True)
    lon, lat = healpix_to_lonlat(near, PARTITION_ORDER)
    far = np.hypot((lon.deg - MIDDLE[0]) * np.cos(lat.rad), lat.deg - MIDDLE[1])
    return sorted(int(pixel) for pixel in near[np.argsort(far)[:wanted]])


def _partitions(pixels: list[int], each: int) -> Iterator[tuple[int, pa.Table]]:
    """Rows of each partition, sorted by position; ``objid`` counts on in bricks that lie on several."""
    rng = np.random.default_rng(SEED)
    used = np.zeros(BRICKS + 1, np.int64)
    shift = 2 * (HEALPIX_ORDER - PARTITION_ORDER)
    for pixel in pixels:
        index = np.sort(rng.integers(pixel << shift, (pixel + 1) << shift, each))
        lon, lat = healpix_to_lonlat(index.astype(np.uint64), HEALPIX_ORDER)
        bricks = ids_at(lon.deg, lat.deg)
        order = np.argsort(bricks, kind="stable")
        names, first, counts = np.unique(bricks[order], return_index=True, return_counts=True)
        objid = np.empty(each, np.int64)
        objid[order] = np.arange(each) - np.repeat(first, counts) + np.repeat(used[names], counts)
        used[names] += counts
        columns = {HEALPIX: index, "source_id": 9010 << 42 | bricks << 22 | objid, "ra": lon.deg, "dec": lat.deg}
        columns |= {"brickid": bricks.astype(np.int32), "objid": objid.astype(np.int32), "maskbits": rng.choice([0, 0, 0, 2, 4096], each)}
        columns |= {name: rng.lognormal(1, 1, each).astype(np.float32) for name in FLOATS + MORE_FLOATS}
        yield pixel, pa.table(columns)
