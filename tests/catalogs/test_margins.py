"""The margin cache and splits, as hats and LSDB read them, on bricks around the corner of four partitions at (0, 0)."""

from collections.abc import Iterable
from pathlib import Path

import astropy.units as u
import lsdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cdshealpix import nested
from hats.io.validation import is_valid_catalog, is_valid_collection
from hats.loaders import read_hats
from hats.pixel_math.healpix_pixel import HealpixPixel
from hats.pixel_math.pixel_margins import get_margin
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalogs import hatsfiles
from catalogs.derive import healpix29
from catalogs.hats import CURRENT, publish, version_folder
from catalogs.hatsfiles import partition_path
from catalogs.join import Origin, build_shard
from catalogs.margins import MARGIN_ARCSEC, STRIP_ORDER
from catalogs.outcomes import OutcomesMeta, write_outcomes
from catalogs.provenance import record
from catalogs.query import open_catalog
from catalogs.schema import HEALPIX, HEALPIX_ORDER, PARTITION_ORDER
from catalogs.shard import ShardMeta, write_shard
from catalogs.tiling import Limits
from catalogs.verify import verify
from galpipe.layout import Layout
from galpipe.unit import Unit
from tests.catalogs.sky import FAR, HEADS, inputs_of, make_outcomes, make_predictions, make_sources, write_brick

ARCSEC = 1 / 3600
WEST, EAST = Unit("dr9", "south", "3598p000"), Unit("dr9", "south", "0001p000")
FEW = Limits(rows=20)
FAR_FILE = "catalog/dataset/Norder=5/Dir=0/Npix=7167.parquet"
TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)


def write_at(layout: Layout, unit: Unit, ra: Iterable[float], dec: Iterable[float], seed: int = 0) -> list[int]:
    """A brick whose galaxies are where the test wants them; their ids."""
    x, y = np.array(list(ra)), np.array(list(dec))
    sources = make_sources(unit, len(x), seed)
    for name, values in (("ra", x), ("dec", y)):
        sources = sources.set_column(sources.schema.get_field_index(name), name, pa.array(values))
    identifier = record(layout, "main", inputs_of(unit, seed))
    shard = build_shard(sources, make_predictions(sources, seed), HEADS, Origin(unit, identifier))
    counts = write_outcomes(layout.outcomes(unit, "main"), make_outcomes(unit, shard), OutcomesMeta(unit, fingerprint=f"f{seed}"))
    write_shard(layout.shard(unit, "main"), shard, ShardMeta(unit, f"f{seed}", identifier, "mini", {"predicted": counts["predicted"]}))
    ids: list[int] = shard["source_id"].to_pylist()
    return ids


