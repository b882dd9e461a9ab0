"""Small stores and files of stamps that can be told apart after flips and turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from galpipe.config import SOFTENING
from galpipe.lvm.inputs import Inputs
from galpipe.stamps.normalize import codec
from galpipe.stamps.result import OUTCOMES, CutResult
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import write_store
from tests.lvm.toy import toy_stamps

FIRST_CODE = 12000


def marked(numbers: Sequence[int]) -> StampSet:
    """Stamps whose brightest pixel in r says which one it is."""
    plain = toy_stamps(1)
    image = np.repeat(np.clip(plain.image, -8000, 8000), len(numbers), axis=0)
    for place, number in enumerate(numbers):
        image[place, 1, 40, 90] = FIRST_CODE + number
    columns = {"source_id": pa.array(numbers, pa.int64())}
    columns |= {f"{name}_{band}": pa.array([1.2] * len(numbers), pa.float32()) for name in ("psfsize", "psfdepth") for band in "grz"}
    masks = {name: np.repeat(getattr(plain, name), len(numbers), axis=0) for name in ("invvar_code", "mask")}
    return replace(plain, image=image, sources=pa.table(columns), **masks)


def numbers_of(inputs: Inputs) -> list[int]:
    """Which stamps those are; -1 for one without pixels."""
    brightest = inputs.pixels[:, 1].flatten(1).max(dim=1).values.numpy()
    line = codec(SOFTENING["r"])
    codes = np.rint((brightest - line.offset) / line.scale).astype(int) - FIRST_CODE
    return np.where(inputs.valid.flatten(1).amax(dim=1).numpy() > 0, codes, -1).tolist()


def store(path: Path, numbers: Sequence[int]) -> Path:
    """A brick's store of marked stamps."""
    write_store(path, CutResult(marked(numbers), OUTCOMES.empty_table()), "abc")
    return path


def stores(folder: Path, counts: Sequence[int]) -> list[Path]:
    """Several stores whose stamps are numbered on."""
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [store(folder / f"{place:04d}p000.zarr", range(starts[place], starts[place + 1])) for place in range(len(counts))]
