"""The command ``galpipe``: one verb per job.

A verb's module is imported when the verb is used: Prefect, torch and lsdb take seconds each.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from flows.cli.common import EXIT_FAILED, EXIT_USAGE, emit, failure, say
from galpipe.code_version import VERSION

VERBS = {
    "demo": "process",
    "mock": "process",
    "run": "process",
    "stamps": "process",
    "publish": "process",
    "query": "query",
    "status": "books",
    "verify": "books",
    "ledger": "books",
    "provenance": "books",
    "reproduce": "books",
    "versions": "versions",
    "diff": "versions",
    "clean": "versions",
    "similar": "unusual",
    "outliers": "unusual",
    "report": "pictures",
    "serve": "serve",
    "restore": "restore",
    "train": "model",
    "models": "model",
    "labels": "labels",
    "evaluate": "evaluate",
    "detect": "detect",
    "doctor": "machine",
    "bench": "machine",
}


class _Verbs(click.Group):
    """Finds a verb in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"flows.cli.{VERBS[cmd_name]}"), cmd_name)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="galpipe")
def cli() -> None:
    """From a region of the DESI Legacy Imaging Surveys to a galaxy catalog.

    Exit status: 0 done, 1 something failed and the ledger says what, 2 wrong use.
    """


def main() -> None:
    """Run the command line; a wrong use is an object too where one was asked for."""
    try:
        cli.main(prog_name="galpipe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        if "--json" in sys.argv:
            emit(failure(error.format_message(), "configuration"), True, "")
        sys.exit(EXIT_USAGE)
    except click.Abort:
        say("ended by the user; the next run does the rest")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
