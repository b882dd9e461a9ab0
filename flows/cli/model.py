"""The verbs about the model: train, models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flows.cli.common import emit, json_option, root_option, say, verb
from flows.cli.task import TaskRequest, learn, task_options
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError

SHIPPED_FOLDER = Path(__file__).resolve().parents[2] / "galpipe" / "lvm" / "weights" / "mini"


@click.command()
@root_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the weights [default: ROOT/models/NAME/VERSION].")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="Training stamps and checkpoints [default: ROOT/training].")
@click.option(
    "--real",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Real stamps (stamps/*.fits) and label files (labels/*.parquet): pixels of all, labels of Galaxy Zoo 2 and EFIGI only.",
)
@click.option(
    "--start", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Model folder to begin from instead of pre-training."
)
@click.option(
    "--unlabelled",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Pre-train an encoder on these stamps alone: Zarr stores, Stein-layout HDF5, label files, or folders of them. May be repeated.",
)
@click.option("--size", default="", metavar="NAME", help="Size of the model: mini or base [default: mini].")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with [model] and [train] or [unlabelled].")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of a setting, such as bricks=2 or model.encoder=convnext_tiny.",
)
@task_options
@json_option
@verb
def train(
    root: Path,
    out: Path | None,
    work: Path | None,
    real: Path | None,
    start: Path | None,
    unlabelled: tuple[Path, ...],
    size: str,
    config: Path | None,
    changes: tuple[str, ...],
    request: TaskRequest,
    as_json: bool,
) -> None:
    """Train a model from seeds: mock bricks, pre-training, every head, real galaxies, calibration, scores, card.

    The defaults are those of the shipped weights (some three hours on two cores). A run that was ended goes on from its last
    checkpoint under --work. With --unlabelled: pre-train an encoder on your own stamps, without heads.

    With --task it learns classes or a number of any label file on an existing model; with --head a head of your own on mock truth.

    On several GPUs: torchrun --nproc-per-node 8 -m flows train ...
    """
    from galpipe.lvm.presets import training_settings
    from galpipe.lvm.ranks import in_ranks, rank
    from galpipe.lvm.train import Places, TrainSettings, train_model
    from galpipe.lvm.unlabelled import UnlabelledSettings, train_unlabelled

    if unlabelled and real is not None:
        raise ConfigurationError("--unlabelled with all stamps, or --real beside mock ones", "both")
    if request.asked:
        one = training_settings(TrainSettings, config, changes, size)
        name = request.task or request.head.replace(":", "-")
        folders = (root / "models", (work or root / "training").absolute(), (out or root / "models" / name / "1").absolute())
        with ProgressBoard({"train": 1}) as board:
            result, text = learn(request, one, folders, board.phase)
        emit(result, as_json, text)
        return
    settings = (
        training_settings(UnlabelledSettings, config, changes, size)
        if unlabelled
        else training_settings(TrainSettings, config, changes, size)
    )
    target = (out or root / "models" / settings.name / settings.version).absolute()
    places = Places((work or root / "training").absolute(), target, real, start)
    if target == SHIPPED_FOLDER:
        say("note: this replaces the weights that come with the package")
    with in_ranks(), ProgressBoard({"train": 1}, quiet=rank() > 0) as board:
        if isinstance(settings, UnlabelledSettings):
            train_unlabelled(settings, unlabelled, places, lambda what, done, total: board.phase(what, done, total))
        else:
            train_model(settings, places, lambda what, done, total: board.phase(what, done, total))
        if not rank():
            _tell(target, as_json)


def _tell(target: Path, as_json: bool) -> None:
    """What was written."""
    from galpipe.lvm.weights import model_hash, read_card

    card = read_card(target)
    facts = card["training"]
    refused = [
        {"unit": "", "file": f"{item['file']}[{item['row']}]", "kind": "bad_data", "reason": item["reason"]}
        for item in facts.get("refused_named", [])
    ]
    result = {
        "status": "ok",
        "counts": {name: facts[name] for name in ("stamps", "refused") if name in facts},
        "failures": refused,
        "model": target,
        "model_hash": model_hash(target),
        "scores": card.get("scores", {}),
    }
    emit(result, as_json, f"model {model_hash(target)}: {target}\n{(target / 'MODEL_CARD.md').read_text()}")


@click.group()
def models() -> None:
    """The models that a run could use."""


@models.command("list")
@root_option
@json_option
@verb
def list_command(root: Path, as_json: bool) -> None:
    """The shipped model and those trained under the root."""
    from galpipe.lvm.registry import list_models

    entries = list_models(root / "models")
    listed = [{"name": item.name, "hash": item.model_hash, "folder": item.folder, "heads": item.card["heads"]} for item in entries]
    lines = [f"{item.name:<24} {item.model_hash}  {', '.join(item.card['heads'])}  {item.folder}" for item in entries]
    emit({"status": "ok", "counts": {"models": len(listed)}, "failures": [], "models": listed}, as_json, "\n".join(lines) or "no model")


@models.command("show")
@click.argument("model", default="shipped")
@root_option
@json_option
@verb
def show_command(model: str, root: Path, as_json: bool) -> None:
    """The card of a model: data, seed, time, scores, limits."""
    from galpipe.lvm.registry import model_folder
    from galpipe.lvm.weights import TEXT_FILE, read_card

    folder = model_folder(model, root / "models")
    emit({"status": "ok", "counts": {}, "failures": [], "card": read_card(folder)}, as_json, (folder / TEXT_FILE).read_text())


@models.command("cost")
@click.option("--size", "sizes", multiple=True, default=("mini", "base"), show_default=True, help="Size of the model; may be repeated.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with [model].")
@click.option("--set", "changes", multiple=True, metavar="model.KEY=VALUE", help="Another value of the model's settings.")
@click.option("--stamps", type=click.IntRange(1), default=76_000_000, show_default=True, help="Stamps of the sample.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Times that each is seen.")
@click.option("--gpus", type=click.IntRange(1), default=8, show_default=True, help="GPUs that work side by side.")
@click.option(
    "--utilization", type=float, default=0.3, show_default=True, help="Share of a GPU's peak rate that is reached: an assumption."
)
@json_option
@verb
def cost_command(
    sizes: tuple[str, ...],
    config: Path | None,
    changes: tuple[str, ...],
    stamps: int,
    epochs: int,
    gpus: int,
    utilization: float,
    as_json: bool,
) -> None:
    """Parameters, counted FLOPs per stamp, and the GPU hours of a pre-training that follow from them."""
    from galpipe.lvm.cost import Plan, hours, measure_cost
    from galpipe.lvm.presets import training_settings
    from galpipe.lvm.train import TrainSettings

    plan = Plan(stamps, epochs, gpus, utilization)
    rows, lines = [], []
    for size in sizes:
        cost = measure_cost(training_settings(TrainSettings, config, changes, size).model)
        times = hours(cost.pretraining, plan)
        rows.append({"size": size, "cost": asdict(cost), "plan": asdict(plan), "hours": [asdict(item) for item in times]})
        lines += [
            f"{size}: {cost.parameters['total'] / 1e6:.1f} M parameters; GFLOPs per stamp: forward {cost.forward / 1e9:.2f},"
            f" pre-training step {cost.pretraining / 1e9:.2f}, training step {cost.training / 1e9:.2f}",
            *(
                f"  {item.gpu}: {item.rate:,.0f} stamps/s per GPU, {item.gpu_hours:,.1f} GPU hours, {item.hours:,.1f} h on {gpus}"
                for item in times
            ),
        ]
    lines.append(f"assumed: {stamps:,} stamps, {epochs} epochs, {utilization:.0%} of the peak rate, a loader that keeps up")
    emit({"status": "ok", "counts": {"models": len(rows)}, "failures": [], "models": rows}, as_json, "\n".join(lines))


@models.command("extend")
@click.argument("model", default="shipped")
@click.option("--heads", default="domain,lens", show_default=True, help="Heads to add, or to learn anew.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the weights.")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="The training stamps [default: ROOT/training].")
@click.option("--most", default=0, help="Training and held-out stamps used at most; 0 for all.")
@root_option
@json_option
@verb
def extend_command(model: str, heads: str, out: Path, work: Path | None, most: int, root: Path, as_json: bool) -> None:
    """Give a trained model heads that learn from its frozen encoder; its other answers stay as they are."""
    from galpipe.lvm.frozen import Extension, extend_model
    from galpipe.lvm.registry import model_folder
    from galpipe.lvm.weights import model_hash, read_card

    names = tuple(name.strip() for name in heads.split(",") if name.strip())
    with ProgressBoard({"extend": 1}) as board:
        extend_model(
            model_folder(model, root / "models"),
            Extension(names, most),
            (work or root / "training").absolute(),
            out.absolute(),
            lambda what, done, total: board.phase(what, done, total),
        )
    facts = read_card(out)["training"]["frozen"]
    result = {"status": "ok", "counts": {}, "failures": [], "model": out, "model_hash": model_hash(out), "facts": facts}
    lines = [f"{step} {head}: {told}" for step, by_head in facts.items() for head, told in by_head.items()]
    emit(result, as_json, "\n".join([f"model {model_hash(out)}: {out}", *lines]))
