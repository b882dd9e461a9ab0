"""The verbs that look into the books of a catalog: status, verify, ledger, provenance, reproduce."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, finish, json_option, name_option, root_option, say, verb
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    from catalogs.ledger import Ledger
    from catalogs.reproduce import Compared
    from galpipe.layout import Layout
    from tasks.reproduce import Reproduction

SHOWN_COLUMNS = 12


@contextmanager
def _opened(layout: Layout, name: str) -> Iterator[tuple[Ledger, str]]:
    """The root's ledger, or one in memory made from the catalog's files, and what to say of it."""
    from catalogs.ledger import has_ledger, ledger_of, ledger_of_files

    if has_ledger(layout):
        with ledger_of(layout) as ledger:
            yield ledger, ""
    elif layout.catalog(name).exists():
        with ledger_of_files(layout, name) as ledger:
            yield ledger, "no ledger: this is what shards and outcomes say; galpipe ledger rebuild makes one"
    else:
        raise ConfigurationError("a root folder with a ledger or a catalog", f"neither at {layout.ledger} nor at {layout.catalog(name)}")


@click.command()
@root_option
@name_option
@json_option
@verb
def status(root: Path, name: str, as_json: bool) -> None:
    """What is done, failed, absent and why; which versions are published."""
    from catalogs.hats import completeness, version_folder, versions
    from galpipe.layout import Layout

    layout = Layout(root)
    with _opened(layout, name) as (ledger, note):
        stages, failures, runs = ledger.summary(name), ledger.failures(name, 100), ledger.runs(name)[:5]
    published = versions(layout, name)
    totals = completeness(version_folder(layout, name)) if published else {}
    lines = [note] if note else []
    lines += [
        f"{row['stage']:<8} {row['release']}/{row['region']}  {row['status']:<15} {row['bricks']} bricks, {row['rows']} rows"
        for row in stages
    ]
    lines += [f"version  {published[-1]} of {len(published)}: {json.dumps(totals)}" if published else "version  none published"]
    lines += [f"run      {run['run_id']} {run['status']}" for run in runs]
    lines += [f"FAILED   {item.stage} {item.status}: {item.reason.splitlines()[0]}" for item in failures]
    listed = [{"unit": str(item.unit), "file": item.file, "kind": item.status, "reason": item.reason} for item in failures]
    result = {
        "status": "failed" if failures else "ok",
        "counts": {"stages": stages},
        "failures": listed,
        "versions": published,
        "runs": runs,
        "note": note,
    }
    finish(result | {"completeness": totals}, as_json, "\n".join(lines))


@click.command()
@root_option
@name_option
@json_option
@verb
def verify(root: Path, name: str, as_json: bool) -> None:
    """Check every total, file, hash, value and unit: outcomes, shards, provenance, ledger, published version."""
    from catalogs.ledger import has_ledger
    from catalogs.verify import verify as check
    from galpipe.layout import Layout

    layout = Layout(root)
    if not layout.catalog(name).exists():
        raise ConfigurationError(f"a catalog {name!r} under {layout.root}", "none")
    if not has_ledger(layout):
        say("no ledger: the files are checked against each other; galpipe ledger rebuild makes one")
    with ProgressBoard({"verify": 0}) as board:

        def progress(done: int, total: int) -> None:
            board.update("verify", done, total)

        if has_ledger(layout):
            with _opened(layout, name) as (ledger, _):
                problems = check(layout, name, ledger, progress)
        else:
            problems = check(layout, name, None, progress)
    listed = [{"unit": item.unit, "file": item.file, "kind": "problem", "reason": item.what} for item in problems]
    text = "\n".join(f"{item.unit} {item.file}: {item.what}".strip() for item in problems) or "every total agrees with its source"
    finish({"status": "failed" if problems else "ok", "counts": {"problems": len(problems)}, "failures": listed}, as_json, text)


@click.group()
def ledger() -> None:
    """What is known of every brick and stage, as a database."""


@ledger.command()
@root_option
@click.option("--name", default="", help="Only this catalog (default: all of the root).")
@json_option
@verb
def rebuild(root: Path, name: str, as_json: bool) -> None:
    """Make the ledger's rows again from shards, outcomes, provenance records and what was kept; a damaged one is set aside."""
    from catalogs.lease import ROOT_LEASE
    from catalogs.ledger import ledger_of, set_aside_damaged
    from flows.request import LEASE_SECONDS, new_run_id
    from galpipe.layout import Layout

    layout = Layout(root)
    names = [name] if name else layout.catalogs()
    if not names or not all(layout.catalog(item).exists() for item in names):
        raise ConfigurationError(f"a catalog {name!r} under {layout.root}".replace(" ''", ""), "none")
    aside = set_aside_damaged(layout)
    with ledger_of(layout) as opened, opened.lease(ROOT_LEASE, new_run_id(), LEASE_SECONDS):
        rows = {item: opened.rebuild(layout, item) for item in names}
    lines = [f"the damaged ledger is now {aside}"] if aside else []
    lines += [f"catalog {item}: {count} rows" for item, count in rows.items()]
    emit({"status": "ok", "counts": rows, "failures": [], "set_aside": str(aside or "")}, as_json, "\n".join(lines))


@click.command()
@click.argument("identifier", type=int)
@root_option
@name_option
@json_option
@verb
def provenance(identifier: int, root: Path, name: str, as_json: bool) -> None:
    """What a row was made from, by its source_id or provenance_id: code, files, model, labels, settings, runs, versions."""
    from catalogs.lineage import lineage
    from galpipe.layout import Layout

    found = lineage(Layout(root), name, identifier)
    emit({"status": "ok", "counts": {"runs": len(found["runs"])}, "failures": [], **found}, as_json, json.dumps(found, indent=1))


@click.command()
@click.argument("source_id", type=int)
@root_option
@name_option
@click.option("--release", default="", help="Where the release lies, if files were not kept (default: as the run that made the row).")
@json_option
@verb
def reproduce(source_id: int, root: Path, name: str, release: str, as_json: bool) -> None:
    """Compute a row again from its recorded inputs and compare it with the stored one, column by column."""
    from galpipe.layout import Layout
    from tasks.reproduce import reproduce as again

    made = again(Layout(root), name, source_id, release)
    for warning in made.warnings:
        say(f"warning: {warning}")
    unit, file = str(made.row.unit), str(made.row.shard)
    listed = [{"unit": unit, "file": file, "kind": "different", "reason": _told(item)} for item in made.different]
    counts = {"columns": len(made.compared), "different": len(listed), "not_bit_equal": sum(item.difference > 0 for item in made.compared)}
    result: dict[str, Any] = {"status": "failed" if listed else "ok", "counts": counts, "failures": listed}
    result |= {"unit": unit, "source_id": source_id, "made_from": made.source, "warnings": made.warnings}
    finish(result | {"columns": [item.as_dict() for item in made.compared]}, as_json, _text(made))


def _told(item: Compared) -> str:
    return f"expected {item.column} {_short(item.stored)} within {item.tolerance:g}, got {_short(item.again)}"


def _short(value: Any) -> str:
    text = f"{value:.8g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _text(made: Reproduction) -> str:
    near = sum(0 < item.difference <= item.tolerance for item in made.compared)
    head = f"{made.row.unit}, from {made.source}: {len(made.compared)} columns, {near} within their tolerance, {len(made.different)} differ"
    return "\n".join([head, *(f"DIFFERS  {_told(item)}" for item in made.different)])
