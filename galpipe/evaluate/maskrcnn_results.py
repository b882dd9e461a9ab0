"""What the deep baseline of detection found, saved: nobody need train it again to compare with it.

One row per stamp of a benchmark; the facts of the training are metadata. Results of a training lie in the folder of the benchmark's packs,
those of the published figures in ``results/`` beside this module, named by the benchmark's version and the stamps of each brick.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from galpipe.commit import replace_file
from galpipe.config import STAMP_SIZE
from galpipe.errors import BadData, NoWork
from galpipe.evaluate.objects import Listing, saved_listing
from galpipe.heads.detection import DETECTION
from galpipe.lvm.pack import Pack

RESULTS = "maskrcnn.parquet"
"""The detections of a training of one's own, in the folder of the benchmark's packs."""

KEYS = ["brickname", "objid"]
"""What names a stamp of a benchmark."""


def shipped_results(version: str) -> list[Path]:
    """Saved detections on a benchmark that come with the package."""
    folder = Path(str(resources.files("galpipe.evaluate"))) / "results"
    return sorted(folder.glob(f"maskrcnn-{version}-*.parquet"))


def save_results(path: Path, pack: Pack, found: Iterable[list[dict[str, Any]]], facts: dict[str, Any]) -> None:
    """Write the detections of every stamp of a pack.

    Parameters
    ----------
    path : Path
    pack : Pack
    found : iterable
        Of each stamp, as `galpipe.evaluate.maskrcnn.detections` yields them.
    facts : dict
        JSON-ready, with ``benchmark`` (version) and ``threshold``.
    """
    table = pack.sources.select(KEYS).append_column("detections", pa.array(list(found), pa.list_(DETECTION)))
    with replace_file(path) as aside:
        pq.write_table(table.replace_schema_metadata({"maskrcnn": json.dumps(facts)}), aside, compression="zstd", compression_level=19)


def find_results(folder: Path, pack: Pack, version: str) -> tuple[list[Listing], dict[str, Any]]:
    """Listings of a pack's stamps from the folder's own results, or else from those that come with the package.

    Raises
    ------
    NoWork
        If none holds these stamps.
    BadData
        See `saved_results`.
    """
    held = []
    for path in (folder / RESULTS, *shipped_results(version)):
        if path.exists():
            try:
                return saved_results(path, pack, version)
            except NoWork as fewer:
                held.append(f"{fewer.got} ({path.name})")
    raise NoWork(
        f"saved detections of these {len(pack)} stamps (--baseline train makes them)", ", ".join(held) or f"none in {folder} or the package"
    )


def saved_results(path: Path, pack: Pack, version: str) -> tuple[list[Listing], dict[str, Any]]:
    """Listings of a pack's stamps from one file, and the facts that were saved with them.

    Raises
    ------
    NoWork
        If the file has not all of these stamps.
    BadData
        If the file is no such table, or of another benchmark.
    """
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[b"maskrcnn"])
        names = [tuple(row.values()) for row in table.select(KEYS).to_pylist()]
        found, threshold = dict(zip(names, table["detections"].to_pylist(), strict=True)), float(facts["threshold"])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise BadData("saved detections of the baseline", repr(error), file=str(path)) from error
    if facts.get("benchmark") != version:
        raise BadData(f"detections on benchmark {version}", repr(facts.get("benchmark")), file=str(path))
    wanted = [tuple(row.values()) for row in pack.sources.select(KEYS).to_pylist()]
    present = sum(name in found for name in wanted)
    if present < len(wanted):
        raise NoWork(f"these {len(wanted)} stamps", f"{present} of them among {len(found)}", file=str(path))
    return [saved_listing(found[name], threshold, STAMP_SIZE) for name in wanted], facts
