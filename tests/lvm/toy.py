"""Small stamps with a truth, made without the mock sky."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.config import SOFTENING
from galpipe.heads.morphology import QUESTIONS
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.inputs import MODEL_BANDS, STAMP_SIZE
from galpipe.lvm.pack import Pack
from galpipe.stamps.normalize import codec, encode, encode_invvar
from galpipe.stamps.stampset import StampSet

TINY = ModelSettings(dims=8, depths=(1, 1, 1, 1), attention_heads=(1, 1, 2, 2), stem=8, decoder=8, embedding=16)


def galaxy(angle: float, ratio: float, flux: float, radius: float = 6.0) -> npt.NDArray[np.float64]:
    """A Gaussian galaxy at the stamp's middle pixel; position angle in degrees east of north, x runs west."""
    grid = np.arange(STAMP_SIZE) - STAMP_SIZE // 2
    x, y = np.meshgrid(grid, grid)
    turn = np.deg2rad(angle)
    along, across = -x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) + y * np.sin(turn)
    shape = np.exp(-0.5 * ((along / radius) ** 2 + (across / (radius * ratio)) ** 2))
    return flux * shape / shape.sum()


def toy_pack(count: int, seed: int = 0) -> Pack:
    """Stamps of one Gaussian galaxy each, with noise and truth."""
    rng = np.random.default_rng(seed)
    angle, ratio = rng.uniform(0, 180, count), rng.uniform(0.3, 1.0, count)
    flux = 10 ** rng.uniform(1.0, 2.0, count)
    clean = np.stack([np.stack([galaxy(a, q, f) for _ in MODEL_BANDS]) for a, q, f in zip(angle, ratio, flux, strict=True)])
    sky = np.array([SOFTENING[band] for band in MODEL_BANDS])[:, None, None]
    noisy = clean + rng.standard_normal(clean.shape) * sky
    codes = [
        np.stack([encode(part[:, b], codec(SOFTENING[band])) for b, band in enumerate(MODEL_BANDS)], axis=1) for part in (noisy, clean)
    ]
    segments = (clean[:, 1] > 0.01).astype(np.uint8)
    boxes = []
    for part in segments:
        rows, columns = np.nonzero(part)
        boxes.append([76, 76, columns.min(), rows.min(), columns.max(), rows.max(), 0, 0])
    mask = np.zeros((count, STAMP_SIZE, STAMP_SIZE), np.uint8)
    objects = np.array(boxes, np.float32)
    return Pack(codes[0], mask, _sources(angle, ratio, flux), codes[1], segments, objects, np.arange(count + 1))


def _sources(angle: npt.NDArray[np.float64], ratio: npt.NDArray[np.float64], flux: npt.NDArray[np.float64]) -> pa.Table:
    count = len(angle)
    columns: dict[str, object] = {"ra": np.full(count, 359.9999), "dec": np.full(count, 60.0)}
    columns |= {"stamp_dx": np.zeros(count), "stamp_dy": np.zeros(count), "position_angle": angle, "axis_ratio": ratio}
    for band in MODEL_BANDS:
        columns |= {f"psfsize_{band}": np.full(count, 1.2), f"psfdepth_{band}": np.full(count, 900.0)}
        columns[f"mag_{band}"] = 22.5 - 2.5 * np.log10(flux)
    columns |= {"half_light_radius": np.full(count, 1.5) + 0.1 * ratio, "sersic_n": np.ones(count), "bulge_fraction": ratio / 2}
    columns |= {"redshift": 0.1 * ratio, "kind": ["disk_spiral"] * count}
    for question, answers in QUESTIONS.items():
        columns[f"{question}_total"] = np.full(count, 20)
        for index, answer in enumerate(answers):
            columns[f"{question}_{answer}_fraction"] = np.full(count, 0.8 if index == 0 else 0.2 / (len(answers) - 1))
    return pa.table(columns)


def toy_stamps(count: int, bands: tuple[str, ...] = MODEL_BANDS, seed: int = 0) -> StampSet:
    """The toy pack's stamps in some bands."""
    pack = toy_pack(count, seed)
    rows = [MODEL_BANDS.index(band) for band in bands]
    image = pack.image[:, rows]
    invvar = np.stack([np.broadcast_to(encode_invvar(np.array(1 / SOFTENING[band] ** 2)), image[:, 0].shape) for band in bands], axis=1)
    softening = tuple(SOFTENING[band] for band in bands)
    return StampSet(image, np.ascontiguousarray(invvar), pack.mask, pack.sources, bands, 0.262, softening)
