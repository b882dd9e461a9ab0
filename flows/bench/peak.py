"""One stage of one brick in a process of its own, as ``python -m flows.bench.peak``, which tells the most memory it held."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flows.bench.brick import bench_context
from flows.bench.figures import peak_bytes
from galpipe.config import SelectionSettings, Settings
from galpipe.unit import Unit
from tasks.catalog import predict_unit, predictor
from tasks.cut import cut_unit

STAGES = {"cut": cut_unit, "catalog": predict_unit}


def main(arguments: list[str]) -> None:
    """Do a stage and say how it ended: ``ROOT UNIT STAGE SELECTION``."""
    root, unit, stage, selection = Path(arguments[0]), Unit.parse(arguments[1]), arguments[2], arguments[3]
    context = bench_context(root, Settings(selection=SelectionSettings(selection)))
    # a worker holds the model whatever it does next
    predictor(context)
    receipt = STAGES[stage](context, unit)
    sys.stdout.write(json.dumps({"status": receipt.status, "reason": receipt.reason, "rows": receipt.rows, "peak": peak_bytes()}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