def around_the_corner(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of the east brick, most of them within 40 arcsec of the corner and of the border that runs up from it."""
    random = np.random.default_rng(seed)
    along = np.where(random.random(150) < 0.5, random.uniform(0, 60 * ARCSEC, 150), random.uniform(0, 0.11, 150))
    apart = random.uniform(-40, 40, 150) * ARCSEC
    return np.clip(along + apart, 4 * ARCSEC, 0.12), np.clip(along - apart, -0.12, 0.12)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "root")
    ra, dec = around_the_corner()
    write_at(layout, EAST, ra, dec)
    write_at(layout, WEST, 360 - ra, dec, seed=1)
    write_brick(layout, FAR, 25)
    return layout


def partitions(folder: Path) -> list[HealpixPixel]:
    """Partitions of a catalog, from partition_info.csv as other readers find them."""
    return sorted(read_hats(folder).get_healpix_pixels())


def rows(folder: Path, pixel: HealpixPixel) -> pa.Table:
    path = partition_path(folder, pixel)
    return pq.read_table(path, partitioning=None) if path.exists() else pa.table({"source_id": pa.array([], pa.int64())})


def reaches(table: pa.Table, pixel: HealpixPixel, radii: Iterable[float]) -> NDArray[np.bool_]:
    """Whether one of the circles around each row touches a pixel (near the equator)."""
    away, angle = (values.ravel()[:, None] for values in np.meshgrid(np.array(list(radii)) * ARCSEC, TURN))
    x = (table["ra"].to_numpy() + away * np.cos(angle)) % 360
    y = table["dec"].to_numpy() + away * np.sin(angle)
    index = healpix29(x.ravel(), y.ravel()).to_numpy().reshape(x.shape) >> 2 * (HEALPIX_ORDER - pixel.order)
    return np.asarray((index == pixel.pixel).any(axis=0))


def overlap(one: HealpixPixel, other: HealpixPixel) -> bool:
    order = min(one.order, other.order)
    return bool(one.pixel >> 2 * (one.order - order) == other.pixel >> 2 * (other.order - order))


def check_margins(layout: Layout) -> None:
    """Each margin has all that is near, nothing that is far or of the partition itself, as rows of the catalog."""
    folder = version_folder(layout, "main")
    listed = partitions(folder / "catalog")
    everything = pa.concat_tables([rows(folder / "catalog", pixel) for pixel in listed])
    with_margin = partitions(folder / "margin")
    assert not any(overlap(one, other) for one in with_margin for other in listed if one != other)
    for pixel in sorted({*listed, *with_margin}):
        index = everything[HEALPIX].to_numpy() >> 2 * (HEALPIX_ORDER - pixel.order)
        others = everything.filter(pa.array(index != pixel.pixel))
        ids = set(rows(folder / "margin", pixel)["source_id"].to_pylist())
        near = reaches(others, pixel, (2.0, 6.0, MARGIN_ARCSEC))
        far = ~reaches(others, pixel, np.arange(3.0, 90, 6))
        assert set(others.filter(pa.array(near))["source_id"].to_pylist()) <= ids
        assert not ids & set(others.filter(pa.array(far))["source_id"].to_pylist())
        assert ids <= set(others["source_id"].to_pylist())


def published_again(layout: Layout, tmp_path: Path, limits: Limits | None = None) -> dict[str, bytes]:
    """Every partition, margin and index of the current version must be what a publisher without a past writes."""
    folder = version_folder(layout, "main")
    fresh = Layout(tmp_path / "fresh" / folder.name)
    fresh.root.mkdir(parents=True)
    (fresh.root / "catalog").symlink_to(layout.root / "catalog")
    publish(fresh, "main", limits=limits)

    def files(root: Path) -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("Npix=*.parquet"))}

    assert files(folder) == files(version_folder(fresh, "main"))
    return files(folder)


def test_margins_hold_what_lies_near_and_hats_finds_both_valid(layout: Layout) -> None:
    result = publish(layout, "main")
    assert result.margins_written == 4
    assert is_valid_collection(layout.hats("main") / CURRENT, strict=True)
    folder = version_folder(layout, "main")
    assert is_valid_catalog(folder / "catalog", strict=True)
    assert is_valid_catalog(folder / "margin", strict=True)
    collection = read_hats(folder)
    assert (collection.default_margin, collection.get_margin_thresholds()) == ("margin", {"margin": MARGIN_ARCSEC})
    margin = read_hats(folder / "margin")
    assert (margin.catalog_info.catalog_type, margin.catalog_info.primary_catalog) == ("margin", "catalog")
    check_margins(layout)


def test_every_file_of_a_hats_catalog_is_there_with_units_and_descriptions(layout: Layout) -> None:
    publish(layout, "main")
    folder = version_folder(layout, "main")
    plain = {"properties", "hats.properties", "partition_info.csv", "dataset/_metadata", "dataset/_common_metadata"}
    for name, more in (("catalog", {"moc.fits", "skymap.fits", "point_map.fits"}), ("margin", set()), ("stamps", set())):
        assert [file for file in plain | more if not (folder / name / file).is_file()] == []
    for name in ("catalog", "margin"):
        for path in (*(folder / name / "dataset").glob("_*"), *(folder / name).rglob("Npix=*.parquet")):
            schema = pq.read_schema(path)
            assert schema.field("ra").metadata == {b"unit": b"deg", b"description": b"Right ascension, ICRS"}
            assert [item.name for item in schema if b"description" not in (item.metadata or {})] == []


def test_lsdb_matches_across_the_border_of_partitions_by_the_margin(layout: Layout) -> None:
    """A position in one partition, 2 arcsec from a galaxy of the next: only the margin brings them together."""
    low, high = 0.04, 0.06
    for _ in range(40):
        middle = (low + high) / 2
        same = pixel_at(0.05, middle) == pixel_at(0.05, low)
        low, high = (middle, high) if same else (low, middle)
    ids = write_at(layout, EAST, [0.05, 0.1, 0.1], [high + 0.5 * ARCSEC, 0.1, 0.0])
    publish(layout, "main")
    folder = layout.hats("main") / CURRENT
    mine = pd.DataFrame({"name": ["near", "nowhere"], "ra": [0.05, 0.2], "dec": [low - 1.5 * ARCSEC, 0.02]})
    assert pixel_at(0.05, low - 1.5 * ARCSEC) != pixel_at(0.05, high + 0.5 * ARCSEC)
    # its own margin would only cost time
    orders = {"lowest_order": PARTITION_ORDER, "highest_order": PARTITION_ORDER, "margin_threshold": None}
    small = lsdb.from_dataframe(mine, ra_column="ra", dec_column="dec", **orders)
    columns = ["source_id", "ra", "dec", "detections", "embedding"]
    for limits in (None, Limits(rows=1)):
        publish(layout, "main", limits=limits)
        with_margin = lsdb.open_catalog(folder, columns=columns)
        assert with_margin.margin is not None
        matched = small.crossmatch(with_margin, radius_arcsec=3, suffixes=("_mine", "")).compute()
        assert matched["source_id"].tolist() == [ids[0]]
        assert matched["_dist_arcsec"].iloc[0] == pytest.approx(2.0, abs=0.01)
        # the nested detections come along, and so do lists
        shard = pq.read_table(layout.shard(EAST, "main"), columns=["detections"], partitioning=None)
        assert len(matched["detections"].iloc[0]) == len(shard["detections"][0])
        assert len(matched["embedding"].iloc[0]) == 8
        alone = lsdb.open_catalog(folder.resolve() / "catalog", columns=columns[:3])
        assert len(small.crossmatch(alone, radius_arcsec=3, suffixes=("_mine", ""), require_right_margin=False).compute()) == 0
        # so that the next version is a new one
        write_brick(layout, FAR, 26, seed=1)


def pixel_at(ra: float, dec: float) -> int:
    return int(healpix29(np.array([ra]), np.array([dec]))[0].as_py()) >> 2 * (HEALPIX_ORDER - PARTITION_ORDER)


def inodes(folder: Path) -> dict[str, int]:
    """Inode of each partition, margin and index file of a version."""
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in folder.rglob("Npix=*.parquet")}


def move(layout: Layout, ra: float, dec: float) -> None:
    """Publish with the last galaxy of the east brick at another place, all else as it was."""
    x, y = around_the_corner()
    write_at(layout, EAST, [*x, ra], [*y, dec])


def partition_names(layout: Layout, *units: Unit) -> set[str]:
    index = np.concatenate([pq.read_table(layout.shard(unit, "main"), partitioning=None)[HEALPIX].to_numpy() for unit in units])
    return {f"Npix={pixel}.parquet" for pixel in set(index >> 2 * (HEALPIX_ORDER - PARTITION_ORDER))}


def test_only_margins_with_a_changed_strip_are_written_again(layout: Layout, tmp_path: Path) -> None:
    move(layout, 0.11, 0.0)
    publish(layout, "main")
    one = inodes(version_folder(layout, "main"))
    move(layout, 0.112, 0.001)
    result = publish(layout, "main")
    two = inodes(version_folder(layout, "main"))
    changed = {name for name in one if one[name] != two[name]}
    # the galaxy is minutes from every border: the partitions of its brick, and those whose rows its edge decides about, and no margin
    assert changed == {name for name in one if name.startswith("catalog/") and Path(name).name in partition_names(layout, EAST, WEST)}
    assert (result.margins_written, result.margins_linked) == (0, 4)
    # now onto the border, in the partition's own corner: the margins of the three others
    move(layout, 2 * ARCSEC, 0.5 * ARCSEC)
    result = publish(layout, "main")
    three = inodes(version_folder(layout, "main"))
    assert (result.margins_written, result.margins_linked) == (3, 1)
    own = f"Npix={pixel_at(2 * ARCSEC, 0.5 * ARCSEC)}.parquet"
    assert [name for name in two if name.startswith("margin/") and two[name] == three[name]] == [
        name for name in two if name.startswith("margin/") and name.endswith(own)
    ]
    assert result.bytes_linked >= sum(path.stat().st_size for path in (result.path / "margin").rglob(own))
    check_margins(layout)
    published_again(layout, tmp_path)


def test_a_partition_that_outgrew_its_limit_is_split_for_ever(layout: Layout, tmp_path: Path) -> None:
    publish(layout, "main")
    before = inodes(version_folder(layout, "main"))
    write_brick(layout, FAR, 19)
    result = publish(layout, "main", limits=FEW)
    assert set(result.partitions) == {"5", "8"}
    folder = version_folder(layout, "main")
    assert is_valid_collection(folder, strict=True)
    assert verify(layout, "main") == []
    check_margins(layout)
    published_again(layout, tmp_path, FEW)
    # what was small stays one file, now a new one only because its brick changed
    assert FAR_FILE in inodes(folder)
    # with no limit to speak of the splits stay, and everything but the changed brick's partition is linked
    split = inodes(folder)
    write_brick(layout, FAR, 18)
    again = publish(layout, "main")
    assert (again.partitions, again.partitions_written, again.margins_written) == (result.partitions, 1, 0)
    third = inodes(version_folder(layout, "main"))
    assert {name for name in split if split[name] != third[name]} == {FAR_FILE}
    # rows that go away do not merge partitions either
    write_at(layout, EAST, [0.01], [0.01])
    write_at(layout, WEST, [359.9], [0.01])
    few = publish(layout, "main")
    assert few.partitions == {"5": 1, "8": 2}
    check_margins(layout)
    assert set(before) & set(inodes(version_folder(layout, "main"))) == {FAR_FILE}
    # the first version is what it was
    assert inodes(version_folder(layout, "main", 1)) == before


def test_the_empty_parts_of_a_split_partition_have_their_margins(layout: Layout, tmp_path: Path) -> None:
    """Rows in one corner only, two orders down: beside the rest of the partition lie a neighbour's rows all the same."""
    layout.shard(WEST, "main").unlink()
    # of a brick that touches no other, so that its partition is linked
    write_at(layout, FAR, [360 - 0.3 * ARCSEC], [0.0])
    write_at(layout, EAST, np.linspace(2.6, 2.6001, 15), [0.02] * 15)
    publish(layout, "main", limits=FEW)
    write_at(layout, EAST, np.linspace(2.6, 2.6001, 61), [0.02] * 61)
    result = publish(layout, "main", limits=FEW)
    assert result.partitions == {"5": 1, "8": 1} and result.partitions_linked == 1
    check_margins(layout)
    published_again(layout, tmp_path, FEW)


def test_readers_find_every_row_once_with_orders_mixed(layout: Layout) -> None:
    publish(layout, "main", limits=FEW)
    shards = [pq.read_table(layout.shard(unit, "main"), partitioning=None) for unit in (EAST, WEST, FAR)]
    ids = sorted(value for table in shards for value in table["source_id"].to_pylist())
    with open_catalog(layout) as catalog:
        assert catalog.sql("SELECT source_id FROM galaxies ORDER BY source_id")["source_id"].to_pylist() == ids
        assert catalog.by_id(ids[:3], ["source_id"])["source_id"].to_pylist() == ids[:3]
        assert catalog.sql("SELECT count(*) AS n FROM detections")["n"][0].as_py() > 0
    opened = lsdb.open_catalog(layout.hats("main") / CURRENT)
    assert sorted(opened.compute()["source_id"]) == ids
    x, y = (np.concatenate([table[name].to_numpy() for table in shards]) for name in ("ra", "dec"))
    apart = np.hypot((x + 180) % 360 - 180, y)
    near = opened.cone_search(0, 0, 60).compute()
    assert sorted(near["source_id"]) == sorted(np.concatenate([table["source_id"].to_numpy() for table in shards])[apart < 60 * ARCSEC])


def test_a_catalog_of_many_partitions_has_no_metadata_file_and_is_still_valid(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatsfiles, "METADATA_PARTITIONS", 3)
    publish(layout, "main", limits=FEW)
    folder = version_folder(layout, "main")
    assert not (folder / "catalog" / "dataset" / "_metadata").exists()
    assert is_valid_collection(folder, strict=True)
    assert len(lsdb.open_catalog(folder, columns=["source_id"]).compute()) == 325
    with open_catalog(layout) as catalog:
        assert catalog.sql("SELECT count(*) AS n FROM galaxies")["n"][0].as_py() == 325


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12 * 4**PARTITION_ORDER - 1), st.integers(0, 3), st.integers(0, 2**32))
def test_strips_are_nowhere_narrower_than_the_margin(pixel: int, finer: int, seed: int) -> None:
    """Any pixel of the sky, the poles' included: from the second ring around it nothing within the margin reaches it."""
    random = np.random.default_rng(seed)
    order = PARTITION_ORDER + finer
    pixel = (pixel << 2 * finer) + int(random.integers(4**finer))
    ring = np.array(get_margin(order, pixel, STRIP_ORDER - order))
    # corners are where pixels are narrow
    chosen = np.concatenate([random.choice(ring, 8), ring[:2], ring[-2:]])
    second = np.setdiff1d(nested.neighbours(chosen.astype(np.uint64), STRIP_ORDER).ravel(), np.concatenate([ring, [-1]]))
    second = second[second >> 2 * (STRIP_ORDER - order) != pixel]
    vertices = nested.vertices(second.astype(np.uint64), STRIP_ORDER, 4)
    lon, lat = (values.to_value(u.rad).ravel()[:, None] for values in vertices)
    radius = np.radians(0.999 * MARGIN_ARCSEC / 3600)
    bearing = TURN[None, :]
    up = np.arcsin(np.sin(lat) * np.cos(radius) + np.cos(lat) * np.sin(radius) * np.cos(bearing))
    across = lon + np.arctan2(np.sin(bearing) * np.sin(radius) * np.cos(lat), np.cos(radius) - np.sin(lat) * np.sin(up))
    reached = healpix29(np.degrees(across).ravel() % 360, np.degrees(up).ravel()).to_numpy() >> 2 * (HEALPIX_ORDER - order)
    assert not (reached == pixel).any()
