"""How well objects are found: evaluate detection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli.common import emit, json_option, root_option, verb


@click.command("detection")
@click.option(
    "--benchmark",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the drawn benchmark [default: ROOT/benchmark].",
)
@click.option("--methods", default="lvm,sep,maskrcnn", show_default=True, help="What to compare; maskrcnn takes saved results.")
@click.option("--stamps", type=click.IntRange(0), default=0, help="Stamps of each brick, evenly spread [default: all].")
@click.option("--baseline", type=click.Choice(["train"]), help="First train Mask R-CNN on the 1,000 training stamps and save its results.")
@click.option(
    "--epochs", type=click.IntRange(1), default=8, show_default=True, help="Epochs of that training; it can be ended and goes on."
)
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a drawing of the figures (PNG).")
@root_option
@json_option
@verb
def detection(
    folder: Path | None,
    methods: str,
    stamps: int,
    baseline: str | None,
    epochs: int,
    model: str,
    plot: Path | None,
    root: Path,
    as_json: bool,
) -> None:
    """Completeness, purity, F1, average precision, masks and classes on the frozen benchmark mock, with sep and Mask R-CNN beside.

    The benchmark is drawn on first use (docs/benchmark.md).
    """
    from flows.progress import ProgressBoard
    from galpipe.commit import write_bytes
    from galpipe.evaluate.detection_figure import draw
    from galpipe.evaluate.detection_run import Request, make_baseline, measure_detection
    from galpipe.evaluate.maskrcnn import BaselineSettings
    from galpipe.layout import Layout
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder

    layout = Layout(root)
    request = Request(folder or layout.benchmark, tuple(item.strip() for item in methods.split(",")), stamps)
    with ProgressBoard({"benchmark bricks": len(request.benchmark.bricks)}) as board:
        if baseline == "train":
            make_baseline(request, BaselineSettings(epochs=epochs), board.phase)
        found = measure_detection(request, lambda: Predictor.load(model_folder(model, layout.models), threads=1), board.phase)
    if plot is not None:
        write_bytes(plot, draw(found["results"]))
    result = {"status": "ok", "counts": {"stamps": found["stamps"], "objects": found["objects"]}, "failures": [], **found}
    emit(result, as_json, _text(found))


def _text(found: dict[str, Any]) -> str:
    methods = list(dict.fromkeys(row["method"] for row in found["results"]))
    lines = [f"benchmark {found['benchmark']}: {found['stamps']} stamps, {found['objects']} objects; {found['definition']}"]
    lines.append(f"  {'':<58} {' '.join(f'{method:>23}' for method in methods)}")
    for metric, name in dict.fromkeys((row["metric"], row["bin"]) for row in found["results"]):
        cells = []
        for method in methods:
            row = next(row for row in found["results"] if (row["method"], row["metric"], row["bin"]) == (method, metric, name))
            cells.append(f"{row['value']:>7.3f} ({row['low']:.3f}, {row['high']:.3f})")
        lines.append(f"  {f'{metric}  {name}':<58} {' '.join(f'{cell:>23}' for cell in cells)}")
    return "\n".join([*lines, *(f"  left out: {method}, {reason}" for method, reason in found["left_out"].items())])
