"""Options of `galpipe train` that teach one task more instead of a whole model, and what they do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from galpipe.errors import ConfigurationError
from galpipe.lvm.folder import TEXT_FILE, model_hash
from galpipe.lvm.registry import model_folder

Command = TypeVar("Command", bound=Callable[..., Any])
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TaskRequest:
    """What the options say.

    Parameters
    ----------
    task : str
        Name of a task to learn from a label file; empty for none.
    labels, images : Path or None
    target, classes : str
    at_least : float or None
    tune : str
    head : str
        Module (and class) of a head to train on mock truth; empty for none.
    model : str
        The model to begin from.
    """

    task: str
    labels: Path | None
    images: Path | None
    target: str
    classes: str
    at_least: float | None
    tune: str
    head: str
    model: str

    @property
    def asked(self) -> bool:
        """Whether one task is to be learned, and not a whole model."""
        return bool(self.task or self.head or self.labels)


_OPTIONS = (
    click.option("--task", default="", help="Learn one task of this name from --labels, on an existing model."),
    click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Label file of --task."),
    click.option("--images", type=click.Path(path_type=Path, file_okay=False), help="Folder of the files that --labels names."),
    click.option("--target", default="", help="Label column."),
    click.option("--classes", default="", help="Classes to select and merge: a,b,c=d+e."),
    click.option("--at-least", type=float, help="Make a yes/no question of a number; negative ones are undetermined and left out."),
    click.option(
        "--tune",
        type=click.Choice(["frozen", "partial", "full"]),
        default="frozen",
        show_default=True,
        help="Train the task's head only, the encoder's last stage too, or all of it.",
    ),
    click.option("--head", default="", help="Train a head of your own on mock truth: MODULE:CLASS on the Python path."),
    click.option("--model", default="shipped", show_default=True, help="Model to begin from, by name, hash or folder."),
)


def task_options(command: Command) -> Command:
    """Add the options; the command gets them as one argument ``request``."""

    @functools.wraps(command)
    def gathered(*args: Any, **given: Any) -> Any:
        own = {item.name: given.pop(item.name) for item in fields(TaskRequest)}
        return command(*args, request=TaskRequest(**own), **given)

    wrapped: Any = gathered
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def learn(request: TaskRequest, settings: Any, folders: tuple[Path, Path, Path], progress: Progress) -> tuple[dict[str, Any], str]:
    """Learn the task or the head.

    Parameters
    ----------
    request : TaskRequest
    settings : galpipe.lvm.train.TrainSettings
    folders : tuple of Path
        The root's ``models``, the work folder, the model folder to write.
    progress : callable

    Returns
    -------
    dict, str
        The verb's result, and a text for people.
    """
    from galpipe.lvm.predict import Predictor

    if request.head and (request.task or request.labels):
        raise ConfigurationError("either --head or --task with --labels", "both")
    models, work, out = folders
    base = Predictor.load(model_folder(request.model, models), device="cpu", threads=settings.threads)
    facts = _head(request, base, settings, (work, out), progress) if request.head else _labels(request, base, settings.seed, out, progress)
    counts = facts.get("rows", {"stamps": facts.get("stamps", 0)})
    dropped = [
        {"unit": item["id"], "file": item["file"], "kind": "bad_data", "reason": item["reason"]} for item in facts.get("dropped", [])
    ]
    result = {"status": "ok", "counts": counts, "failures": dropped, "model": out, "model_hash": model_hash(out), **facts}
    return result, f"model {model_hash(out)}: {out}\n{(out / TEXT_FILE).read_text()}"


def _labels(request: TaskRequest, base: Any, seed: int, out: Path, progress: Progress) -> dict[str, Any]:
    from galpipe.labels.labelset import open_labels
    from galpipe.labels.target import TargetSpec
    from galpipe.lvm.labelled import Wanted, learn_task

    if not request.task or request.labels is None or not request.target:
        given = {"--task": request.task, "--labels": request.labels, "--target": request.target}
        raise ConfigurationError(
            "--task, --labels and --target together", f"no {', '.join(key for key, value in given.items() if not value)}"
        )
    spec = TargetSpec.parse(request.target, request.classes, request.at_least)
    labels = open_labels(request.labels, images=request.images)
    return learn_task(labels, Wanted(request.task, spec, request.tune, seed), base, out, progress)  # type: ignore[arg-type]


def _head(request: TaskRequest, base: Any, settings: Any, places: tuple[Path, Path], progress: Progress) -> dict[str, Any]:
    from galpipe.heads.base import head_class
    from galpipe.lvm.newhead import Folders, Lessons, learn_head
    from galpipe.lvm.pack import concatenate, read_pack
    from galpipe.lvm.train import mock_bricks

    head_class(request.head)
    work, out = places
    bricks = mock_bricks(settings, work / settings.sky, progress)
    packs = {name: [read_pack(path) for path in paths] for name, paths in bricks.items()}
    lessons = Lessons(concatenate(packs["train"]), packs["calibration"], packs["held"])
    return learn_head(request.head, base, lessons, settings.finetuning(), Folders(work / settings.sky, out), progress)
