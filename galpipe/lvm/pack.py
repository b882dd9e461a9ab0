"""Training packs: stamps and their truth as plain arrays that can be mapped into memory.

A pack is a folder: ``image.npy`` int16 (N, 3, S, S) codes of g, r, z, ``mask.npy`` uint8 (N, S, S) with bit b for band b of g, r, z and
bit 7 for filled pixels, ``sources.parquet`` (stamp facts and, with truth, the truth's columns), and with truth ``clean.npy`` (codes of the
noiseless image), ``segments.npy`` uint8 (N, S, S), ``objects.npy`` float32 (M, 8) and ``object_start.npy`` int64 (N + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galpipe.commit import replace_folder
from galpipe.config import SOFTENING
from galpipe.errors import BadData
from galpipe.lvm.inputs import FILLED_BIT, MODEL_BANDS, float_column
from galpipe.mock.truth import TruthObjects, clean_image, read_truth, truth_objects
from galpipe.stamps.normalize import codec, encode
from galpipe.stamps.stampset import StampSet

ARRAYS = ("image", "mask")
TRUTH_ARRAYS = ("clean", "segments", "objects", "object_start")

COUNTED_SNR, IGNORED_SNR = 5.0, 3.0
"""Objects above the first count, those between are ignored, fainter ones are sky (science.md section 4)."""

MOST_OBJECTS = 250
"""Objects that a stamp's segment codes can name."""


@dataclass(frozen=True)
class Pack:
    """Stamps for training, with or without truth; arrays as in the module's description.

    Parameters
    ----------
    image, mask : ndarray
    sources : pyarrow.Table
    clean, segments, objects, object_start : ndarray or None
        None without truth.
    """

    image: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    sources: pa.Table
    clean: npt.NDArray[np.int16] | None = None
    segments: npt.NDArray[np.uint8] | None = None
    objects: npt.NDArray[np.float32] | None = None
    object_start: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def has_truth(self) -> bool:
        """Whether the truth is there."""
        return self.clean is not None

    def stamps(self) -> StampSet:
        """The pack as a stamp set, for prediction (inverse variances unknown)."""
        softening = tuple(SOFTENING[band] for band in MODEL_BANDS)
        blank = np.zeros(self.image.shape, dtype=np.uint8)
        return StampSet(np.asarray(self.image), blank, np.asarray(self.mask), self.sources, MODEL_BANDS, 0.262, softening)


def write_pack(path: Path, pack: Pack) -> None:
    """Write a pack in one step."""
    with replace_folder(path) as aside:
        for name in (*ARRAYS, *TRUTH_ARRAYS):
            values = getattr(pack, name)
            if values is not None:
                np.save(aside / f"{name}.npy", values, allow_pickle=False)
        pq.write_table(pack.sources, aside / "sources.parquet", compression="zstd")


def read_pack(path: Path) -> Pack:
    """Map a pack into memory.

    Raises
    ------
    BadData
        If the folder is not a pack.
    """
    try:
        parts: dict[str, Any] = {
            name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in (*ARRAYS, *TRUTH_ARRAYS)
            if name in ARRAYS or (path / f"{name}.npy").exists()
        }
        return Pack(sources=pq.read_table(path / "sources.parquet"), **parts)
    except (OSError, ValueError) as error:
        raise BadData("a training pack", str(error), file=str(path)) from error


