"""What the catalog stage costs beside the model: reading stamps, decoding answers, the baseline, writing rows."""

from __future__ import annotations

from flows.bench.brick import mock_brick
from flows.bench.figures import Figure, Size, in_turns
from galpipe.config import Settings
from galpipe.lvm.inputs import stamp_inputs
from galpipe.lvm.predict import Predictor
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import read_store
from tasks.catalog import predict_unit, predictor
from tasks.cut import cut_unit


def run(size: Size) -> list[Figure]:
    """Time the stage of a whole brick and the bare model on the same stamps, in full batches.

    Raises
    ------
    RuntimeError
        If a stage does not end well.
    """
    with mock_brick(size.galaxies) as brick:
        context, unit = brick.context(), brick.unit
        made = cut_unit(context, unit)
        if made.status != "done":
            raise RuntimeError(f"cut: {made.reason}")
        stamps = read_store(context.layout.stamps(unit, context.settings.cut.name)).stamps
        model = predictor(context)

        def stage() -> None:
            receipt = predict_unit(context, unit)
            if receipt.status != "done":
                raise RuntimeError(f"catalog: {receipt.reason}")

        forward = Forward(model, stamps, context.settings)
        seconds = in_turns({"stage": stage, "forward": forward}, size.repeats)
    rows = len(stamps)
    return [
        Figure("stage_over_forward", seconds["stage"] / seconds["forward"], "ratio", f"catalog stage over bare model; {rows} stamps"),
        Figure("stage_rate", rows / seconds["stage"], "stamps/s", "store to shard and outcomes, one worker"),
        Figure("forward_rate", rows / seconds["forward"], "stamps/s", f"bare model on {model.device}, inputs ready in memory"),
    ]


class Forward:
    """The bare model over all stamps, inputs packed beforehand; batches as the stage has them, the last one filled up."""

    def __init__(self, model: Predictor, stamps: StampSet, settings: Settings) -> None:
        batch = settings.infer.batch
        # rows repeat so that the last batch is full, as in prediction
        rows = [index % len(stamps) for index in range(-(-len(stamps) // batch) * batch)]
        self._model = model
        self._batches = [stamp_inputs(stamps.take(rows[first : first + batch])) for first in range(0, len(rows), batch)]

    def __call__(self) -> None:
        """One pass over every batch."""
        for inputs in self._batches:
            self._model.run(inputs)
