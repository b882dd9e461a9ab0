"""Ask a published catalog: read-only SQL through DuckDB, and cone and box searches.

Views: ``galaxies`` (a row per galaxy, every column), ``galaxies_clean`` (the science view), ``detections`` (primary ones, a row
each), ``embeddings``, ``ledger``, ``outcomes`` and ``resolved`` (rows at the edges of bricks that another brick has too).
"""

# ruff: noqa: S608
# every name and literal below goes through _identifier, _text or a number; what users write runs in a sandbox

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import cone_search

from catalogs.hats import version_folder
from catalogs.inventory import outcomes_files, shard_files
from catalogs.live import live_folder
from catalogs.outcomes import empty
from catalogs.partitions import RESOLVED_FILE
from catalogs.resolve import RESOLVED
from catalogs.schema import MOCK_REDSHIFT, NESTED, PARTITION_ORDER, UNSAFE_FLAGS
from catalogs.versions import as_of
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout

VIEWS = ("galaxies", "galaxies_clean", "detections", "embeddings", "ledger", "outcomes", "resolved")

_SEPARATION = (
    "3600 * 2 * degrees(asin(sqrt(least(1.0, pow(sin(radians(dec - {dec}) / 2), 2)"
    " + cos(radians(dec)) * cos(radians({dec})) * pow(sin(radians(ra - {ra}) / 2), 2)))))"
)
"""Great-circle distance in arcsec (haversine form, exact at small angles)."""

LedgerTable = Callable[[], pa.Table]


@dataclass(frozen=True)
class _Source:
    """Parquet files of one version, or of the shards."""

    files: tuple[Path, ...]
    schema: pa.Schema
    published: bool


