"""How good the parameters are: evaluate parameters."""

from __future__ import annotations

from pathlib import Path

import click

from flows.cli.common import emit, json_option, root_option, verb
from flows.progress import ProgressBoard
from galpipe.layout import Layout


@click.command()
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@click.option(
    "--benchmark",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the drawn benchmark mock [default: under the root; drawn where it is not there].",
)
@click.option(
    "--pack", "packs", type=click.Path(path_type=Path, exists=True), multiple=True, help="Packs to measure on instead; repeatable."
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a drawing of the figures (PNG).")
@root_option
@json_option
@verb
def parameters(model: str, benchmark: Path | None, packs: tuple[Path, ...], plot: Path | None, root: Path, as_json: bool) -> None:
    """Magnitudes, sizes, shapes and redshifts against the truth of the benchmark mock, beside Tractor's.

    Bias, scatter (NMAD), outliers and the coverage of the 68 and 95 % intervals, in bins of magnitude, size over seeing, depth and region,
    each with a 95 % interval; for the redshift also PIT and CRPS.
    """
    from galpipe.commit import write_bytes
    from galpipe.evaluate.benchmark import BENCHMARK, benchmark_packs
    from galpipe.evaluate.parameter_figure import draw, text_table
    from galpipe.evaluate.parameters import compare, predict_packs
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder

    predictor = Predictor.load(model_folder(model, root / "models"), threads=1)
    with ProgressBoard({"benchmark bricks": 1, "packs": 1}) as board:
        paths = list(packs) or benchmark_packs(benchmark or Layout(root).benchmark, progress=board.update)
        predicted, sources = predict_packs(predictor, paths, progress=board.update)
    result = compare(predicted, sources)
    if plot is not None:
        write_bytes(plot, draw(result))
    where = {"benchmark": None if packs else BENCHMARK.version, "packs": [path.name for path in paths]}
    whole = {
        "status": "ok",
        "counts": {"galaxies": predicted.num_rows},
        "failures": [],
        "model_hash": predictor.model_hash,
        **where,
        **result,
    }
    emit(whole, as_json, text_table(result))
