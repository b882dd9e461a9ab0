"""How well a task is learned from few labels: the same rows, the same test set, several methods, several seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from galpipe.errors import BadData
from galpipe.evaluate.kept import Kept
from galpipe.evaluate.methods import Task, method
from galpipe.evaluate.ratio import label_ratios
from galpipe.evaluate.trainings import RATIO_AT, FewShot, Plan, Progress, Side, of_method
from galpipe.labels.groups import group_rows
from galpipe.labels.labelset import LabelSet
from galpipe.labels.target import Target, TargetSpec
from galpipe.lvm.predict import Predictor

TEST_SHARE = 0.3
"""Part of the groups that is held out where there is no test set of its own."""


def few_shot(
    train: LabelSet, test: LabelSet | None, wanted: FewShot, predictor: Callable[[], Predictor], progress: Progress | None = None
) -> dict[str, Any]:
    """Learn a label from few rows of one set and score it on another, or on a held-out part of the same.

    A galaxy that is in both, by position, id or picture, is taken out of the training rows.

    Parameters
    ----------
    train : LabelSet
    test : LabelSet or None
        None holds out `TEST_SHARE` of the training set's galaxies by a fixed hash.
    wanted : FewShot
    predictor : callable
        Loads the model; called once and only if a method needs it.
    progress : callable, optional
        Called as ``progress(method, done, total)``.

    Returns
    -------
    dict
        ``target``, ``metric``, ``results`` (a row per method and number of shots), ``ratio``, ``rows``, ``left_out``, ``route``; plain
        values.

    Raises
    ------
    BadData
        If either side has no row, or the test rows are all of one class.
    """
    learn, asked, facts = sides(train, test, wanted.target)
    task, metric = Task(len(facts["classes"])), "auc" if facts["classes"] else "r2"
    load, kept = cache(predictor), Kept(wanted.work)
    data = {"training": learn.digest(), "test": asked.digest()} if wanted.work else {}
    results: list[dict[str, Any]] = []
    for name in wanted.methods:
        results += of_method(Plan(name, method(name, load), wanted, task, (learn, asked)), data, kept, progress)
    if wanted.ratio_at is not None or task.classes:
        facts["ratio"] = _ratio(results, metric, wanted.ratio_at or RATIO_AT)
    if any(name.startswith("lvm") for name in wanted.methods):
        facts["model"] = seen_by(load().card, train if test is None else test)
    return {"target": wanted.target.column, "metric": metric, "results": results, **facts}


def seen_by(card: dict[str, Any], labels: LabelSet) -> dict[str, bool]:
    """What a model has seen of a set in training: its pixels, its labels (then its figures are not of few labels)."""
    name = labels.kind.name if labels.kind is not None else labels.path.stem
    sets = card.get("training", {}).get("real_sets", {})
    own = [counts for known, counts in sets.items() if known.startswith(name)]
    return {"saw_pixels": bool(own), "saw_labels": any(counts["answered"] for counts in own)}


def sides(train: LabelSet, test: LabelSet | None, spec: TargetSpec) -> tuple[Side, Side, dict[str, Any]]:
    """What is learned from, what is scored on, and the facts of both; parameters and errors as `few_shot`."""
    target = train.target(spec)
    learn = Side(train, target.rows, target.values)
    groups = group_rows([train] if test is None else [train, test])
    left_out = {f"training: {reason}": count for reason, count in target.left_out.items()}
    if test is None:
        held = groups.split(TEST_SHARE)[0][target.rows]
        learn, asked = learn.among(~held), learn.among(held)
    else:
        answers: Target = test.target(spec, target.names)
        asked = Side(test, answers.rows, answers.values)
        left_out |= {f"test: {reason}": count for reason, count in answers.left_out.items()}
        twice = np.isin(groups.numbers[0][learn.rows], groups.numbers[1][asked.rows])
        left_out["training: also in the test set"] = int(twice.sum())
        learn = learn.among(~twice)
    for side, what in ((learn, "training"), (asked, "test")):
        if not len(side.rows) or (target.names and len(np.unique(side.answers)) < 2):
            raise BadData(f"{what} rows of at least two classes", f"{len(side.rows)} rows of one", file=str(side.labels.path))
    facts = {
        "classes": list(target.names),
        "rows": {"training": len(learn.rows), "test": len(asked.rows)},
        "left_out": {reason: count for reason, count in left_out.items() if count},
        "dropped": [{"id": item.id, "file": item.file, "reason": item.reason} for item in groups.dropped],
        "route": asked.labels.route,
    }
    return learn, asked, facts


def _ratio(results: list[dict[str, Any]], metric: str, level: float) -> dict[str, Any]:
    """See `galpipe.evaluate.ratio.label_ratios`."""
    curves: dict[str, dict[int, list[float]]] = {}
    for row in results:
        if row["metric"] == metric:
            curves.setdefault(row["method"], {})[row["labels"]] = row["by_seed"]
    return {"metric": metric, **label_ratios(curves, level, [name for name in curves if name.startswith("lvm")])}
