"""The training set of the shipped model: mock bricks by seed, cut to stamps, packed with their truth; real stamps beside them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from galpipe.config import SOFTENING, STAMP_SIZE, CutSettings, SelectionSettings
from galpipe.errors import BadData
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.pack import Pack, concatenate, pack_stamps, read_pack, write_pack
from galpipe.mock.release import make_release
from galpipe.mock.spec import BY_LATITUDE, MockSpec, truth_folder
from galpipe.stamps.cut import cut_brick
from galpipe.stamps.external import read_stamps
from galpipe.stamps.normalize import codec, encode
from galpipe.stamps.result import CutResult
from galpipe.stamps.stretch import DR2_RGB
from galpipe.survey.files import BrickFiles, FileRecord
from galpipe.unit import Unit

Progress = Callable[[str, int, int], None]

GALAXIES = 1000
"""Galaxies with z < 20 in a training brick: four times the demonstration's, to make stamps cheap."""

FAINT = (500, 1500, 3000)
"""Fainter galaxies in a training brick, in turn, so that the model meets thin and crowded fields."""

STARS = (150, 400, 900)

MOST_REAL = 3000
"""Real stamps used at most."""

PICTURES = ("image", "png", "jpg", "jpeg")


def training_specs(bricks: int, seed: int, sky: str = "plain") -> list[MockSpec]:
    """One spec per brick, south and north in turn, spread over the sky; a longer list begins with the shorter one.

    Parameters
    ----------
    bricks : int
    seed : int
        Seed of the first brick; the k-th has ``seed + k``.
    sky : str
        ``plain``, or ``survey`` with as many stars as the galactic latitude asks for.
    """
    specs = []
    for number in range(bricks):
        rng = np.random.default_rng([seed, number])
        north = number % 2 == 1
        dec = float(rng.uniform(34.0, 70.0) if north else rng.uniform(-20.0, 30.0))
        specs.append(
            MockSpec(
                bricks=1,
                seed=seed + number,
                like="dr9" if north or number % 4 == 0 else "dr10",
                galaxies=GALAXIES,
                faint=FAINT[number % 3],
                stars=BY_LATITUDE if sky == "survey" else STARS[(number // 2) % 3],
                center=(float(rng.uniform(0.0, 360.0)), dec),
                bands=MODEL_BANDS,
                store_truth_images=True,
                workers=1,
                sky=sky,
            )
        )
    return specs


def local_files(release: Path, unit: Unit, bands: tuple[str, ...] = MODEL_BANDS) -> BrickFiles:
    """Files of a brick that lie in a release tree on this machine, unverified, without copying them."""
    tree = f"{unit.region}/coadd/{unit.brick[:3]}/{unit.brick}"
    wanted = [
        (f"{tree}/legacysurvey-{unit.brick}-{product}-{band}.fits.fz", product, band) for product in ("image", "invvar") for band in bands
    ]
    wanted.append((f"{tree}/legacysurvey-{unit.brick}-maskbits.fits.fz", "maskbits", ""))
    wanted.append((f"{unit.region}/tractor/{unit.brick[:3]}/tractor-{unit.brick}.fits", "tractor", ""))
    records = [
        FileRecord(path, path, product, band, "unverified" if (release / path).exists() else "absent") for path, product, band in wanted
    ]
    return BrickFiles(unit, release, tuple(records))


def cut_local(release: Path, unit: Unit) -> CutResult:
    """Stamps of one brick of a release tree on this machine."""
    return cut_brick(local_files(release, unit), CutSettings(bands=MODEL_BANDS), SelectionSettings())


def mock_pack(spec: MockSpec, folder: Path) -> Path:
    """Make one training brick, cut it and pack it; the release itself is deleted afterwards.

    Parameters
    ----------
    spec : MockSpec
        Of one brick, with truth images.
    folder : Path
        The pack becomes ``<folder>/<brick>-<seed>``; an existing one is kept.

    Returns
    -------
    Path
        The pack.
    """
    brick = spec.brick_list()[0].name
    path = folder / f"{brick}-{spec.seed}"
    if path.exists():
        return path
    release = folder / f"{path.name}.release"
    for stale in (release, truth_folder(release)):
        shutil.rmtree(stale, ignore_errors=True)
    summary = make_release(release, spec)
    stamps = cut_local(release, Unit(spec.like, summary.region, brick)).stamps
    # the truth of what lies beyond the edge is with the neighbouring brick
    stamps = stamps.take(np.flatnonzero(stamps.sources["brick_primary"].to_numpy(zero_copy_only=False)))
    write_pack(path, pack_stamps(stamps, summary.truth, brick))
    for stale in (release, summary.truth):
        shutil.rmtree(stale, ignore_errors=True)
    return path


def mock_packs(specs: list[MockSpec], folder: Path, progress: Progress | None = None) -> list[Path]:
    """Packs of several bricks, one after the other."""
    paths = []
    for number, spec in enumerate(specs):
        paths.append(mock_pack(spec, folder))
        if progress is not None:
            progress("training bricks", number + 1, len(specs))
    return paths


def read_packs(paths: list[Path]) -> Pack:
    """All packs as one, in memory."""
    return concatenate([read_pack(path) for path in paths])


def real_pack(folder: Path, seed: int = 0) -> Pack | None:
    """Unlabelled pixels of real stamps: FITS cubes under ``<folder>/stamps`` and pictures in ``<folder>/labels/*.parquet``.

    Pictures take the JPEG route: decoded, reduced to 152 px, brought to fluxes by the inverse of the survey's stretch (also where the
    picture is of another survey, so their fluxes are symbolic). Labels are not read.

    Returns
    -------
    Pack or None
        None when the folder holds neither.
    """
    parts = [pack_stamps(item) for item in read_stamps(sorted((folder / "stamps").glob("*.fits"))) if not isinstance(item, BadData)]
    tables = sorted((folder / "labels").glob("*.parquet"))
    pictures = [picture for table in tables for picture in _pictures(table)]
    if len(pictures) > MOST_REAL:
        chosen = np.sort(np.random.default_rng([seed, 7]).permutation(len(pictures))[:MOST_REAL])
        pictures = [pictures[index] for index in chosen]
    decoded = [item for item in map(picture_codes, pictures) if item is not None]
    if decoded:
        image, mask = np.stack([item[0] for item in decoded]), np.stack([item[1] for item in decoded])
        parts.append(Pack(image, mask, pa.table({"pixscale": pa.array(np.full(len(image), 0.262), pa.float32())})))
    if not parts:
        return None
    whole = concatenate(parts)
    kept = [name for name in whole.sources.column_names if name.startswith(("psfsize_", "psfdepth_")) or name == "pixscale"]
    return replace(whole, sources=whole.sources.select(kept))


def _pictures(table: Path) -> Iterator[bytes]:
    content = pq.read_table(table)
    name = next((name for name in content.column_names if name in PICTURES), None)
    for value in content[name].to_pylist() if name else ():
        if isinstance(value, bytes):
            yield value


def picture_codes(content: bytes) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]] | None:
    """Codes (3, S, S) and mask (S, S) of an encoded picture; None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            rgb = np.asarray(picture.convert("RGB").resize((STAMP_SIZE, STAMP_SIZE), Image.Resampling.LANCZOS), dtype=np.uint8)
    except (UnidentifiedImageError, OSError):
        return None
    flux, known = DR2_RGB.flux(rgb)
    image = np.stack([encode(flux[index], codec(SOFTENING[band])) for index, band in enumerate(MODEL_BANDS)])
    # a channel at 0 is dark sky and at 255 a bright core: limits, but better than a hole at the galaxy's center
    mask = np.zeros(known.shape[1:], dtype=np.uint8)
    return image, mask
