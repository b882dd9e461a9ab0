"""The Prefect decorator: the one place where our work meets the engine's rules.

Prefect says when a stage runs and shows that it did; it never decides what is done. Its cache would hash every argument and its
retry would repeat finished bricks (prefect #9814, #16059), so both are off: shards and the ledger say what is done.
Only flows and `tasks.tile` import this module: Dask workers never import Prefect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


def stage(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task by this project's rules.

    Parameters
    ----------
    name : str
    run_name : str, optional
        Template of the task run's name, filled from the parameters.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return task(name=name, task_run_name=run_name, cache_policy=NO_CACHE, retries=0, persist_result=False)(function)

    return decorate
