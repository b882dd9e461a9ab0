import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import Latitude, Longitude
from astropy.units import deg
from cdshealpix.nested import lonlat_to_healpix
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.area import Area, Box, Cone, Coverage, Polygon
from catalogs.parquet import published_options
from catalogs.pushdown import Files, Wanted, footer, pixel_range
from catalogs.query import Catalog, open_catalog
from catalogs.schema import SCHEMA_VERSION
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from galpipe.survey.bricks import ids_at

MIDDLES = [(0.0, 90.0), (0.0, -90.0), (0.0, 0.0), (359.9, 45.0), (120.0, 41.8), (45.0, 89.0)]
SPREAD = 2.0


def make_sky(rows: int = 6000, seed: int = 3) -> pa.Table:
    """Rows in clumps at the poles and about RA 0, sorted by position."""
    random = np.random.default_rng(seed)
    middle = np.array(MIDDLES)[random.integers(len(MIDDLES), size=rows)]
    lon, lat = np.radians(middle).T
    center = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    found = center + np.radians(SPREAD) * random.uniform(0, 1, (rows, 1)) * random.normal(size=(rows, 3))
    ra = np.degrees(np.arctan2(found[:, 1], found[:, 0])) % 360
    dec = np.degrees(np.arctan2(found[:, 2], np.hypot(found[:, 0], found[:, 1])))
    ra, dec = np.concatenate([ra, [0.0, 0.0, 10.0]]), np.concatenate([dec, [90.0, -90.0, 90.0]])
    pixels = lonlat_to_healpix(Longitude(ra, deg), Latitude(dec, deg), 29).astype(np.int64)
    ids = 9010 << 42 | ids_at(ra, dec) << 22 | np.arange(len(ra))
    flux = pa.array(random.normal(size=len(ra)), pa.float32())
    table = pa.table({"_healpix_29": pixels, "source_id": ids, "ra": ra, "dec": dec, "flux_r": flux, "objid": np.arange(len(ra))})
    schema = table.schema.set(4, pa.field("flux_r", pa.float32(), metadata={"unit": "nanomaggy"}))
    return table.cast(schema).sort_by("_healpix_29")


def write_version(layout: Layout, table: pa.Table, number: int = 1) -> Path:
    """A version whose partitions are of orders 3, 5 and 6, in row groups of 50."""
    folder = layout.hats("main") / f"v{number}"
    values = table["_healpix_29"].to_numpy()
    for order, own in ((3, values >> 58 == 0), (5, values >> 58 == 1), (6, values >> 58 > 1)):
        if order == 3:
            own = values >> 58 == values.min() >> 58
        elif order == 5:
            own = (values >> 58 != values.min() >> 58) & (values >> 58 < 4)
        else:
            own = (values >> 58 != values.min() >> 58) & (values >> 58 >= 4)
        for pixel in np.unique(values[own] >> 2 * (29 - order)).tolist():
            part = table.filter(pa.array(own & (values >> 2 * (29 - order) == pixel)))
            path = folder / "dataset" / f"Norder={order}" / f"Dir={pixel // 10000 * 10000}" / f"Npix={pixel}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, path, **published_options(part.schema) | {"row_group_size": 50})
    pq.write_metadata(table.schema, folder / "dataset" / "_common_metadata")
    (folder / "galpipe.json").write_text(json.dumps({"version": number, "schema_version": SCHEMA_VERSION, "rows": table.num_rows}))
    (layout.hats("main") / "current").unlink(missing_ok=True)
    (layout.hats("main") / "current").symlink_to(folder.name)
    return folder


@pytest.fixture(scope="module")
def sky() -> pa.Table:
    return make_sky()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, sky: pa.Table) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("root"))
    write_version(layout, sky)
    return layout


@pytest.fixture(scope="module")
def catalog(layout: Layout) -> Catalog:
    return open_catalog(layout)


