"""Find the files of a version, or of the shards, and refuse what this galpipe cannot read rightly."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.hats import MANIFEST, manifest, version_folder
from catalogs.hatsfiles import COMMON
from catalogs.inventory import shard_files
from catalogs.schema import SCHEMA_VERSION
from catalogs.views import Source
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout

PARTITIONS = "dataset/Norder=*/Dir=*/Npix=*.parquet"


def published_source(layout: Layout, name: str, version: int | None = None) -> tuple[Source, Path]:
    """Files of a version, the current one by default, and its folder.

    Raises
    ------
    ConfigurationError
        If there is no such version, or a newer galpipe wrote it.
    BadData
        If a partition that the version lists is gone, or the file with its columns does not read.
    """
    folder = version_folder(layout, name, version)
    path = folder / MANIFEST
    try:
        written = int(manifest(folder).get("schema_version", 0))
        state = path.stat()
    except (OSError, ValueError) as error:
        raise BadData("a readable manifest of the version", f"{type(error).__name__}: {error}", file=str(path)) from error
    if written > SCHEMA_VERSION:
        got = f"version {written}, of a newer galpipe: update this one to read the catalog"
        raise ConfigurationError(f"a catalog of schema version {SCHEMA_VERSION} or older", got, file=str(path))
    return _source(folder, state.st_mtime_ns, state.st_ino), folder


@lru_cache(maxsize=16)
def _source(folder: Path, *_: int) -> Source:
    """Files and columns of a version, which never changes: looked for once."""
    common = folder / COMMON
    try:
        schema = pq.read_schema(common)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable list of columns", f"{type(error).__name__}: {error}", file=str(common)) from error
    files = tuple(sorted(folder.glob(PARTITIONS)))
    # dataset may be a link into the folder of one of several HATS catalogs, which has the list
    listed, info = len(files), folder / "dataset" / ".." / "partition_info.csv"
    if info.exists():
        with info.open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        have = {tuple(int(part.rpartition("=")[2].removesuffix(".parquet")) for part in (file.parts[-3], file.name)) for file in files}
        gone = [row for row in rows if (int(row["Norder"]), int(row["Npix"])) not in have]
        if gone:
            named = ", ".join(f"Norder={row['Norder']} Npix={row['Npix']}" for row in gone[:3])
            raise BadData(f"the {len(rows)} partitions of the version", f"{listed}; missing {named}", file=str(folder))
    # of an empty version only the schema file is left, itself Parquet without rows
    return Source(files or (common,), schema, True)


def live_source(layout: Layout, name: str) -> Source:
    """The shards as they are now.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    files = tuple(path for _, path in shard_files(layout, name))
    if not files:
        raise ConfigurationError(f"shards of catalog {name!r}", "none", file=str(layout.catalog(name)))
    return Source(files, pq.read_schema(files[0]).remove_metadata(), False)
