"""A model that answers one task of a user, and nothing else, goes through the stages like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from galpipe.code_version import code_version
from galpipe.config import FetchSettings, InferSettings, Settings
from galpipe.lvm.encoder import LabelTask
from galpipe.lvm.model import new_model
from galpipe.lvm.weights import model_hash, save_model
from galpipe.mock.spec import MockSummary
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import Unit
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tests.lvm.toy import TINY


def test_a_model_of_one_task_fills_its_columns(tmp_path: Path, mock_release: MockSummary) -> None:
    folder = tmp_path / "model"
    task = replace(TINY, heads=(), tasks=(LabelTask("ring", ("no", "yes")),))
    save_model(folder, new_model(task, 1), {"name": "ring", "version": "1"}, "")
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")), infer=InferSettings(batch=8))
    context = RunContext(tmp_path / "root", "main", "run", settings, folder, model_hash(folder), code_version())
    brick = Unit("mock", "south", mock_release.bricks[0])
    release = open_release(str(mock_release.release), "mock")
    receipts = [fetch_unit(context, release, brick, Limiter(2)), cut_unit(context, brick), predict_unit(context, brick)]
    assert [receipt.status for receipt in receipts] == ["done"] * 3, [receipt.reason for receipt in receipts]
    rows = pq.read_table(context.layout.shard(brick, "main"))
    assert rows["ring_yes_probability"].null_count == 0 and receipts[-1].counts["detections"] == 0
    assert "n_detections" not in rows.column_names
    assert rows.schema.field("ring_yes_probability").metadata[b"learned"] == b"user labels"
