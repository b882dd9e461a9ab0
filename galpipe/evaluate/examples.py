"""What methods learn from: the model's inputs or pictures of a label set's rows, and the rows that have them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from galpipe.labels.labelset import Dropped, LabelSet
from galpipe.lvm.inputs import Inputs, stamp_inputs
from galpipe.stamps.pictures import middle
from galpipe.stamps.render import to_rgb

BATCH = 32


def inputs_of(labels: LabelSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Iterator[Inputs]]:
    """Rows that have stamps, and their inputs batch by batch."""
    batches = [batch for batch in labels.batches(BATCH, rows) if batch.stamps is not None]
    found = np.concatenate([batch.rows for batch in batches]) if batches else np.zeros(0, np.int64)
    return found, (stamp_inputs(batch.stamps) for batch in batches if batch.stamps is not None)


def pictures_of(labels: LabelSet, rows: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows that have a picture, and the pictures, uint8, shape (K, 3, size, size); survey pixels are drawn as the survey draws them."""
    found: list[int] = []
    parts: list[NDArray[np.uint8]] = []
    if labels.kind is None:
        for batch in labels.batches(BATCH, rows):
            for index, row in enumerate(batch.rows):
                if batch.stamps is not None:
                    found.append(int(row))
                    parts.append(_resized(np.asarray(to_rgb(batch.stamps.flux(index), batch.stamps.bands)), size))
    else:
        for row, picture in labels.pictures(rows):
            if not isinstance(picture, Dropped):
                found.append(row)
                # what the model sees too: the comparison is of methods, not of croppings
                parts.append(_resized(middle(picture, labels.kind.span), size))
    pictures = np.stack(parts) if parts else np.zeros((0, 3, size, size), np.uint8)
    return np.array(found, np.int64), pictures


def _resized(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    small = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
