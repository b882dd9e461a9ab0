"""Publish: the shards become one more version of the HATS catalog. Once per run, by the parent."""

from __future__ import annotations

from typing import Any

from catalogs.hats import publish
from tasks.context import RunContext
from tasks.stage import stage


@stage("publish")
def publish_catalog(context: RunContext) -> dict[str, Any]:
    """Publish the catalog's shards and say what was rewritten."""
    return publish(context.layout, context.name).as_dict()
