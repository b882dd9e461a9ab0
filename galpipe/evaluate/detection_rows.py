"""From counts to rows: every figure of a method with its interval, bootstrapped over stamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from galpipe.evaluate.detection import MAGNITUDES, RANKED, SEPARATIONS, Counted, average_precision

Doubles = npt.NDArray[np.float64]

DRAWS = 1000
SEED = 5910

RATIOS = {
    "f1": (("hit", "hit"), ("true", "said")),
    "completeness": (("hit",), ("true",)),
    "purity": (("hit",), ("said",)),
    "f1, centers": (("centers hit", "centers hit"), ("centers said", "true")),
    "completeness, compact": (("compact hit",), ("compact",)),
    "purity, compact": (("compact right",), ("compact said",)),
    "completeness, compact, centers": (("compact centers hit",), ("compact",)),
    "purity, compact, centers": (("compact centers right",), ("compact centers said",)),
    "class right, of those found": (("typed right",), ("typed",)),
    "mask IoU, of those found": (("mask overlap",), ("hit",)),
}
"""Figure: names of the counts above and below the line; a name twice counts twice."""


def rows_of(method: str, counted: Counted, groups: dict[str, npt.NDArray[np.bool_]], draws: int = DRAWS) -> list[dict[str, Any]]:
    """All figures of a method.

    Parameters
    ----------
    method : str
    counted : Counted
    groups : dict
        Name and members, bool of shape (N,), of the parts (bricks, regions) for which F1, completeness and purity are given apart.
    draws : int
        Bootstrap draws of stamps; stamps of a brick that overlap are taken as independent, so intervals are a little too short.

    Returns
    -------
    list of dict
        ``method, metric, bin, value, low, high, count``; 95 % intervals, count = below the line (objects or detections).
    """
    weights = _weights(len(counted.table), draws)
    rows = [_ratio(method, (metric, ""), counted, weights, names) for metric, names in RATIOS.items()]
    rows.append(_precision_row(method, counted, weights[:RANKED]))
    for what, edges, unit in (("magnitude", MAGNITUDES, "r"), ("separation", SEPARATIONS, "arcsec")):
        for index in range(len(edges) - 1):
            name = f"{unit} {bin_text(edges, index)}"
            for metric, above, below in (("completeness", "hit", "true"), ("purity", "right", "said")):
                names = ((f"{what} {index} {above}",), (f"{what} {index} {below}",))
                rows.append(_ratio(method, (f"{metric} by {what}", name), counted, weights, names))
    for name, members in groups.items():
        part = Counted(counted.names, counted.table[members], counted.ranking)
        own = _weights(int(members.sum()), draws)
        rows += [_ratio(method, (metric, name), part, own, RATIOS[metric]) for metric in ("f1", "completeness", "purity")]
    return rows


def bin_text(edges: tuple[float, ...], index: int) -> str:
    """``18 to 20``, ``< 18``, ``> 23``."""
    low, high = edges[index], edges[index + 1]
    if not np.isfinite(high):
        return f"> {low:g}"
    return f"{low:g} to {high:g}" if np.isfinite(low) else f"< {high:g}"


def _weights(stamps: int, draws: int) -> Doubles:
    """How often each draw has each stamp, shape (draws, stamps)."""
    if not stamps:
        return np.zeros((draws, 0))
    return np.random.default_rng(SEED).multinomial(stamps, np.full(stamps, 1 / stamps), size=draws).astype(np.float64)


def _ratio(
    method: str, what: tuple[str, str], counted: Counted, weights: Doubles, names: tuple[tuple[str, ...], tuple[str, ...]]
) -> dict[str, Any]:
    above, below = (sum((counted.column((name,)) for name in part), np.zeros(len(counted.table))) for part in names)
    total = float(below.sum())
    value = float(above.sum()) / total if total else float("nan")
    drawn = weights @ np.stack([above, below], axis=1)
    return _row(method, what, value, (drawn[:, 0], drawn[:, 1]), round(total))


def _row(method: str, what: tuple[str, str], value: float, drawn: tuple[Doubles, Doubles], total: int) -> dict[str, Any]:
    usable = drawn[1] > 0
    low, high = np.percentile(drawn[0][usable] / drawn[1][usable], [2.5, 97.5]) if usable.any() else (float("nan"), float("nan"))
    return {"method": method, "metric": what[0], "bin": what[1], "value": value, "low": float(low), "high": float(high), "count": total}


def _precision_row(method: str, counted: Counted, weights: Doubles) -> dict[str, Any]:
    true = counted.column(("true",))
    value = float(average_precision(counted.ranking, true, np.ones((1, len(true))))[0]) if true.sum() else float("nan")
    drawn = average_precision(counted.ranking, true, weights)
    return _row(method, ("average precision at IoU 0.5", ""), value, (drawn, np.ones(len(drawn))), round(float(true.sum())))
