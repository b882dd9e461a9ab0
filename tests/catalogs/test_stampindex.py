"""The index of stamps that a version has: which store and row each published galaxy was predicted from."""

from dataclasses import asdict
from pathlib import Path

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog
from hats.loaders import read_hats

from catalogs.hats import CURRENT, publish, version_folder
from catalogs.join import Origin, build_shard
from catalogs.outcomes import OutcomesMeta, write_outcomes
from catalogs.provenance import record
from catalogs.shard import ShardMeta, write_shard
from catalogs.stampindex import INDEX, find_stamps, read_stamp
from galpipe.commit import remove_folder
from galpipe.config import CutSettings, SelectionSettings
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import files_fingerprint, fingerprint
from galpipe.layout import Layout
from galpipe.stamps.result import CutResult
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import write_store
from galpipe.unit import Unit
from tests.catalogs.sky import FAR, HEADS, UNITS, make_outcomes, make_predictions, make_sources

CUT, SELECTION = CutSettings(), SelectionSettings()


def write_brick(layout: Layout, unit: Unit, rows: int, files: str = "a", kept: bool = True) -> list[int]:
    """A brick whose provenance record and stamp store belong together; its ids, in the store's order."""
    inputs = {"unit": str(unit), "files": {"tractor": files * 64}, "absent": [], "cut": asdict(CUT)}
    identifier = record(layout, "main", inputs | {"selection": SELECTION.identity()})
    # values must not depend on the number of rows: the brick's first galaxies stay what they are
    sources = make_sources(unit, 20).slice(0, rows)
    shard = build_shard(sources, make_predictions(sources), HEADS, Origin(unit, identifier))
    outcomes = make_outcomes(unit, shard)
    counts = write_outcomes(layout.outcomes(unit, "main"), outcomes, OutcomesMeta(unit, fingerprint=files))
    write_shard(layout.shard(unit, "main"), shard, ShardMeta(unit, files, identifier, "mini", {"predicted": counts["predicted"]}))
    # not the order of the shard, nor only its galaxies
    ids = [*reversed(shard["source_id"].to_pylist()), 77]
    if kept:
        write_store(layout.stamps(unit, CUT.name), CutResult(stamps_of(ids), outcomes), fingerprint_of(files))
    return ids


def fingerprint_of(files: str) -> str:
    return fingerprint(
        "cut", {"cut": asdict(CUT), "selection": SELECTION.identity(), "fetch": files_fingerprint({"tractor": files * 64}, [])}
    )


def stamps_of(ids: list[int]) -> StampSet:
    """Stamps of one number each: the last digits of their id."""
    values = np.array([value % 1000 for value in ids], np.int16)
    image = np.broadcast_to(values[:, None, None, None], (len(ids), 3, 8, 8)).copy()
    other = np.zeros(image.shape, np.uint8)
    return StampSet(image, other, other[:, 0], pa.table({"source_id": pa.array(ids, pa.int64())}), ("g", "r", "z"), 0.262, (0.1, 0.1, 0.1))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "root")
    for unit in (*UNITS, FAR):
        write_brick(layout, unit, 12, kept=unit != UNITS[1])
    return layout


def test_every_published_galaxy_with_a_kept_stamp_is_found_and_read(layout: Layout) -> None:
    result = publish(layout, "main")
    assert result.stamps == {"kept": 36, "absent": 12}
    folder = version_folder(layout, "main")
    assert is_valid_catalog(folder / "stamps", strict=True)
    ids = pq.read_table(layout.shard(FAR, "main"), partitioning=None)["source_id"].to_pylist()
    found = find_stamps(folder, ids)
    assert found.schema.equals(INDEX, check_metadata=False)
    assert sorted(found["source_id"].to_pylist()) == ids
    assert set(found["store"].to_pylist()) == {layout.relative(layout.stamps(FAR, CUT.name))}
    for source in ids[:3]:
        stamp = read_stamp(layout, folder, source)
        assert len(stamp) == 1 and stamp.sources["source_id"].to_pylist() == [source]
        assert (stamp.image == source % 1000).all()


def test_lsdb_joins_galaxies_with_their_stamps(layout: Layout) -> None:
    publish(layout, "main")
    collection = read_hats(layout.hats("main") / CURRENT)
    assert collection.all_extensions == {"stamps": "stamps.properties"}
    catalog = lsdb.open_catalog(layout.hats("main") / CURRENT, columns=["source_id", "ra", "dec"])
    joined = catalog.load_extension("stamps", columns=["store", "row"]).compute()
    assert len(joined) == 48
    there = joined.dropna(subset="store")
    assert len(there) == 36
    for source, store, row in there[["source_id", "store", "row"]].itertuples(index=False):
        assert pq.read_table(layout.root / store / "sources.parquet", partitioning=None)["source_id"][int(row)].as_py() == source


def test_what_was_not_kept_or_was_cut_again_is_said(layout: Layout) -> None:
    publish(layout, "main")
    folder = version_folder(layout, "main")
    absent = pq.read_table(layout.shard(UNITS[1], "main"), partitioning=None)["source_id"][0].as_py()
    with pytest.raises(ConfigurationError, match=rf"a stamp of source {absent} kept with v1, got none"):
        read_stamp(layout, folder, absent)
    source = pq.read_table(layout.shard(FAR, "main"), partitioning=None)["source_id"][0].as_py()
    store = layout.stamps(FAR, CUT.name)
    write_store(store, CutResult(stamps_of([5]), pq.read_table(layout.outcomes(FAR, "main"), partitioning=None)), "f" * 32)
    with pytest.raises(BadData, match="the store that was published"):
        read_stamp(layout, folder, source)
    remove_folder(store)
    with pytest.raises(BadData, match="got no store"):
        read_stamp(layout, folder, source)


def test_the_index_is_linked_where_shards_and_stores_are_the_same(layout: Layout) -> None:
    publish(layout, "main")
    one = {path.name: path.stat().st_ino for path in (version_folder(layout, "main") / "stamps").rglob("Npix=*.parquet")}
    write_brick(layout, FAR, 13, files="b")
    # the store of another brick belongs to other files now: its galaxies were not predicted from it
    write_store(
        layout.stamps(UNITS[2], CUT.name),
        CutResult(stamps_of([5]), pq.read_table(layout.outcomes(UNITS[2], "main"), partitioning=None)),
        fingerprint_of("c"),
    )
    result = publish(layout, "main")
    assert result.stamps == {"kept": 25, "absent": 24}
    two = {path.name: path.stat().st_ino for path in (version_folder(layout, "main") / "stamps").rglob("Npix=*.parquet")}
    ids = pq.read_table(layout.shard(UNITS[0], "main"), partitioning=None)["source_id"].to_pylist()
    assert len(find_stamps(version_folder(layout, "main"), ids)) == 12
    assert set(two) <= set(one)
    assert one["Npix=7167.parquet"] != two["Npix=7167.parquet"]
    # a third version without any change of stamps links all of it
    write_brick(layout, UNITS[1], 13, files="d", kept=False)
    publish(layout, "main")
    three = version_folder(layout, "main") / "stamps"
    linked = {path.name for path in three.rglob("Npix=*.parquet") if path.stat().st_ino == two[path.name]}
    assert "Npix=7167.parquet" in linked
    remove_folder(layout.root / "stamps")
    write_brick(layout, UNITS[1], 14, files="e", kept=False)
    gone = publish(layout, "main")
    assert gone.stamps == {"kept": 0, "absent": gone.rows}
    assert is_valid_catalog(version_folder(layout, "main") / "stamps", strict=True)
