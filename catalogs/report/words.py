"""How the report says things: kinds in words, numbers in people's units, repeated reasons as one line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

KINDS = {
    "done": "done",
    "up_to_date": "already up to date",
    "no_work": "nothing to do",
    "absent": "not in the release",
    "bad_data": "bad input, set aside",
    "remote_failure": "the server failed",
    "resource": "this machine ran out of something",
    "configuration": "wrong request",
    "error": "an error in the program",
}
"""Kinds of outcome of a brick, in words."""

RULES = {
    "not_primary": "belongs to the neighbouring brick",
    "edge": "just beyond the edge of its brick: published only where no brick has it as its own",
    "type_psf": "point source",
    "type_dup": "duplicate of a Gaia source",
    "forced_psf_in_mask": "forced to a point source inside a mask",
    "no_ivar": "not observed in the selecting band",
    "faint": "fainter than the limit",
    "bad_position": "position is not one on the sky",
    "duplicated_row": "copy of another row of the table",
    "conflicting_rows": "rows of one id that do not agree",
    "not_in_list": "not in the list of ids",
    "no_coverage": "too few pixels with data",
}
"""Rules that filter a source, in words."""

_BRICK = re.compile(r"\b\d{4}[mp]\d{3}\b")

EXAMPLES = 3
"""Units named for a reason that many share."""


@dataclass(frozen=True)
class Reason:
    """One reason and the units that share it.

    Parameters
    ----------
    kind, text : str
        Kind in words; the reason with brick names replaced by BRICK.
    count : int
    examples : tuple of str
        The first few units.
    """

    kind: str
    text: str
    count: int
    examples: tuple[str, ...]


def kind_in_words(kind: str) -> str:
    """A kind of outcome for people; an unknown one as it is."""
    return KINDS.get(kind, kind.replace("_", " "))


def rule_in_words(rule: str) -> str:
    """A selection rule or failure for people; an unknown one as it is."""
    return RULES.get(rule, rule.replace("_", " "))


def group_reasons(notes: Iterable[Mapping[str, Any]]) -> list[Reason]:
    """Notes of a run's summary, those that differ by the brick's name only as one, the most frequent first.

    Parameters
    ----------
    notes : iterable of mapping
        With ``unit``, ``file``, ``kind`` and ``reason``.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        unit, reason = str(note.get("unit", "")), str(note.get("reason", ""))
        # an error's message opens with its unit, which has a column of its own
        text = _BRICK.sub("BRICK", reason.removeprefix(unit).strip())
        groups.setdefault((str(note.get("kind", "")), text), []).append(unit or str(note.get("file", "")))
    reasons = [Reason(kind_in_words(kind), text, len(units), tuple(units[:EXAMPLES])) for (kind, text), units in groups.items()]
    return sorted(reasons, key=lambda reason: (-reason.count, reason.kind, reason.text))


def human_bytes(count: float) -> str:
    """``1536`` becomes ``1.5 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """``75`` becomes ``1 min 15 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def grouped(value: int) -> str:
    """``1234567`` becomes ``1 234 567``, with narrow spaces."""
    return f"{value:,}".replace(",", "\u202f")


def measured(value: float | None, sigma: float | None = None, unit: str = "", digits: int = 2) -> str:
    """``17.32 ± 0.05 mag``; a dash where there is no value."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if sigma is not None and math.isfinite(sigma):
        text += f" ± {sigma:.{digits}f}"
    return f"{text} {unit}".rstrip()
