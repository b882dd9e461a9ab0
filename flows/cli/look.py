"""The verbs that look at what was done: status, verify, provenance."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flows.cli.common import emit, finish, json_option, name_option, root_option, verb
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError


@click.command()
@root_option
@name_option
@json_option
@verb
def status(root: Path, name: str, as_json: bool) -> None:
    """What is done, failed, absent and why; which versions are published."""
    from catalogs.hats import completeness, version_folder, versions
    from catalogs.ledger import has_ledger, ledger_of
    from galpipe.layout import Layout

    layout = Layout(root)
    if not has_ledger(layout):
        raise ConfigurationError("a root folder with a ledger", f"none at {layout.ledger}")
    with ledger_of(layout) as ledger:
        stages, failures, runs = ledger.summary(name), ledger.failures(name, 100), ledger.runs(name)[:5]
    published = versions(layout, name)
    totals = completeness(version_folder(layout, name)) if published else {}
    lines = [
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
    }
    finish(result | {"completeness": totals}, as_json, "\n".join(lines))


@click.command()
@root_option
@name_option
@json_option
@verb
def verify(root: Path, name: str, as_json: bool) -> None:
    """Check every total against its source: outcomes, shards, ledger, published version."""
    from catalogs.ledger import ledger_of
    from catalogs.verify import verify as check
    from galpipe.layout import Layout

    layout = Layout(root)
    if not layout.catalog(name).exists():
        raise ConfigurationError(f"a catalog {name!r} under {layout.root}", "none")
    with ledger_of(layout) as ledger, ProgressBoard({"verify": 0}) as board:
        problems = check(layout, name, ledger, lambda done, total: board.update("verify", done, total))
    listed = [{"unit": item.unit, "file": item.file, "kind": "problem", "reason": item.what} for item in problems]
    text = "\n".join(f"{item.unit} {item.file}: {item.what}" for item in problems) or "every total agrees with its source"
    finish({"status": "failed" if problems else "ok", "counts": {"problems": len(problems)}, "failures": listed}, as_json, text)


@click.command()
@click.argument("identifier", type=int)
@root_option
@name_option
@json_option
@verb
def provenance(identifier: int, root: Path, name: str, as_json: bool) -> None:
    """What the rows with a provenance_id were made from."""
    from catalogs.provenance import describe
    from galpipe.layout import Layout

    found = describe(Layout(root), name, identifier)
    emit({"status": "ok", "counts": {"runs": len(found["runs"])}, "failures": [], **found}, as_json, json.dumps(found, indent=1))
