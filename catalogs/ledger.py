"""The ledger: one row per brick and stage, written by the coordinator only, so that a run knows quickly what is done.

Correctness does not depend on it: `Ledger.rebuild` makes it again from shards, outcomes and provenance records, and a run on a
root whose ledger was lost does so first.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.compiler import SQLCompiler

from catalogs import evidence
from catalogs.lease import Lease, lease_table, patiently
from galpipe.commit import fault_point
from galpipe.errors import ConfigurationError, ResourceFailure
from galpipe.layout import Layout
from galpipe.unit import Receipt, Unit

SHARED_STAGES = ("fetch", "cut")
"""Stages whose product belongs to no catalog: their rows have an empty name."""

_METADATA = sa.MetaData()

UNITS = sa.Table(
    "units",
    _METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("release", sa.String, primary_key=True),
    sa.Column("region", sa.String, primary_key=True),
    sa.Column("brick", sa.String, primary_key=True),
    sa.Column("stage", sa.String, primary_key=True),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("content_hash", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("file", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("counts", sa.String, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("run_id", sa.String, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    # covers the summary, so that it reads the index and not the rows
    sa.Index("units_summary", "name", "stage", "release", "region", "status", "rows"),
)

RUNS = sa.Table(
    "runs",
    _METADATA,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("settings", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
)

_LEASES = lease_table(_METADATA)

_KEY = ("name", "release", "region", "brick", "stage")
_BATCH = 500

UNDAMAGED = "an undamaged ledger"
"""What is expected of a ledger whose file is damaged."""

_DAMAGED = ("file is not a database", "database disk image is malformed", "malformed database schema")
"""What SQLite says of a file that it cannot read any more."""

LEDGER_VARIABLE = "GALPIPE_LEDGER"
"""Environment variable with the URL of a shared ledger, such as ``postgresql://user@host/galpipe``; one database per root."""


@dataclass(frozen=True)
class Done:
    """What the ledger knows of a unit at a stage."""

    status: str
    fingerprint: str
    rows: int
    content_hash: str


def _url(where: str | Path) -> sa.URL:
    text = str(where)
    if "://" not in text:
        path = Path(text).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return sa.URL.create("sqlite", database=str(path))
    url = sa.make_url(text)
    # the driver this project has
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # the time-out comes first: changing the journal mode needs a lock too
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _name_damage(context: sa.ExceptionContext) -> None:
    """A database file that is damaged, wherever that is found, is named with what mends it."""
    text = str(context.original_exception)
    if any(sign in text for sign in _DAMAGED):
        file = str(context.engine.url.database) if context.engine is not None else ""
        raise ConfigurationError(UNDAMAGED, f"{text!r}; galpipe ledger rebuild makes it anew", file=file)


