"""Stein et al. 2021 layout: HDF5 with ``images`` (N, 3, 152, 152) of raw nanomaggies in g, r, z and one value per row in further fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galpipe.errors import BadData

BANDS_OF = {1: ("r",), 3: ("g", "r", "z"), 4: ("g", "r", "i", "z")}

VECTORS = {"flux": "flux", "psfsize": "psfsize", "psfdepth": "psfdepth", "transmission": "mw_transmission", "nobs": "nobs"}
"""Fields of one value per band, and the column of the sources table that they fill."""

SCALARS = (
    "ebv",
    "maskbits",
    "z_phot_mean",
    "z_phot_median",
    "z_phot_std",
    "z_phot_l68",
    "z_phot_u68",
    "z_phot_l95",
    "z_phot_u95",
    "z_spec",
)
WHOLE = ("release", "brickid", "objid")
TYPE = "source_type"
INDEX = "inds"
"""Place of a row in the whole sample; some published files skip or repeat values."""

NOT_COMPUTED = -99.0


class SteinFile:
    """An open file; metadata in memory, images read row by row.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadData
        If it has no dataset ``images`` of that shape.
    OSError
        If it is no HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = h5py.File(path, "r")
        images = self._file.get("images")
        if not isinstance(images, h5py.Dataset) or images.ndim != 4 or images.shape[1] not in BANDS_OF:
            found = sorted(self._file)
            self._file.close()
            raise BadData("a dataset images (N, 3, S, S)", f"fields {found}", file=str(path))
        self._images = images
        self.bands = BANDS_OF[images.shape[1]]
        self.columns = {name: self._file[name][:] for name in self._file if name != "images" and self._per_row(name)}
        """Every field that has one entry per row."""

    def _per_row(self, name: str) -> bool:
        item = self._file[name]
        return isinstance(item, h5py.Dataset) and item.shape[:1] == self._images.shape[:1]

    def __len__(self) -> int:
        return int(self._images.shape[0])

    def __enter__(self) -> SteinFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def flux(self, row: int) -> NDArray[np.float32]:
        """Pixels of a row, shape (B, S, S), nanomaggies per pixel.

        Raises
        ------
        BadData
            If the row cannot be read.
        """
        try:
            return np.asarray(self._images[row], np.float32)
        except OSError as error:
            raise BadData("a readable row", str(error), file=f"{self.path}[{row}]") from error

    def number(self, name: str, row: int) -> float | None:
        """A field's value where it is one finite number per row."""
        return _number(self.columns, name, row)

    def repeats(self) -> dict[int, int]:
        """Rows that a smaller row already is, by ``inds``: later row to first row."""
        if INDEX not in self.columns or self.columns[INDEX].ndim != 1:
            return {}
        _, first, inverse = np.unique(self.columns[INDEX], return_index=True, return_inverse=True)
        return {row: int(first[place]) for row, place in enumerate(inverse) if first[place] != row}

    def skipped(self) -> int:
        """How many values between the least and the greatest of ``inds`` no row has."""
        if INDEX not in self.columns or self.columns[INDEX].ndim != 1 or not len(self):
            return 0
        values = np.unique(self.columns[INDEX].astype(np.int64))
        return int(values[-1] - values[0] + 1 - len(values))

    def facts(self, row: int) -> dict[str, Any]:
        """Columns of the sources table that the row's fields fill; -99 (not computed) and values that are not finite are left out."""
        facts: dict[str, Any] = {}
        for name, ours in VECTORS.items():
            if name in self.columns and self.columns[name].ndim == 2 and self.columns[name].shape[1] >= len(self.bands):
                values = self.columns[name][row]
                facts |= {f"{ours}_{band}": float(values[b]) for b, band in enumerate(self.bands) if np.isfinite(values[b])}
        for name in (*SCALARS, *WHOLE):
            value = self.number(name, row)
            if value is not None and value != NOT_COMPUTED:
                facts[name] = value
        if TYPE in self.columns and self.columns[TYPE].ndim == 1:
            facts["type"] = text(self.columns[TYPE][row]).strip()
        return facts


def text(value: Any) -> str:
    """A field's value as text, whether stored as bytes or text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(columns: Mapping[str, NDArray[Any]], name: str, row: int) -> float | None:
    if name not in columns or columns[name].ndim != 1 or columns[name].dtype.kind not in "fiu":
        return None
    value = float(columns[name][row])
    return value if np.isfinite(value) else None
