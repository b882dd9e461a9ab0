from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs import inventory, lookalikes
from catalogs.hats import INVENTORY, publish, version_folder
from catalogs.lookalikes import FACTS, OUTLIERS, embedding_batches, open_search, open_version
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, write_brick

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published catalog of 160 galaxies."""
    layout = Layout(tmp_path_factory.mktemp("lookalikes") / "root")
    # by seed, as bricks of one seed have the same embeddings
    for seed, unit in enumerate((*UNITS, FAR)):
        write_brick(layout, unit, 40, seed)
    publish(layout, "main")
    return layout.root


@pytest.fixture
def layout(whole: Path, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(whole, tmp_path / "root", symlinks=True))


def published(layout: Layout) -> dict[int, np.ndarray]:
    rows = {}
    for path in version_folder(layout, "main").glob("dataset/**/Npix=*.parquet"):
        for row in pq.read_table(path, columns=["source_id", "embedding"], partitioning=None).to_pylist():
            rows[row["source_id"]] = np.array(row["embedding"], np.float32)
    return rows


def test_every_embedding_is_read_once_in_bounded_batches(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalikes, "BATCH", 16)
    seen: dict[int, np.ndarray] = {}
    for table, vectors in embedding_batches(open_version(layout)):
        assert len(vectors) <= 16
        seen |= dict(zip(table["source_id"].to_pylist(), vectors, strict=True))
    wanted = published(layout)
    assert seen.keys() == wanted.keys()
    assert all((seen[key] == wanted[key]).all() for key in wanted)


def test_look_alikes_are_the_nearest_by_angle_and_know_their_place(layout: Layout) -> None:
    search = open_search(open_version(layout))
    rows = published(layout)
    chosen = sorted(rows)[5]
    center = search.space.mean
    unit = {key: (value - center) / np.linalg.norm(value - center) for key, value in rows.items()}
    order = sorted((1 - float(unit[key] @ unit[chosen]), key) for key in rows if key != chosen)
    table = search.like(search.embedding_of(chosen), 8, without=chosen)
    # few vectors lie in few lists, all of which are looked into; half precision may swap neighbours that are equally far
    assert len(set(table["source_id"].to_pylist()) & {key for _, key in order[:9]}) == 8
    assert table["distance"].to_pylist() == pytest.approx([far for far, _ in order[:8]], abs=2e-3)
    table = search.like(search.embedding_of(chosen), 8, exact=True, without=chosen)
    assert table["source_id"].to_pylist() == [key for _, key in order[:8]]
    assert table["distance"].to_pylist() == pytest.approx([far for far, _ in order[:8]], abs=1e-5)
    with pytest.raises(ConfigurationError, match="a row 12 with an embedding"):
        search.embedding_of(12)
    first = table.slice(0, 1).to_pylist()[0]
    source = next(
        row
        for path in version_folder(layout, "main").glob("dataset/**/Npix=*.parquet")
        for row in pq.read_table(path, columns=["source_id", "ra", "dec", "brickname"], partitioning=None).to_pylist()
        if row["source_id"] == first["source_id"]
    )
    assert (first["ra"], first["dec"], first["brickname"]) == (source["ra"], source["dec"], source["brickname"])


def test_every_row_has_an_outlier_score_and_the_first_are_the_farthest(layout: Layout) -> None:
    search = open_search(open_version(layout))
    table = pq.read_table(search.folder / OUTLIERS, partitioning=None)
    assert sorted(table["source_id"].to_pylist()) == sorted(published(layout))
    assert table["outlier_percentile"].to_numpy().max() == 1
    first = search.outliers(5)
    assert first["outlier_score"].to_pylist() == sorted(table["outlier_score"].to_pylist(), reverse=True)[:5]


def test_an_index_is_made_once_and_again_for_another_version(layout: Layout) -> None:
    search = open_search(open_version(layout))
    made = (search.folder / FACTS).stat().st_mtime_ns
    assert (open_search(open_version(layout)).folder / FACTS).stat().st_mtime_ns == made
    write_brick(layout, FAR, 41, seed=15)
    publish(layout, "main")
    newer = open_search(open_version(layout))
    assert newer.folder != search.folder
    assert newer.rows == 161
    # a folder that was left by something else is not trusted
    facts = json.loads((newer.folder / FACTS).read_text())
    (newer.folder / FACTS).write_text(json.dumps(facts | {"model": "other"}))
    assert json.loads((open_search(open_version(layout)).folder / FACTS).read_text())["model"] == "mini"


def test_a_version_of_two_models_is_refused(layout: Layout) -> None:
    path = version_folder(layout, "main") / INVENTORY
    stock = inventory.load(path)
    mixed = replace(stock, shards=(replace(stock.shards[0], model="other"), *stock.shards[1:]))
    inventory.save(mixed, path)
    with pytest.raises(ConfigurationError, match=r"embeddings of one model, got models \['mini', 'other'\]"):
        open_version(layout)


def test_embeddings_that_are_not_numbers_are_named(layout: Layout) -> None:
    path = open_version(layout).files[0]
    table = pq.read_table(path, partitioning=None)
    values = table["embedding"].to_pylist()
    values[0] = [float("nan")] * len(values[0])
    column = pa.array([np.array(value, np.float16) for value in values], pa.list_(pa.float16()))
    place = table.column_names.index("embedding")
    # a version's files may be links to those of others: another file, not other content
    path.unlink()
    pq.write_table(table.set_column(place, table.schema.field(place), column.cast(table.schema.field(place).type)), path)
    with pytest.raises(BadData, match="finite embeddings") as error:
        open_search(open_version(layout))
    assert error.value.file == str(path)


def test_an_end_while_the_index_is_written_leaves_none_and_the_next_makes_it(layout: Layout) -> None:
    command = (
        "from galpipe.layout import Layout; from catalogs.lookalikes import *; open_search(open_version(Layout(__import__('sys').argv[1])))"
    )
    environment = os.environ | {"GALPIPE_FAULT": "folder.written", "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", command, str(layout.root)], env=environment, cwd=ROOT, start_new_session=True, check=False
    )
    assert killed.returncode != 0
    assert not layout.search("main", 1).exists()
    assert open_search(open_version(layout)).rows == 160
