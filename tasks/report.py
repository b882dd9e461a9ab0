"""Report: the page of a run. Once per run, by the parent, after publication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalogs.report.page import write_report
from catalogs.report.pictures import load_pictures
from tasks.context import RunContext
from tasks.stage import stage


@stage("report")
def report_run(context: RunContext, summary: Mapping[str, Any]) -> str:
    """Write the report of a run and return its path.

    Parameters
    ----------
    context : RunContext
    summary : mapping
        From ``flows.summary``, as ``summary.json`` has it.
    """
    pictures = load_pictures(context.model_folder, context.model_hash, context.settings.infer.batch)
    return str(write_report(context.layout, context.name, summary, pictures))


def with_report(context: RunContext, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with ``report``, the page's path; a page that cannot be made does not undo a run that ended well."""
    try:
        return {**summary, "report": report_run(context, summary)}
    except Exception as error:
        return {**summary, "report": None, "report_error": f"{type(error).__name__}: {error}"}
