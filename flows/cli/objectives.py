"""Pre-training objectives at equal cost: evaluate objectives."""

from __future__ import annotations

from pathlib import Path

import click

from flows.cli.common import emit, json_option, verb
from flows.progress import ProgressBoard


@click.command()
@click.option(
    "--training",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="What `galpipe train --real` worked in: holds packs/train, real, lesson.",
)
@click.option(
    "--labels", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True, help="Folder with the probes' label files."
)
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), required=True, help="Keeps finished arms; they are not run again."
)
@click.option("--seconds", type=float, default=600, show_default=True, help="Processor time for each objective.")
@click.option(
    "--arms",
    default="none,reconstruction,contrast,truth,distillation,imagenet-distillation,joint",
    show_default=True,
    help="Objectives to compare.",
)
@click.option("--seed", default=1, show_default=True, help="Of weights, order and augmentation.")
@click.option("--seeds", default=5, show_default=True, help="Draws of the labels in each probe.")
@click.option("--bricks", default=6, show_default=True, help="Mock bricks at most; 0 for all.")
@click.option("--threads", default=1, show_default=True, help="Torch threads.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write the curves (PNG).")
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="Write the table (Markdown).")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Model folder whose card is to show the result."
)
@json_option
@verb
def objectives(
    training: Path,
    labels: Path,
    work: Path,
    seconds: float,
    arms: str,
    seed: int,
    seeds: int,
    bricks: int,
    threads: int,
    plot: Path | None,
    table: Path | None,
    into: Path | None,
    as_json: bool,
) -> None:
    """What the encoder should learn from: the same random weights taught each way for the same processor time, probed on real galaxies.

    Called again with the same settings and work folder it goes on where it was ended, and only draws and writes when all is done.
    """
    from galpipe.commit import write_bytes
    from galpipe.evaluate.objectives import Comparison, Folders, compare_objectives
    from galpipe.evaluate.objectives_figure import draw
    from galpipe.lvm.card import objectives_table, with_objectives

    names = tuple(item.strip() for item in arms.split(",") if item.strip())
    wanted = Comparison(seconds, names, seed, seeds, bricks, threads)
    with ProgressBoard(dict.fromkeys(names, round(seconds))) as board:
        compared = compare_objectives(wanted, Folders(training, labels, work), board.update)
    lines = "\n".join(objectives_table(compared))
    if plot is not None:
        write_bytes(plot, draw(compared))
    if table is not None:
        write_bytes(table, f"{lines}\n".encode())
    if into is not None:
        with_objectives(into, compared)
    emit({"status": "ok", "counts": {"arms": len(names)}, "failures": [], **compared}, as_json, lines)
