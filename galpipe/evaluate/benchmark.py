"""The frozen benchmark mock: the stamps that `galpipe evaluate parameters`, ``detection`` and ``restoration`` all measure on.

Four bricks of the survey-like sky, drawn by seeds that no training uses (those begin at 1001, the held-out ones at 9001). A benchmark
never changes: what would change it makes a new version. ``docs/benchmark.md`` says what is in it and why.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.commit import write_bytes
from galpipe.errors import BadData, ConfigurationError
from galpipe.lvm.inputs import MODEL_BANDS, float_column
from galpipe.lvm.mocksky import Progress, mock_pack
from galpipe.lvm.pack import Pack, concatenate, read_pack
from galpipe.mock.spec import BY_LATITUDE, SKY_VERSION, MockSpec

LABEL_FILE = "benchmark.json"
"""Beside the packs: which benchmark and which sky they are of."""

DEGRADATION_SEED = 5900
"""Of whatever an evaluation does to the stamps (blur, noise, gaps), together with the number of the stamp."""

LEVEL_TOLERANCE = 1e-3
"""Relative change of a brick's pixel levels that other processors' rounding may make; a changed sky moves them by more."""

TRAINING_STAMPS = 1000
"""Stamps that the detection baseline learns from, in equal parts of the training bricks."""


@dataclass(frozen=True)
class BenchmarkBrick:
    """One brick, with what pins it.

    Parameters
    ----------
    name : str
        What it stands for.
    spec : MockSpec
        Of one brick.
    stamps : int
        Stamps of its pack.
    truth : str
        `truth_digest` of its pack.
    levels : tuple of float
        `pixel_levels` of its pack.
    """

    name: str
    spec: MockSpec
    stamps: int
    truth: str
    levels: tuple[float, ...]


@dataclass(frozen=True)
class Benchmark:
    """A version of the benchmark.

    Parameters
    ----------
    version : str
        Another one for every change of anything here.
    bricks : tuple of BenchmarkBrick
        To measure on.
    training : tuple of BenchmarkBrick
        For baselines that must learn from the same kind of sky; never measured on.
    """

    version: str
    bricks: tuple[BenchmarkBrick, ...]
    training: tuple[BenchmarkBrick, ...] = ()


def _spec(seed: int, center: tuple[float, float], like: str, faint: tuple[int, float], galaxies: int = 800) -> MockSpec:
    return MockSpec(
        bricks=1,
        seed=seed,
        like=like,
        galaxies=galaxies,
        faint=faint[0],
        faint_limit=faint[1],
        stars=BY_LATITUDE,
        center=center,
        bands=MODEL_BANDS,
        store_truth_images=True,
        workers=1,
        sky="survey",
    )


THIN, MIDDLE, FULL = (1500, 22.5), (3000, 22.5), (5600, 23.7)
"""Faint galaxies in a brick and their limit; the last is as dense as the survey's tables."""

