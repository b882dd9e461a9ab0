"""Small label sets of every layout, written on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from PIL import Image

from galpipe.stamps.pictures import KINDS, encode_jpeg


def flux(seed: int, size: int = 152) -> np.ndarray:
    """A galaxy with stars and noise around it, g, r, z, nanomaggies per pixel; another one for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size // 2
    light = rng.uniform(0.05, 0.3) * np.exp(-np.hypot(x, y / rng.uniform(0.4, 1)) / rng.uniform(4, 9))
    for _ in range(25):
        v, u = rng.integers(-size // 2, size // 2, 2)
        light += rng.uniform(0.02, 0.3) * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8)
    scales = np.array([0.4, 0.8, 1.0])[:, None, None]
    return (light * scales + rng.normal(0, 0.004, (3, size, size))).astype(np.float32)


def picture(seed: int, size: int = 152) -> np.ndarray:
    """The same drawn as the survey does."""
    return KINDS["legacy_galaxy10"].stretch.picture(flux(seed, size))


def jpeg(seed: int, size: int = 152, kind: str = "legacy_galaxy10") -> bytes:
    """The same as JPEG."""
    return encode_jpeg(picture(seed, size), KINDS[kind])


def again(content: bytes, size: int, quality: int) -> bytes:
    """A picture reduced and coded once more."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.resize((size, size), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def parquet(path: Path, images: Sequence[bytes | None], rows_per_group: int = 1000, **columns: Sequence[Any]) -> Path:
    """A label set as Parquet."""
    table = pa.table({**columns, "image": pa.array(images, pa.binary())})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def stein(path: Path, cubes: Sequence[np.ndarray], **fields: Any) -> Path:
    """A file in the layout of Stein et al. 2021."""
    with h5py.File(path, "w") as file:
        file["images"] = np.stack(cubes).astype(np.float32)
        for name, values in fields.items():
            file[name] = np.asarray(values)
    return path


def cube(path: Path, seed: int) -> Path:
    """A FITS cube of survey pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(flux(seed), fits.Header({"BANDS": "grz"})).writeto(path)
    return path