def _text(value: str | Path) -> str:
    """A string literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _scan(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(map(_text, files))}], hive_partitioning = false)"


def _published(folder: Path) -> _Source:
    files = tuple(sorted(folder.glob("dataset/Norder=*/Dir=*/Npix=*.parquet")))
    schema = pq.read_schema(folder / "dataset" / "_common_metadata")
    # of an empty version only the schema file is left, itself Parquet without rows
    return _Source(files or (folder / "dataset" / "_common_metadata",), schema, True)


def _live(layout: Layout, name: str) -> _Source:
    files = tuple(path for _, path in shard_files(layout, name))
    if not files:
        raise ConfigurationError(f"shards of catalog {name!r}", "none", file=str(layout.catalog(name)))
    return _Source(files, pq.read_schema(files[0]).remove_metadata(), False)


def _galaxies(source: _Source, files: Sequence[Path]) -> str:
    """SELECT of every column; published detections become a list of structs again."""
    replaced = []
    for item in source.schema:
        if item.name in NESTED and pa.types.is_struct(item.type):
            column = _identifier(item.name)
            parts = [_identifier(part.name) for part in item.type]
            fields = ", ".join(f"{part} := {column}.{part}[i]" for part in parts)
            listed = f"list_transform(range(1, len({column}.{parts[0]}) + 1), lambda i: struct_pack({fields}))"
            replaced.append(f"CASE WHEN {column}.{parts[0]} IS NULL THEN NULL ELSE {listed} END AS {column}")
    star = f"* REPLACE ({', '.join(replaced)})" if replaced else "*"
    return f"SELECT {star} FROM {_scan(files)}"


def _clean(schema: pa.Schema) -> str:
    hidden = [name for name in schema.names if name in NESTED or name.startswith(MOCK_REDSHIFT)]
    flags = " AND ".join(f"NOT coalesce({flag}, false)" for flag in UNSAFE_FLAGS)
    exclude = f" EXCLUDE ({', '.join(map(_identifier, hidden))})" if hidden else ""
    return f"SELECT *{exclude} FROM galaxies WHERE {flags}"


def _detections(source: _Source) -> str | None:
    """A row per detection, beside the id of the stamp that it was found in; None for a catalog without detections."""
    if "detections" not in source.schema.names:
        return None
    kind = source.schema.field("detections").type
    names = [part.name for part in (kind if source.published else kind.value_type)]
    column = "detections.{0}" if source.published else "list_transform(detections, lambda d: d.{0})"
    unnested = ", ".join(f"unnest({column.format(_identifier(name))}) AS {_identifier(name)}" for name in names)
    primary = " WHERE is_primary_detection" if "is_primary_detection" in names else ""
    return f"SELECT * FROM (SELECT source_id AS stamp_source_id, {unnested} FROM {_scan(source.files)}){primary}"


class Catalog:
    """A catalog opened for reading. Use it in a ``with`` block, or `close` it.

    Parameters
    ----------
    layout : Layout
    name : str
    source : _Source
        From `open_catalog`.
    folders : sequence of Path
        The only folders that SQL may read.
    ledger : callable, optional
        Gives the ledger's rows when a query names the view.
    """

    def __init__(self, layout: Layout, name: str, source: _Source, folders: Sequence[Path], ledger: LedgerTable | None = None) -> None:
        self._layout, self._name, self._source, self._ledger = layout, name, source, ledger
        self._lazy: set[str] = set()
        self._resolved = folders[0] / RESOLVED_FILE
        self._connection = duckdb.connect(":memory:")
        for setting in (
            "python_enable_replacements = false",
            "temp_directory = ''",
            f"allowed_directories = [{', '.join(map(_text, folders))}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")
        self._create_views()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    @property
    def schema(self) -> pa.Schema:
        """Columns as stored, with unit and description in each field's metadata."""
        return self._source.schema

    def _create_views(self) -> None:
        views = {"galaxies": _galaxies(self._source, self._source.files), "galaxies_clean": _clean(self._source.schema)}
        views["detections"] = _detections(self._source) or "SELECT NULL::BIGINT AS stamp_source_id WHERE false"
        if "embedding" in self._source.schema.names:
            views["embeddings"] = "SELECT source_id, embedding FROM galaxies WHERE embedding IS NOT NULL"
        for view, select in views.items():
            self._connection.execute(f"CREATE VIEW {view} AS {select}")

    def _prepare(self, sql: str) -> None:
        """Create the views that cost something only when a query names them."""
        lazy = {"ledger": self._create_ledger, "outcomes": self._create_outcomes, "resolved": self._create_resolved}
        for view, create in lazy.items():
            if view not in self._lazy and re.search(rf"\b{view}\b", sql, re.IGNORECASE):
                create()
                self._lazy.add(view)

    def _create_ledger(self) -> None:
        if self._ledger is None:
            raise ConfigurationError("a ledger under this root", "none", file=str(self._layout.ledger))
        self._connection.register("ledger", self._ledger())

    def _create_outcomes(self) -> None:
        files = [path for _, path in outcomes_files(self._layout, self._name)]
        if files:
            self._connection.execute(f"CREATE VIEW outcomes AS SELECT * FROM {_scan(files)}")
        else:
            self._connection.register("outcomes", empty())

    def _create_resolved(self) -> None:
        if self._resolved.exists():
            self._connection.execute(f"CREATE VIEW resolved AS SELECT * FROM {_scan([self._resolved])}")
        else:
            self._connection.register("resolved", RESOLVED.empty_table())

    def sql(self, query: str) -> pa.Table:
        """Run one SELECT.

        Raises
        ------
        ConfigurationError
            If the text is not one SELECT, names something unknown, or reaches for a file outside the catalog.
        """
        try:
            statements = self._connection.extract_statements(query)
        except duckdb.Error as error:
            raise ConfigurationError("one SQL SELECT", str(error)) from error
        kinds = [statement.type.name for statement in statements]
        if kinds not in (["SELECT"], ["SELECT_STATEMENT"]):
            raise ConfigurationError("one SQL SELECT, as a catalog is read-only", f"{', '.join(kinds) or 'nothing'}: {query!r}")
        self._prepare(query)
        return self._run(query)

    def _run(self, query: str) -> pa.Table:
        try:
            return self._described(_tidy(self._connection.sql(query).to_arrow_table()))
        except duckdb.Error as error:
            raise ConfigurationError(f"SQL on the views {VIEWS}", str(error)) from error

    def _described(self, table: pa.Table) -> pa.Table:
        """Put unit and description back on columns that came through unchanged."""
        known = {item.name: item for item in self._source.schema}
        fields = [
            item.with_metadata(known[item.name].metadata) if item.name in known and item.type == known[item.name].type else item
            for item in table.schema
        ]
        return table.cast(pa.schema(fields))

    def cone(self, ra: float, dec: float, radius: float, columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies within an angle of a position, nearest first.

        Parameters
        ----------
        ra, dec, radius : float
            Degrees, radius from 0 to 180.
        columns : sequence of str
            Empty for all.

        Returns
        -------
        pyarrow.Table
            With ``separation`` (arcsec) as the last column.

        Raises
        ------
        ConfigurationError
            If a number is out of range or a column is unknown.
        """
        if not (np.isfinite(ra) and abs(dec) <= 90 and 0 < radius <= 180):
            raise ConfigurationError("RA, Dec within 90 deg and a radius of 0 to 180 deg", f"{ra}, {dec}, {radius}")
        files = self._near(ra, dec, radius) if self._source.published else self._source.files
        inside = _galaxies(self._source, files or self._source.files[:1])
        distance = _SEPARATION.format(ra=float(ra), dec=float(dec))
        query = f"SELECT {self._list(columns, 'separation')} FROM (SELECT *, {distance} AS separation FROM ({inside}))"
        return self._run(f"{query} WHERE separation <= {float(radius) * 3600} ORDER BY separation, source_id")

    def _near(self, ra: float, dec: float, radius: float) -> tuple[Path, ...]:
        """Partitions that a cone touches."""
        center = Longitude(ra % 360.0, u.deg), Latitude(dec, u.deg)
        pixels, _, _ = cone_search(*center, radius * u.deg, PARTITION_ORDER, flat=True)
        wanted = {f"Npix={int(pixel)}.parquet" for pixel in pixels}
        return tuple(path for path in self._source.files if path.name in wanted)

    def _list(self, columns: Sequence[str], *more: str) -> str:
        unknown = sorted(set(columns) - set(self._source.schema.names))
        if unknown:
            raise ConfigurationError(f"columns of catalog {self._name!r}", f"{unknown}")
        return ", ".join(map(_identifier, [*columns, *more])) if columns else "*"

    def box(self, ra: tuple[float, float], dec: tuple[float, float], columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies in a box; where ``ra[0] > ra[1]`` it runs over RA 0.

        Parameters
        ----------
        ra, dec : tuple of float
            Degrees, lower edge inside, upper edge outside.
        columns : sequence of str
            Empty for all.
        """
        low, high = float(ra[0]), float(ra[1])
        within = f"ra >= {low} {'AND' if low <= high else 'OR'} ra < {high}"
        where = f"({within}) AND dec >= {float(dec[0])} AND dec < {float(dec[1])}"
        return self._run(f"SELECT {self._list(columns)} FROM galaxies WHERE {where} ORDER BY source_id")

    def by_id(self, ids: Sequence[int], columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies by ``source_id``, sorted by it; unknown ids give no row."""
        listed = ", ".join(str(int(value)) for value in ids) or "NULL"
        return self._run(f"SELECT {self._list(columns)} FROM galaxies WHERE source_id IN ({listed}) ORDER BY source_id")


def _tidy(table: pa.Table) -> pa.Table:
    """DuckDB's 128-bit sums as int64, or float64 where they do not fit."""
    for index, item in enumerate(table.schema):
        if pa.types.is_decimal(item.type):
            try:
                column = pc.cast(table.column(index), pa.int64())
            except pa.ArrowInvalid:
                column = pc.cast(table.column(index), pa.float64())
            table = table.set_column(index, item.name, column)
    return table


def open_catalog(
    layout: Layout,
    name: str = "main",
    version: int | str | None = None,
    *,
    live: bool | str = False,
    ledger: LedgerTable | None = None,
) -> Catalog:
    """Open a catalog for reading.

    Parameters
    ----------
    layout : Layout
    name : str
    version : int or str, optional
        A published version or a date, as in `catalogs.versions.as_of`; the current one by default.
    live : bool or str
        What a publication would show now, of a region (``cone:RA,DEC,DEG`` and so on) or of everything (`catalogs.live`). Without a
        version, everything is the shards themselves, with the rows beyond the edges of their bricks that publication leaves out.
    ledger : callable, optional
        Gives the rows of the view ``ledger``: ``lambda: ledger.table(name)``.

    Raises
    ------
    ConfigurationError
        If there is no such version, or no shard.
    """
    if live and version is not None:
        raise ConfigurationError("a version or what is newer (--live)", "both")
    shards = layout.catalog(name)
    if not live:
        folder = version_folder(layout, name, as_of(layout, name, version))
        return Catalog(layout, name, _published(folder), [folder.resolve(), shards.resolve()], ledger)
    now = live_folder(layout, name, "all" if live is True else live)
    if now is None:
        return Catalog(layout, name, _live(layout, name), [shards.resolve()], ledger)
    source = _Source(now.files, now.schema, True)
    now.last_as_long_as(source)
    return Catalog(layout, name, source, [now.path.resolve(), layout.hats(name).resolve(), shards.resolve()], ledger)
