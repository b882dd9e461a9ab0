from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from catalogs.hats import publish
from flows.__main__ import cli
from galpipe.layout import Layout
from tests.catalogs.sky import UNITS, write_brick


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = Layout(tmp_path_factory.mktemp("unusual") / "root")
    for seed, unit in enumerate(UNITS):
        write_brick(layout, unit, 20, seed)
    publish(layout, "main")
    return layout.root


def call(*words: str) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(cli, [*words, "--json"])
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def test_outliers_and_their_look_alikes(root: Path, tmp_path: Path) -> None:
    code, first = call("outliers", "--root", str(root), "--n", "5", "--out", str(tmp_path / "o.parquet"))
    assert code == 0
    rows = first["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 5
    assert rows[0]["outlier_percentile"] == 1
    assert pq.read_table(tmp_path / "o.parquet")["source_id"].to_pylist() == [int(row["source_id"]) for row in rows]
    code, found = call("similar", rows[0]["source_id"], "--root", str(root), "--n", "3", "--exact")
    assert code == 0
    listed = found["rows"]
    assert isinstance(listed, list)
    assert rows[0]["source_id"] not in [row["source_id"] for row in listed]
    far = [row["distance"] for row in listed]
    assert far == sorted(far)
    assert {"ra", "dec", "brickname"} < set(listed[0])


def test_wrong_requests_say_what_is_wrong(root: Path, tmp_path: Path) -> None:
    code, said = call("similar", "12", "--root", str(root))
    assert code == 2
    assert "a row 12 with an embedding" in str(said["failures"])
    code, said = call("similar", str(tmp_path / "none.fits"), "--root", str(root))
    assert "a source_id or a file with a stamp" in str(said["failures"])
    # the catalog's stamps are not kept
    identifier = str(call("outliers", "--root", str(root), "--n", "1")[1]["rows"][0]["source_id"])  # type: ignore[index]
    code, said = call("similar", identifier, "--root", str(root), "--pictures", str(tmp_path / "p.png"))
    assert code == 1
    assert "none is kept" in str(said["failures"])
    # a model that is not here made the catalog
    (tmp_path / "stamp.fits").write_bytes(b"")
    code, said = call("similar", str(tmp_path / "stamp.fits"), "--root", str(root))
    assert "embeddings of two models cannot be compared" in str(said["failures"])
