"""How well a task is learned from few labels: the same rows, the same test set, several methods, several seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.linear import LEAST_LABELS, LEVELS, Floats, learn_number
from galpipe.evaluate.methods import METHODS, Method, Task, method
from galpipe.evaluate.scores import METRICS, coverage, over_seeds
from galpipe.labels.groups import group_rows
from galpipe.labels.labelset import LabelSet
from galpipe.labels.target import Target, TargetSpec
from galpipe.lvm.predict import Predictor

Progress = Callable[[str, int, int], None]

TEST_SHARE = 0.3
"""Part of the groups that is held out where there is no test set of its own."""

LINEAR = ("lvm", "imagenet")
"""Methods that learn on frozen features, whose numbers come with conformal intervals."""

ALL = 0
"""Number of shots that stands for every label."""


@dataclass(frozen=True)
class FewShot:
    """What is measured.

    Parameters
    ----------
    target : TargetSpec
    shots : tuple of int
        Labels to learn from; `ALL` takes all.
    seeds : int
        Draws of the labels; also of the networks' first weights.
    methods : tuple of str
        Among `galpipe.evaluate.methods.METHODS`.

    Raises
    ------
    ConfigurationError
        If a number or a method makes no sense.
    """

    target: TargetSpec
    shots: tuple[int, ...] = (20, 50, 100, ALL)
    seeds: int = 10
    methods: tuple[str, ...] = METHODS

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.shots or any(count != ALL and count < 2 for count in self.shots):
            raise ConfigurationError("at least one seed, and numbers of labels from 2 on, or all", f"{self.seeds} and {self.shots}")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigurationError(f"methods among {', '.join(METHODS)}", repr(self.methods))


@dataclass(frozen=True)
class Side:
    """One side of the comparison: a set, its rows with an answer, and the answers."""

    labels: LabelSet
    rows: NDArray[np.int64]
    answers: NDArray[np.generic]

    def among(self, kept: NDArray[np.bool_]) -> Side:
        """Some of its rows."""
        return Side(self.labels, self.rows[kept], self.answers[kept])


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
        ``target``, ``metric``, ``results`` (a row per method and number of shots), ``rows``, ``left_out``, ``route``; plain values.

    Raises
    ------
    BadData
        If either side has no row, or the test rows are all of one class.
    """
    learn, asked, facts = sides(train, test, wanted.target)
    names, metrics = facts["classes"], ("auc",) if facts["classes"] else ("r2", "rmse")
    load = cache(predictor)
    results: list[dict[str, Any]] = []
    for name in wanted.methods:
        results += _of_method(name, method(name, load), (learn, asked), (wanted, Task(len(names)), metrics), progress)
    if any(name.startswith("lvm") for name in wanted.methods):
        facts["model"] = seen_by(load().card, train if test is None else test)
    return {"target": wanted.target.column, "metric": metrics[0], "results": results, **facts}


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


def _of_method(
    name: str, way: Method, both: tuple[Side, Side], plan: tuple[FewShot, Task, tuple[str, ...]], progress: Progress | None
) -> list[dict[str, Any]]:
    (learn, asked), (wanted, task, metrics) = both, plan
    loaded = []
    for side in (learn, asked):
        found, examples = way.load(side.labels, side.rows)
        loaded.append((examples, side.answers[np.isin(side.rows, found)]))
    (train, answers), (test, truth) = loaded
    results = []
    total = len(wanted.shots) * wanted.seeds
    for place, shots in enumerate(wanted.shots):
        predictions: list[Floats] = []
        intervals: list[Floats] = []
        for seed in range(wanted.seeds):
            rows = draw(answers, shots, task.classes, seed)
            predictions.append(way.learn(_rows(train, rows), answers[rows], test, (task, seed)))
            if not task.classes and name in LINEAR and len(rows) >= LEAST_LABELS:
                learned = learn_number(_rows(train, rows), answers[rows].astype(np.float64), seed, name != "lvm")
                intervals.append(np.stack([predictions[-1], *(np.full(len(truth), half) for half in learned.half_widths)], axis=1))
            if progress is not None:
                progress(name, place * wanted.seeds + seed + 1, total)
        for metric in metrics:
            score = asdict(over_seeds(METRICS[metric], truth, predictions))
            used = len(draw(answers, shots, task.classes, 0))
            results.append({"method": name, "metric": metric, "shots": shots or "all", "labels": used, **score, "seeds": wanted.seeds})
        for column, level in enumerate(LEVELS, 1) if intervals else ():
            score = asdict(over_seeds(coverage, truth, [item[:, [0, column]] for item in intervals]))
            held = {"method": name, "metric": f"coverage{100 * level:.0f}", "shots": shots or "all", "labels": len(rows)}
            results.append(held | score | {"seeds": wanted.seeds})
    return results


def _rows(examples: Any, rows: NDArray[np.int64]) -> Any:
    return examples[rows]


def draw(answers: NDArray[np.generic], shots: int, classes: int, seed: int) -> NDArray[np.int64]:
    """Rows to learn from: as many as asked for, at random, but at least one of each class; ascending.

    Parameters
    ----------
    answers : ndarray, shape (N,)
    shots : int
        `ALL`, or more than there are, takes all.
    classes : int
        0 for numbers.
    seed : int
    """
    count = len(answers)
    if shots == ALL or shots >= count:
        return np.arange(count)
    order = np.random.default_rng([seed, 13]).permutation(count)
    # the first of each class comes before the rest
    first = [order[answers[order] == code][:1] for code in range(classes)]
    ahead = np.concatenate(first) if first else np.zeros(0, np.int64)
    rest = order[~np.isin(order, ahead)]
    return np.sort(np.concatenate([ahead, rest])[: max(shots, len(ahead))])
