"""What `--live` shows is what a publication would show now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs import live, partitions
from catalogs.hats import publish, version_folder
from catalogs.live import live_folder
from catalogs.query import open_catalog
from catalogs.schema import HEALPIX
from catalogs.shard import read_shard, write_shard
from catalogs.versions import partitions_of
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from galpipe.survey.bricks import BRICKS, brick_by_name, geometry_of, names_of
from galpipe.survey.neighbours import touching
from galpipe.survey.region import parse_region
from galpipe.unit import Unit
from tests.catalogs.sky import FAR, UNITS, write_brick
from tests.catalogs.test_resolve import DEC, EAST, JUST_EAST, JUST_WEST, WEST, Fitted, unit_of, write

BESIDE = Unit("dr9", "north", touching(brick_by_name(FAR.brick))[-1].name)
"""A neighbour of `FAR`."""


def rows(layout: Layout, **options: object) -> list[dict[str, object]]:
    with open_catalog(layout, **options) as catalog:  # type: ignore[arg-type]
        return catalog.sql("SELECT source_id, ra, flux_r, brickname, detections FROM galaxies ORDER BY source_id").to_pylist()


def left_out(layout: Layout, **options: object) -> list[dict[str, object]]:
    with open_catalog(layout, **options) as catalog:  # type: ignore[arg-type]
        return catalog.sql("SELECT source_id, kept, reason FROM resolved ORDER BY source_id").to_pylist()


def test_without_a_change_it_is_the_version(layout: Layout) -> None:
    now = live_folder(layout, "main")
    assert now is not None
    assert (now.replaced, now.partitions_written) == ((), 0)
    assert now.files == tuple(partitions_of(version_folder(layout, "main")))
    assert rows(layout, live=True) == rows(layout)


def test_new_changed_and_lost_shards_show_as_a_publication_would_show_them(layout: Layout) -> None:
    write_brick(layout, UNITS[1], 30, seed=4)
    write_brick(layout, BESIDE, 7)
    for path in (layout.shard(UNITS[2], "main"), layout.outcomes(UNITS[2], "main")):
        path.unlink()
    older, now = rows(layout), rows(layout, live=True)
    assert len(now) == 25 + 30 + 25 + 7
    assert now != older == rows(layout, version="v1")
    publish(layout, "main")
    assert now == rows(layout)


def test_only_the_region_that_was_asked_for_is_looked_at(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_brick(layout, FAR, 40, seed=2)
    write_brick(layout, UNITS[0], 40, seed=2)
    # nobody may look at it
    layout.shard(UNITS[1], "main").write_bytes(b"damaged")
    read: list[Path] = []
    monkeypatch.setattr(partitions, "read_shard", lambda path: read.append(path) or read_shard(path))
    now = live_folder(layout, "main", "cone:180.1,40,0.1")
    assert now is not None
    assert now.replaced == (str(FAR),)
    assert {path.name for path in read} == {"1801p400.parquet"}
    assert now.partitions_written == 1
    with open_catalog(layout, live="cone:180.1,40,0.1") as catalog:
        assert catalog.cone(180.1, 40, 1).num_rows == 40
        # beyond the region it is the version
        assert catalog.sql("SELECT count(*) AS n FROM galaxies")["n"].to_pylist() == [115]


def test_partitions_stay_sorted_and_hold_their_rows_only(layout: Layout) -> None:
    write_brick(layout, UNITS[0], 33, seed=5)
    now = live_folder(layout, "main")
    assert now is not None
    written = partitions_of(now.path)
    assert len(written) == now.partitions_written > 0
    for path in written:
        index = pq.read_table(path, columns=[HEALPIX], partitioning=None)[HEALPIX].to_pylist()
        assert index == sorted(index)
        assert {value >> 48 for value in index} == {int(path.stem.removeprefix("Npix="))}
    schema = pq.read_schema(version_folder(layout, "main") / "dataset/_common_metadata")
    assert all(pq.read_schema(path).equals(schema) for path in written)


def test_a_source_at_an_edge_is_shown_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    write(layout, unit_of(WEST), {1: Fitted(JUST_WEST, DEC), 2: Fitted(359.9, DEC)})
    publish(layout, "main")
    # the brick beside it comes later, and has the same source: it has the lower id
    write(layout, unit_of(EAST), {7: Fitted(JUST_EAST, DEC), 8: Fitted(0.1, DEC)})
    now, gone = rows(layout, live=True), left_out(layout, live=True)
    near = rows(layout, live="cone:0.05,32.25,0.01")
    publish(layout, "main")
    assert now == near == rows(layout)
    assert len(now) == 3
    assert gone == left_out(layout)
    assert [row["reason"] for row in gone] == ["duplicate"]
    # and goes again: its neighbour's row comes back though its own shard never changed
    for path in (layout.shard(unit_of(EAST), "main"), layout.outcomes(unit_of(EAST), "main")):
        path.unlink()
    now = rows(layout, live=True)
    publish(layout, "main")
    assert now == rows(layout)
    assert len(now) == 2


def test_before_the_first_version(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    with pytest.raises(ConfigurationError, match="shards of catalog 'main', got none in the region"):
        open_catalog(layout, live="cone:180.1,40,0.1")
    for unit in (UNITS[0], FAR):
        write_brick(layout, unit, 10)
    assert live_folder(layout, "main") is None
    assert len(rows(layout, live=True)) == 20
    assert {row["brickname"] for row in rows(layout, live="cone:180.1,40,0.1")} == {FAR.brick}


def test_a_shard_replaced_meanwhile_is_read_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_brick(layout, FAR, 40, seed=2)
    real, calls = partitions.read_shard, []

    def meddle(path: Path) -> object:
        if not calls:
            calls.append(1)
            write_brick(layout, FAR, 50, seed=3)
        return real(path)

    monkeypatch.setattr(partitions, "read_shard", meddle)
    assert len(rows(layout, live=True)) == 75 + 50


def test_other_columns_and_a_version_beside_it_are_refused(layout: Layout) -> None:
    table, meta = read_shard(layout.shard(FAR, "main"))
    write_shard(layout.shard(FAR, "main"), table.drop_columns(["sersic"]), meta)
    with pytest.raises(ConfigurationError, match=r"the columns of the newest version, got differences \['sersic'\]; publish"):
        open_catalog(layout, live=True)
    with pytest.raises(ConfigurationError, match="a version or what is newer"):
        open_catalog(layout, version=1, live=True)


def test_mixed_models_are_refused_as_a_publication_refuses_them(layout: Layout) -> None:
    path = layout.shard(UNITS[0], "main")
    rows, meta = read_shard(path)
    write_shard(path, rows, replace(meta, model="another"))
    for region in (True, "cone:180.1,40,170"):
        with pytest.raises(ConfigurationError, match="one model"):
            open_catalog(layout, live=region)
    with pytest.raises(ConfigurationError, match="one model"):
        publish(layout, "main")


def test_the_folder_goes_with_the_catalog(layout: Layout) -> None:
    write_brick(layout, FAR, 40, seed=2)

    class Owner:
        """Anything."""

    owner, now = Owner(), live_folder(layout, "main")
    assert now is not None
    now.last_as_long_as(owner)
    assert now.path.is_dir()
    assert not now.path.is_relative_to(layout.root)
    del owner
    assert not now.path.exists()
    assert isinstance(pq.read_table(layout.shard(FAR, "main"), partitioning=None), pa.Table)


@pytest.mark.parametrize("region", ["cone:180.1,40,0.3", "cone:0,89.9,0.5", "box:359.9,0.4,-0.3,0.2", "bricks:1801p400,0001m002"])
def test_the_bricks_of_a_region(region: str) -> None:
    wanted = parse_region(region)
    ids = np.arange(1, BRICKS + 1)
    names = names_of(ids)
    table = pa.table({"brickid": ids, "brickname": names, **geometry_of(ids)})
    expected = set(names[wanted.touches(table)].tolist())
    assert set(list(wanted.named()) or live._touched(wanted)) == expected
