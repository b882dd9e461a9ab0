"""What a run would do, found without Prefect, so that ``run --dry-run`` answers at once."""

from __future__ import annotations

from typing import Any

from catalogs.ledger import has_ledger, ledger_of
from flows.request import RunRequest
from galpipe.config import STAMP_SIZE, SURVEY_PIXSCALE
from galpipe.errors import ConfigurationError
from galpipe.survey.plan import Plan, make_plan
from galpipe.survey.releases import Release, open_release
from tasks.plan import changed_at_source, pending


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
    """The plan in plain values: bricks, those not up to date, files, bytes, bands."""
    release, plan = plan_of(request)
    context = request.context("dry-run")
    to_do = len(plan.units)
    if has_ledger(context.layout):
        with ledger_of(context.layout) as ledger:
            units = set(pending(context, ledger, plan.units))
        if request.check_remote:
            units.update(changed_at_source(context, release, set(plan.units) - units))
        to_do = len(units)
    return {
        "counts": {"bricks": len(plan.units), "to_do": to_do, "files": plan.files_estimate},
        "bytes": plan.bytes_estimate,
        "bands": {region: list(bands) for region, bands in plan.bands.items()},
        "missing": list(plan.missing),
        "notes": list(plan.notes),
        "failures": [],
    }
