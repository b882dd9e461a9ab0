"""The views that SQL sees, as text, and the sandbox that runs it: read-only, and no file but the catalog's own."""

# ruff: noqa: S608
# every name and literal below goes through identifier, text or a number; what users write runs in the sandbox

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType

from catalogs.area import Area
from catalogs.ranges import coarser
from catalogs.schema import HEALPIX, MOCK_REDSHIFT, NESTED, UNSAFE_FLAGS

VIEWS = ("galaxies", "galaxies_clean", "detections", "embeddings", "ledger", "outcomes", "resolved")

_IN_AREA = "galpipe_in_area"
"""SQL function that decides exactly whether a position lies in the area that a query is bound to."""

_MOST_RANGES = 16
"""Ranges in a filter: DuckDB leaves out row groups by them, but each is tried on every row that is read."""


@dataclass(frozen=True)
class Source:
    """Parquet files of one version, or of the shards.

    Parameters
    ----------
    files : tuple of Path
    schema : pyarrow.Schema
        Columns as stored.
    published : bool
        Partitions of a version, whose detections are a struct of lists.
    """

    files: tuple[Path, ...]
    schema: pa.Schema
    published: bool


def text(value: str | Path) -> str:
    """A string literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A quoted name of SQL."""
    return '"' + name.replace('"', '""') + '"'


def scan(files: Sequence[Path]) -> str:
    """Table function that reads Parquet files."""
    return f"read_parquet([{', '.join(map(text, files))}], hive_partitioning = false)"


def sandbox(folders: Sequence[Path], area: Area | None = None) -> duckdb.DuckDBPyConnection:
    """A connection that reads files below some folders and nothing else.

    Parameters
    ----------
    folders : sequence of Path
    area : Area, optional
        What the filter of `rows_of` decides about.
    """
    connection = duckdb.connect(":memory:")
    if area is not None:

        def inside(ra: pa.ChunkedArray, dec: pa.ChunkedArray) -> pa.Array:
            return pa.array(area.inside(np.asarray(ra), np.asarray(dec)))

        connection.create_function(_IN_AREA, inside, ["DOUBLE", "DOUBLE"], "BOOLEAN", type=PythonUDFType.ARROW)
    for setting in (
        "python_enable_replacements = false",
        "temp_directory = ''",
        f"allowed_directories = [{', '.join(map(text, folders))}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def in_area(area: Area | None, *, pixels: bool) -> str:
    """Condition that a row lies in an area; with ``pixels`` one that row groups are left out by too."""
    if area is None:
        return "true"
    exact = f"{_IN_AREA}(ra, dec)"
    if not pixels:
        return exact
    near = [f"{HEALPIX} BETWEEN {low} AND {high - 1}" for low, high in coarser(area.ranges(), _MOST_RANGES).tolist()]
    return f"({' OR '.join(near) or 'false'}) AND {exact}"


def rows_of(source: Source, area: Area | None = None) -> str:
    """SELECT of the stored rows, detections as they are stored."""
    where = f" WHERE {in_area(area, pixels=True)}" if area is not None else ""
    return f"SELECT * FROM {scan(source.files)}{where}"


def galaxies(source: Source, area: Area | None = None) -> str:
    """SELECT of every column; published detections become a list of structs again."""
    replaced = []
    for item in source.schema:
        if item.name in NESTED and pa.types.is_struct(item.type):
            column = identifier(item.name)
            parts = [identifier(part.name) for part in item.type]
            fields = ", ".join(f"{part} := {column}.{part}[i]" for part in parts)
            listed = f"list_transform(range(1, len({column}.{parts[0]}) + 1), lambda i: struct_pack({fields}))"
            replaced.append(f"CASE WHEN {column}.{parts[0]} IS NULL THEN NULL ELSE {listed} END AS {column}")
    star = f"* REPLACE ({', '.join(replaced)})" if replaced else "*"
    return f"SELECT {star} FROM ({rows_of(source, area)})"


def _clean(schema: pa.Schema) -> str:
    hidden = [name for name in schema.names if name in NESTED or name.startswith(MOCK_REDSHIFT)]
    flags = " AND ".join(f"NOT coalesce({flag}, false)" for flag in UNSAFE_FLAGS if flag in schema.names) or "true"
    exclude = f" EXCLUDE ({', '.join(map(identifier, hidden))})" if hidden else ""
    return f"SELECT *{exclude} FROM galaxies WHERE {flags}"


def _detections(source: Source, area: Area | None) -> str:
    """A row per detection, beside the id of the stamp that it was found in; no row for a catalog without detections."""
    if "detections" not in source.schema.names:
        return "SELECT NULL::BIGINT AS stamp_source_id WHERE false"
    kind = source.schema.field("detections").type
    names = [part.name for part in (kind if source.published else kind.value_type)]
    column = "detections.{0}" if source.published else "list_transform(detections, lambda d: d.{0})"
    unnested = ", ".join(f"unnest({column.format(identifier(name))}) AS {identifier(name)}" for name in names)
    primary = " WHERE is_primary_detection" if "is_primary_detection" in names else ""
    return f"SELECT * FROM (SELECT source_id AS stamp_source_id, {unnested} FROM ({rows_of(source, area)})){primary}"


def of_rows(source: Source, area: Area | None = None) -> dict[str, str]:
    """SELECT of each view that the catalog's rows give, in the order in which they are created."""
    views = {"galaxies": galaxies(source, area), "galaxies_clean": _clean(source.schema), "detections": _detections(source, area)}
    if "embedding" in source.schema.names:
        views["embeddings"] = "SELECT source_id, embedding FROM galaxies WHERE embedding IS NOT NULL"
    return views
