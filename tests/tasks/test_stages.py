"""The stages one after the other, as workers run them, without engine and cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest

from galpipe.code_version import code_version
from galpipe.config import FetchSettings, InferSettings, Settings
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.spec import MockSummary
from galpipe.stamps.store import Store
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import Unit
from tasks.catalog import predict_unit, record_without_rows
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tests.flows.command import REPOSITORY


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    folder = shipped_folder()
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")), infer=InferSettings(batch=8))
    return RunContext(tmp_path_factory.mktemp("root"), "main", "run", settings, folder, model_hash(folder), code_version())


@pytest.fixture(scope="module")
def unit(context: RunContext, mock_release: MockSummary) -> Unit:
    """A brick that was fetched, cut and predicted."""
    brick = Unit("mock", "south", mock_release.bricks[0])
    release = open_release(str(mock_release.release), "mock")
    for receipt in (fetch_unit(context, release, brick, Limiter(2)), cut_unit(context, brick), predict_unit(context, brick)):
        assert receipt.status == "done", receipt.reason
    return brick


def test_receipts_tell_what_lies_on_disk(context: RunContext, unit: Unit) -> None:
    again = predict_unit(context, unit)
    assert (context.root / again.path).exists()
    assert again.counts["sources"] == again.counts["predicted"] + again.counts["filtered"] + again.counts["failed"]
    assert again.rows == again.counts["predicted"] > 0


def test_how_many_stamps_are_held_does_not_show(context: RunContext, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowded brick is read in parts: the rows are the same to the last bit."""
    shard = context.layout.shard(unit, "main")
    whole = shard.read_bytes()
    assert len(Store(context.layout.stamps(unit, context.settings.cut.name)).sources()) > context.settings.infer.batch
    monkeypatch.setattr("tasks.catalog.HELD", 1)
    assert predict_unit(context, unit).status == "done"
    assert shard.read_bytes() == whole


def test_a_damaged_store_is_cut_again_by_the_next_run(context: RunContext, unit: Unit) -> None:
    shard, store = context.layout.shard(unit, "main"), context.layout.stamps(unit, context.settings.cut.name)
    before = shard.read_bytes()
    chunk = max((path for path in (store / "image").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    chunk.write_bytes(bytes(damaged))
    broken = predict_unit(context, unit)
    assert broken.status == "bad_data"
    assert unit.brick in broken.reason
    assert not store.exists()
    record_without_rows(context, broken)
    assert shard.read_bytes() == before
    assert cut_unit(context, unit).status == "done"
    assert predict_unit(context, unit).status == "done"
    assert shard.read_bytes() == before


def test_a_failure_leaves_outcomes_that_name_it(context: RunContext) -> None:
    nowhere = Unit("mock", "south", "0001m002")
    receipt = cut_unit(context, nowhere)
    assert receipt.status == "error"
    record_without_rows(context, receipt)
    assert context.layout.outcomes(nowhere, "main").exists()


LIMITED = """
import json, resource, signal, sys
from pathlib import Path
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, Settings
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.unit import Unit
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit

root, unit, most = Path(sys.argv[1]), Unit.parse(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")))
context = RunContext(root, "main", "run", settings, shipped_folder(), model_hash(shipped_folder()), code_version(), force=True)
stage = {"cut": cut_unit, "catalog": predict_unit}[sys.argv[4]]
print(stage(context, unit).status)
"""


@pytest.mark.parametrize(("stage", "most"), [("cut", 200_000), ("catalog", 20_000)])
def test_a_disk_that_takes_no_more_leaves_the_earlier_product(context: RunContext, unit: Unit, stage: str, most: int) -> None:
    """Files may not grow beyond ``most`` bytes, as on a disk that fills up while a product is written."""
    layout, cut = context.layout, context.settings.cut.name
    product = layout.stamps(unit, cut) if stage == "cut" else layout.shard(unit, "main")

    def content() -> list[bytes]:
        files = [product] if product.is_file() else sorted(path for path in product.rglob("*") if path.is_file())
        return [path.read_bytes() for path in files]

    before = content()
    command = [sys.executable, "-c", LIMITED, str(context.root), str(unit), str(most), stage]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "resource", done.stderr
    assert content() == before
    assert not list(product.parent.glob(".aside-*"))
