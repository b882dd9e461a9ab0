"""Progress on standard error: a bar with rate and time left on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 10.0


class _RateColumn(ProgressColumn):
    """Units a minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{60 * speed:.1f}/min")


def duration(seconds: float) -> str:
    """``75`` becomes ``1:15``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBoard:
    """One bar per stage.

    Parameters
    ----------
    totals : dict
        Expected steps of each bar.
    quiet : bool
        Show nothing.
    """

    def __init__(self, totals: dict[str, int], quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._lines = not quiet and not console.is_terminal
        self._ids = {name: self._bars.add_task(name, total=total) for name, total in totals.items()}
        self._totals, self._done = dict(totals), dict.fromkeys(totals, 0)
        self._lock, self._started, self._last = threading.Lock(), time.monotonic(), 0.0
        self._begun = dict.fromkeys(totals, self._started)

    def __enter__(self) -> ProgressBoard:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()
        if self._lines:
            self._line()

    def advance(self, name: str, steps: int = 1) -> None:
        """Some steps of a bar are done."""
        with self._lock:
            self._done[name] += steps
            self._bars.advance(self._ids[name], steps)
            if self._lines and time.monotonic() - self._last > LINE_SECONDS:
                self._line()

    def update(self, name: str, done: int, total: int) -> None:
        """Set a bar (for callbacks that count by themselves)."""
        with self._lock:
            self._done[name], self._totals[name] = done, total
            self._bars.update(self._ids[name], completed=done, total=total)
            if self._lines and time.monotonic() - self._last > LINE_SECONDS:
                self._line()

    def phase(self, name: str, done: int, total: int) -> None:
        """Set a bar that may be new: long work that goes from phase to phase."""
        if name not in self._ids:
            self._ids[name] = self._bars.add_task(name, total=total)
            self._totals[name], self._begun[name] = total, time.monotonic()
        self.update(name, done, total)

    def _line(self) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._started
        if not self._totals:
            return
        last = list(self._totals)[-1]
        done, total = self._done[last], self._totals[last]
        busy = self._last - self._begun[last]
        left = f", {duration(busy / done * (total - done))} left" if done and done < total else ""
        rate = f", {60 * done / busy:.1f}/min" if done and busy else ""
        parts = "  ".join(f"{name} {self._done[name]}/{self._totals[name]}" for name in self._totals)
        sys.stderr.write(f"{duration(elapsed)}  {parts}{rate}{left}\n")
        sys.stderr.flush()
