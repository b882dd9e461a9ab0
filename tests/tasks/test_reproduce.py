"""A row computed again from what its provenance record names; a lost ledger made again from what lies on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from catalogs.hats import publish
from catalogs.ledger import Ledger
from catalogs.lineage import lineage
from catalogs.provenance import record, record_path, record_run
from catalogs.shard import read_shard, write_shard
from catalogs.verify import verify
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, InferSettings, Settings
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.spec import MockSummary
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import Unit
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tasks.reproduce import reproduce

RUN = "20260101T000000-abc"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, mock_release: MockSummary) -> RunContext:
    """A root with one brick that a run took from the release to a shard."""
    folder = shipped_folder()
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")), infer=InferSettings(batch=8))
    made = RunContext(tmp_path_factory.mktemp("root"), "main", RUN, settings, folder, model_hash(folder), code_version())
    unit, release = unit_of(mock_release), open_release(str(mock_release.release), "mock")
    with Ledger(made.layout.ledger) as ledger:
        for receipt in (fetch_unit(made, release, unit, Limiter(2)), cut_unit(made, unit), predict_unit(made, unit)):
            assert receipt.status == "done", receipt.reason
            ledger.record([receipt], RUN, "main")
    _, meta = read_shard(made.layout.shard(unit, "main"))
    record_run(made.layout, "main", RUN, [meta.provenance_id])
    asked = made.layout.run_folder(RUN) / "request.json"
    asked.parent.mkdir(parents=True)
    asked.write_text(json.dumps({"release": str(mock_release.release), "alias": "mock"}))
    publish(made.layout, "main")
    return made


def unit_of(mock_release: MockSummary) -> Unit:
    return Unit("mock", "south", mock_release.bricks[0])


@pytest.fixture
def unit(mock_release: MockSummary) -> Unit:
    return unit_of(mock_release)


@pytest.fixture
def source(context: RunContext, unit: Unit) -> int:
    return int(read_shard(context.layout.shard(unit, "main"))[0]["source_id"][3].as_py())


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """Paths that are not there while the block runs."""
    moved = [(path, path.with_name(f"{path.name}-away")) for path in paths]
    for path, other in moved:
        path.rename(other)
    try:
        yield
    finally:
        for path, other in moved:
            if path.exists():
                shutil.rmtree(path)
            other.rename(path)


def test_a_row_is_the_same_to_the_last_bit(context: RunContext, unit: Unit, source: int) -> None:
    layout = context.layout
    made = reproduce(layout, "main", source)
    assert (made.source, made.warnings, made.different) == ("kept stamps", [], [])
    columns = read_shard(layout.shard(unit, "main"))[0].column_names
    assert [item.column for item in made.compared] == [name for name in columns if name != "provenance_id"]
    assert all(item.difference == 0 for item in made.compared)
    with away(layout.stamps(unit, context.settings.cut.name)):
        cut_again = reproduce(layout, "main", source)
        assert (cut_again.source, cut_again.different) == ("kept files", [])


def test_a_row_of_which_nothing_was_kept_is_fetched_again(
    context: RunContext, unit: Unit, source: int, mock_release: MockSummary, tmp_path: Path
) -> None:
    layout = context.layout
    with away(layout.stamps(unit, context.settings.cut.name), layout.brick_folder(unit)):
        made = reproduce(layout, "main", source)
        assert (made.source, made.different) == (str(mock_release.release), [])
        assert not layout.brick_folder(unit).exists()
        changed = tmp_path / "mock"
        shutil.copytree(mock_release.release, changed, copy_function=os.link)
        file = f"legacysurvey-{unit.brick}-image-r.fits.fz"
        image = changed / f"south/coadd/{unit.brick[:3]}/{unit.brick}/{file}"
        old, content = sha256_file(image), image.read_bytes()
        image.unlink()
        image.write_bytes(content)
        with fits.open(image, mode="update", disable_image_compression=True) as hdus:
            hdus[0].header["RUNDATE"] = "2026-11-23"
        (listed,) = image.parent.glob("*.sha256sum")
        text = listed.read_text().replace(old, sha256_file(image))
        listed.unlink()
        listed.write_text(text)
        with pytest.raises(BadData, match=rf"{unit}: expected the files that the row was made from, got others at .*: {file}"):
            reproduce(layout, "main", source, str(changed))


def test_a_tampered_row_is_caught_by_column(context: RunContext, unit: Unit, source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.reproduce.code_version", lambda: "9.9.9+x")
    path = context.layout.shard(unit, "main")
    before = path.read_bytes()
    table, meta = read_shard(path)
    place = table.schema.get_field_index("lvm_mag_r")
    values = table["lvm_mag_r"].to_numpy().copy()
    values[table["source_id"].to_numpy() == source] += 0.5
    write_shard(path, table.set_column(place, table.schema.field(place), pa.array(values, pa.float32())), meta)
    try:
        made = reproduce(context.layout, "main", source)
        assert [item.column for item in made.different] == ["lvm_mag_r"]
        assert np.isclose(made.different[0].difference, 0.5, atol=1e-3)
        (warning,) = made.warnings
        assert warning.startswith(f"the row was made by galpipe {code_version()}, this is 9.9.9+x")
    finally:
        path.write_bytes(before)


def test_what_is_missing_is_named(context: RunContext, unit: Unit, source: int) -> None:
    layout, path = context.layout, context.layout.shard(unit, "main")
    before = path.read_bytes()
    table, meta = read_shard(path)
    inputs = lineage(layout, "main", source)["inputs"]
    other = record(layout, "main", {**inputs, "model": "0123456789abcdef"})
    write_shard(path, table, replace(meta, provenance_id=other))
    try:
        with pytest.raises(BadData, match=r"the model with hash 0123456789abcdef in the package or under .*models, got none"):
            reproduce(layout, "main", source)
        record_path(layout, "main", other).unlink()
        with pytest.raises(BadData, match=r"the record of provenance_id|a provenance id of catalog"):
            reproduce(layout, "main", source)
    finally:
        path.write_bytes(before)
        record_path(layout, "main", other).unlink(missing_ok=True)
    with pytest.raises(ConfigurationError, match="source_id of a row of catalog 'main', got 17"):
        reproduce(layout, "main", 17)


def test_where_a_row_comes_from(context: RunContext, unit: Unit, source: int) -> None:
    told = lineage(context.layout, "main", source)
    assert (told["source_id"], told["unit"], told["runs"]) == (source, str(unit), [RUN])
    assert told["published"] == [{"version": 1, "provenance_id": told["id"], "same": True}]
    assert told["model"]["hash"] == context.model_hash == told["inputs"]["model"]
    files = told["inputs"]["files"]
    folder = context.layout.brick_folder(unit)
    assert {name: sha256_file(folder / name) for name in files} == files
    by_record = lineage(context.layout, "main", told["id"])
    assert by_record == {key: value for key, value in told.items() if key in by_record}


def test_a_lost_ledger_comes_back_row_by_row(context: RunContext) -> None:
    layout, clock = context.layout, ("seconds", "run_id", "updated_at")
    with Ledger(layout.ledger) as ledger:
        before = ledger.table("main").drop_columns(list(clock)).to_pylist()
    for path in layout.root.glob("ledger.sqlite*"):
        path.unlink()
    with Ledger(layout.ledger) as ledger:
        assert ledger.rebuild(layout, "main") == 3
        assert ledger.table("main").drop_columns(list(clock)).to_pylist() == before
        assert verify(layout, "main", ledger) == []
