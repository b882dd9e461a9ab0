import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog
from hats.loaders import read_hats

from catalogs import inventory, partitions
from catalogs.hats import CURRENT, INVENTORY, completeness, publish, version_folder, versions
from catalogs.join import Origin, build_shard
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from catalogs.shard import ShardMeta, read_shard, write_shard
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, HEADS, UNITS, make_predictions, make_sources, write_brick

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three neighbouring bricks and a distant one, 25 galaxies each."""
    layout = Layout(tmp_path / "root")
    for unit in (*UNITS, FAR):
        write_brick(layout, unit, 25)
    return layout


def published_ids(layout: Layout) -> list[int]:
    files = sorted(version_folder(layout, "main").glob("dataset/**/Npix=*.parquet"))
    tables = [pq.read_table(path, columns=["source_id"], partitioning=None) for path in files]
    return sorted(value for table in tables for value in table["source_id"].to_pylist())


def shard_ids(layout: Layout) -> list[int]:
    files = [path for path in layout.catalog("main").glob("*/*/*/*.parquet") if "outcomes" not in path.name]
    return sorted(
        value for path in files for value in pq.read_table(path, columns=["source_id"], partitioning=None)["source_id"].to_pylist()
    )


def test_first_version_holds_every_row_and_hats_finds_it_valid(layout: Layout) -> None:
    result = publish(layout, "main")
    assert (result.status, result.version, result.rows, result.partitions_linked) == ("published", 1, 100, 0)
    assert published_ids(layout) == shard_ids(layout)
    assert is_valid_catalog(layout.hats("main") / CURRENT, strict=True)
    catalog = read_hats(layout.hats("main") / CURRENT)
    assert catalog.main_catalog.catalog_info.total_rows == 100
    assert catalog.main_catalog.moc.sky_fraction > 0


def test_models_and_settings_are_never_mixed(layout: Layout) -> None:
    publish(layout, "main")
    table, meta = read_shard(layout.shard(FAR, "main"))
    write_shard(layout.shard(FAR, "main"), table, replace(meta, model="other"))
    with pytest.raises(ConfigurationError, match=r"one model and configuration in catalog 'main', got 3 of model mini, 1 of model other"):
        publish(layout, "main")
    for number, unit in enumerate((*UNITS, FAR)):
        table, meta = read_shard(layout.shard(unit, "main"))
        write_shard(layout.shard(unit, "main"), table, replace(meta, model="mini", binding=f"settings-{number // 2}"))
    with pytest.raises(ConfigurationError, match=r"got 2 of settings settings-0, 2 of settings settings-1"):
        publish(layout, "main")
    assert versions(layout, "main") == [1]


def test_an_inventory_of_an_older_form_is_read_again_from_the_footers(layout: Layout) -> None:
    publish(layout, "main")
    folder = version_folder(layout, "main")
    table = pq.read_table(folder / INVENTORY, partitioning=None)
    shutil.rmtree(folder / INVENTORY)
    for dropped in (["provenance_id"], ["provenance_id", "model", "binding"]):
        # the one file that an inventory was
        pq.write_table(table.drop_columns(dropped), folder / "inventory.parquet")
        assert publish(layout, "main").status == "unchanged"
    assert not inventory.load(folder / INVENTORY).shards


def test_rows_lie_in_their_pixel_sorted_by_position(layout: Layout) -> None:
    publish(layout, "main")
    for path in version_folder(layout, "main").glob("dataset/**/Npix=*.parquet"):
        index = pq.read_table(path, columns=["_healpix_29"], partitioning=None)["_healpix_29"].to_numpy()
        assert set(index >> 48) == {int(path.stem.removeprefix("Npix="))}
        assert (np.diff(index) >= 0).all()


def test_unchanged_shards_make_no_new_version(layout: Layout) -> None:
    publish(layout, "main")
    again = publish(layout, "main")
    assert (again.status, again.version, again.rows) == ("unchanged", 1, 100)
    # the same rows written again have another time but the same content
    write_brick(layout, FAR, 25)
    assert publish(layout, "main").status == "unchanged"
    assert versions(layout, "main") == [1]


def test_only_partitions_of_changed_shards_are_written_again(layout: Layout) -> None:
    publish(layout, "main")
    write_brick(layout, FAR, 30, seed=1)
    result = publish(layout, "main")
    assert (result.version, result.rows, result.partitions_written) == (2, 105, 1)
    assert published_ids(layout) == shard_ids(layout)
    pixel = next(iter(version_folder(layout, "main", 1).glob("dataset/**/Npix=4351.parquet")))
    other = version_folder(layout, "main", 2) / pixel.relative_to(version_folder(layout, "main", 1))
    assert pixel.samefile(other)
    # the old version is still whole
    assert is_valid_catalog(version_folder(layout, "main", 1), strict=True)


def test_a_shard_that_is_gone_leaves_the_next_version(layout: Layout) -> None:
    publish(layout, "main")
    layout.shard(FAR, "main").unlink()
    result = publish(layout, "main")
    assert (result.version, result.rows, result.partitions_written) == (2, 75, 0)
    assert published_ids(layout) == shard_ids(layout)


def test_lsdb_opens_it_searches_it_and_reads_nested_columns(layout: Layout) -> None:
    publish(layout, "main")
    catalog = lsdb.open_catalog(layout.hats("main") / CURRENT)
    ra, dec = 0.1, -0.2
    near = catalog.cone_search(ra, dec, 500).compute()
    shards = pa.concat_tables([pq.read_table(layout.shard(unit, "main"), partitioning=None) for unit in UNITS])
    x, y = shards["ra"].to_numpy(), shards["dec"].to_numpy()
    apart = np.degrees(
        np.arccos(
            np.sin(np.radians(y)) * np.sin(np.radians(dec)) + np.cos(np.radians(y)) * np.cos(np.radians(dec)) * np.cos(np.radians(x - ra))
        )
    )
    expected = set(shards["source_id"].to_numpy()[apart * 3600 < 500])
    assert expected
    assert set(near["source_id"]) == expected
    assert set(near["detections.is_primary_detection"].unique()) <= {True, False}
    assert len(near["embedding"].iloc[0]) == 8
    few = lsdb.open_catalog(layout.hats("main") / CURRENT, columns=["source_id", "detections.score"]).compute()
    assert len(few) == 100


def test_rows_without_position_are_counted_not_published(layout: Layout) -> None:
    sources = make_sources(UNITS[0], 10)
    index = sources.schema.get_field_index("ra")
    sources = sources.set_column(index, "ra", pa.array([None, float("nan"), *sources["ra"].to_pylist()[2:]], pa.float64()))
    write_shard(
        layout.shard(UNITS[0], "main"), build_shard(sources, make_predictions(sources), HEADS, Origin(UNITS[0], 1)), ShardMeta(UNITS[0])
    )
    result = publish(layout, "main")
    assert (result.rows, result.rows_without_position) == (83, 2)
    assert completeness(version_folder(layout, "main"))["dr9/south"]["rows_without_position"] == 2


def test_outcome_totals_come_with_the_version(layout: Layout) -> None:
    bad = UNITS[0].__class__("dr9", "north", "1803p400")
    write_outcomes(layout.outcomes(bad, "main"), empty(), OutcomesMeta(bad, "bad_data", "image-g", "cut off"))
    publish(layout, "main")
    totals = completeness(version_folder(layout, "main"))
    assert totals["dr9/north"] | {"bricks": 2, "bricks:done": 1, "bricks:bad_data": 1, "rows": 25, "sources": 28} == totals["dr9/north"]
    assert totals["dr9/south"]["sources:filtered:faint"] == 9


def test_empty_catalog_and_no_catalog(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert publish(layout, "main").status == "nothing"
    with pytest.raises(ConfigurationError, match=r"a published version of catalog 'main', got versions \[\]"):
        version_folder(layout, "main")
    write_brick(layout, UNITS[0], 0)
    result = publish(layout, "main")
    assert (result.status, result.version, result.rows) == ("published", 1, 0)
    assert is_valid_catalog(layout.hats("main") / CURRENT, strict=True)
    assert len(lsdb.open_catalog(layout.hats("main") / CURRENT).compute()) == 0
    write_brick(layout, UNITS[0], 5)
    assert publish(layout, "main").rows == 5


def test_shards_of_two_schemas_are_refused_by_name(layout: Layout) -> None:
    publish(layout, "main")
    fewer = make_sources(FAR, 5)
    shard = build_shard(
        fewer, make_predictions(fewer).drop_columns(["z_mock"]), [column for column in HEADS if column.name != "z_mock"], Origin(FAR, 1)
    )
    write_shard(layout.shard(UNITS[2], "main"), shard, ShardMeta(UNITS[2]))
    with pytest.raises(BadData, match=r"0001p000\.parquet: expected the columns of .*z_mock"):
        publish(layout, "main")
    assert version_folder(layout, "main").name == "v1"


def test_a_damaged_shard_stops_publishing_and_is_named(layout: Layout) -> None:
    path = layout.shard(UNITS[1], "main")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadData, match=r"0003m002\.parquet"):
        publish(layout, "main")
    assert versions(layout, "main") == []
    assert not list(layout.hats("main").glob(".aside-*"))


def test_a_shard_replaced_while_publishing_starts_it_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = partitions._rows_of, []

    def meddle(*arguments: object) -> pa.Table:
        if not calls:
            write_brick(layout, FAR, 40, seed=3)
        calls.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(partitions, "_rows_of", meddle)
    assert publish(layout, "main").rows == 115
    assert published_ids(layout) == shard_ids(layout)


PUBLISH = """
import sys
from pathlib import Path
from catalogs.hats import publish
from galpipe.layout import Layout
print(publish(Layout(Path(sys.argv[1])), "main").status)
"""


def publisher(layout: Layout, fault: str = "", log: Path | None = None) -> subprocess.Popen[str]:
    environment = os.environ | {"GALPIPE_FAULT": fault} | ({"GALPIPE_FAULT_DIR": str(log)} if log else {})
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH, str(layout.root)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("fault", ["publish.partition:2", "publish.partition:6", "publish.metadata", "folder.renamed", "publish.pointer"])
def test_a_killed_publisher_harms_nothing(layout: Layout, tmp_path: Path, fault: str) -> None:
    publish(layout, "main")
    before = published_ids(layout)
    write_brick(layout, UNITS[0], 30, seed=5)
    (tmp_path / "log").mkdir()
    killed = publisher(layout, fault, tmp_path / "log")
    assert killed.wait(60) == -9
    assert published_ids(layout) == before
    assert version_folder(layout, "main").name == "v1"
    result = publish(layout, "main")
    assert (result.status, result.version, result.rows) == ("published", 2, 105)
    assert published_ids(layout) == shard_ids(layout)
    assert not list(layout.hats("main").glob(".aside-*"))
    assert publish(layout, "main").status == "unchanged"


def test_two_publishers_take_turns_and_readers_see_whole_versions_only(layout: Layout) -> None:
    publish(layout, "main")
    write_brick(layout, FAR, 50, seed=9)
    both, seen = [publisher(layout), publisher(layout)], set()
    while any(process.poll() is None for process in both):
        seen.add(len(published_ids(layout)))
        time.sleep(0.02)
    said = sorted(process.communicate()[0].strip() for process in both)
    assert said == ["published", "unchanged"]
    assert versions(layout, "main") == [1, 2]
    assert seen | {len(published_ids(layout))} == {100, 125}


def test_versions_are_reproducible(tmp_path: Path) -> None:
    rows = []
    for folder in ("a", "b"):
        layout = Layout(tmp_path / folder)
        # written in another order
        for unit in (*UNITS, FAR) if folder == "a" else (FAR, *UNITS):
            write_brick(layout, unit, 20)
        publish(layout, "main")
        files = sorted(version_folder(layout, "main").glob("dataset/**/Npix=*.parquet"))
        rows.append([(path.name, path.read_bytes()) for path in files])
    assert rows[0] == rows[1]
