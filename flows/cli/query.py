"""The verb query: SQL, pieces of sky, ids, a user's table and look-alikes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, name_option, root_option, say, verb
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from catalogs.area import Area
    from catalogs.query import Catalog

SHOWN_ROWS = 40


@dataclass(frozen=True)
class _Asked:
    """What a call asks for; one of these, and ``sql`` with ``area``."""

    sql: str
    area: Area | None
    ids: tuple[int, ...]
    match: Path | None
    similar: int | None
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        others = {"--id": bool(self.ids), "--match": self.match is not None, "--similar": self.similar is not None}
        given = [name for name, there in others.items() if there]
        sky = [name for name, there in {"SQL": bool(self.sql), "a piece of sky": self.area is not None}.items() if there]
        if len(given) + bool(sky) != 1:
            raise ConfigurationError(
                "one of SQL, --cone, --box, --polygon, --moc (SQL with one of these, too), --id, --match, --similar",
                " and ".join(given + sky) or "none",
            )
        if self.sql and self.columns:
            raise ConfigurationError("the columns of SQL in its SELECT", f"--columns {','.join(self.columns)}")


@dataclass(frozen=True)
class _Pairing:
    """How to match a user's table, and how many look-alikes are wanted."""

    radius: float | None
    ra: str
    dec: str
    every: bool
    count: int


@click.command()
@click.argument("sql", default="")
@root_option
@name_option
@click.option("--cone", default="", metavar="RA,DEC,DEG", help="Rows within a radius, or SQL on them.")
@click.option("--box", default="", metavar="RA1,RA2,DEC1,DEC2", help="Rows in a box; RA1 > RA2 goes over RA 0.")
@click.option("--polygon", default="", metavar="RA,DEC,RA,DEC,...", help="Rows in a polygon of great circles.")
@click.option("--moc", default="", metavar="FILE|TEXT", help="Rows in a MOC: FITS or JSON file, or text such as '6/1-3 7/12'.")
@click.option("--id", "ids", multiple=True, type=int, help="Rows of these source_ids.")
@click.option("--match", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Rows at the positions of a table of yours.")
@click.option("--radius", type=float, metavar="ARCSEC", help="Of --match.")
@click.option("--ra", default="", metavar="COLUMN", help="Right ascension (deg) in the table of --match, where its name does not say.")
@click.option("--dec", default="", metavar="COLUMN", help="Declination (deg) in it.")
@click.option("--all/--nearest", "every", default=False, help="--match: all galaxies within the radius, or the nearest (default).")
@click.option("--similar", type=int, metavar="ID", help="The rows that look most like one.")
@click.option("--n", "count", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Rows of --similar.")
@click.option("--columns", default="", help="Comma-separated columns of the catalog, for all but SQL.")
@click.option(
    "--as-of", "version", metavar="VERSION|DATE", help="A version (3, v3) or an ISO date or time, UTC (default: the current one)."
)
@click.option("--live", is_flag=True, help="What a publication would show now: bricks done since the version too.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write .parquet .fits .csv .vot .xml or .json instead.")
@json_option
@verb
def query(
    sql: str,
    root: Path,
    name: str,
    cone: str,
    box: str,
    polygon: str,
    moc: str,
    ids: tuple[int, ...],
    match: Path | None,
    radius: float | None,
    ra: str,
    dec: str,
    every: bool,
    similar: int | None,
    count: int,
    columns: str,
    version: str | None,
    live: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Ask the catalog.

    SQL over galaxies, galaxies_clean, detections, embeddings, ledger, outcomes, resolved, whole or on a piece of sky; the rows of a piece
    of sky, of ids, at the positions of a table of yours, or of look-alikes.
    """
    from catalogs.area import parse_area
    from catalogs.formats import to_json, write_result
    from catalogs.ledger import ledger_of
    from catalogs.query import open_catalog
    from galpipe.layout import Layout

    area = parse_area(cone=cone, box=box, polygon=polygon, moc=moc)
    asked = _Asked(sql, area, ids, match, similar, tuple(item for item in columns.split(",") if item))
    layout = Layout(root)

    def ledger_rows() -> pa.Table:
        with ledger_of(layout) as ledger:
            return ledger.table(name)

    with open_catalog(layout, name, version, live=live and _region(cone, box), ledger=ledger_rows) as catalog:
        table = _answer(catalog, asked, _Pairing(radius, ra, dec, every, count))
    if out is not None:
        for note in write_result(table, out):
            say(f"note: {note}")
        emit(
            {"status": "ok", "counts": {"rows": table.num_rows}, "failures": [], "file": str(out)}, as_json, f"{table.num_rows} rows: {out}"
        )
    elif as_json:
        click.echo(json.dumps(to_json(table), allow_nan=False))
    else:
        _show(table)


def _region(cone: str, box: str) -> str:
    """The region that a search by position needs."""
    return f"cone:{cone}" if cone else f"box:{box}" if box else "all"


def _answer(catalog: Catalog, asked: _Asked, pairing: _Pairing) -> pa.Table:
    from catalogs.area import Cone

    if asked.sql:
        return catalog.sql(asked.sql, asked.area)
    if asked.match is not None:
        return _matched(catalog, asked.match, pairing, asked.columns)
    if asked.similar is not None:
        return catalog.similar(asked.similar, pairing.count, asked.columns)
    if asked.area is None:
        return catalog.by_id(asked.ids, asked.columns)
    if isinstance(asked.area, Cone):
        return catalog.nearest_first(asked.area, asked.columns)
    return catalog.within(asked.area, asked.columns)


def _matched(catalog: Catalog, file: Path, pairing: _Pairing, columns: tuple[str, ...]) -> pa.Table:
    from catalogs.crossmatch import Match
    from catalogs.usertable import read_user_table

    if pairing.radius is None:
        raise ConfigurationError("--match FILE with --radius ARCSEC", "no radius")
    user = read_user_table(file, pairing.ra, pairing.dec)
    found = catalog.match(user, Match(pairing.radius, pairing.every), columns)
    lost = user.table.num_rows - int(user.placed.sum())
    without = f", {lost} of them without a position" if lost else ""
    what = "pairs" if pairing.every else "rows have a galaxy"
    say(f"{found.num_rows} {what} within {pairing.radius:g} arcsec, of {user.table.num_rows} rows in {file.name}{without}")
    return found


def _show(table: pa.Table) -> None:
    """A table for people: as many columns as the terminal holds."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    fitting = table.column_names[: max(4, console.width // 14)]
    shown = Table(*fitting)
    for row in table.select(fitting).slice(0, SHOWN_ROWS).to_pylist():
        shown.add_row(*(_cell(row[column]) for column in fitting))
    console.print(shown)
    hidden = "" if len(fitting) == table.num_columns else f"; {table.num_columns - len(fitting)} more columns with --json or --out"
    click.echo(f"{table.num_rows} rows, {min(SHOWN_ROWS, table.num_rows)} shown{hidden}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.8g}"
    text = "" if value is None else str(value)
    return text if len(text) <= 30 else text[:29] + "…"
