"""What differs between two versions: exactly the rows and values that were changed, and nothing that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from cdshealpix.nested import vertices
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.derive import healpix29
from catalogs.diff import compare as comparing
from catalogs.diff.compare import Difference, diff, groups, open_sides
from catalogs.diff.output import writer
from catalogs.diff.pairs import Cell, Rows, by_position, near, ring, separation
from catalogs.diff.picture import draw
from catalogs.diff.values import KEPT, Amounts, Compared, compare, tolerance_of
from catalogs.hats import publish, version_folder
from catalogs.outcomes import OutcomesMeta, write_outcomes
from catalogs.schema import HEALPIX, base_columns
from catalogs.shard import ShardMeta, read_shard, write_shard
from catalogs.versions import partitions_of
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from galpipe.unit import Unit
from tests.catalogs.sky import FAR, UNITS, make_outcomes, make_shard, write_brick

ARCSEC = 1 / 3600
FAR_PIXEL = 7167
"""Partition that `FAR` lies in."""


def rewrite(layout: Layout, unit: Unit, table: pa.Table, name: str = "main") -> None:
    """Other rows for a brick."""
    table = written(unit, table)
    _, meta = read_shard(layout.shard(unit, "main"))
    write_shard(layout.shard(unit, name), table, ShardMeta(unit, "f", 4242, meta.model, {"predicted": table.num_rows}))
    write_outcomes(layout.outcomes(unit, name), make_outcomes(unit, table), OutcomesMeta(unit, fingerprint="f"))


def written(unit: Unit, table: pa.Table) -> pa.Table:
    """With the types that a brick is written with: Parquet calls the members of a list otherwise."""
    schema = make_shard(unit, 1).schema
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    index = table.schema.get_field_index(name)
    item = table.schema.field(name)
    return table.set_column(index, item, pa.array(values, item.type))


def placed(table: pa.Table, ra: np.ndarray, dec: np.ndarray) -> pa.Table:
    """The rows at other positions."""
    table = replaced(replaced(table, "ra", ra), "dec", dec)
    return replaced(table, HEALPIX, healpix29(ra, dec))


def differing(layout: Layout, before: int = 1, after: int = 2, **options: Any) -> tuple[Difference, list[dict[str, Any]]]:
    """The difference, and its table."""
    found = open_sides(layout, ("main", before), ("main", after))
    path = layout.root / "out.parquet"
    with writer(found, path) as take:
        diff(found, options.get("radius"), take)
    rows = pq.read_table(path).to_pylist()
    assert found.rows_before == found.removed + found.changed + found.unchanged
    assert found.rows_after == found.added + found.changed + found.unchanged
    kinds = [row["difference"] for row in rows]
    assert (kinds.count("added"), kinds.count("removed"), kinds.count("changed")) == (found.added, found.removed, found.changed)
    return found, rows


def test_what_was_changed_is_told_and_linked_partitions_are_not_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = read_shard(layout.shard(FAR, "main"))
    flux = table["flux_r"].to_numpy().copy()
    flux[3] += 2.0
    flux[7] -= 0.5
    magnitude = table["mag_model_r"].to_numpy().copy()
    # within the tolerance of 0.001 mag, and beyond it
    magnitude[4] += 0.0005
    magnitude[5] += 0.25
    changed = replaced(replaced(table, "flux_r", flux), "mag_model_r", magnitude)
    changed = replaced(changed, "flag_saturated", [index == 3 for index in range(25)])
    fresh = replaced(table.slice(0, 1), "source_id", [table["source_id"][24].as_py() + 100])
    rewrite(layout, FAR, pa.concat_tables([changed.slice(1), fresh]))
    publish(layout, "main")
    read: list[Path] = []
    real = comparing.read_rows
    monkeypatch.setattr(comparing, "read_rows", lambda files: read.extend(files) or real(files))
    found, rows = differing(layout)
    assert (found.added, found.removed, found.changed, found.unchanged, found.remade) == (1, 1, 3, 96, 0)
    assert {path.name for path in read} == {f"Npix={FAR_PIXEL}.parquet"}
    assert (found.partitions_compared, found.partitions_skipped) == (1, len(partitions_of(version_folder(layout, "main"))) - 1)
    told = found.as_dict()["columns"]
    ids = table["source_id"].to_pylist()
    assert set(told) == {"flux_r", "mag_model_r", "flag_saturated"}
    assert (told["flux_r"]["changed"], told["flux_r"]["max_at"], told["flux_r"]["unit"]) == (2, ids[3], "nanomaggy")
    assert told["flux_r"]["median"] == pytest.approx(1.25, rel=1e-5)
    assert told["flux_r"]["max"] == pytest.approx(2, rel=1e-5)
    assert told["mag_model_r"]["max"] == pytest.approx(0.25, rel=1e-4)
    assert np.isnan(told["flag_saturated"]["max"])
    by_id = {row["source_id"]: row for row in rows if row["difference"] == "changed"}
    assert {key: row["columns"] for key, row in by_id.items()} == {
        ids[3]: "flux_r flag_saturated",
        ids[5]: "mag_model_r",
        ids[7]: "flux_r",
    }
    assert by_id[ids[3]]["flux_r"] - by_id[ids[3]]["flux_r_before"] == pytest.approx(2, rel=1e-5)
    assert (by_id[ids[3]]["separation"], by_id[ids[3]]["source_id_before"]) == (0, ids[3])
    gone = next(row for row in rows if row["difference"] == "removed")
    assert (gone["source_id"], gone["flux_r"], gone["flux_r_before"]) == (ids[0], None, table["flux_r"][0].as_py())
    assert gone["ra"] == table["ra"][0].as_py()


def test_nested_columns_are_compared_member_by_member(layout: Layout) -> None:
    table, _ = read_shard(layout.shard(FAR, "main"))
    found, ids = table["detections"].to_pylist(), table["source_id"].to_pylist()
    found[2][1]["score"] += 0.25
    found[5].pop()
    found[8][0]["score"] += 0.001
    vectors = table["embedding"].to_pylist()
    vectors[6][3] += 1
    changed = replaced(replaced(table, "detections", found), "embedding", vectors)
    rewrite(layout, FAR, changed)
    publish(layout, "main")
    told, rows = differing(layout)
    assert {row["source_id"]: row["columns"] for row in rows} == {ids[2]: "detections", ids[5]: "detections", ids[6]: "embedding"}
    assert told.amounts["detections"].largest == pytest.approx(0.25)
    assert told.amounts["embedding"].largest == pytest.approx(1, rel=1e-2)


def test_rows_made_again_alike_are_not_changed(layout: Layout) -> None:
    table, _ = read_shard(layout.shard(FAR, "main"))
    rewrite(layout, FAR, replaced(table, "provenance_id", [77] * 25))
    publish(layout, "main")
    found, _ = differing(layout)
    assert (found.changed, found.remade, found.unchanged) == (0, 25, 100)


def edge_of(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """25 positions in a row, 0.1 arcsec north of the lower edge of the partition that FAR lies in."""
    lon, lat = vertices(np.array([FAR_PIXEL], np.uint64), 5)
    corners = np.stack([lon.to_value(u.deg).ravel(), lat.to_value(u.deg).ravel()], axis=1)
    south, east = corners[0], corners[1]
    share = np.linspace(0.45, 0.55, 25)[:, None]
    ra, dec = (south + share * (east - south)).T
    return ra, dec


def test_a_row_that_moves_over_the_edge_of_a_partition_is_changed_not_lost(layout: Layout) -> None:
    table, _ = read_shard(layout.shard(FAR, "main"))
    ra, dec = edge_of(layout)
    rewrite(layout, FAR, placed(table, ra, dec + 0.05))
    publish(layout, "main")
    rewrite(layout, FAR, placed(table, ra, dec - 0.05))
    publish(layout, "main")
    one, other = ({path.name for path in partitions_of(version_folder(layout, "main", number))} for number in (2, 3))
    assert one != other
    found, rows = differing(layout, 2, 3)
    assert (found.added, found.removed, found.changed) == (0, 0, 25)
    assert {row["source_id"] for row in rows} == set(table["source_id"].to_pylist())
    assert found.amounts["separation"].median == pytest.approx(360, rel=1e-6)


@pytest.mark.parametrize("radius", [None, 1.0])
def test_rows_of_another_release_are_matched_by_position(layout: Layout, radius: float | None) -> None:
    table, _ = read_shard(layout.shard(FAR, "main"))
    ra, dec = edge_of(layout)
    # a pair of galaxies 1.5 arcsec apart, and positions that straddle the edge
    ra[1], dec[1] = ra[0], dec[0] + 1.5 * ARCSEC
    rewrite(layout, FAR, placed(table, ra, dec))
    publish(layout, "main")
    random = np.random.default_rng(3)
    moved = placed(table, ra + random.normal(0, 0.1, 25) * ARCSEC, dec + random.normal(0, 0.1, 25) * ARCSEC)
    moved = placed(moved, np.where(np.arange(25) == 24, ra + 1, moved["ra"].to_numpy()), moved["dec"].to_numpy())
    ids = (np.int64(10000) << 42) | (table["source_id"].to_numpy() & ((1 << 42) - 1))
    order = random.permutation(25)
    moved = replaced(replaced(moved, "source_id", ids), "release", [10000] * 25).take(pa.array(order))
    moved = replaced(moved, "flux_r", moved["flux_r"].to_numpy() + 1)
    unit = Unit("dr10", FAR.region, FAR.brick)
    _, meta = read_shard(layout.shard(FAR, "main"))
    write_shard(layout.shard(unit, "main"), written(FAR, moved), ShardMeta(unit, "f", 4242, meta.model, {"predicted": 25}))
    write_outcomes(layout.outcomes(unit, "main"), make_outcomes(unit, moved), OutcomesMeta(unit, fingerprint="f"))
    layout.shard(FAR, "main").unlink()
    layout.outcomes(FAR, "main").unlink()
    publish(layout, "main")
    found, rows = differing(layout, 2, 3, radius=radius)
    assert (found.added, found.removed, found.changed) == (1, 1, 24)
    assert found.by_position == 24 or radius
    old = dict(zip(ids.tolist(), table["source_id"].to_pylist(), strict=True))
    assert all(row["source_id_before"] == old[row["source_id"]] for row in rows if row["difference"] == "changed")
    assert found.amounts["flux_r"].changed == 24
    # who a row is differs by nature, and is not counted
    assert found.amounts["release"].changed == found.amounts["brickname"].changed == 0
    assert found.amounts["separation"].largest < 0.6


def test_same_ids_are_not_paired_when_position_was_asked_for(layout: Layout) -> None:
    table, _ = read_shard(layout.shard(FAR, "main"))
    # a release fixed in place gave the numbers to other galaxies
    rewrite(layout, FAR, replaced(table, "source_id", table["source_id"].to_pylist()[::-1]).sort_by("source_id"))
    publish(layout, "main")
    by_id, _ = differing(layout)
    assert by_id.changed == 24
    by_place, rows = differing(layout, radius=1.0)
    assert (by_place.changed, by_place.unchanged, by_place.by_position, rows) == (0, 100, 25, [])
    with pytest.raises(ConfigurationError, match="a radius above 0 and up to 60 arcsec, got 61"):
        diff(open_sides(layout, ("main", 1), ("main", 2)), 61)


def test_catalogs_of_two_names_and_a_column_that_one_lacks(layout: Layout) -> None:
    for unit in (*UNITS, FAR):
        table, _ = read_shard(layout.shard(unit, "main"))
        rewrite(layout, unit, table.drop_columns(["sersic"]), "other")
    publish(layout, "other")
    found = diff(open_sides(layout, ("main", 1), ("other", 1)))
    told = found.as_dict()
    assert (found.changed, found.added, found.removed, found.partitions_skipped) == (0, 0, 0, 0)
    assert (told["columns_removed"], told["columns_added"]) == (["sersic"], [])
    assert (told["before"]["name"], told["after"]["name"], told["after"]["rows"]) == ("main", "other", 100)
    with pytest.raises(ConfigurationError, match=r"columns that both versions have, got \['sersic'\]"):
        open_sides(layout, ("main", 1), ("other", 1), ["sersic", "ra"])


def test_a_partition_that_was_split_is_compared_with_its_parts(layout: Layout) -> None:
    write_brick(layout, FAR, 25, seed=2)
    publish(layout, "main")
    folder = version_folder(layout, "main", 2)
    path = next(item for item in partitions_of(folder) if item.name == f"Npix={FAR_PIXEL}.parquet")
    whole = pq.read_table(path, partitioning=None)
    child = whole[HEALPIX].to_numpy() >> 46
    for pixel in np.unique(child):
        part = folder / f"catalog/dataset/Norder=6/Dir=10000/Npix={pixel}.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(whole.filter(pa.array(child == pixel)), part)
    path.unlink()
    split, rows = differing(layout)
    assert (split.added, split.removed, split.changed) == (0, 0, 25)
    assert len(rows) == 25
    found = open_sides(layout, ("main", 1), ("main", 2))
    (group,) = [item for item in groups(found.before, found.after) if not item.linked]
    assert (group.cell, len(group.before), len(group.after)) == (Cell(5, FAR_PIXEL), 1, len(np.unique(child)))


def test_the_picture_and_the_table_in_another_format(layout: Layout, tmp_path: Path) -> None:
    write_brick(layout, FAR, 30, seed=4)
    publish(layout, "main")
    found = open_sides(layout, ("main", 1), ("main", 2))
    with writer(found, tmp_path / "rows.csv") as take:
        diff(found, on_part=take)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 31
    draw(found, tmp_path / "changes.png")
    draw(diff(open_sides(layout, ("main", 1), ("main", 1))), tmp_path / "none.png")
    for name in ("changes.png", "none.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


VALUES = st.one_of(st.none(), st.floats(width=32), st.just(float("nan")))


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20), st.floats(0, 10))
@settings(deadline=None)
def test_numbers_differ_as_python_says(pairs: list[tuple[float | None, float | None]], tolerance: float) -> None:
    one, other = (pa.array([pair[side] for pair in pairs], pa.float32()) for side in (0, 1))

    def differ(a: float | None, b: float | None) -> bool:
        if a is None or b is None or a != a or b != b:
            return not ((a is None and b is None) or (a is not None and b is not None and a != a and b != b))
        return a != b and abs(b - a) > tolerance

    expected = [differ(*pair) for pair in zip(one.to_pylist(), other.to_pylist(), strict=True)]
    assert compare(one, other, tolerance).changed.tolist() == expected
    nested = [pa.ListArray.from_arrays(pa.array(range(len(pairs) + 1), pa.int32()), side) for side in (one, other)]
    assert compare(*nested, tolerance).changed.tolist() == expected


def test_big_integers_and_texts() -> None:
    one, other = pa.array([2**60, 2**60, None]), pa.array([2**60 + 1, 2**60, 5])
    assert compare(one, other, 0).changed.tolist() == [True, False, True]
    assert compare(pa.array(["a", None, "c"]), pa.array(["a", "b", "d"]), 0).changed.tolist() == [False, True, True]


def test_tolerances_come_with_the_columns() -> None:
    declared = {column.name: column for column in base_columns()}
    assert tolerance_of(declared["embedding"].field()) == tolerance_of(declared["embedding"].field().remove_metadata()) == 5e-2
    assert tolerance_of(declared["flux_r"].field()) == tolerance_of(pa.field("new", pa.int64())) == 0
    assert tolerance_of(pa.field("new", pa.list_(pa.float32()))) == 1e-3


def test_the_median_of_many_changes_is_near() -> None:
    values = np.random.default_rng(1).lognormal(0, 2, KEPT * 2)
    amounts = Amounts()
    for part in np.array_split(values, 7):
        amounts.add(Compared(np.ones(len(part), bool), part), np.arange(len(part)))
    assert amounts.median == pytest.approx(np.median(values), rel=0.013)
    assert amounts.largest == values.max()


@given(st.floats(0, 360, exclude_max=True), st.floats(-89, 89), st.floats(0.1, 60), st.floats(0, 360))
@settings(deadline=None, max_examples=60)
def test_the_ring_holds_what_is_near(ra: float, dec: float, radius: float, angle: float) -> None:
    there = SkyCoord(ra * u.deg, dec * u.deg).directional_offset_by(angle * u.deg, 2 * radius * u.arcsec)
    lon, lat = np.array([ra, there.ra.deg]), np.array([dec, there.dec.deg])
    index = healpix29(lon, lat).to_numpy()
    cell = Cell(5, int(index[0]) >> 48)
    rows = Rows((), np.zeros(2, int), np.arange(2), np.arange(2), lon, lat, index)
    outside = int(index[1]) >> 48 != cell.pixel
    order, cells = ring(cell, radius)
    assert (1 in near(rows, cell, radius).ids) or not outside
    assert separation(rows.take([0]), rows.take([1]))[0] == pytest.approx(2 * radius, rel=1e-3)
    assert len(by_position(rows.take([0]), rows.take([1]), 2.01 * radius).before) == 1
    assert order >= 9
    assert (np.diff(cells) > 0).all()
