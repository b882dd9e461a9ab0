"""The verb that asks catalogs: query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, name_option, root_option, say, verb
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from catalogs.query import Catalog

SHOWN_ROWS = 40


@click.command()
@click.argument("sql", required=False)
@root_option
@name_option
@click.option("--cone", metavar="RA,DEC,DEG", help="Rows within a radius.")
@click.option("--box", metavar="RA1,RA2,DEC1,DEC2", help="Rows in a box; RA1 > RA2 goes over RA 0.")
@click.option("--id", "ids", multiple=True, type=int, help="Rows of these source_ids.")
@click.option("--columns", default="", help="Comma-separated columns of --cone, --box and --id.")
@click.option(
    "--as-of", "version", metavar="VERSION|DATE", help="A version (3, v3) or an ISO date or time, UTC (default: the current one)."
)
@click.option("--live", is_flag=True, help="What a publication would show now: bricks done since the version too.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write .parquet .fits .csv .vot .xml or .json instead.")
@json_option
@verb
def query(
    sql: str | None,
    root: Path,
    name: str,
    cone: str | None,
    box: str | None,
    ids: tuple[int, ...],
    columns: str,
    version: str | None,
    live: bool,
    out: Path | None,
    as_json: bool,
) -> None:  # one parameter per option of the command line
    """Ask the catalog: SQL over galaxies, galaxies_clean, detections, embeddings, ledger, outcomes, resolved, or a piece of sky."""
    from catalogs.formats import to_json, write_result
    from catalogs.ledger import ledger_of
    from catalogs.query import open_catalog
    from galpipe.layout import Layout

    if sum(bool(given) for given in (sql, cone, box, ids)) != 1:
        raise ConfigurationError("one of SQL, --cone, --box, --id", "none or several")
    layout = Layout(root)

    def ledger_rows() -> pa.Table:
        with ledger_of(layout) as ledger:
            return ledger.table(name)

    with open_catalog(layout, name, version, live=live and _region(cone, box), ledger=ledger_rows) as catalog:
        table = catalog.sql(sql) if sql else _sky(catalog, (cone, box, ids), [item for item in columns.split(",") if item])
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


def numbers(text: str, count: int, what: str) -> list[float]:
    """Comma-separated numbers of an option."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ConfigurationError(f"{what} with {count} numbers", repr(text))
    return values


def _region(cone: str | None, box: str | None) -> str:
    """The region that a search by position needs."""
    return f"cone:{cone}" if cone else f"box:{box}" if box else "all"


def _sky(catalog: Catalog, wanted: tuple[str | None, str | None, tuple[int, ...]], columns: list[str]) -> pa.Table:
    cone, box, ids = wanted
    if cone:
        ra, dec, radius = numbers(cone, 3, "--cone RA,DEC,DEG")
        return catalog.cone(ra, dec, radius, columns)
    if box:
        ra1, ra2, dec1, dec2 = numbers(box, 4, "--box RA1,RA2,DEC1,DEC2")
        return catalog.box((ra1, ra2), (dec1, dec2), columns)
    return catalog.by_id(ids, columns)


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
