"""What a run would do, found without Prefect, so that ``run --dry-run`` answers at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catalogs.collection import read_binding
from catalogs.ledger import Ledger, has_ledger, ledger_of
from flows.request import RunRequest
from galpipe.config import STAMP_SIZE, SURVEY_PIXSCALE
from galpipe.errors import ConfigurationError
from galpipe.survey.plan import Plan, make_plan
from galpipe.survey.releases import Release, open_release
from tasks.context import RunContext
from tasks.plan import find_changes
from tasks.remote import Answer, ask_source


def plan_of(request: RunRequest) -> tuple[Release, Plan]:
    """The release and the bricks of a request.

    Raises
    ------
    ConfigurationError
        If the release is unknown, the region has no brick in it, or the cut is not one that the model takes from bricks.
    """
    cut = request.settings.cut
    if (cut.size, cut.pixscale) != (STAMP_SIZE, SURVEY_PIXSCALE):
        raise ConfigurationError(f"cut.size {STAMP_SIZE} and cut.pixscale {SURVEY_PIXSCALE} for bricks", f"{cut.size} and {cut.pixscale}")
    release = open_release(request.release, request.alias, request.settings.fetch)
    return release, make_plan(release, request.region, request.fetch_settings)


def dry_run(request: RunRequest) -> dict[str, Any]:
    """The plan in plain values: bricks, those not up to date and why, files, bytes, bands. Nothing is written, no lease taken."""
    release, plan = plan_of(request)
    context = request.context("dry-run")
    with _as_known(context) as ledger:
        changes = find_changes(context, ledger, plan.units, settled=request.check_remote)
    answer = Answer()
    if request.check_remote:
        answer = ask_source(context, release, changes.fetched, remember=False, own_lists=request.check_files or None)
        changes = changes.with_files(answer.changed)
    return {
        "counts": {"bricks": len(plan.units), "to_do": len(changes.causes), "files": plan.files_estimate},
        "changes": changes.as_dict(),
        "remote": answer.as_dict() if request.check_remote else None,
        "bytes": plan.bytes_estimate,
        "bands": {region: list(bands) for region, bands in plan.bands.items()},
        "missing": list(plan.missing),
        "notes": [*plan.notes, *_switch(request, context)],
        "failures": [],
    }


IN_MEMORY = "sqlite://"


@contextmanager
def _as_known(context: RunContext) -> Iterator[Ledger]:
    """The ledger; where it was lost what a run would restore, in memory."""
    if has_ledger(context.layout):
        with ledger_of(context.layout) as ledger:
            yield ledger
        return
    with Ledger(IN_MEMORY) as ledger:
        ledger.restore(context.layout, context.name)
        yield ledger


def _switch(request: RunRequest, context: RunContext) -> list[str]:
    """A note where a run would be refused because the name is bound to another configuration or model."""
    bound = read_binding(context.layout, context.name)
    if bound is None or request.rebind or bound.as_dict() == request.binding(context).as_dict():
        return []
    return [f"catalog {context.name!r} is bound to another configuration or model: the run needs --switch, or another --name"]
