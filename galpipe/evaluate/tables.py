"""The comparison of real and mock sky as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from galpipe.evaluate.fields import BANDS


def tables_text(result: dict[str, Any]) -> str:
    """The result of `galpipe.evaluate.realism.compare` as Markdown tables."""
    return "\n".join([*_classifier(result), *_noise(result), *_pixels(result), *_population(result)]) + "\n"


def _head(*cells: str) -> list[str]:
    return ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]


def _numbers(name: str, values: Sequence[float], form: str) -> str:
    return f"| {name} | " + " | ".join(format(value, form) for value in values) + " |"


def _classifier(result: dict[str, Any]) -> list[str]:
    lines = _head("told apart", "sky", "by", "AUC", "95 % interval", "real, mock samples", "wanted")
    for e in result["classifier"]:
        interval = f"{e['interval'][0]:.2f} to {e['interval'][1]:.2f}"
        samples = f"{e['real']}, {e['mock']}"
        lines.append(f"| {e['what']} | {e['sky']} | {e['by']} | {e['auc']:.2f} | {interval} | {samples} | at most {e['wanted']} |")
    lines += ["", *_head("tells them apart the most", "sky", "feature (AUC alone; above 0.5: larger in real)")]
    for e in result["classifier"]:
        if "telling" in e:
            lines.append(f"| {e['what']} | {e['sky']} | {'; '.join(f'{name} ({value:.2f})' for name, value in e['telling'])} |")
    return [*lines, ""]


def _noise(result: dict[str, Any]) -> list[str]:
    lines = _head("sky noise, correlation at", *(f"{x}, {y} px" for y, x in result["lags"]))
    for band in BANDS:
        lines += [_numbers(f"{band} {kind}", found[band][0], "+.2f") for kind, found in result["noise"].items()]
    lines += [_numbers(name, values, "+.2f") for name, values in result["direct"].items()]
    return [*lines, ""]


def _pixels(result: dict[str, Any]) -> list[str]:
    shares = list(result["pixels"]["real"]["g"])
    lines = _head("pixels, medians over fields", *(f"{name} sigma" for name in shares))
    for band in BANDS:
        lines += [_numbers(f"{band} {kind}", list(found[band].values()), ".4f") for kind, found in result["pixels"].items()]
    return [*lines, ""]


def _population(result: dict[str, Any]) -> list[str]:
    lines = _head("galaxies by r (mag)", "quantity", "real: median (16 to 84 %), number", *result["population"])
    for rows in zip(*result["population"].values(), strict=True):
        lines.append("| " + " | ".join([*rows[0][:3], *(row[3] for row in rows)]) + " |")
    names = list(result["distances"]["survey"])
    lines += ["", *_head("Kolmogorov-Smirnov distance at matched r", *names)]
    lines += [_numbers(kind, list(found.values()), ".2f") for kind, found in result["distances"].items()]
    return lines
