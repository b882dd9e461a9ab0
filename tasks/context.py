"""What every stage of a run knows: where, under which name, with which settings and model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from galpipe.config import Settings
from galpipe.errors import GalpipeError
from galpipe.layout import Layout
from galpipe.unit import Receipt, Status, Unit

STATUS_OF_KIND: dict[str, Status] = {
    "no_work": "no_work",
    "bad_data": "bad_data",
    "remote_failure": "remote_failure",
    "resource": "resource",
}


@dataclass(frozen=True)
class RunContext:
    """One run's fixed facts; small, sent to every worker with every brick.

    Parameters
    ----------
    root : Path
    name : str
        The catalog's name.
    run_id : str
    settings : Settings
    model_folder : Path
        Weights and card, readable by every worker.
    model_hash : str
    code_version : str
    keep_bricks, keep_stamps : bool
        Whether fetched files and stamps stay once they were used.
    force : bool
        Do again what is up to date.
    """

    root: Path
    name: str
    run_id: str
    settings: Settings
    model_folder: Path
    model_hash: str
    code_version: str
    keep_bricks: bool = True
    keep_stamps: bool = True
    force: bool = False

    @property
    def layout(self) -> Layout:
        """Paths under the root."""
        return Layout(self.root)


def guarded(unit: Unit, stage: str, work: Callable[[], Receipt]) -> Receipt:
    """Run one stage of one unit and turn whatever ends it into a receipt: the run goes on, nothing is lost.

    Parameters
    ----------
    unit : Unit
    stage : str
    work : callable
        Returns the receipt of a stage that ended well.
    """
    started = time.monotonic()
    try:
        receipt = work()
    except GalpipeError as error:
        status = STATUS_OF_KIND.get(error.kind, "error")
        receipt = Receipt(unit, stage, status, file=error.file, reason=str(error))
    except MemoryError as error:
        receipt = Receipt(unit, stage, "resource", reason=f"{unit}: out of memory: {error}")
    except Exception as error:
        # a bug in one brick must not end a release; the ledger names it and the exit status shows it
        receipt = Receipt(unit, stage, "error", reason=f"{unit}: {type(error).__name__}: {error}")
    return replace(receipt, seconds=round(time.monotonic() - started, 3))
