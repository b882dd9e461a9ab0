"""Parameters of a request, as DALI wants them: names in any case, values checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from catalogs.serve.limits import Limits, UsageFault

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_INFINITE = re.compile(r"([+-]?)inf(inity)?", re.IGNORECASE)
SHOWN = 80
"""Characters of a wrong value that are repeated to the client."""


def shown(value: str) -> str:
    """A client's text as an error repeats it."""
    return repr(value if len(value) <= SHOWN else value[: SHOWN - 1] + "…")


def number(text: str, what: str, low: float = float("-inf"), high: float = float("inf")) -> float:
    """A finite number of a client within bounds.

    Raises
    ------
    UsageFault
        If the text is not one.
    """
    value = float(text) if _NUMBER.fullmatch(text.strip()) else float("nan")
    if not (low <= value <= high and abs(value) != float("inf")):
        bounds = "" if (low, high) == (float("-inf"), float("inf")) else f" from {low:g} to {high:g}"
        raise UsageFault(f"{what}: a number{bounds}", shown(text))
    return value


def interval(text: str, what: str) -> tuple[float, float]:
    """One value or two, ``low high``, either of which may be ``-Inf`` or ``+Inf``.

    Raises
    ------
    UsageFault
        If the text is not an interval.
    """
    parts = text.split()
    ends = []
    for part in parts if len(parts) == 2 else parts * 2:
        infinite = _INFINITE.fullmatch(part)
        ends.append(float(f"{infinite.group(1)}inf") if infinite else number(part, what))
    if len(ends) != 2 or not ends[0] <= ends[1]:
        raise UsageFault(f"{what}: a number, or an interval 'low high'", shown(text))
    return ends[0], ends[1]


class Parameters:
    """The parameters of one request.

    Parameters
    ----------
    items : iterable of tuple
        (name, value) in the order given; a name may come several times.
    """

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            if value.strip():
                self._values.setdefault(name.upper(), []).append(value.strip())

    def all(self, name: str, most: int = 16) -> list[str]:
        """Every value of a parameter.

        Raises
        ------
        UsageFault
            If there are too many.
        """
        values = self._values.get(name, [])
        if len(values) > most:
            raise UsageFault(f"at most {most} values of {name}", f"{len(values)}")
        return values

    def one(self, name: str) -> str | None:
        """The value of a parameter that may come once; None without it.

        Raises
        ------
        UsageFault
            If it comes several times.
        """
        values = self._values.get(name, [])
        if len(values) > 1:
            raise UsageFault(f"{name} once", f"{len(values)} times")
        return values[0] if values else None

    def required(self, name: str, low: float, high: float) -> float:
        """A number that has to be there.

        Raises
        ------
        UsageFault
            If it is missing, not a number or out of bounds.
        """
        text = self.one(name)
        if text is None:
            raise UsageFault(f"{name}: a number from {low:g} to {high:g}", "none")
        return number(text, name, low, high)

    def choice(self, name: str, choices: dict[str, str], default: str) -> str:
        """What one of several words stands for, in any case.

        Raises
        ------
        UsageFault
            If the word is not one of them.
        """
        text = self.one(name)
        if text is None:
            return default
        if text.lower() not in choices:
            raise UsageFault(f"{name}: one of {', '.join(sorted(choices))}", shown(text))
        return choices[text.lower()]

    def most(self, limits: Limits) -> int:
        """Rows that the answer may have: MAXREC, no more than the service gives.

        Raises
        ------
        UsageFault
            If MAXREC is not a whole number from 0.
        """
        text = self.one("MAXREC")
        if text is None:
            return limits.rows
        if not re.fullmatch(r"\d{1,18}", text):
            raise UsageFault("MAXREC: a whole number from 0", shown(text))
        return min(int(text), limits.rows)
