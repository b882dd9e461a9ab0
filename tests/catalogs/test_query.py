from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from catalogs.area import Box, Cone
from catalogs.hats import publish
from catalogs.ledger import Ledger
from catalogs.query import Catalog, open_catalog
from catalogs.shard import read_shard
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, write_brick


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("root"))
    for unit in (*UNITS, FAR):
        write_brick(layout, unit, 40)
    publish(layout, "main")
    return layout


@pytest.fixture(scope="module")
def shards(layout: Layout) -> pa.Table:
    return pa.concat_tables([read_shard(layout.shard(unit, "main"))[0] for unit in (*UNITS, FAR)])


@pytest.fixture(params=["published", "live"])
def catalog(request: pytest.FixtureRequest, layout: Layout) -> Iterator[Catalog]:
    with Ledger(layout.ledger) as ledger:
        ledger.rebuild(layout, "main")
        with open_catalog(layout, live=request.param == "live", ledger=lambda: ledger.table("main")) as opened:
            yield opened


def test_galaxies_are_the_shards_rows(catalog: Catalog, shards: pa.Table) -> None:
    rows = catalog.sql("SELECT source_id, ra, mag_r, flag_bright_star, detections FROM galaxies ORDER BY source_id")
    assert rows.to_pylist() == shards.select(rows.column_names).sort_by("source_id").to_pylist()


def test_units_come_through_sql(catalog: Catalog) -> None:
    schema = catalog.sql("SELECT ra, flux_r, ra + 1 AS moved FROM galaxies").schema
    assert schema.field("ra").metadata[b"unit"] == b"deg"
    assert schema.field("flux_r").metadata[b"unit"] == b"nanomaggy"
    assert schema.field("moved").metadata is None


def test_the_clean_view_has_no_flagged_row_and_no_mock_redshift(catalog: Catalog, shards: pa.Table) -> None:
    flags = ("flag_bright_star", "is_probable_shred", "flag_cluster", "flag_saturated", "degraded", "jpeg_route")
    safe = [row["source_id"] for row in shards.select(["source_id", *flags]).to_pylist() if not any(row[flag] for flag in flags)]
    clean = catalog.sql("SELECT * FROM galaxies_clean")
    assert 0 < len(safe) < shards.num_rows
    assert sorted(clean["source_id"].to_pylist()) == sorted(safe)
    assert not [name for name in clean.column_names if name.startswith("z_mock")]
    with pytest.raises(ConfigurationError, match="z_mock"):
        catalog.sql("SELECT z_mock FROM galaxies_clean")


def test_detections_are_the_primary_ones_a_row_each(catalog: Catalog, shards: pa.Table) -> None:
    expected = sum(item["is_primary_detection"] for row in shards["detections"].to_pylist() for item in row)
    found = catalog.sql("SELECT * FROM detections")
    assert found.num_rows == expected
    assert found.column_names == ["stamp_source_id", "ra", "dec", "score", "objid", "is_primary_detection"]
    assert set(found["stamp_source_id"].to_pylist()) <= set(shards["source_id"].to_pylist())


def test_embeddings_are_float16_read_as_float(catalog: Catalog, shards: pa.Table) -> None:
    found = catalog.sql("SELECT * FROM embeddings ORDER BY source_id LIMIT 1").to_pylist()[0]
    first = shards.select(["source_id", "embedding"]).filter(pa.compute.equal(shards["source_id"], found["source_id"])).to_pylist()[0]
    assert found["embedding"] == [float(value) for value in first["embedding"]]


@pytest.mark.parametrize("wrong", ["SELECT strptime('x', '%Y')", "SELECT error('boom')", "SELECT (SELECT ra FROM galaxies)"])
def test_a_query_that_is_wrong_itself_costs_no_look_at_every_page(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setattr("catalogs.statements.check_pages", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(ConfigurationError, match="SQL on the views"):
        catalog.sql(wrong)


def test_ledger_and_outcomes_are_views_too(catalog: Catalog) -> None:
    assert catalog.sql("SELECT count(*) AS n FROM ledger WHERE stage = 'catalog' AND status = 'done'").to_pylist() == [{"n": 4}]
    counts = catalog.sql("SELECT status, count(*) AS n FROM outcomes GROUP BY status ORDER BY status").to_pylist()
    assert counts == [{"status": "filtered", "n": 12}, {"status": "predicted", "n": 160}]


def test_sums_of_integers_are_integers(catalog: Catalog) -> None:
    assert catalog.sql("SELECT sum(objid) AS s FROM galaxies").schema.field("s").type == pa.int64()


def apart(table: pa.Table, ra: float, dec: float) -> np.ndarray:
    """Angles in degrees by unit vectors: another form than the one under test."""

    def vector(x: object, y: object) -> np.ndarray:
        lon, lat = np.radians(x), np.radians(y)
        return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])

    dot = vector(table["ra"].to_numpy(), table["dec"].to_numpy()).T @ vector(ra, dec)
    return np.degrees(np.arccos(np.clip(dot, -1, 1)))


