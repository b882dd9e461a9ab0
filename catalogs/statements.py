"""Run SQL on the views of a catalog: one SELECT at a time, whole or bound to a piece of sky."""

# ruff: noqa: S608
# every name and literal below goes through scan or in_area

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.area import Area
from catalogs.inventory import outcomes_files
from catalogs.outcomes import empty
from catalogs.partitions import RESOLVED_FILE
from catalogs.pushdown import Files, check_pages, footer
from catalogs.resolve import RESOLVED
from catalogs.views import VIEWS, Source, in_area, of_rows, sandbox, scan
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout

LedgerTable = Callable[[], pa.Table]


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name that is most like another; empty if none is."""
    lower = {item.lower(): item for item in known}
    return next((lower[found] for found in difflib.get_close_matches(name.lower(), lower, 1, 0.5)), "")


class Statements:
    """What runs the SQL of a `catalogs.query.Catalog`; parameters as there."""

    def __init__(self, layout: Layout, name: str, source: Source, folders: Sequence[Path], ledger: LedgerTable | None) -> None:
        self._layout, self._name, self._source, self._folders, self._ledger = layout, name, source, folders, ledger
        self._files = Files(source.files)
        self._connections: list[duckdb.DuckDBPyConnection] = []

    def close(self) -> None:
        """End the connection."""
        while self._connections:
            self._connections.pop().close()

    def run(self, query: str, within: Area | None = None) -> pa.Table:
        """Run one SELECT; as `catalogs.query.Catalog.sql`."""
        if within is None:
            return self._run(self._whole, query, None)
        with self._restricted(within) as connection:
            return self._run(connection, query, within)

    @cached_property
    def _whole(self) -> duckdb.DuckDBPyConnection:
        connection = self._connect(None)
        self._connections.append(connection)
        return connection

    @contextmanager
    def _restricted(self, area: Area) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = self._connect(area)
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self, area: Area | None) -> duckdb.DuckDBPyConnection:
        source = self._source
        if area is not None:
            # a scan needs one file at least, for the columns
            source = Source(self._files.touched(area.ranges()) or source.files[:1], source.schema, source.published)
        connection = sandbox(self._folders, area)
        for view, select in of_rows(source, area).items():
            self._guarded(connection, f"CREATE VIEW {view} AS {select}", source.files)
        return connection

    def _run(self, connection: duckdb.DuckDBPyConnection, query: str, area: Area | None) -> pa.Table:
        try:
            statements = connection.extract_statements(query)
        except duckdb.Error as error:
            raise ConfigurationError("one SQL SELECT", str(error)) from error
        kinds = [statement.type.name for statement in statements]
        if kinds not in (["SELECT"], ["SELECT_STATEMENT"]):
            raise ConfigurationError("one SQL SELECT, as a catalog is read-only", f"{', '.join(kinds) or 'nothing'}: {query!r}")
        self._prepare(connection, query, area)
        return self._described(_tidy(self._guarded(connection, query, self._source.files)))

    def _guarded(self, connection: duckdb.DuckDBPyConnection, query: str, files: Sequence[Path]) -> pa.Table:
        """Result of a statement; DuckDB's errors become ours."""
        try:
            found = connection.sql(query)
            return found.to_arrow_table() if found is not None else pa.table({})
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.PermissionException) as error:
            raise ConfigurationError(f"SQL on the views {VIEWS}", f"{error}{self._hint(str(error))}") from error
        except duckdb.Error as error:
            _blame(files, error)
            raise ConfigurationError(f"SQL on the views {VIEWS}", str(error)) from error

    def _hint(self, message: str) -> str:
        named = re.search(r'column "?([^"\s]+)"? not found', message)
        close = nearest_name(named[1].rpartition(".")[2], self._source.schema.names) if named else ""
        return f" (nearest column: {close})" if close else ""

    def _prepare(self, connection: duckdb.DuckDBPyConnection, sql: str, area: Area | None) -> None:
        """Create the views that cost something only when a query names them."""
        lazy = {"ledger": self._create_ledger, "outcomes": self._create_outcomes, "resolved": self._create_resolved}
        have = {row[0] for row in connection.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
        for view, create in lazy.items():
            if view not in have and re.search(rf"\b{view}\b", sql, re.IGNORECASE):
                create(connection, area)

    def _create_ledger(self, connection: duckdb.DuckDBPyConnection, _: Area | None) -> None:
        if self._ledger is None:
            raise ConfigurationError("a ledger under this root", "none", file=str(self._layout.ledger))
        connection.register("ledger", self._ledger())

    def _create_outcomes(self, connection: duckdb.DuckDBPyConnection, area: Area | None) -> None:
        files = [path for _, path in outcomes_files(self._layout, self._name)]
        if files:
            connection.execute(f"CREATE VIEW outcomes AS SELECT * FROM {scan(files)} WHERE {in_area(area, pixels=False)}")
        else:
            connection.register("outcomes", empty())

    def _create_resolved(self, connection: duckdb.DuckDBPyConnection, _: Area | None) -> None:
        path = self._folders[0] / RESOLVED_FILE
        if path.exists():
            connection.execute(f"CREATE VIEW resolved AS SELECT * FROM {scan([path])}")
        else:
            connection.register("resolved", RESOLVED.empty_table())

    def _described(self, table: pa.Table) -> pa.Table:
        """Put unit and description back on columns that came through unchanged."""
        known = {item.name: item for item in self._source.schema}
        fields = [
            item.with_metadata(known[item.name].metadata) if item.name in known and item.type == known[item.name].type else item
            for item in table.schema
        ]
        return table.cast(pa.schema(fields))


_NOT_FILES = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidTypeException, duckdb.OutOfMemoryException)
"""What a query that is wrong itself fails with while it runs."""

_OF_FILES = re.compile(r"parquet|decompress|zstd|snappy|thrift|corrupt|checksum|\bpage", re.IGNORECASE)
"""What DuckDB speaks of where a file is invalid input, and not what a query made of it."""


def _blame(files: Sequence[Path], error: Exception) -> None:
    """Name the file that a query failed on, if one is damaged; DuckDB does not say which, and does not look at checksums."""
    for path in files:
        if str(path) in str(error):
            raise BadData("a readable Parquet file of the catalog", str(error).splitlines()[0], file=str(path)) from error
    if isinstance(error, _NOT_FILES) or (isinstance(error, duckdb.InvalidInputException) and not _OF_FILES.search(str(error))):
        return
    for path in files:
        footer(path)
    for path in files:
        check_pages(path)


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
