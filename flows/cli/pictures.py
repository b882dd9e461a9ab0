"""The verb that makes pages: report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, name_option, root_option, say, verb
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    from catalogs.report.galaxies import Pictures
    from galpipe.layout import Layout


@click.command()
@root_option
@name_option
@click.option("--run", "run_id", default="", help="A run's id (default: the newest one that ended).")
@json_option
@verb
def report(root: Path, name: str, run_id: str, as_json: bool) -> None:
    """Make the report page of a run again and print its path."""
    from catalogs.report.page import write_report
    from galpipe.layout import Layout

    layout = Layout(root)
    summary = read_summary(layout, run_id or newest_run(layout, name))
    say(f"report of run {summary['run_id']}: reading catalog {name!r}, loading its model")
    path = write_report(layout, name, summary, _pictures(layout, name))
    counts = {"bytes": path.stat().st_size}
    emit({"status": "ok", "counts": counts, "failures": [], "run_id": summary["run_id"], "report": str(path)}, as_json, str(path))


def newest_run(layout: Layout, name: str) -> str:
    """The id of the newest run of a catalog that has a summary.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    for folder in sorted(layout.run_folder("any").parent.glob("*"), reverse=True):
        request = folder / "request.json"
        if (folder / "summary.json").exists() and request.exists() and json.loads(request.read_text()).get("name") == name:
            return folder.name
    raise ConfigurationError(f"a run of catalog {name!r} that ended", "none", file=str(layout.run_folder("any").parent))


def read_summary(layout: Layout, run_id: str) -> dict[str, Any]:
    """The summary of a run.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    path = layout.run_folder(run_id) / "summary.json"
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError("the summary of a run that ended", str(error), file=str(path)) from error
    return summary


def _pictures(layout: Layout, name: str) -> Pictures | None:
    """The hands of the model that the catalog is bound to; None where it is not here."""
    from catalogs.collection import read_binding
    from catalogs.report.pictures import load_pictures
    from galpipe.lvm.registry import model_folder

    binding = read_binding(layout, name)
    if binding is None:
        return None
    try:
        folder = model_folder(binding.model, layout.models)
    except ConfigurationError as error:
        say(f"no restored images: {error}")
        return None
    return load_pictures(folder, binding.model_hash)
