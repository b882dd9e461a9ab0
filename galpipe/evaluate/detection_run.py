"""The whole of `galpipe evaluate detection`: the benchmark's stamps, every method on them, rows and the drawing's data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galpipe.errors import ConfigurationError
from galpipe.evaluate.benchmark import BENCHMARK, Benchmark, benchmark_packs, pack_rows, training_pack, validation_pack
from galpipe.evaluate.detection import count
from galpipe.evaluate.detection_rows import rows_of
from galpipe.evaluate.maskrcnn import (
    RESULTS,
    WORK,
    BaselineSettings,
    choose_threshold,
    facts_of,
    save_results,
    saved_results,
    train_baseline,
)
from galpipe.evaluate.objects import Listing, model_listings, sep_listings
from galpipe.lvm.loop import Progress
from galpipe.lvm.pack import Pack, concatenate, read_pack
from galpipe.lvm.predict import Predictor

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
        Among `METHODS`; ``maskrcnn`` takes saved results.
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
        without saved results), ``baseline`` (facts of the saved ones).

    Raises
    ------
    BadData
        If saved results are not of these stamps.
    """
    paths = benchmark_packs(request.folder, request.benchmark, progress)
    packs = [read_pack(path) for path in paths]
    results: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    baseline: dict[str, Any] = {}
    saved = request.folder / RESULTS
    used = [pack_rows(pack, chosen_rows(len(pack), request.stamps)) for pack in packs]
    whole = concatenate(used)
    groups = _groups(request.benchmark, used)
    model = predictor() if "lvm" in request.methods else None
    for method in request.methods:
        if method == "maskrcnn":
            if not saved.exists():
                left_out[method] = f"no saved results ({saved}); --baseline train makes them"
                continue
            every, baseline = saved_results(saved, concatenate(packs), request.benchmark.version)
            listings: Iterable[Listing] = [every[row] for row in _whole_rows([len(pack) for pack in packs], request.stamps)]
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


def chosen_rows(count_: int, wanted: int) -> npt.NDArray[np.int64]:
    """All rows, or so many spread evenly."""
    if not wanted or wanted >= count_:
        return np.arange(count_)
    return np.asarray(np.linspace(0, count_ - 1, wanted).astype(np.int64))


def _whole_rows(counts: list[int], wanted: int) -> list[int]:
    starts = np.concatenate([[0], np.cumsum(counts)])
    return [int(start + row) for start, count_ in zip(starts, counts, strict=False) for row in chosen_rows(count_, wanted)]


def _told(listings: Iterable[Listing], method: str, total: int, progress: Progress) -> Iterator[Listing]:
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
    """Train the baseline on the benchmark's training stamps and save what it finds in the others.

    Returns
    -------
    Path
        The saved results.
    """
    learned = training_pack(request.folder, request.benchmark, progress)
    model = train_baseline(learned, settings, request.folder / WORK, progress)
    threshold = choose_threshold(model, validation_pack(request.folder, request.benchmark))
    packs = [read_pack(path) for path in benchmark_packs(request.folder, request.benchmark, progress)]
    facts = facts_of(settings, threshold, request.benchmark.version, len(learned))
    save_results(request.folder / RESULTS, model, packs, facts)
    return request.folder / RESULTS