def ids_inside(sky: pa.Table, area: Area) -> list[int]:
    """By every row: the exact test alone (tests/catalogs/test_area.py checks it against other forms)."""
    return sorted(sky["source_id"].to_numpy()[area.inside(sky["ra"].to_numpy(), sky["dec"].to_numpy())].tolist())


@st.composite
def areas(draw: st.DrawFn) -> Area:
    ra, dec = draw(st.sampled_from(MIDDLES))
    ra, dec = ra + draw(st.floats(-3, 3)), float(np.clip(dec + draw(st.floats(-3, 3)), -90, 90))
    size = 10 ** draw(st.floats(-2, 0.8))
    kind = draw(st.sampled_from(["cone", "box", "polygon", "moc"]))
    if kind == "cone":
        return Cone(ra, dec, size)
    if kind == "box":
        return Box(ra, ra + min(360.0, size * draw(st.floats(0.1, 100))), max(-90.0, dec - size), min(90.0, dec + size))
    cone = Cone(ra, dec, size)
    if kind == "polygon":
        frame = np.linalg.qr(np.stack([_vector(ra, dec), [0.3, 0.5, 0.8], [0.9, -0.1, 0.2]], 1))[0] * np.sign(1.0)
        middle, one, other = _vector(ra, dec), frame[:, 1], frame[:, 2]
        turn = np.sort(np.array([0.1, 1.4, 2.9, 4.3, 5.2]) + draw(st.floats(0, 1)))
        reach = np.radians(size) * np.array([1, 0.4, 0.9, 0.5, 0.8])
        corners = np.cos(reach)[:, None] * middle + np.sin(reach)[:, None] * (np.cos(turn)[:, None] * one + np.sin(turn)[:, None] * other)
        lon = np.degrees(np.arctan2(corners[:, 1], corners[:, 0]))
        lat = np.degrees(np.arctan2(corners[:, 2], np.hypot(corners[:, 0], corners[:, 1])))
        return Polygon(tuple(zip(lon.tolist(), lat.tolist(), strict=True)))
    cells = sorted({int(low >> 42) for low, _ in cone.ranges()})
    return Coverage.read("8/" + " ".join(map(str, cells)))


def _vector(ra: float, dec: float) -> np.ndarray:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


@given(areas())
@settings(max_examples=60, deadline=None)
def test_pieces_of_sky_have_the_rows_that_a_look_at_every_row_finds(catalog: Catalog, sky: pa.Table, area: Area) -> None:
    assert catalog.within(area, ["source_id"])["source_id"].to_pylist() == ids_inside(sky, area)


@given(areas())
@settings(max_examples=15, deadline=None)
def test_sql_on_a_piece_of_sky_has_the_same_rows(catalog: Catalog, sky: pa.Table, area: Area) -> None:
    for view in ("galaxies", "galaxies_clean"):
        found = catalog.sql(f"SELECT source_id FROM {view} ORDER BY source_id", area)
        assert found["source_id"].to_pylist() == ids_inside(sky, area)


def test_rows_come_whole_with_units(catalog: Catalog, sky: pa.Table) -> None:
    found = catalog.within(Cone(0, 90, 0.5))
    expected = sky.filter(pa.array(np.isin(sky["source_id"].to_numpy(), found["source_id"].to_numpy()))).sort_by("source_id")
    assert found.num_rows > 50
    assert found.equals(expected)
    assert found.schema.field("flux_r").metadata == {b"unit": b"nanomaggy"}


def test_only_the_row_groups_of_the_region_are_read(layout: Layout, sky: pa.Table) -> None:
    files = tuple(sorted((layout.hats("main") / "v1").glob("dataset/*/*/*.parquet")))
    groups = sum(len(footer(path).low) for path in files)
    ranges = Cone(0.0, 0.0, 0.2).ranges()
    touched = Files(files).touched(ranges)
    read = sum(len(Wanted(ranges).groups(footer(path))) for path in touched)
    assert groups > 100
    assert {pixel_range(path)[1] - pixel_range(path)[0] for path in files} == {1 << 2 * (29 - order) for order in (3, 5, 6)}
    assert 0 < len(touched) < len(files) / 2
    # some 20 of each 1000 rows of a clump lie so near its middle, and a row group at each edge is read beside them
    assert 0 < read <= 12


