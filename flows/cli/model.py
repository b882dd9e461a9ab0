"""The verbs about the model: train, models."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from flows.cli.common import emit, json_option, root_option, say, verb
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError

SHIPPED_FOLDER = Path(__file__).resolve().parents[2] / "galpipe" / "lvm" / "weights" / "mini"


@click.command()
@root_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the weights [default: ROOT/models/NAME/VERSION].")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="Training stamps and checkpoints [default: ROOT/training].")
@click.option(
    "--real", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Real stamps and labelled images, used without labels."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Another value of a setting, such as bricks=2 or finetune_steps=100."
)
@json_option
@verb
def train(root: Path, out: Path | None, work: Path | None, real: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Train a model from seeds: mock bricks, pre-training, every head, scores, card.

    The defaults are those of the shipped weights (about an hour on two idle cores). A run that was ended goes on from its last
    checkpoint under --work.
    """
    from galpipe.lvm.train import TrainSettings, train_model
    from galpipe.lvm.weights import model_hash, read_card

    settings = TrainSettings(**parse_changes(changes, TrainSettings))
    target = (out or root / "models" / settings.name / settings.version).absolute()
    if target == SHIPPED_FOLDER:
        say("note: this replaces the weights that come with the package")
    with ProgressBoard({"train": 1}) as board:
        train_model(
            settings, (work or root / "training").absolute(), target, real, lambda what, done, total: board.phase(what, done, total)
        )
    card = read_card(target)
    result = {
        "status": "ok",
        "counts": {},
        "failures": [],
        "model": target,
        "model_hash": model_hash(target),
        "scores": card.get("scores", {}),
    }
    emit(result, as_json, f"model {model_hash(target)}: {target}\n{(target / 'MODEL_CARD.md').read_text()}")


def parse_changes(changes: tuple[str, ...], kind: type[Any]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as values of a settings dataclass's int, float and str fields.

    Raises
    ------
    ConfigurationError
        If a key is unknown or a value is not of the field's type.
    """
    defaults = {item.name: item.default for item in fields(kind) if isinstance(item.default, int | float | str)}
    values: dict[str, Any] = {}
    for change in changes:
        key, _, text = change.partition("=")
        if key not in defaults:
            raise ConfigurationError(f"--set with one of {sorted(defaults)}", repr(change))
        try:
            values[key] = type(defaults[key])(text)
        except ValueError as error:
            raise ConfigurationError(f"{key} as {type(defaults[key]).__name__}", repr(text)) from error
    return values


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
