"""The verb that measures: evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, root_option, say, verb
from flows.cli.detection import detection
from flows.cli.objectives import objectives
from flows.cli.parameters import parameters
from flows.cli.realism import realism
from flows.cli.restoration import restoration
from flows.cli.unusual import unusual
from galpipe.errors import BadData, ConfigurationError

if TYPE_CHECKING:
    from galpipe.stamps.stampset import StampSet


@click.group()
def evaluate() -> None:
    """Figures that claims rest on."""


evaluate.add_command(parameters)
evaluate.add_command(realism)
evaluate.add_command(unusual)
evaluate.add_command(restoration)
evaluate.add_command(detection)
evaluate.add_command(objectives)


@evaluate.command("jpeg")
@click.option(
    "--real", type=click.Path(path_type=Path, exists=True), multiple=True, help="Real stamps: FITS files or folders of them; repeatable."
)
@click.option("--mock", "mock_count", type=click.IntRange(0), default=64, show_default=True, help="Mock galaxies beside them; 0 = none.")
@click.option("--seed", type=int, default=41, show_default=True, help="Seed of the mock sky.")
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a drawing of the figures (PNG).")
@root_option
@json_option
@verb
def jpeg(real: tuple[Path, ...], mock_count: int, seed: int, model: str, plot: Path | None, root: Path, as_json: bool) -> None:
    """The JPEG route against survey pixels, on the same galaxies.

    Every label set's drawing and coding is applied to stamps and undone again: flux residuals by surface brightness, cosine of the
    embeddings, change of each head's predictions, and whether that supports claims about survey pixels.
    """
    from galpipe.commit import write_bytes
    from galpipe.evaluate.jpeg_figure import draw
    from galpipe.evaluate.jpeg_route import compare, verdict
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder

    if not real and not mock_count:
        raise ConfigurationError("real stamps or mock galaxies", "neither")
    predictor = Predictor.load(model_folder(model, root / "models"), threads=1)
    populations, failures = _populations(real, mock_count, seed)
    groups = {}
    for name, stamps in populations.items():
        say(f"{name}: {len(stamps)} stamps, every route")
        groups[name] = compare(predictor, stamps)
    if plot is not None:
        write_bytes(plot, draw(groups))
    result = {
        "status": "ok",
        "counts": {name: len(stamps) for name, stamps in populations.items()},
        "failures": failures,
        "model_hash": predictor.model_hash,
        "verdict": verdict(groups.get("real", [])),
        "groups": groups,
    }
    emit(result, as_json, _text(result))


def _populations(real: Sequence[Path], mock_count: int, seed: int) -> tuple[dict[str, StampSet], list[dict[str, Any]]]:
    from galpipe.evaluate.jpeg_mock import mock_stamps
    from galpipe.stamps.external import read_stamps
    from galpipe.stamps.stampset import StampSet, concatenate

    failures: list[dict[str, Any]] = []
    found: list[StampSet] = []
    files = [item for path in real for item in (sorted(path.glob("*.fits")) if path.is_dir() else [path])]
    for item in read_stamps(files):
        if isinstance(item, StampSet):
            found.append(item)
        else:
            failures.append({"unit": "", "file": item.file, "kind": item.kind, "reason": str(item)})
    if real and not found:
        raise BadData("at least one stamp that can be read", f"none of {len(files)} files", file=str(real[0]))
    populations = {"real": concatenate(found)} if found else {}
    if mock_count:
        say(f"mock: drawing a brick with seed {seed}")
        populations["mock"] = mock_stamps(mock_count, seed)
    return populations, failures


def _text(result: dict[str, Any]) -> str:
    lines = []
    for name, routes in result["groups"].items():
        lines.append(
            f"{name}, {routes[0]['galaxies']} galaxies; different galaxies: cosine {routes[0]['embedding']['between_galaxies']:.3f}"
        )
        heads = list(routes[0]["heads"])
        lines.append(f"  {'JPEG route like':<24} {'cosine':>7} {'again':>6}  change / spread: {' '.join(f'{head:>12}' for head in heads)}")
        for item in routes:
            changes = " ".join(f"{item['heads'][head]['change']:>12.2f}" if head in item["heads"] else f"{'-':>12}" for head in heads)
            cosine, again = item["embedding"]["cosine"], item["embedding"]["found_again"]
            lines.append(f"  {item['route']:<24} {cosine:>7.3f} {again:>6.2f}                   {changes}")
    verdict = result["verdict"]
    supported = {route: heads for route, heads in verdict["supported"].items() if heads}
    lines += [f"rule: {verdict['rule']}", f"claims supported: {supported or 'none'} ({verdict['reason']})"]
    return "\n".join(lines)


@evaluate.command("few-shot")
@click.option("--train", "train_path", type=click.Path(path_type=Path, exists=True), required=True, help="Label file to learn from.")
@click.option("--test", "test_path", type=click.Path(path_type=Path, exists=True), help="Label file to score on [default: a fixed part].")
@click.option("--target", required=True, help="Label column.")
@click.option("--classes", default="", help="Classes to select and merge: a,b,c=d+e.")
@click.option("--at-least", type=float, help="Make a yes/no question of a number; negative ones are undetermined and left out.")
@click.option("--shots", default="20,50,100,all", show_default=True, help="Numbers of labels.")
@click.option("--seeds", default="10", show_default=True, help="Draws of the labels: one number, or one for each of --shots (10,10,5,2).")
@click.option("--methods", default="lvm,lvm-finetuned,resnet18,imagenet", show_default=True, help="What to compare.")
@click.option("--ratio-at", type=float, help="Score at which the labels that methods need are compared [default: 0.9, of classes].")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="Keep each training's answers here; a killed run goes on.")
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@root_option
@json_option
@verb
def few_shot_command(
    train_path: Path,
    test_path: Path | None,
    target: str,
    classes: str,
    at_least: float | None,
    shots: str,
    seeds: str,
    methods: str,
    ratio_at: float | None,
    work: Path | None,
    model: str,
    root: Path,
    as_json: bool,
) -> None:
    """How few labels a task needs, with this model and without it.

    AUC (one against the rest, mean over classes), or R2 and RMSE of numbers, with 95 % intervals over test galaxies and seeds.
    """
    from flows.progress import ProgressBoard
    from galpipe.evaluate.fewshot import few_shot
    from galpipe.evaluate.trainings import ALL, FewShot
    from galpipe.labels.labelset import open_labels
    from galpipe.labels.target import TargetSpec
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder

    counts = tuple(ALL if text.strip() == "all" else _number(text, "--shots with whole numbers or all") for text in shots.split(","))
    draws = tuple(_number(text, "--seeds with whole numbers") for text in seeds.split(","))
    names = tuple(item.strip() for item in methods.split(","))
    target_spec = TargetSpec.parse(target, classes, at_least)
    wanted = FewShot(target_spec, counts, draws[0] if len(draws) == 1 else draws, names, ratio_at, work)
    sets = [open_labels(path) if path else None for path in (train_path, test_path)]
    if sets[0] is None:
        raise ConfigurationError("a label file to learn from", "none")
    with ProgressBoard({}) as board:
        found = few_shot(sets[0], sets[1], wanted, lambda: Predictor.load(model_folder(model, root / "models")), board.phase)
    failures = [{"unit": item["id"], "file": item["file"], "kind": "bad_data", "reason": item["reason"]} for item in found.pop("dropped")]
    result = {"status": "ok", "counts": found["rows"], "failures": failures, **found}
    emit(result, as_json, _few_shot_text(found))


def _number(text: str, expected: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigurationError(expected, repr(text)) from error


def _few_shot_text(found: dict[str, Any]) -> str:
    head = f"{found['target']}: {found['rows']['training']} rows to learn from, {found['rows']['test']} to score on ({found['route']})"
    lines = [head, f"  {'method':<14} {'labels':>7}  {'':<10} {'mean':>6} {'std':>6}  95 % interval"]
    for item in found["results"]:
        figures = f"{item['mean']:>6.3f} {item['std']:>6.3f}  {item['low']:.3f} to {item['high']:.3f}"
        lines.append(f"  {item['method']:<14} {item['labels']:>7}  {item['metric']:<10} {figures}")
    lines += _ratio_lines(found["ratio"]) if "ratio" in found else []
    if found.get("model", {}).get("saw_labels"):
        lines.append("  the model was trained with labels of this set: its rows are not figures of few labels")
    return "\n".join([*lines, *(f"  left out: {count}, {reason}" for reason, count in found["left_out"].items())])


def _ratio_lines(ratio: dict[str, Any]) -> list[str]:
    needed = ", ".join(f"{name} {item['text']}" for name, item in ratio["labels"].items())
    lines = [f"  labels for {ratio['metric']} {ratio['at']:g}: {needed}"]
    for pair in ratio["pairs"]:
        low, high = (("no bound" if side is None else f"{side:.3g}") for side in pair["interval"])
        lines.append(f"  {pair['other']} needs {pair['text']} times the labels of {pair['method']} (95 % over seeds: {low} to {high})")
    return lines
