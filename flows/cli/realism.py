"""How real the mock sky looks: evaluate realism."""

from __future__ import annotations

from pathlib import Path

import click

from flows.cli.common import emit, json_option, verb
from flows.progress import ProgressBoard


@click.command()
@click.option(
    "--real", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder with real cutouts (stamps/cutout_*.fits)."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where tables, plots and pictures go.")
@click.option("--fields", default=60, show_default=True, help="Mock fields of 256 px of each sky.")
@click.option("--seed", default=1, show_default=True)
@click.option("--networks/--no-networks", default=True, show_default=True, help="Also train small networks on the pixels.")
@click.option("--plain/--no-plain", default=True, show_default=True, help="Also compare the plain sky (two whole frames).")
@json_option
@verb
def realism(real: Path, out: Path, fields: int, seed: int, networks: bool, plain: bool, as_json: bool) -> None:
    """Compare real cutouts with both mock skies: noise, profiles, colors, sizes, and a classifier that tries to tell them apart.

    What lies in OUT as pictures-*.png shows real pixels; everything else is statistics or mock.
    """
    from galpipe.evaluate.realism import Effort, classifiers, compare
    from galpipe.evaluate.tables import tables_text

    effort = Effort(fields, seed, networks, plain)
    totals = {f"{kind} fields": fields for kind in effort.skies} | {"classifiers": classifiers(effort)}
    with ProgressBoard(totals) as board:
        result = compare(real, out, effort, board.update)
    counts = result["fields"]
    emit({"status": "ok", "counts": counts, "failures": [], "out": out, "classifier": result["classifier"]}, as_json, tables_text(result))
