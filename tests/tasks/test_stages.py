"""The stages one after the other, as workers run them, without engine and cluster."""

from __future__ import annotations

import pytest

from galpipe.code_version import code_version
from galpipe.config import FetchSettings, Settings
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.spec import MockSummary
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import Unit
from tasks.catalog import predict_unit, record_without_rows
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    folder = shipped_folder()
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")))
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
