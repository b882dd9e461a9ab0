from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.crossmatch import Match
from catalogs.query import Catalog, open_catalog
from catalogs.usertable import UserTable, read_user_table
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.test_pushdown import MIDDLES, SPREAD, make_sky, write_version


@pytest.fixture(scope="module")
def sky() -> pa.Table:
    return make_sky(3000)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, sky: pa.Table) -> Catalog:
    layout = Layout(tmp_path_factory.mktemp("root"))
    write_version(layout, sky)
    return open_catalog(layout)


def positions(table: pa.Table) -> SkyCoord:
    return SkyCoord(table["ra"].to_numpy(), table["dec"].to_numpy(), unit="deg")


def user_rows(count: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    ra, dec = np.array(MIDDLES)[random.integers(len(MIDDLES), size=count)].T
    dec = np.clip(dec + random.normal(0, SPREAD, count), -90, 90)
    ra = (ra + random.normal(0, SPREAD, count)) % 360
    return pa.table({"name": [f"u{number}" for number in range(count)], "RA": ra, "Dec": dec, "flux_r": np.arange(count)})


@given(st.integers(1, 60), st.integers(0, 1000), st.floats(0, 4).map(lambda power: 10**power), st.booleans())
@settings(max_examples=25, deadline=None)
def test_pairs_are_those_of_every_with_every(catalog: Catalog, sky: pa.Table, count: int, seed: int, radius: float, every: bool) -> None:
    rows = user_rows(count, seed)
    found = catalog.match(UserTable.of(rows), Match(radius, every), ["source_id", "flux_r"])
    here, there = SkyCoord(rows["RA"].to_numpy(), rows["Dec"].to_numpy(), unit="deg"), positions(sky)
    apart = here[:, None].separation(there[None, :]).arcsec
    if every:
        mine, theirs = np.nonzero(apart <= radius)
    else:
        theirs = apart.argmin(axis=1)
        mine = np.flatnonzero(apart[np.arange(count), theirs] <= radius)
        theirs = theirs[mine]
    expected = {(f"u{i}", sky["source_id"][int(k)].as_py()) for i, k in zip(mine, theirs, strict=True)}
    assert set(zip(found["name"].to_pylist(), found["source_id"].to_pylist(), strict=True)) == expected
    assert found.num_rows == len(expected)
    assert found.column_names == ["name", "RA", "Dec", "flux_r_user", "source_id", "flux_r", "separation"]
    assert np.allclose(np.sort(found["separation"].to_numpy()), np.sort(apart[mine, theirs]), atol=1e-6)
    assert found.schema.field("separation").metadata[b"unit"] == b"arcsec"


def test_rows_keep_their_order_and_those_without_a_position_have_no_pair(catalog: Catalog, sky: pa.Table) -> None:
    some = sky.take([40, 7, 900])
    ra, dec = [None, *some["ra"].to_pylist(), 3.0, float("nan")], [1.0, *some["dec"].to_pylist(), 91.0, 0.0]
    rows = pa.table({"ra": pa.array(ra), "dec": pa.array(dec), "separation": ["a", "b", "c", "d", "e", "f"]})
    found = catalog.match(UserTable.of(rows), Match(0.001), ["source_id"])
    assert found["source_id"].to_pylist() == some["source_id"].to_pylist()
    assert found["separation_user"].to_pylist() == ["b", "c", "d"]
    assert catalog.match(UserTable.of(rows.slice(0, 1)), Match(10.0)).num_rows == 0


@pytest.mark.parametrize("ending", [".fits", ".fits.gz", ".vot", ".xml", ".csv", ".ecsv", ".parquet"])
def test_tables_of_every_kind_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    table = Table({"RAJ2000": [10.5, 359.9] * u.deg, "DEJ2000": [-5.0, 89.5] * u.deg, "id": np.array([1 << 60, 3]), "name": ["a", "b"]})
    table["mag"] = MaskedColumn(np.array([18.5, 0.0], ">f4"), mask=[False, True], unit="mag")
    if ending == ".csv":
        pacsv.write_csv(pa.table({name: table[name].tolist() for name in table.colnames}), path)
    elif ending == ".parquet":
        pq.write_table(pa.table({name: table[name].tolist() for name in table.colnames}), path)
    else:
        table.write(path, format={".vot": "votable", ".xml": "votable", ".ecsv": "ascii.ecsv"}.get(ending, "fits"))
    user = read_user_table(path)
    assert user.ra.tolist() == [10.5, 359.9]
    assert user.dec.tolist() == [-5.0, 89.5]
    assert user.table["id"].to_pylist() == [1 << 60, 3]
    assert user.table["name"].to_pylist() == ["a", "b"]
    assert user.table["mag"][0].as_py() == 18.5
    assert user.table["mag"][1].as_py() is None or np.isnan(user.table["mag"][1].as_py())


def test_radians_are_turned_into_degrees_and_a_ucd_goes_before_a_name() -> None:
    table = Table({"alpha": [1.0] * u.rad, "delta": [0.5] * u.rad, "ra": [1.0], "dec": [2.0]})
    table["alpha"].meta["ucd"], table["delta"].meta["ucd"] = "pos.eq.ra;meta.main", "pos.eq.dec;meta.main"
    user = UserTable.of(table)
    assert np.allclose([user.ra[0], user.dec[0]], np.degrees([1.0, 0.5]))
    assert UserTable.of(table, "RA", "dec").ra.tolist() == [1.0]


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"x": [1.0], "y": [2.0]}, ("", ""), r"such as ra and dec .*got columns \['x', 'y'\]"),
        ({"ra": [1.0], "y": [2.0]}, ("", ""), r"got columns \['ra', 'y'\]"),
        ({"ra": [1.0], "dec": [2.0]}, ("lon", "dec"), r"a column 'lon', got columns \['ra', 'dec'\]"),
        ({"ra_x": [1.0], "dec_x": [2.0]}, ("ra_y", "dec_x"), "nearest: 'ra_x'"),
        ({"ra": [1.0], "dec": [2.0]}, ("ra", ""), "both columns"),
        ({"ra": ["01:00:00"], "dec": ["+02:00:00"]}, ("", ""), "degrees as numbers in column 'ra', got string, such as '01:00:00'"),
    ],
)
def test_a_table_without_positions_is_refused(columns: dict[str, list[object]], names: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        UserTable.of(pa.table(columns), *names)


def test_a_unit_that_is_no_angle_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="an angle in column 'ra', got unit 'm'"):
        UserTable.of(Table({"ra": [1.0] * u.m, "dec": [1.0]}))


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.fits").write_text("no such thing")
    (tmp_path / "x.doc").write_text("")
    for name, message in (("x.fits", r"a readable \.fits table"), ("x.doc", "a table whose name ends in"), ("y.csv", "no such file")):
        with pytest.raises(ConfigurationError, match=message):
            read_user_table(tmp_path / name)
    for radius in (0.0, -1.0, float("nan"), 1e6):
        with pytest.raises(ConfigurationError, match="a radius above 0"):
            Match(radius)