BENCHMARK = Benchmark(
    "1",
    (
        BenchmarkBrick(
            "south, shallow, thin",
            _spec(5005, (185.3, 5.4), "dr10", THIN),
            786,
            "71df049ba35b407d",
            (4308.347, 3082.489, 3289.725, 1963.961, 2147.141, 1914.157, 7.8855, 12.8122),
        ),
        BenchmarkBrick(
            "north, deep, full",
            _spec(5006, (205.7, 48.6), "dr9", FULL),
            779,
            "e65c5fa752bfb025",
            (1540.506, 2541.341, 3053.354, 1945.41, 2164.449, 1849.995, 9.4313, 11.9742),
        ),
        BenchmarkBrick(
            "south, deep, full, many stars",
            _spec(5008, (122.4, 12.3), "dr9", FULL),
            770,
            "4c74a04e86329113",
            (3301.469, 2919.404, 2871.859, 2257.279, 2504.152, 2294.116, 13.8442, 9.8909),
        ),
        BenchmarkBrick(
            "north, blurred",
            _spec(5004, (262.8, 55.2), "dr9", MIDDLE),
            774,
            "f49fa6631806c891",
            (3397.68, 2932.166, 3251.551, 2325.88, 2534.276, 2156.736, 11.0879, 12.8098),
        ),
    ),
    (
        BenchmarkBrick(
            "training, south",
            _spec(5101, (31.7, -4.6), "dr10", THIN, 320),
            317,
            "5b4c962468b75ecd",
            (3134.19, 2635.1, 2665.798, 2051.518, 2179.6, 1907.201, 7.2366, 12.2823),
        ),
        BenchmarkBrick(
            "training, north",
            _spec(5102, (168.2, 41.4), "dr9", FULL, 320),
            309,
            "bcfa3e2450b88d64",
            (2527.092, 2703.496, 3053.102, 1815.047, 2024.226, 1705.184, 8.9482, 10.1459),
        ),
        BenchmarkBrick(
            "training, south, more stars",
            _spec(5103, (327.6, 9.1), "dr9", FULL, 320),
            308,
            "d93066d60db163d8",
            (2657.929, 2925.465, 2346.409, 1937.563, 2141.242, 1909.037, 10.5779, 10.0064),
        ),
        BenchmarkBrick(
            "training, north, more stars",
            _spec(5104, (124.9, 62.7), "dr9", MIDDLE, 320),
            316,
            "16ff282a5fbf8c8c",
            (2137.443, 2541.617, 2867.65, 1902.085, 2078.674, 1807.147, 11.1424, 10.3556),
        ),
    ),
)
"""The benchmark that published figures are of."""

SMALL = Benchmark(
    "1-small",
    (
        BenchmarkBrick(
            "small, south",
            replace(_spec(5801, (150.1, 2.2), "dr9", (120, 22.5), 24), stars=60),
            24,
            "0aebb63e5cf9c243",
            (2261.627, 2383.762, 2548.7, 927.304, 1042.715, 891.041, 1.9167, 14.0435),
        ),
    ),
)
"""The same machinery with a handful of galaxies, for tests: its figures mean nothing."""


def benchmark_packs(folder: Path, benchmark: Benchmark = BENCHMARK, progress: Progress | None = None) -> list[Path]:
    """Packs of the bricks to measure on, drawn where they are not there yet and kept.

    Parameters
    ----------
    folder : Path
        Holds one benchmark.
    benchmark : Benchmark
    progress : callable, optional
        Called as ``progress("benchmark bricks", done, total)``.

    Returns
    -------
    list of Path
        One pack per brick, in order.

    Raises
    ------
    ConfigurationError
        If the folder holds another benchmark, or packs of another mock sky.
    BadData
        If a brick is not the one that the benchmark pins: the mock sky or the cutting changed without a new version.
    """
    return _packs(folder, benchmark, benchmark.bricks, progress)


def training_pack(folder: Path, benchmark: Benchmark = BENCHMARK, progress: Progress | None = None) -> Pack:
    """The `TRAINING_STAMPS` that baselines learn from, an equal part of each training brick; arguments as `benchmark_packs`."""
    return _training_part(folder, benchmark, progress, slice(None, _share(benchmark)))


def validation_pack(folder: Path, benchmark: Benchmark = BENCHMARK, progress: Progress | None = None) -> Pack:
    """The training bricks' other stamps, on which a baseline may choose its threshold."""
    return _training_part(folder, benchmark, progress, slice(_share(benchmark), None))


def _share(benchmark: Benchmark) -> int:
    return TRAINING_STAMPS // max(len(benchmark.training), 1)


def _training_part(folder: Path, benchmark: Benchmark, progress: Progress | None, part: slice) -> Pack:
    parts = []
    for path, brick in zip(_packs(folder, benchmark, benchmark.training, progress), benchmark.training, strict=True):
        pack = read_pack(path)
        order = np.random.default_rng([brick.spec.seed, 1]).permutation(len(pack))
        parts.append(pack_rows(pack, np.sort(order[part])))
    return concatenate(parts)


