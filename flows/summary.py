"""What a run did, in one dictionary: for people, for ``--json`` and for the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from catalogs.ledger import Ledger
from galpipe.commit import write_bytes
from galpipe.unit import Receipt, Unit
from tasks.catalog import note_run
from tasks.context import RunContext

LISTED = 1000
"""Failures listed one by one; the ledger has them all."""


@dataclass
class Summary:
    """Totals of one run, filled while it goes on.

    Parameters
    ----------
    run_id : str
    bricks : int
        Bricks in the plan.
    up_to_date : int
        Bricks that needed no work.
    changes : dict
        What was to do and why, as `tasks.changes.Changes.as_dict` gives it.
    remote : dict, optional
        What the release was asked and said.
    """

    run_id: str
    bricks: int = 0
    up_to_date: int = 0
    publication: dict[str, Any] | None = None
    seconds: float = 0.0
    peak_memory: int = 0
    stages: dict[str, Counter[str]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    absent: list[dict[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    made: list[Unit] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    remote: dict[str, Any] | None = None

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.stages.setdefault(receipt.stage, Counter())[receipt.status] += 1
        if receipt.stage == "fetch":
            self.totals["bytes"] += receipt.counts.get("bytes", 0)
        if receipt.stage == "catalog" and receipt.status == "done":
            self.made.append(receipt.unit)
            self.totals.update(receipt.counts)
        note = {"unit": str(receipt.unit), "file": receipt.file, "kind": receipt.status, "reason": receipt.reason}
        if receipt.status == "done" and receipt.reason and receipt.stage != "fetch":
            # most bricks of a new release have the same to say
            self.notes[receipt.reason] += 1
        elif receipt.status == "no_work" or (receipt.status == "done" and receipt.reason):
            self.absent.append({**note, "kind": "absent" if receipt.status == "done" else "no_work"})
        elif receipt.status != "done":
            self.failures.append(note)

    def note_missing(self, release: str, bricks: Iterable[str]) -> None:
        """Bricks that were asked for by name and that the release does not have."""
        for brick in bricks:
            self.absent.append({"unit": f"{release}/{brick}", "file": "", "kind": "absent", "reason": f"{brick}: not in the release"})

    def check(self) -> None:
        """Compare what came in with what went out, before anything is published.

        Raises
        ------
        RuntimeError
            If outcomes do not add up to the sources that came in: a bug, never the data.
        """
        ended = self.totals["predicted"] + self.totals["filtered"] + self.totals["failed"]
        if ended != self.totals["sources"]:
            raise RuntimeError(f"{self.totals['sources']} sources came in, {ended} outcomes went out")

    def finish(self, context: RunContext, ledger: Ledger) -> dict[str, Any]:
        """Close the run in the ledger and write ``summary.json``."""
        result = self.as_dict()
        note_run(context, self.made)
        ledger.end_run(self.run_id, result["status"])
        write_bytes(context.layout.run_folder(self.run_id) / "summary.json", json.dumps(result, indent=1).encode())
        return result

    def as_dict(self) -> dict[str, Any]:
        """The summary in plain values."""
        ended = self.stages.get("catalog", Counter())["done"]
        no_work = sum(states["no_work"] for states in self.stages.values())
        counts = {
            "bricks": self.bricks,
            "up_to_date": self.up_to_date,
            "done": ended,
            "no_work": no_work,
            "failed_bricks": len(self.failures),
        }
        return {
            "status": "failed" if self.failures else "ok",
            "run_id": self.run_id,
            "counts": {**counts, **{name: self.totals[name] for name in ("sources", "predicted", "filtered", "failed", "detections")}},
            "stages": {stage: dict(states) for stage, states in self.stages.items()},
            "bytes": self.totals["bytes"],
            "seconds": round(self.seconds, 1),
            "worker_peak_memory": self.peak_memory,
            "failures": self.failures[:LISTED],
            "absent": self.absent[:LISTED],
            "notes": [{"reason": reason, "bricks": bricks} for reason, bricks in self.notes.most_common(LISTED)],
            "changes": self.changes,
            "remote": self.remote,
            "publication": self.publication,
        }
