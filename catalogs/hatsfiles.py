"""The files that make a folder of partitions a HATS catalog, and three such catalogs one collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.catalog.dataset.extension_properties import ExtensionProperties
from hats.catalog.dataset.table_properties import TableProperties
from hats.catalog.partition_info import PartitionInfo
from hats.io import file_io, write_parquet_metadata
from hats.io.paths import pixel_catalog_file
from hats.pixel_math.healpix_pixel import HealpixPixel
from mocpy import MOC
from numpy.typing import NDArray

from catalogs.margins import MARGIN_ARCSEC
from catalogs.schema import HEALPIX, HEALPIX_ORDER
from catalogs.tiling import first_cell
from galpipe.commit import link
from galpipe.errors import BadData

CATALOG, MARGIN, STAMPS = "catalog", "margin", "stamps"
"""Folders of a version: the galaxies, their margin cache, where their stamps are."""

COMMON = Path("dataset", "_common_metadata")
"""A catalog's file without rows that has its columns."""

MAP_ORDER = 8
"""HEALPix order of the sky map and coverage (13.7 arcmin pixels, about a brick)."""

METADATA_PARTITIONS = 1000
"""A catalog of more partitions has no ``_metadata``, which HATS leaves optional: it repeats every file's footer, 45 kB each at 315 columns,
so that each version of a whole release would write 300 MB of it again, more than the partitions of a square degree. 1,000 partitions
are 3,400 square degrees. ``partition_info.csv`` and ``_common_metadata`` say the rest, and are what LSDB reads."""


@dataclass(frozen=True)
class Kind:
    """Which of a version's catalogs is described."""

    name: str
    type: str
    properties: dict[str, Any]


OBJECT = Kind(CATALOG, "object", {})
MARGIN_CACHE = Kind(MARGIN, "margin", {"primary_catalog": CATALOG, "margin_threshold": MARGIN_ARCSEC})
STAMP_INDEX = Kind(STAMPS, "object", {"default_columns": ["source_id", "store", "row"]})


def partition_path(folder: Path, pixel: HealpixPixel) -> Path:
    """File of a pixel in a catalog's folder, or in a version's."""
    return Path(str(pixel_catalog_file(folder, pixel)))


def describe(
    folder: Path, kind: Kind, rows: Mapping[HealpixPixel, int], schema: pa.Schema, counts: NDArray[np.int32] | None = None
) -> None:
    """Write everything but the partitions of one catalog.

    Parameters
    ----------
    folder : Path
        With its partitions under ``dataset/``.
    kind : Kind
    rows : mapping
        Rows of each partition.
    schema : pyarrow.Schema
    counts : ndarray of int32, optional
        Rows per pixel at `MAP_ORDER`, NESTED, shape (12 * 4**MAP_ORDER,), for map and coverage.

    Raises
    ------
    BadData
        If `hats` finds other rows in the files.
    """
    listed, total = sorted(rows), sum(rows.values())
    found = _parquet_metadata(folder, len(listed), schema)
    if found is not None and found != total:
        raise BadData(f"{total} rows", f"{found}", file=str(folder))
    PartitionInfo(listed).write_to_file(catalog_path=folder)
    mapped = _maps(folder, counts) if counts is not None else {}
    TableProperties(
        catalog_name=kind.name,
        catalog_type=kind.type,
        total_rows=total,
        ra_column="ra",
        dec_column="dec",
        healpix_column=HEALPIX,
        healpix_order=HEALPIX_ORDER,
        hats_builder="galpipe",
        hats_creation_date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M%Z"),
        **kind.properties,
        **mapped,
    ).to_properties_file(folder)


def _parquet_metadata(folder: Path, partitions: int, schema: pa.Schema) -> int | None:
    """Write ``_common_metadata`` and, for not too many partitions, ``_metadata``; the rows that the footers say, where they were read."""
    dataset = folder / "dataset"
    dataset.mkdir(parents=True, exist_ok=True)
    if 0 < partitions <= METADATA_PARTITIONS:
        return int(write_parquet_metadata(folder))
    # hats cannot derive a schema from no file
    for file in ("_common_metadata", "_metadata") if not partitions else ("_common_metadata",):
        pq.write_metadata(schema, dataset / file)
    return None


def _maps(folder: Path, counts: NDArray[np.int32]) -> dict[str, Any]:
    covered = np.flatnonzero(counts)
    # the first is what hats takes the coverage from, the second is its newer name for the same map
    file_io.write_fits_image(counts, folder / "point_map.fits")
    link(folder / "point_map.fits", folder / "skymap.fits")
    if len(covered):
        depths = np.full(len(covered), MAP_ORDER, np.uint8)
        MOC.from_healpix_cells(covered.astype(np.uint64), depths, MAP_ORDER).save(str(folder / "moc.fits"), format="fits")
    return {"skymap_order": MAP_ORDER, "moc_sky_fraction": len(covered) / len(counts)}


def sky_map(
    folder: Path, before: Path | None, written: Callable[[HealpixPixel], bool], pixels: Iterable[HealpixPixel]
) -> NDArray[np.int32]:
    """Rows per pixel at `MAP_ORDER`, NESTED, shape (12 * 4**MAP_ORDER,); of linked partitions from the map of the version before.

    Parameters
    ----------
    folder : Path
        Catalog with its partitions.
    before : Path or None
        The same catalog in the version before.
    written : callable
        Whether a partition is not that of the version before.
    pixels : iterable of HealpixPixel
    """
    counts = np.zeros(12 * 4**MAP_ORDER, np.int32)
    known = np.asarray(file_io.read_fits_image(before / "point_map.fits")) if before else None
    for pixel in pixels:
        low = first_cell(pixel, MAP_ORDER)
        if known is not None and not written(pixel):
            part = slice(low, low + 4 ** (MAP_ORDER - pixel.order))
            counts[part] = known[part]
        else:
            index = pq.read_table(partition_path(folder, pixel), columns=[HEALPIX], partitioning=None)[HEALPIX].to_numpy()
            np.add.at(counts, index >> (2 * (HEALPIX_ORDER - MAP_ORDER)), 1)
    return counts


def collect(folder: Path, name: str) -> None:
    """Make a version's catalogs one HATS collection, which LSDB opens with its margin and can extend by the stamps."""
    extension = ExtensionProperties(
        name=STAMPS,
        primary_catalog=name,
        primary_column="source_id",
        join_catalog=STAMPS,
        join_column="source_id",
        extension_columns=["store", "row"],
        extension_join_style="left",
        shares_primary_coordinates=True,
        extension_product_type="image",
    )
    extension.to_properties_file(folder)
    CollectionProperties(
        name=name,
        hats_primary_table_url=CATALOG,
        all_margins=[MARGIN],
        default_margin=MARGIN,
        all_extensions={STAMPS: f"{STAMPS}.properties"},
    ).to_properties_file(folder)
    # versions were plain catalogs once: the galaxies are still found at the same place
    for file in ("dataset", "partition_info.csv"):
        (folder / file).symlink_to(f"{CATALOG}/{file}")