@pytest.mark.parametrize(
    ("ra", "dec", "radius"),
    [(0.1, -0.2, 0.1), (359.99, -0.1, 0.3), (180.3, 40.0, 0.2), (0.0, 90.0, 51.0), (90.0, 0.0, 180.0), (200.0, 10.0, 0.1)],
)
def test_cone(catalog: Catalog, shards: pa.Table, ra: float, dec: float, radius: float) -> None:
    found = catalog.cone(ra, dec, radius, ["source_id"])
    angle = apart(shards, ra, dec)
    assert set(found["source_id"].to_pylist()) == set(shards["source_id"].to_numpy()[angle <= radius])
    assert found.column_names == ["source_id", "separation"]
    assert np.allclose(np.sort(angle[angle <= radius]) * 3600, found["separation"].to_numpy(), atol=1e-2)


def test_cone_refuses_impossible_angles_and_columns(catalog: Catalog) -> None:
    with pytest.raises(ConfigurationError, match=r"got 0\.0, 91\.0, 1\.0"):
        catalog.cone(0.0, 91.0, 1.0)
    with pytest.raises(ConfigurationError, match="columns of catalog 'main', got 'no_such'"):
        catalog.cone(0.0, 0.0, 1.0, ["no_such"])


def test_box_runs_over_ra_zero(catalog: Catalog, shards: pa.Table) -> None:
    ra, dec = shards["ra"].to_numpy(), shards["dec"].to_numpy()
    inside = ((ra >= 359.9) | (ra < 0.2)) & (dec >= -0.3) & (dec < 0.1)
    assert inside.any()
    assert catalog.box((359.9, 0.2), (-0.3, 0.1), ["source_id"])["source_id"].to_pylist() == sorted(shards["source_id"].to_numpy()[inside])


def test_by_id(catalog: Catalog, shards: pa.Table) -> None:
    wanted = shards["source_id"][5].as_py()
    assert catalog.by_id([wanted, 1], ["source_id"]).to_pylist() == [{"source_id": wanted}]
    assert catalog.by_id([]).num_rows == 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY galaxies TO '{folder}/x.csv'",
        "CREATE TABLE t AS SELECT 1",
        "ATTACH '{folder}/x.db'",
        "INSERT INTO galaxies SELECT 1",
        "SET enable_external_access = true",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/x.csv'",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH 'https://example.org/x.db'",
        "COPY (SELECT * FROM galaxies) TO '{folder}/x.parquet'",
        "PRAGMA enable_profiling = 'json'",
        "CREATE OR REPLACE VIEW galaxies AS SELECT 1",
        "DROP VIEW galaxies",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/x.csv'",
        "EXPORT DATABASE '{folder}/x'",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_only_one_select_is_run(catalog: Catalog, layout: Layout, sql: str) -> None:
    folder = layout.catalog("main")
    before = set(folder.rglob("*"))
    with pytest.raises(ConfigurationError, match="one SQL SELECT, as a catalog is read-only"):
        catalog.sql(sql.format(folder=folder))
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT * FROM read_csv('s3://bucket/x.csv')",
        "SELECT * FROM read_json('/etc/hosts')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('{root}/../x.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('{root}/ledger.sqlite')",
        "SELECT * FROM read_text('{root}/catalog/main/../../ledger.sqlite')",
        "SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/x''')",
        "SELECT * FROM shards",
        "SELECT nothing FROM galaxies",
        "SELEC 1",
    ],
)
def test_sql_reaches_nothing_but_the_catalog(catalog: Catalog, shards: pa.Table, layout: Layout, sql: str) -> None:
    assert shards.num_rows
    with pytest.raises(ConfigurationError, match=r"Permission Error|Catalog Error|Binder Error|Parser Error"):
        catalog.sql(sql.format(root=layout.root))