def pack_stamps(stamps: StampSet, truth: Path | None = None, brick: str = "") -> Pack:
    """Stamps of one brick, with their truth where the mock's truth folder is given.

    Parameters
    ----------
    stamps : StampSet
    truth : Path, optional
        Truth folder of a mock release made with ``store_truth_images``.
    brick : str
        The stamps' brick; needed with ``truth``.
    """
    image, mask = _model_bands(stamps)
    if truth is None:
        return Pack(image, mask, stamps.sources)
    sources = join_truth(stamps.sources, read_truth(truth, brick))
    corners = np.stack([float_column(sources, f"stamp_{axis}0", len(sources)) for axis in "xy"], axis=1).astype(np.int64)
    clean = np.stack([_clean_codes(stamps, clean_image(truth, brick, band), band, corners) for band in MODEL_BANDS], axis=1)
    listed = _all_objects(truth_objects(truth, brick), corners, stamps.size)
    segments = np.stack([item for item, _ in listed]) if listed else np.zeros((0, stamps.size, stamps.size), np.uint8)
    counts = [len(item) for _, item in listed]
    objects = np.concatenate([item for _, item in listed]) if listed else np.zeros((0, 8), np.float32)
    return Pack(image, mask, sources, clean, segments, objects, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _model_bands(stamps: StampSet) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    shape = (len(stamps), len(MODEL_BANDS), stamps.size, stamps.size)
    image, mask = np.zeros(shape, dtype=np.int16), (stamps.mask & np.uint8(1 << FILLED_BIT)).astype(np.uint8)
    for index, band in enumerate(MODEL_BANDS):
        if band in stamps.bands:
            place = stamps.bands.index(band)
            image[:, index] = stamps.image[:, place]
            mask |= ((stamps.mask >> np.uint8(place)) & np.uint8(1)) << np.uint8(index)
        else:
            mask |= np.uint8(1 << index)
    return image, mask


def join_truth(sources: pa.Table, truth: pa.Table) -> pa.Table:
    """Add the truth's columns to stamp rows by objid; of several true sources fitted as one, the brightest in r counts.

    Columns that both tables have are taken as ``true_<name>`` when they are positions, fluxes or labels.
    """
    order = pc.sort_indices(truth, sort_keys=[("flux_r", "descending")])
    brightest: dict[int, int] = {}
    for row in order.to_pylist():
        objid = truth["objid"][row].as_py()
        if objid is not None and objid >= 0:
            brightest.setdefault(objid, row)
    rows = pa.array([brightest.get(objid) for objid in sources["objid"].to_pylist()], pa.int64())
    picked = truth.take(rows)
    for name in picked.column_names:
        if name == "objid":
            continue
        sources = sources.append_column(f"true_{name}" if name in sources.column_names else name, picked[name])
    return sources


def _clean_codes(stamps: StampSet, plane: npt.NDArray[np.float32], band: str, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
    line, size = codec(SOFTENING[band]), stamps.size
    result = np.empty((len(stamps), size, size), dtype=np.int16)
    transmission = stamps.transmission(band)
    for row, corner in enumerate(corners):
        result[row] = encode(_window(plane, corner, size, 0.0) / transmission[row], line)
    return result


def _window(plane: npt.NDArray[Any], corner: npt.NDArray[np.int64], size: int, fill: float) -> npt.NDArray[Any]:
    """A square of a frame, filled outside it."""
    result = np.full((size, size), fill, dtype=plane.dtype)
    x0, y0 = int(corner[0]), int(corner[1])
    left, low = max(x0, 0), max(y0, 0)
    right, high = min(x0 + size, plane.shape[1]), min(y0 + size, plane.shape[0])
    if right > left and high > low:
        result[low - y0 : high - y0, left - x0 : right - x0] = plane[low:high, left:right]
    return result


def _all_objects(
    truth: TruthObjects, corners: npt.NDArray[np.int64], size: int
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
    names = ("label", "bx", "by", "x0", "y0", "x1", "y1", "snr_r")
    table = np.stack([float_column(truth.table, name, len(truth.table)) for name in names], axis=1)
    stars = np.array([kind == "star" for kind in truth.table["class"].to_pylist()])
    table = np.concatenate([table, stars[:, None]], axis=1)
    return [_stamp_objects(table, _window(truth.segmentation, corner, size, 0), corner) for corner in corners]


def _stamp_objects(
    table: npt.NDArray[np.float64], labels: npt.NDArray[np.int32], corner: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Segment codes and objects of one stamp, positions in stamp pixels, box ends inclusive."""
    size = labels.shape[0]
    place = table[:, 1:7] - np.tile(corner, 3)
    place[:, 4:6] -= 1
    touching = (place[:, 4] >= 0) & (place[:, 5] >= 0) & (place[:, 2] < size) & (place[:, 3] < size)
    rows = np.flatnonzero(touching & (table[:, 7] >= IGNORED_SNR))
    rows = rows[np.argsort(-table[rows, 7], kind="stable")][:MOST_OBJECTS]
    inside = (place[rows, :2] >= 0).all(axis=1) & (place[rows, :2] <= size - 1).all(axis=1)
    cut = (place[rows, 2] < 0) | (place[rows, 3] < 0) | (place[rows, 4] > size - 1) | (place[rows, 5] > size - 1)
    ignored = (table[rows, 7] < COUNTED_SNR) | cut | ~inside
    boxes = np.clip(place[rows, 2:6], 0, size - 1)
    objects = np.concatenate([place[rows, :2], boxes, table[rows, 8:9], ignored[:, None]], axis=1).astype(np.float32)
    # objects that are cut still teach which pixels are theirs; those that may be missed teach nothing
    codes = np.where(table[rows, 7] < COUNTED_SNR, 255, np.arange(len(rows)) + 1)
    top = int(max(labels.max(), table[rows, 0].max() if len(rows) else 0)) + 1
    lookup = np.zeros(top, dtype=np.uint8)
    lookup[table[rows, 0].astype(np.int64)] = codes
    return lookup[labels], objects


def concatenate(packs: Sequence[Pack]) -> Pack:
    """Packs one after the other; all with truth or none."""
    tables = [pack.sources for pack in packs]
    sources = pa.concat_tables(tables, promote_options="permissive")
    image, mask = np.concatenate([pack.image for pack in packs]), np.concatenate([pack.mask for pack in packs])
    if not packs[0].has_truth:
        return Pack(image, mask, sources)
    whole = {name: np.concatenate([getattr(pack, name) for pack in packs]) for name in ("clean", "segments", "objects")}
    counts = np.concatenate([np.diff(pack.object_start) for pack in packs if pack.object_start is not None])
    return Pack(image, mask, sources, **whole, object_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
