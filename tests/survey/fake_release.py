"""A tiny release tree: brick tables of the real layout, coadds of any bytes, published checksums."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from galpipe.survey.bricks import brick_by_name
from galpipe.unit import Unit

BRICK = "1126p222"
UNIT = Unit("dr9", "south", BRICK)


def coadd_name(product: str, band: str, brick: str = BRICK) -> str:
    return f"legacysurvey-{brick}-{product}-{band}.fits.fz"


def coadd_path(product: str, band: str, brick: str = BRICK) -> str:
    return f"south/coadd/{brick[:3]}/{brick}/{coadd_name(product, band, brick)}"


def bytes_of(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def table_bytes(names: Sequence[str], bands: str = "grz", primary: Sequence[bool] | None = None, full: bool = True) -> bytes:
    """A gzipped brick table; `full` has ids and edges (DR8 and later), else neither (DR6)."""
    bricks = [brick_by_name(name) for name in names]
    columns: dict[str, object] = {"brickname": np.array(names, "S8"), "ra": [b.ra for b in bricks], "dec": [b.dec for b in bricks]}
    columns |= {f"nexp_{band}": np.full(len(names), 2, np.int16) for band in bands}
    columns["nexp"] = np.full(len(names), 7, np.int32)
    if full:
        columns["brickid"] = np.array([b.brickid for b in bricks], np.int32)
        columns |= {edge: [getattr(b, edge) for b in bricks] for edge in ("ra1", "ra2", "dec1", "dec2")}
    if primary is not None:
        columns["survey_primary"] = np.array(primary, bool)
    buffer = io.BytesIO()
    fits.BinTableHDU(Table(columns)).writeto(buffer)
    return gzip.compress(buffer.getvalue())


def write(root: Path, path: str, content: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def write_list(root: Path, folder: str, name: str, line: str = "{sha}  {name}") -> None:
    files = sorted(path for path in (root / folder).iterdir() if path.suffix != ".sha256sum")
    lines = [line.format(sha=hashlib.sha256(path.read_bytes()).hexdigest(), name=path.name, folder=folder) for path in files]
    write(root, f"{folder}/{name}", ("\n".join(lines) + "\n").encode())


def make_tree(root: Path, files: Mapping[str, bytes], published: bool = True, line: str = "{sha}  {name}") -> Path:
    """A south-only tree with one brick whose files are given by path."""
    write(root, "south/survey-bricks-dr9-south.fits.gz", table_bytes([BRICK]))
    for path, content in files.items():
        write(root, path, content)
    coadd, tractor = f"south/coadd/{BRICK[:3]}/{BRICK}", f"south/tractor/{BRICK[:3]}"
    (root / coadd).mkdir(parents=True, exist_ok=True)
    if published:
        write_list(root, coadd, f"legacysurvey_dr9_south_coadd_{BRICK[:3]}_{BRICK}.sha256sum", line)
        if (root / tractor).is_dir():
            write_list(root, tractor, f"legacysurvey_dr9_south_tractor_{BRICK[:3]}.sha256sum", line)
    return root


def tractor_columns(rows: int = 3, brick: str = BRICK, bands: str = "grz") -> dict[str, np.ndarray]:
    """The columns that a brick's table needs, DR9 types."""
    owner = brick_by_name(brick)
    columns: dict[str, np.ndarray] = {
        "release": np.full(rows, 9010, np.int16),
        "brickid": np.full(rows, owner.brickid, np.int32),
        "brickname": np.full(rows, brick, "S8"),
        "objid": np.arange(rows, dtype=np.int32),
        "brick_primary": np.ones(rows, bool),
        "maskbits": np.zeros(rows, np.int16),
        "fitbits": np.zeros(rows, np.int16),
        "type": np.full(rows, "EXP", "S3"),
        "ra": np.full(rows, owner.ra),
        "dec": np.full(rows, owner.dec),
        "bx": np.full(rows, 1799.5, np.float32),
        "by": np.full(rows, 1799.5, np.float32),
        "ebv": np.full(rows, 0.05, np.float32),
        "ref_cat": np.full(rows, "  ", "S2"),
        "ref_id": np.zeros(rows, np.int64),
        "dchisq": np.zeros((rows, 5), np.float32),
        "sersic": np.ones(rows, np.float32),
        "sersic_ivar": np.zeros(rows, np.float32),
    }
    for band in bands:
        for quantity in ("flux", "flux_ivar", "mw_transmission", "psfsize", "psfdepth", "galdepth", "fracflux", "fracmasked", "rchisq"):
            columns[f"{quantity}_{band}"] = np.full(rows, 20.0 if quantity == "flux" else 1.0, np.float32)
        columns[f"nobs_{band}"] = np.full(rows, 3, np.int16)
    for name in ("shape_r", "shape_e1", "shape_e2"):
        columns[name] = np.full(rows, 0.5, np.float32)
        columns[name + "_ivar"] = np.full(rows, 100.0, np.float32)
    return columns


def tractor_bytes(columns: Mapping[str, np.ndarray], cards: Mapping[str, object] | None = None) -> bytes:
    header = fits.Header(list((cards or {}).items()))
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(header=header), fits.BinTableHDU(Table(dict(columns)))]).writeto(buffer)
    return buffer.getvalue()


def image_bytes(shape: tuple[int, int] = (3600, 3600), kind: str = "GZIP_1") -> bytes:
    """A compressed coadd with noise in its first tiles and zeros elsewhere."""
    image = np.zeros(shape, np.float32)
    image[:200, :200] = np.random.default_rng(1).normal(0, 0.01, (200, 200))[: shape[0], : shape[1]]
    lossless = {"quantize_level": 0.0} if kind == "GZIP_1" else {"quantize_level": -1e-4, "quantize_method": 2}
    buffer = io.BytesIO()
    hdu = fits.CompImageHDU(image, compression_type=kind, tile_shape=(100, 100), **lossless)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()
