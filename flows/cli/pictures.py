"""The verb that makes pages: report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, name_option, root_option, say, verb
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    from catalogs.report.catalogpage import Wishes
    from catalogs.report.galaxies import Pictures
    from galpipe.layout import Layout


@click.command()
@root_option
@name_option
@click.option("--run", "run_id", default="", help="The page of this run (default: the newest one that ended).")
@click.option("--catalog", "of_catalog", is_flag=True, help="The page of the published catalog instead; any option below asks for it too.")
@click.option("--as-of", "version", metavar="VERSION|DATE", help="A version (3, v3) or an ISO date (default: the current one).")
@click.option("--live", is_flag=True, help="The shards as they are now.")
@click.option(
    "--region", "region_text", default="", metavar="REGION", help="cone:RA,DEC,DEG  box:RA1,RA2,DEC1,DEC2  bricks:A,B  moc:FILE  all"
)
@click.option("--cone", default="", metavar="RA,DEC,DEG", help="Short for --region cone:...")
@click.option("--box", default="", metavar="RA1,RA2,DEC1,DEC2", help="Short for --region box:...")
@click.option("--columns", default="", help="Columns whose lowest and highest galaxies are shown, or 'all' (default: the model's answers).")
@click.option("--galaxies", type=click.IntRange(0, 500), help="Galaxies shown at random.  [default: 24]")
@click.option("--seed", type=click.IntRange(0), help="Of what is drawn at random.  [default: 0]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File of the page (default: reports/NAME/ under the root).")
@json_option
@verb
def report(
    root: Path,
    name: str,
    run_id: str,
    of_catalog: bool,
    version: str | None,
    live: bool,
    region_text: str,
    cone: str,
    box: str,
    columns: str,
    galaxies: int | None,
    seed: int | None,
    out: Path | None,
    as_json: bool,
) -> None:  # one parameter per option of the command line
    """Make the page of a run again, or the page of a catalog: maps, classes against depth and seeing, completeness, columns, galaxies."""
    from galpipe.layout import Layout

    layout = Layout(root)
    asked = (version is not None, live, region_text, cone, box, columns, galaxies is not None, seed is not None, out is not None)
    if not (of_catalog or any(asked)):
        _run_page(layout, name, run_id, as_json)
        return
    if run_id:
        raise ConfigurationError("either --run or options of a catalog's page", f"--run {run_id} and others")
    if live and version is not None:
        raise ConfigurationError("one of --live and --as-of", "both")
    given = [text for text in (region_text, cone and f"cone:{cone}", box and f"box:{box}") if text]
    if len(given) > 1:
        raise ConfigurationError("one of --region, --cone, --box", ", ".join(given))
    from catalogs.report.catalogpage import Wishes

    listed = tuple(item.strip() for item in columns.split(",") if item.strip())
    wishes = Wishes(given[0] if given else "all", listed, 24 if galaxies is None else galaxies, seed or 0)
    _catalog_page(layout, name, None if live else version_of(layout, name, version), (wishes, out), as_json)


def version_of(layout: Layout, name: str, wanted: str | None) -> int:
    """The number of the version that is meant, that of the current one by default.

    Raises
    ------
    ConfigurationError
        If it is not there.
    """
    from catalogs.hats import version_folder
    from catalogs.versions import as_of

    return int(version_folder(layout, name, as_of(layout, name, wanted)).name[1:])


def _catalog_page(layout: Layout, name: str, version: int | None, wanted: tuple[Wishes, Path | None], as_json: bool) -> None:
    from catalogs.extent import Extent
    from catalogs.report.catalogpage import write_catalog_report
    from galpipe.survey.region import parse_region

    wishes, out = wanted
    if not layout.catalog(name).exists() and not layout.hats(name).exists():
        raise ConfigurationError(f"a catalog {name!r} under {layout.root}", "none")
    extent = Extent(layout, name, version, parse_region(wishes.region_text))
    what = "live" if version is None else f"v{version}"
    if wishes.region_text != "all":
        what += "-" + re.sub(r"[^A-Za-z0-9.+-]+", "-", wishes.region_text)[:80]
    path = out if out is not None else layout.catalog_report(name, what)
    say(f"report of catalog {name!r}, {what}: one pass over its rows")
    with ProgressBoard({"rows": 0}) as board:
        told = write_catalog_report(extent, path.absolute(), wishes, lambda done, total: board.update("rows", done, total))
    counts = {"rows": told.pop("rows"), "cells": told.pop("cells"), "bytes": path.stat().st_size}
    emit({"status": "ok", "counts": counts, "failures": [], **told}, as_json, told["report"])


def _run_page(layout: Layout, name: str, run_id: str, as_json: bool) -> None:
    from catalogs.report.page import write_report

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
