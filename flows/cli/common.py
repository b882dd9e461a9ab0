"""Options, output and errors that every verb shares."""

from __future__ import annotations

import functools
import json
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from galpipe.errors import ConfigurationError, GalpipeError

P = ParamSpec("P")
R = TypeVar("R")

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

EXACT_INTEGER = 2**53
"""JSON readers keep integers exact up to here; larger ones travel as strings."""

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("galpipe-data"),
    envvar="GALPIPE_ROOT",
    show_default=True,
    help="Folder that holds everything (or GALPIPE_ROOT).",
)
name_option = click.option("--name", default="main", show_default=True, help="Name of the catalog.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with [fetch] [cut] [selection] [infer] [cluster]."
)

wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another run on this root to end; 0: not at all.",
)


def clean(value: Any) -> Any:
    """A value as JSON may hold it: NaN as null, 64-bit integers as strings."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT_INTEGER:
        return str(value)
    return str(value) if isinstance(value, Path) else value


def emit(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a verb's end: one JSON object, or lines for people."""
    click.echo(json.dumps(clean(result), allow_nan=False) if as_json else text)


def say(text: str) -> None:
    """A line for people that is not the result: to standard error."""
    click.echo(text, err=True)


def failure(reason: str, kind: str, unit: str = "", file: str = "") -> dict[str, Any]:
    """The object of a verb that could not do its work."""
    return {"status": "failed", "counts": {}, "failures": [{"unit": unit, "file": file, "kind": kind, "reason": reason}]}


def verb(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into exit statuses: 2 for a wrong request, 1 for everything else that has a name.

    With ``--json`` the error is an object too, so that a program never has to read prose.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except GalpipeError as error:
            if kwargs.get("as_json"):
                emit(failure(str(error), error.kind, error.unit, error.file), True, "")
            say(f"galpipe: {error}")
            sys.exit(EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILED)
        except Exception as error:
            # a bug: the traceback is for us, the object for the program that called
            traceback.print_exc()
            if kwargs.get("as_json"):
                emit(failure(f"{type(error).__name__}: {error}", "error"), True, "")
            sys.exit(EXIT_FAILED)

    return wrapped


def finish(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result and end with the exit status it stands for."""
    emit(result, as_json, text)
    sys.exit(EXIT_DONE if result["status"] == "ok" else EXIT_FAILED)


def human_bytes(count: float) -> str:
    """``1536`` becomes ``1.5 kB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""