def pack_rows(pack: Pack, rows: npt.NDArray[np.int64]) -> Pack:
    """Some stamps of a pack, with their truth where it has one."""
    found = replace(pack, image=np.asarray(pack.image[rows]), mask=np.asarray(pack.mask[rows]), sources=pack.sources.take(pa.array(rows)))
    if pack.clean is None or pack.segments is None or pack.objects is None or pack.object_start is None:
        return found
    spans = [(int(pack.object_start[row]), int(pack.object_start[row + 1])) for row in rows]
    start = np.concatenate([[0], np.cumsum([last - first for first, last in spans])]).astype(np.int64)
    objects = np.concatenate([np.asarray(pack.objects[first:last]) for first, last in spans] or [np.zeros((0, 8), np.float32)])
    clean, segments = np.asarray(pack.clean[rows]), np.asarray(pack.segments[rows])
    return replace(found, objects=objects, object_start=start, clean=clean, segments=segments)


def _packs(folder: Path, benchmark: Benchmark, bricks: tuple[BenchmarkBrick, ...], progress: Progress | None) -> list[Path]:
    claim_folder(folder, benchmark)
    paths = []
    for number, brick in enumerate(bricks):
        path = mock_pack(brick.spec, folder)
        check_brick(brick, path)
        paths.append(path)
        if progress is not None:
            progress("benchmark bricks", number + 1, len(bricks))
    return paths


def claim_folder(folder: Path, benchmark: Benchmark) -> None:
    """Write which benchmark a new folder is of, or check that an existing one is of this.

    Raises
    ------
    ConfigurationError
        If it is another's, or holds something and does not say.
    """
    label = {"benchmark": benchmark.version, "sky_version": SKY_VERSION}
    file = folder / LABEL_FILE
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigurationError(
                "an empty folder, or one of the benchmark", f"a folder with files and no {LABEL_FILE}", file=str(folder)
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps(label).encode())
        return
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{LABEL_FILE} as JSON", str(error), file=str(file)) from error
    if found != label:
        raise ConfigurationError(f"packs of {label}", f"{found}; give another folder", file=str(folder))


def check_brick(brick: BenchmarkBrick, path: Path) -> None:
    """Compare a pack with what the benchmark pins.

    Raises
    ------
    BadData
        If the truth's digest, the number of stamps or a pixel level differs.
    """
    pack = read_pack(path)
    where = {"unit": brick.spec.brick_list()[0].name, "file": str(path)}
    pinned, got = (brick.stamps, brick.truth), (len(pack), truth_digest(pack))
    if got != pinned:
        raise BadData(f"the benchmark's stamps and truth digest {pinned}", str(got), **where)
    levels = pixel_levels(pack)
    if len(levels) != len(brick.levels) or not np.allclose(levels, brick.levels, rtol=LEVEL_TOLERANCE, atol=0):
        raise BadData(f"the benchmark's pixel levels {brick.levels}", str(levels), **where)


def truth_digest(pack: Pack) -> str:
    """Digest of what is true of a pack's stamps, rounded far above what processors disagree on.

    Positions to 1e-5 degrees, magnitudes, sizes and shapes to 1e-3.
    """
    content = hashlib.sha256()
    rows = len(pack.sources)
    for name, digits in (("true_ra", 5), ("true_dec", 5), ("mag_r", 3), ("half_light_radius", 3), ("axis_ratio", 3), ("redshift", 3)):
        values = np.round(float_column(pack.sources, name, rows) * 10**digits)
        content.update(np.where(np.isfinite(values), values, -(10**9)).astype(np.int64).tobytes())
    content.update("".join(str(kind) for kind in pack.sources["kind"].to_pylist()).encode())
    return content.hexdigest()[:16]


def pixel_levels(pack: Pack) -> tuple[float, ...]:
    """Spread of the codes of the noisy and of the noiseless image in each band, objects per stamp, and their mean box in pixels."""
    if pack.clean is None or pack.objects is None:
        raise BadData("a pack with truth", "one without")
    spreads = [float(np.std(part[:, band], dtype=np.float64)) for part in (pack.image, pack.clean) for band in range(len(MODEL_BANDS))]
    sides = np.asarray(pack.objects[:, 4:6] - pack.objects[:, 2:4], dtype=np.float64)
    return (*(round(value, 3) for value in spreads), round(len(pack.objects) / max(len(pack), 1), 4), round(float(sides.mean()) + 1, 4))
