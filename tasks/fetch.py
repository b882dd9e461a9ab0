"""Fetch: a brick's files from the release to ``bricks/``. Runs in a thread pool of the coordinator, never in a worker that computes."""

from __future__ import annotations

from galpipe.survey.releases import Release
from galpipe.survey.remote import Limiter, fetch_brick
from galpipe.unit import Receipt, Unit
from tasks.chain import fetch_fingerprint
from tasks.context import RunContext, guarded


def fetch_unit(context: RunContext, release: Release, unit: Unit, limiter: Limiter) -> Receipt:
    """Fetch and verify a brick's files; files that are already there and verified are kept.

    Parameters
    ----------
    context : RunContext
    release : Release
    unit : Unit
    limiter : Limiter
        Bounds the connections of the whole run.

    Returns
    -------
    Receipt
        ``rows`` counts files that are there; ``counts`` has ``verified``, ``unverified``, ``absent`` and ``bytes``.
    """

    def work() -> Receipt:
        folder = context.layout.brick_folder(unit)
        files = fetch_brick(release, unit, context.settings.fetch, folder, limiter)
        counts = files.counts() | {"bytes": files.size}
        absent = ", ".join(files.absent)
        return Receipt(
            unit,
            "fetch",
            "done",
            path=context.layout.relative(folder),
            rows=counts["verified"] + counts["unverified"],
            fingerprint=fetch_fingerprint(files),
            reason=f"absent: {absent}" if absent else "",
            counts=counts,
        )

    return guarded(unit, "fetch", work)
