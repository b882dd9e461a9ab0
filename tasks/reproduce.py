"""Compute one row again from what its provenance record names, and compare it with the stored one. Nothing under the root changes."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from catalogs.lineage import Row, locate, model_of
from catalogs.provenance import describe
from catalogs.reproduce import Compared, compare
from catalogs.schema import tolerances
from catalogs.shard import read_shard
from galpipe.code_version import code_version
from galpipe.config import IDS, PRODUCTS, CutSettings, FetchSettings, InferSettings, SelectionSettings, Settings
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from galpipe.stamps.store import store_fingerprint
from galpipe.survey.files import BrickFiles, load_brick_files
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import STAMPS, Receipt
from tasks.catalog import declared_columns, predict_unit, predictor
from tasks.chain import chain, files_fingerprint
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit

REPRODUCED = "reproduced"
"""Name of the catalog in the folder of its own."""

_COADD = re.compile(rf"legacysurvey-.+-({'|'.join(PRODUCTS)})-(\w+)\.fits\.fz")


@dataclass(frozen=True)
class Reproduction:
    """A row, computed again.

    Parameters
    ----------
    row : Row
        As stored.
    source : str
        What it was made from this time: ``kept stamps``, ``kept files`` or where the release lies.
    compared : list of Compared
        Every column.
    warnings : list of str
        What may explain a difference.
    """

    row: Row
    source: str
    compared: list[Compared]
    warnings: list[str] = field(default_factory=list)

    @property
    def different(self) -> list[Compared]:
        """Columns beyond their tolerance."""
        return [item for item in self.compared if not item.same]


def reproduce(layout: Layout, name: str, source_id: int, release: str = "") -> Reproduction:
    """Compute the row of a source again.

    The whole brick is computed, as its batches were: on one kind of machine the row is then the same to the last bit.

    Parameters
    ----------
    layout : Layout
    name : str
        The catalog's name.
    source_id : int
    release : str, optional
        Where the release lies, if its files were not kept; by default where the runs that made the row read it.

    Raises
    ------
    ConfigurationError
        If the catalog has no such row.
    BadData
        If something that the row was made from is gone: the model, the files (here and at the source), the list of a selection.
    RemoteFailure
        If the release does not answer.
    """
    row = locate(layout, name, source_id)
    try:
        told = describe(layout, name, row.meta.provenance_id)
    except ConfigurationError as error:
        raise BadData(error.expected, error.got, unit=str(row.unit), file=str(row.shard)) from error
    inputs = told["inputs"]
    warnings = []
    if inputs["code"] != code_version():
        warnings.append(f"the row was made by galpipe {inputs['code']}, this is {code_version()}: differences may be the code's")
    with tempfile.TemporaryDirectory(prefix="galpipe-reproduce-") as place:
        context = _context(layout, row, inputs, Path(place))
        source = _bring_inputs(layout, context, row, inputs, release or _release_of(layout, told["runs"], row.unit.release))
        _expect_done(predict_unit(context, row.unit))
        again, _ = read_shard(context.layout.shard(row.unit, REPRODUCED))
        found = again.filter(pc.equal(again["source_id"], source_id))
        allowed = tolerances(declared_columns(predictor(context)))
    if not found.num_rows:
        raise BadData(f"source {source_id} among the rows computed again", "none", unit=str(row.unit), file=str(row.shard))
    return Reproduction(row, source, compare(row.table, found, allowed), warnings)


def _context(layout: Layout, row: Row, inputs: Mapping[str, Any], place: Path) -> RunContext:
    """A run in a folder of its own, with the recorded settings and model."""
    model = model_of(layout, inputs["model"])
    if model is None:
        raise BadData(f"the model with hash {inputs['model']} in the package or under {layout.models}", "none", unit=str(row.unit))
    selection = dict(inputs["selection"])
    if selection.pop("ids_sha256", None):
        # the list itself is not recorded: what it selected is
        ids = place / "ids.txt"
        table, _ = read_shard(row.shard)
        ids.write_text("\n".join(map(str, table["source_id"].to_pylist())) + "\n")
        selection["name"] = f"{IDS}{ids}"
    cut: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in inputs["cut"].items()}
    coadds = [match for file in (*inputs["files"], *inputs["absent"]) if (match := _COADD.fullmatch(file))]
    products, bands = (tuple(dict.fromkeys(match[group] for match in coadds)) for group in (1, 2))
    fetch = FetchSettings(products=products, bands=bands) if coadds else FetchSettings()
    settings = Settings(fetch, CutSettings(**cut), SelectionSettings(**selection), InferSettings(**inputs["infer"]))
    return RunContext(place, REPRODUCED, "reproduce", settings, model.folder, inputs["model"], inputs["code"])


def _bring_inputs(layout: Layout, context: RunContext, row: Row, inputs: Mapping[str, Any], release: str) -> str:
    """Stamps in the run's folder: those that were kept, or cut again from files that were kept or are fetched again."""
    unit, cut = row.unit, context.settings.cut.name
    wanted = chain(files_fingerprint(inputs["files"], inputs["absent"]), context).cut
    kept = layout.stamps(unit, cut)
    if kept.exists() and store_fingerprint(kept) == wanted:
        _link(kept, context.layout.stamps(unit, cut))
        return "kept stamps"
    if unit.release == STAMPS:
        raise BadData("the kept stamps that the row was made from", "none", unit=str(unit), file=str(kept))
    files = load_brick_files(layout.brick_folder(unit), unit)
    if files is not None and not _changed(files, inputs):
        _link(layout.brick_folder(unit), context.layout.brick_folder(unit))
        source = "kept files"
    else:
        source = _fetch(context, row, inputs, release)
    _expect_done(cut_unit(context, unit))
    return source


def _fetch(context: RunContext, row: Row, inputs: Mapping[str, Any], release: str) -> str:
    unit = row.unit
    if not release:
        raise BadData("the files that the row was made from, or where its release lies (--release)", "neither", unit=str(unit))
    _expect_done(fetch_unit(context, open_release(release, unit.release, context.settings.fetch), unit, Limiter(4)))
    files = load_brick_files(context.layout.brick_folder(unit), unit)
    if files is None or (changed := _changed(files, inputs)):
        listed = ", ".join(changed[:5]) if files else "none"
        raise BadData("the files that the row was made from", f"others at {release}: {listed}", unit=str(unit))
    return release


def _changed(files: BrickFiles, inputs: Mapping[str, Any]) -> list[str]:
    """Names of the files that are not those a row was made from."""
    now, then = files.checksums | dict.fromkeys(files.absent, "absent"), inputs["files"] | dict.fromkeys(inputs["absent"], "absent")
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def _release_of(layout: Layout, runs: list[str], name: str) -> str:
    """Where the newest run that made the row read the release, by its request; empty where none says."""
    for run in reversed(runs):
        try:
            asked = json.loads((layout.run_folder(run) / "request.json").read_text())
        except (OSError, ValueError):
            continue
        if "release" in asked:
            return str(asked["release"])
    return name if name in ("dr8", "dr9", "dr10", "dr11") else ""


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.absolute(), target_is_directory=True)


def _expect_done(receipt: Receipt) -> None:
    if receipt.status != "done":
        raise BadData(f"the {receipt.stage} of the brick to end well", receipt.reason, unit=str(receipt.unit), file=receipt.file)