class Ledger:
    """The ledger of a root.

    Parameters
    ----------
    where : str or Path
        A file (SQLite) or a URL (``postgresql://user@host/database``).

    Raises
    ------
    ConfigurationError
        If the URL's driver is not installed or the database cannot be opened.
    """

    def __init__(self, where: str | Path) -> None:
        try:
            self._engine = sa.create_engine(_url(where), pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _tune_sqlite)
                sa.event.listen(self._engine, "handle_error", _name_damage)
            with self._engine.begin() as connection:
                # two coordinators may come first at the same moment
                for table in _METADATA.sorted_tables:
                    connection.execute(CreateTable(table, if_not_exists=True))
                    for index in table.indexes:
                        connection.execute(CreateIndex(index, if_not_exists=True))
        except (ImportError, NoSuchModuleError) as error:
            raise ConfigurationError("a database driver (pip install galpipe[postgres])", str(error), file=str(where)) from error
        except SQLAlchemyError as error:
            raise ConfigurationError("a database for the ledger", str(error), file=str(where)) from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn the database's refusal to write, of a full disk say, into a ResourceFailure that names its file."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            reason = getattr(error, "orig", None) or error
            raise ResourceFailure("a ledger that takes a row", str(reason), file=str(self._engine.url.database)) from error

    def record(self, receipts: Iterable[Receipt], run_id: str, name: str) -> int:
        """Write receipts, in one transaction; a later receipt of a unit and stage replaces the earlier.

        Parameters
        ----------
        receipts : iterable of Receipt
        run_id : str
        name : str
            Catalog; ignored for `SHARED_STAGES`.

        Returns
        -------
        int
            Receipts written.

        Raises
        ------
        ResourceFailure
            If the database refuses.
        """
        now = time.time()
        # a batch must not hold a key twice: PostgreSQL refuses to update a row twice in one statement
        rows = {tuple(row[key] for key in _KEY): row for row in (_row(receipt, run_id, name, now) for receipt in receipts)}
        stages = ",".join(sorted({row["stage"] for row in rows.values()}))
        with self._refusals():
            fault_point("ledger.before", stages)
            with self._engine.begin() as connection:
                self._upsert(connection, list(rows.values()))
            fault_point("ledger.after", stages)
        return len(rows)

    @cached_property
    def _upserting(self) -> SQLCompiler:
        """The statement that every receipt is written by, as SQL: SQLAlchemy compiles one with a conflict clause anew each time."""
        statement = (postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert)(UNITS)
        fresh = {column.name: statement.excluded[column.name] for column in UNITS.columns if column.name not in _KEY}
        return statement.on_conflict_do_update(index_elements=list(_KEY), set_=fresh).compile(self._engine)

    def _upsert(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        order = self._upserting.positiontup
        given = [tuple(row[key] for key in order) for row in rows] if order else [dict(row) for row in rows]
        for start in range(0, len(given), _BATCH):
            connection.exec_driver_sql(self._upserting.string, given[start : start + _BATCH])

    def _add(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        for start in range(0, len(rows), _BATCH):
            connection.execute(insert(UNITS).on_conflict_do_nothing(index_elements=list(_KEY)), list(rows[start : start + _BATCH]))

    def done(self, stage: str, name: str = "", release: str = "") -> dict[Unit, Done]:
        """What is known of every unit at a stage.

        Parameters
        ----------
        stage, name : str
        release : str
            Only this release; empty for all.
        """
        columns = ("release", "region", "brick", "status", "fingerprint", "rows", "content_hash")
        with self._engine.connect() as connection:
            return {Unit(*row[:3]): Done(*row[3:]) for row in connection.execute(_of_stage(columns, stage, name, release))}

    def states(self, stage: str, name: str = "", release: str = "") -> Iterator[tuple[str, str, str, str, str]]:
        """Release, region, brick, status and fingerprint of every unit at a stage, row by row: `done` for a whole release.

        Parameters
        ----------
        stage, name : str
        release : str
            Only this release; empty for all.
        """
        wanted = _of_stage(("release", "region", "brick", "status", "fingerprint"), stage, name, release)
        with self._engine.connect() as connection:
            for part in connection.execution_options(yield_per=10_000).execute(wanted).partitions():
                yield from part  # type: ignore[misc]

    def summary(self, name: str) -> list[dict[str, Any]]:
        """Bricks and rows by stage, release, region and status, of a catalog and of the shared stages."""
        table = UNITS.c
        by = (table.stage, table.release, table.region, table.status)
        total = sa.func.sum(table.rows)
        wanted = sa.select(*by, sa.func.count().label("bricks"), sa.cast(total, sa.BigInteger).label("rows"))
        wanted = wanted.where(table.name.in_(("", name))).group_by(*by).order_by(*by)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(wanted).mappings()]

    def run_totals(self, run_id: str) -> list[dict[str, Any]]:
        """Bricks, rows and seconds of work by stage and status, of what one run recorded last."""
        table = UNITS.c
        by = (table.stage, table.status)
        rows, seconds = sa.cast(sa.func.sum(table.rows), sa.BigInteger), sa.func.sum(table.seconds)
        wanted = sa.select(*by, sa.func.count().label("bricks"), rows.label("rows"), seconds.label("seconds"))
        with self._engine.connect() as connection:
            found = connection.execute(wanted.where(table.run_id == run_id).group_by(*by).order_by(*by))
            return [dict(row) for row in found.mappings()]

    def failures(self, name: str, limit: int | None = None, run_id: str = "") -> list[Receipt]:
        """Receipts whose status is neither ``done`` nor ``no_work``, sorted by unit."""
        wanted = UNITS.c.status.not_in(("done", "no_work")) & UNITS.c.name.in_(("", name))
        if run_id:
            wanted &= UNITS.c.run_id == run_id
        order = (UNITS.c.release, UNITS.c.region, UNITS.c.brick, UNITS.c.stage)
        with self._engine.connect() as connection:
            return [_receipt(row) for row in connection.execute(sa.select(UNITS).where(wanted).order_by(*order).limit(limit)).mappings()]

    def receipts(self, stage: str, name: str = "") -> Iterator[Receipt]:
        """Every receipt of a stage, sorted by unit."""
        order = (UNITS.c.release, UNITS.c.region, UNITS.c.brick)
        wanted = sa.select(UNITS).where(UNITS.c.stage == stage, UNITS.c.name == _name(stage, name)).order_by(*order)
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=10_000).execute(wanted).mappings():
                yield _receipt(row)

    def table(self, name: str) -> pa.Table:
        """All rows of a catalog and of the shared stages, for the SQL view ``ledger``."""
        kinds = {"rows": pa.int64(), "seconds": pa.float64(), "updated_at": pa.float64()}
        schema = pa.schema([(column.name, kinds.get(column.name, pa.string())) for column in UNITS.columns])
        wanted = sa.select(UNITS).where(UNITS.c.name.in_(("", name))).order_by(*(UNITS.c[key] for key in _KEY))
        with self._engine.connect() as connection:
            parts = connection.execution_options(yield_per=20_000).execute(wanted).partitions()
            batches = [pa.record_batch(list(map(list, zip(*part, strict=True))), schema=schema) for part in parts]
        return pa.Table.from_batches(batches, schema=schema)

    def made_by(self, run_id: str, name: str) -> list[Unit]:
        """Units whose rows a run made last, sorted."""
        table = UNITS.c
        wanted = sa.select(table.release, table.region, table.brick).where(table.run_id == run_id, table.name == name)
        wanted = wanted.where(table.stage == "catalog", table.status == "done").order_by(table.release, table.region, table.brick)
        with self._engine.connect() as connection:
            return [Unit(*row) for row in connection.execute(wanted)]

    def start_run(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        """Note that a run began."""
        row = {"run_id": run_id, "name": name, "started": time.time(), "status": "running"}
        with self._refusals(), self._engine.begin() as connection:
            connection.execute(sa.insert(RUNS).values(settings=json.dumps(settings, sort_keys=True), **row))

    def end_run(self, run_id: str, status: str) -> None:
        """Note how a run ended."""
        with self._refusals(), self._engine.begin() as connection:
            connection.execute(sa.update(RUNS).where(RUNS.c.run_id == run_id).values(ended=time.time(), status=status))

    def runs(self, name: str) -> list[dict[str, Any]]:
        """Runs of a catalog, newest first; a run without an end was killed or is at work."""
        wanted = sa.select(RUNS).where(RUNS.c.name == name).order_by(RUNS.c.started.desc())
        with self._engine.connect() as connection:
            return [dict(row) | {"settings": json.loads(row["settings"])} for row in connection.execute(wanted).mappings()]

    def lease(self, name: str, owner: str, seconds: float = 120.0, wait: float = 0.0) -> Lease:
        """Take the right to work on a catalog: `catalogs.lease.Lease.acquire`; wait up to ``wait`` seconds while another has it."""
        with self._refusals():
            return patiently(lambda: Lease.acquire(self._engine, _LEASES, name, owner, seconds), wait)

    def rebuild(self, layout: Layout, name: str, run_id: str = "rebuild") -> int:
        """Make a catalog's rows again from its shards, outcomes and provenance records.

        Rows of `SHARED_STAGES` are added where there are none; those that are there stay.

        Returns
        -------
        int
            Rows found.

        Raises
        ------
        BadData
            If a file does not read; the ledger is unchanged then.
        """
        now = time.time()
        rows = [_row(receipt, run_id, name, now) for receipt in evidence.receipts(layout, name)]
        with self._engine.begin() as connection:
            connection.execute(sa.delete(UNITS).where(UNITS.c.name == name, UNITS.c.stage == "catalog"))
            self._upsert(connection, [row for row in rows if row["name"]])
            self._add(connection, [row for row in rows if not row["name"]])
        return len(rows)

    def restore(self, layout: Layout, name: str) -> int:
        """`rebuild`, if this ledger knows nothing of a catalog that has files: it was lost, or is a new database.

        A ledger that knows of a run was there when the files were written: what it lacks was not finished.

        Returns
        -------
        int
            Rows found; 0 where nothing was amiss.
        """
        of_name = (sa.select(UNITS.c.brick).where(UNITS.c.name == name), sa.select(RUNS.c.run_id).where(RUNS.c.name == name))
        with self._engine.connect() as connection:
            known = any(connection.execute(wanted.limit(1)).first() is not None for wanted in of_name)
        return 0 if known or not evidence.is_there(layout, name) else self.rebuild(layout, name, "restore")


def ledger_of(layout: Layout) -> Ledger:
    """The ledger of a root: its SQLite file, or the database that ``GALPIPE_LEDGER`` names by URL.

    Raises
    ------
    ConfigurationError
        As `Ledger`.
    """
    return Ledger(os.environ.get(LEDGER_VARIABLE) or layout.ledger)


def ledger_of_files(layout: Layout, name: str) -> Ledger:
    """A ledger in memory, made from what lies on disk: what can be said of a catalog without one."""
    ledger = Ledger("sqlite://")
    ledger.rebuild(layout, name)
    return ledger


def set_aside_damaged(layout: Layout) -> Path | None:
    """Give the root's SQLite ledger another name if it is damaged, so that a new one can be made; None if it is not.

    Returns
    -------
    Path or None
        The new name.

    Raises
    ------
    ConfigurationError
        If it cannot be opened for another reason.
    """
    path = layout.ledger
    if os.environ.get(LEDGER_VARIABLE) or not path.exists():
        return None
    try:
        with Ledger(path) as ledger, ledger._engine.connect() as connection:
            if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() == "ok":
                return None
    except ConfigurationError as error:
        # locked, or not allowed: nothing is wrong with the file
        if error.expected != UNDAMAGED:
            raise
    number = next(k for k in itertools.count(1) if not path.with_name(f"{path.name}.damaged-{k}").exists())
    damaged = path.with_name(f"{path.name}.damaged-{number}")
    # what SQLite had not brought into the file yet may still be read by hand
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(f"{damaged}{ending}")
    return damaged


def has_ledger(layout: Layout) -> bool:
    """Whether a run ever wrote a ledger for this root; looking makes none."""
    return bool(os.environ.get(LEDGER_VARIABLE)) or layout.ledger.exists()


def _of_stage(columns: Sequence[str], stage: str, name: str, release: str) -> sa.Select[Any]:
    """Columns of every unit at a stage; of one release, or of all where it is empty."""
    wanted = sa.select(*(UNITS.c[column] for column in columns)).where(UNITS.c.stage == stage, UNITS.c.name == _name(stage, name))
    return wanted.where(UNITS.c.release == release) if release else wanted


def _name(stage: str, name: str) -> str:
    return "" if stage in SHARED_STAGES else name


def _row(receipt: Receipt, run_id: str, name: str, now: float) -> dict[str, Any]:
    row = receipt.as_dict()
    unit = row.pop("unit")
    row["counts"] = json.dumps(row["counts"], sort_keys=True)
    return row | unit | {"name": _name(receipt.stage, name), "run_id": run_id, "updated_at": now}


def _receipt(row: Mapping[Any, Any]) -> Receipt:
    keys = ("stage", "status", "path", "rows", "content_hash", "fingerprint", "file", "reason", "seconds")
    unit = Unit(row["release"], row["region"], row["brick"])
    return Receipt(unit, **{key: row[key] for key in keys}, counts=json.loads(row["counts"]))
