"""The trainings of one method: each number of labels, each seed, its answers and their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.errors import ConfigurationError
from galpipe.evaluate.kept import Answer, Kept, rows_digest
from galpipe.evaluate.linear import LEAST_LABELS, LEVELS, learn_number
from galpipe.evaluate.methods import METHODS, Method, Run, Task
from galpipe.evaluate.scores import METRICS, coverage, over_seeds
from galpipe.labels.labelset import LabelSet
from galpipe.labels.target import TargetSpec

Progress = Callable[[str, int, int], None]

LINEAR = ("lvm", "imagenet")
"""Methods that learn on frozen features, whose numbers come with conformal intervals."""

RATIO_AT = 0.9
"""AUC at which the labels that methods need are compared."""

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
    seeds : int or tuple of int
        Draws of the labels; also of the networks' first weights. One for all, or one for each number of labels.
    methods : tuple of str
        Among `galpipe.evaluate.methods.METHODS`.
    ratio_at : float or None
        Score at which the labels that the methods need are compared; None takes `RATIO_AT` for classes and compares nothing for numbers.
    work : Path or None
        Folder in which each training's answers are kept, so that a killed run goes on where it was.

    Raises
    ------
    ConfigurationError
        If a number or a method makes no sense.
    """

    target: TargetSpec
    shots: tuple[int, ...] = (20, 50, 100, ALL)
    seeds: int | tuple[int, ...] = 10
    methods: tuple[str, ...] = METHODS
    ratio_at: float | None = None
    work: Path | None = None

    def __post_init__(self) -> None:
        wrong = not self.shots or len(set(self.shots)) < len(self.shots) or any(count != ALL and count < 2 for count in self.shots)
        if wrong or len(self.seeds_each()) != len(self.shots) or min(self.seeds_each()) < 1:
            expected = "different numbers of labels from 2 on, or all, and at least one seed, one number of them for all or for each"
            raise ConfigurationError(expected, f"{self.shots} and {self.seeds}")
        if self.ratio_at is not None and not 0 < self.ratio_at < 1:
            raise ConfigurationError("a score between 0 and 1 to compare at", repr(self.ratio_at))
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigurationError(f"methods among {', '.join(METHODS)}", repr(self.methods))

    def seeds_each(self) -> tuple[int, ...]:
        """Seeds of each number of labels."""
        return self.seeds if isinstance(self.seeds, tuple) else (self.seeds,) * len(self.shots)


@dataclass(frozen=True)
class Side:
    """One side of the comparison: a set, its rows with an answer, and the answers."""

    labels: LabelSet
    rows: NDArray[np.int64]
    answers: NDArray[np.generic]

    def digest(self) -> str:
        """Hash of all that is learned from or scored on."""
        return rows_digest(self.labels, self.rows, self.answers)

    def among(self, kept: NDArray[np.bool_]) -> Side:
        """Some of the rows."""
        return Side(self.labels, self.rows[kept], self.answers[kept])


@dataclass(frozen=True)
class Plan:
    """One method's part of the comparison."""

    name: str
    way: Method
    wanted: FewShot
    task: Task
    sides: tuple[Side, Side]

    def load(self) -> tuple[_Loaded, _Loaded]:
        """Both sides' pictures, as the method wants them."""
        learn, asked = (_Loaded(*self.way.load(side.labels, side.rows)) for side in self.sides)
        return learn, asked

    def depends(self, data: dict[str, Any], run: tuple[int, int]) -> dict[str, Any]:
        """All that the answers of a training depend on: ``data`` are the sides' digests, ``run`` labels and seed."""
        shots, seed = run
        spec = asdict(self.wanted.target)
        return {"method": self.name, "by": self.way.depends(), "data": data, "target": spec, "shots": shots, "seed": seed}


@dataclass(frozen=True)
class _Loaded:
    """Rows of a side that could be read, and what is learned from."""

    rows: NDArray[np.int64]
    examples: Any


def of_method(plan: Plan, data: dict[str, Any], kept: Kept, progress: Progress | None) -> list[dict[str, Any]]:
    """Train, or take what is kept, and score: a row per number of labels and metric.

    Parameters
    ----------
    plan : Plan
    data : dict
        See `Plan.depends`.
    kept : Kept
    progress : callable, optional
    """
    wanted, load = plan.wanted, cache(plan.load)
    runs = [(shots, seed) for shots, seeds in zip(wanted.shots, wanted.seeds_each(), strict=True) for seed in range(seeds)]
    paths = {run: kept.path(plan.name, plan.depends(data, run)) for run in runs}
    count = len(plan.sides[0].rows)
    clock = _Clock(plan, [min(shots or count, count) for shots, seed in runs if not kept.has(paths[shots, seed])], progress)
    found: dict[int, list[Answer]] = {shots: [] for shots in wanted.shots}
    for shots, seed in runs:
        learn = partial(_learned, plan, load, (shots, seed), clock)
        found[shots].append(kept.get(paths[shots, seed], learn))
    return [row for shots, answers in found.items() for row in _scored(plan, shots, answers)]


class _Clock:
    """Tells how much of the work is done, trainings that stop early counted whole."""

    def __init__(self, plan: Plan, labels: list[int], progress: Progress | None) -> None:
        self._plan, self._progress = plan, progress
        self._done, self._total = 0, sum(plan.way.work(count) for count in labels)

    def epoch(self, labels: int, epoch: int, epochs: int) -> None:
        self._tell(self._done + self._plan.way.work(labels) * epoch // epochs)

    def trained(self, labels: int) -> None:
        self._done += self._plan.way.work(labels)
        self._tell(self._done)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(self._plan.name, min(done, self._total), self._total)


def _learned(plan: Plan, load: Callable[[], tuple[_Loaded, _Loaded]], run: tuple[int, int], clock: _Clock) -> Answer:
    (learn, asked), (shots, seed) = load(), run
    answers = plan.sides[0].answers[np.isin(plan.sides[0].rows, learn.rows)]
    rows = draw(answers, shots, plan.task.classes, seed)
    examples = _rows(learn.examples, rows)
    predicted = plan.way.learn(examples, answers[rows], asked.examples, Run(plan.task, seed, partial(clock.epoch, len(rows))))
    half_widths: tuple[float, ...] = ()
    if not plan.task.classes and plan.name in LINEAR and len(rows) >= LEAST_LABELS:
        half_widths = learn_number(examples, answers[rows].astype(np.float64), seed, plan.name != "lvm").half_widths
    clock.trained(len(rows))
    return Answer(asked.rows, predicted, len(rows), np.array(half_widths, np.float64))


def _scored(plan: Plan, shots: int, answers: list[Answer]) -> list[dict[str, Any]]:
    asked = plan.sides[1]
    truth = asked.answers[np.isin(asked.rows, answers[0].rows)]
    row = {"method": plan.name, "shots": shots or "all", "labels": answers[0].labels, "seeds": len(answers)}
    predictions = [answer.predicted for answer in answers]
    results = []
    for name in ("auc",) if plan.task.classes else ("r2", "rmse"):
        each = [METRICS[name](truth, predicted) for predicted in predictions]
        results.append({**row, "metric": name, **asdict(over_seeds(METRICS[name], truth, predictions)), "by_seed": each})
    for column, level in enumerate(LEVELS if len(answers[0].half_widths) else ()):
        intervals = [np.stack([item.predicted, np.full(len(truth), item.half_widths[column])], axis=1) for item in answers]
        results.append({**row, "metric": f"coverage{100 * level:.0f}", **asdict(over_seeds(coverage, truth, intervals))})
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
