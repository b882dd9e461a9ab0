"""The mock part of the training set: bricks by seed, cut to stamps, packed with their truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from galpipe.config import CutSettings, SelectionSettings
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.pack import Pack, concatenate, pack_stamps, read_pack, write_pack
from galpipe.mock.release import make_release
from galpipe.mock.spec import BY_LATITUDE, MockSpec, truth_folder
from galpipe.stamps.cut import cut_brick
from galpipe.stamps.result import CutResult
from galpipe.survey.files import BrickFiles, FileRecord
from galpipe.unit import Unit

Progress = Callable[[str, int, int], None]

GALAXIES = 1000
"""Galaxies with z < 20 in a training brick: four times the demonstration's, to make stamps cheap."""

FAINT = (500, 1500, 3000)
"""Fainter galaxies in a training brick, in turn, so that the model meets thin and crowded fields."""

FULL = (5600, 23.7)
"""Fainter galaxies and their limit in the bricks after the first `THINNER`: as dense and as deep as the survey's tables."""

THINNER = 14

STARS = (150, 400, 900)


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
        faint, limit = (FAINT[number % 3], MockSpec.faint_limit) if number < THINNER else FULL
        specs.append(
            MockSpec(
                bricks=1,
                seed=seed + number,
                like="dr9" if north or number % 4 == 0 else "dr10",
                galaxies=GALAXIES,
                faint=faint,
                faint_limit=limit,
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
