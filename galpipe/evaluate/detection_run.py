"""The whole of `galpipe evaluate detection`: the benchmark's stamps, every method on them, rows and the drawing's data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from galpipe.errors import ConfigurationError, NoWork
from galpipe.evaluate.benchmark import BENCHMARK, Benchmark, benchmark_packs, pack_rows, training_pack, validation_pack
from galpipe.evaluate.detection import count
from galpipe.evaluate.detection_rows import rows_of
from galpipe.evaluate.maskrcnn import WORK, BaselineSettings, choose_threshold, detections, train_baseline
from galpipe.evaluate.maskrcnn_results import RESULTS, find_results, save_results
from galpipe.evaluate.objects import Listing, model_listings, sep_listings
from galpipe.lvm.loop import Progress
from galpipe.lvm.pack import Pack, concatenate, read_pack
from galpipe.lvm.predict import Predictor

Item = TypeVar("Item")

METHODS = ("lvm", "sep", "maskrcnn")

DEFINITION = (
    "box IoU 0.5; objects of r-band S/N > 5 count, S/N 3 to 5 or cut by the edge are ignored both ways; magnitudes of the r flux in the"
    " object's own pixels; 95 % intervals bootstrapped over stamps"
)


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Parameters
    ----------
    folder : Path
        The benchmark's packs.
    methods : tuple of str
        Among `METHODS`; ``maskrcnn`` takes saved results, else those that come with the package.
    stamps : int
        Stamps of each brick, 0 = all.
    benchmark : Benchmark
    """

    folder: Path
    methods: tuple[str, ...] = METHODS
    stamps: int = 0
    benchmark: Benchmark = BENCHMARK

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigurationError(f"methods among {METHODS}", repr(self.methods))
        if self.stamps < 0:
            raise ConfigurationError("a number of stamps, or 0 for all", repr(self.stamps))


def measure_detection(request: Request, predictor: Callable[[], Predictor], progress: Progress) -> dict[str, Any]:
    """Every method on the benchmark.

    Parameters
    ----------
    request : Request
    predictor : callable
        Loads the model; called only where the method ``lvm`` is wanted.
    progress : callable

    Returns
    -------
    dict
        ``benchmark, definition, stamps, objects, results`` (see `galpipe.evaluate.detection_rows.rows_of`), ``left_out`` (methods
        without saved results of these stamps), ``baseline`` (facts of the saved ones).

    Raises
    ------
    BadData
        If saved results cannot be read or are of another benchmark.
    """
    used = _used(request, progress)
    results: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    baseline: dict[str, Any] = {}
    whole = concatenate(used)
    groups = _groups(request.benchmark, used)
    model = predictor() if "lvm" in request.methods else None
    for method in request.methods:
        if method == "maskrcnn":
            try:
                saved, baseline = find_results(request.folder, whole, request.benchmark.version)
            except NoWork as reason:
                left_out[method] = str(reason)
                continue
            listings: Iterable[Listing] = saved
        else:
            listings = model_listings(model, whole) if model is not None and method == "lvm" else sep_listings(whole.stamps())
        results += rows_of(method, count(whole, _told(listings, method, len(whole), progress)), groups)
    true = int((np.asarray(whole.objects)[:, 7] == 0).sum()) if whole.objects is not None else 0
    return {
        "benchmark": request.benchmark.version,
        "definition": DEFINITION,
        "stamps": len(whole),
        "objects": true,
        "results": results,
        "left_out": left_out,
        "baseline": baseline,
        "model_hash": model.model_hash if model is not None else None,
    }


def _used(request: Request, progress: Progress) -> list[Pack]:
    """The stamps that are asked for, brick by brick."""
    packs = [read_pack(path) for path in benchmark_packs(request.folder, request.benchmark, progress)]
    return [pack_rows(pack, chosen_rows(len(pack), request.stamps)) for pack in packs]


def chosen_rows(count_: int, wanted: int) -> npt.NDArray[np.int64]:
    """All rows, or so many spread evenly."""
    if not wanted or wanted >= count_:
        return np.arange(count_)
    return np.asarray(np.linspace(0, count_ - 1, wanted).astype(np.int64))


def _told(listings: Iterable[Item], method: str, total: int, progress: Progress) -> Iterator[Item]:
    for number, listing in enumerate(listings):
        yield listing
        progress(method, number + 1, total)


def _groups(benchmark: Benchmark, used: list[Pack]) -> dict[str, npt.NDArray[np.bool_]]:
    """Members of every brick and region."""
    owner = np.repeat(np.arange(len(used)), [len(pack) for pack in used])
    regions = np.array([brick.spec.region for brick in benchmark.bricks])
    groups = {f"brick {brick.name}": owner == number for number, brick in enumerate(benchmark.bricks)}
    return groups | {f"region {region}": regions[owner] == region for region in dict.fromkeys(regions.tolist())}


def make_baseline(request: Request, settings: BaselineSettings, progress: Progress) -> Path:
    """Train the baseline on the benchmark's training stamps and save what it finds in the stamps that are asked for.

    Returns
    -------
    Path
        The saved results.
    """
    learned = training_pack(request.folder, request.benchmark, progress)
    model = train_baseline(learned, settings, request.folder / WORK, progress)
    threshold = choose_threshold(model, validation_pack(request.folder, request.benchmark))
    whole = concatenate(_used(request, progress))
    found = _told(detections(model, whole), "maskrcnn detections", len(whole), progress)
    facts = {"benchmark": request.benchmark.version, "threshold": threshold, "training_stamps": len(learned)}
    save_results(request.folder / RESULTS, whole, found, facts | {"stamps_per_brick": request.stamps} | asdict(settings))
    return request.folder / RESULTS