def test_sql_leaves_out_files_and_row_groups(catalog: Catalog) -> None:
    plan = catalog._statements
    with plan._restricted(Cone(0.0, 0.0, 0.2)) as connection:
        told = connection.sql("EXPLAIN ANALYZE SELECT * FROM galaxies").fetchall()[0][1]
    scanned, files = re.search(r"Row Groups Scanned: (\d+)", told), re.search(r"Total Files Read: (\d+)", told)
    assert scanned is not None and files is not None, told
    assert int(scanned[1]) <= 12
    assert int(files[1]) < len(catalog._source.files) / 2


@given(st.lists(st.integers(0, 6002), max_size=6), st.lists(st.integers(-5, 1 << 60), max_size=3))
@settings(max_examples=25, deadline=None)
def test_ids(catalog: Catalog, sky: pa.Table, rows: list[int], unknown: list[int]) -> None:
    there = set(sky["source_id"].take(pa.array(rows, pa.int64())).to_pylist())
    found = catalog.by_id([*there, *set(unknown) - set(sky["source_id"].to_pylist())], ["objid", "source_id"])
    assert found["source_id"].to_pylist() == sorted(there)
    assert found.column_names == ["objid", "source_id"]


def test_an_id_that_says_nothing_about_its_place_is_found(tmp_path: Path, sky: pa.Table) -> None:
    # as the ids of stamps, which are hashes
    ids = np.random.default_rng(1).integers(0, 1 << 62, sky.num_rows)
    layout = Layout(tmp_path)
    write_version(layout, sky.set_column(1, "source_id", pa.array(ids)))
    with open_catalog(layout) as catalog:
        assert catalog.by_id(ids[:20].tolist())["objid"].to_pylist() == sky["objid"].take(np.argsort(ids[:20])).to_pylist()


@pytest.fixture
def broken(tmp_path: Path, sky: pa.Table) -> Layout:
    layout = Layout(tmp_path)
    write_version(layout, sky.slice(0, 900))
    return layout


def one_file(layout: Layout) -> Path:
    return max((layout.hats("main") / "v1").glob("dataset/*/*/*.parquet"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["cut", "page", "footer"])
def test_a_damaged_file_is_named(broken: Layout, damage: str) -> None:
    path = one_file(broken)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        start = 40 if damage == "page" else len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        content[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    with open_catalog(broken) as catalog:
        with pytest.raises(BadData, match=path.name):
            catalog.within(Cone(0, 0, 180))
        with pytest.raises(BadData, match=path.name):
            catalog.sql("SELECT * FROM galaxies")


def test_a_catalog_of_a_newer_schema_is_refused(broken: Layout) -> None:
    path = broken.hats("main") / "v1" / "galpipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(ConfigurationError, match=f"or older, got version {SCHEMA_VERSION + 1}, of a newer"):
        open_catalog(broken)


def test_a_partition_that_is_gone_is_missed(broken: Layout) -> None:
    path = one_file(broken)
    order, pixel = path.parts[-3].removeprefix("Norder="), path.stem.removeprefix("Npix=")
    (broken.hats("main") / "v1" / "partition_info.csv").write_text(f"Norder,Npix\n{order},{pixel}\n")
    with open_catalog(broken) as catalog:
        assert catalog.sql("SELECT * FROM galaxies").num_rows == 900
    path.unlink()
    (broken.hats("main") / "v1" / "galpipe.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "rows": 900, "version": 1}))
    with pytest.raises(BadData, match=f"missing Norder={order} Npix={pixel}"):
        open_catalog(broken)


def test_an_unknown_column_names_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(ConfigurationError, match="'flux_R_'; the nearest is 'flux_r'"):
        catalog.within(Cone(0, 0, 1), ["flux_R_"])
    with pytest.raises(ConfigurationError, match=r"nearest column: flux_r"):
        catalog.sql("SELECT fluxr FROM galaxies")