@pytest.mark.parametrize(
    "sql",
    ["SELECT * FROM read_csv('/etc/passwd')", "COPY galaxies TO 'x.csv'", "SELECT * FROM read_parquet('https://example.org/x.parquet')"],
)
def test_sql_on_a_piece_of_sky_is_held_as_closely(catalog: Catalog, sql: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Permission Error|one SQL SELECT"):
        catalog.sql(sql, Cone(0, 0, 1))


def test_views_on_a_piece_of_sky(catalog: Catalog, shards: pa.Table) -> None:
    area = Box(359.9, 0.2, -0.3, 0.1)
    inside = shards.filter(pa.array(area.inside(shards["ra"].to_numpy(), shards["dec"].to_numpy())))
    assert 0 < inside.num_rows < shards.num_rows
    expected = sum(item["is_primary_detection"] for row in inside["detections"].to_pylist() for item in row)
    assert catalog.sql("SELECT * FROM detections", area).num_rows == expected
    assert catalog.sql("SELECT count(*) AS n FROM embeddings", area).to_pylist() == [{"n": inside.num_rows}]
    assert catalog.sql("SELECT count(*) AS n FROM outcomes WHERE status = 'predicted'", area).to_pylist() == [{"n": inside.num_rows}]
    assert catalog.sql("SELECT count(*) AS n FROM galaxies", Cone(90, 60, 0.1)).to_pylist() == [{"n": 0}]
    # a query bound to a piece of sky leaves nothing behind
    assert catalog.sql("SELECT count(*) AS n FROM galaxies").to_pylist() == [{"n": shards.num_rows}]


def test_every_column_of_a_piece_of_sky_is_the_shards(catalog: Catalog, shards: pa.Table) -> None:
    found = catalog.polygon([(359.8, -0.5), (0.3, -0.4), (0.2, 0.2)])
    own = shards.filter(pa.array(np.isin(shards["source_id"].to_numpy(), found["source_id"].to_numpy())))
    assert 0 < found.num_rows < shards.num_rows
    assert found.to_pylist() == own.sort_by("source_id").to_pylist()
    assert catalog.moc("0/0-11", ["source_id"]).num_rows == shards.num_rows


def test_look_alikes_with_columns_of_the_catalog(layout: Layout, shards: pa.Table) -> None:
    asked = shards["source_id"][3].as_py()
    with open_catalog(layout) as catalog:
        found = catalog.similar(asked, 5, ["source_id", "mag_r"])
        assert found.column_names == ["source_id", "mag_r", "distance"]
        assert asked not in found["source_id"].to_pylist()
        assert (np.diff(found["distance"].to_numpy()) >= 0).all()
        first = found["source_id"][0].as_py()
        assert catalog.by_id([first], ["mag_r"])["mag_r"][0] == found["mag_r"][0]
    # every brick of this sky has the same vectors: the first three are the asked one's twins
    row = {source: number for number, source in enumerate(shards["source_id"].to_pylist())}
    vectors = shards["embedding"].to_pylist()
    assert [vectors[row[source]] == vectors[3] for source in found["source_id"].to_pylist()] == [True] * 3 + [False] * 2


def test_versions_stay_readable(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for rows in (3, 4):
        write_brick(layout, UNITS[0], rows)
        publish(layout, "main")
    for version, rows in ((1, 3), (2, 4), (None, 4)):
        with open_catalog(layout, version=version) as catalog:
            assert catalog.sql("SELECT * FROM galaxies").num_rows == rows
    with pytest.raises(ConfigurationError, match=r"a version of catalog 'main', got v9; there are v1 \("):
        open_catalog(layout, version=9)


def test_an_empty_version_answers(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_brick(layout, UNITS[0], 0)
    publish(layout, "main")
    with open_catalog(layout) as catalog:
        for view in ("galaxies", "galaxies_clean", "detections", "embeddings"):
            assert catalog.sql(f"SELECT * FROM {view}").num_rows == 0
        assert catalog.cone(0, 0, 1).num_rows == 0


def test_a_catalog_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a published version of catalog 'main'"):
        open_catalog(Layout(tmp_path))
    with pytest.raises(ConfigurationError, match="shards of catalog 'main', got none"):
        open_catalog(Layout(tmp_path), live=True)
