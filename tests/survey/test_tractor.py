from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galpipe.config import SelectionSettings
from galpipe.errors import BadData
from galpipe.stamps.result import outcomes_table
from galpipe.survey.bits import MASKBITS
from galpipe.survey.bricks import brick_at, brick_by_name, brick_wcs
from galpipe.survey.selection import select
from galpipe.survey.tractor import (
    NEEDED,
    bands_of,
    maskbit_names,
    packed_id,
    read_tractor,
    stated_rows,
    subset_schema,
    tractor_subset,
    unpack_id,
)
from galpipe.survey.unknown import nameless_bits, unknown_in, words
from galpipe.unit import Unit
from tests.survey.fake_release import BRICK, UNIT, tractor_bytes, tractor_columns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"tractor-{BRICK}.fits"


def test_a_table_of_today(path: Path) -> None:
    path.write_bytes(tractor_bytes(tractor_columns(), {"MBIT_1": "BRIGHT", "MBIT_20": "NEW"}))
    table = read_tractor(path, UNIT)
    assert bands_of(table) == ("g", "r", "z")
    assert table["ref_cat"].to_pylist() == ["", "", ""]
    assert table["dchisq"].to_pylist()[0] == [0.0] * 5
    subset = tractor_subset(table)
    assert subset.schema.equals(subset_schema())
    assert maskbit_names(subset) == {"BRIGHT": 1, "NEW": 20}
    assert subset["flux_i"].null_count == 3
    assert subset["flux_r"].to_pylist() == [20.0] * 3
    assert unpack_id(subset["source_id"][2].as_py()) == (9010, brick_by_name(BRICK).brickid, 2)


def test_the_headers_count_of_rows_is_carried_along(path: Path) -> None:
    path.write_bytes(tractor_bytes(tractor_columns(5)))
    subset = tractor_subset(read_tractor(path, UNIT))
    assert (stated_rows(subset), stated_rows(subset.slice(2))) == (5, 5)
    assert stated_rows(pa.table({"ra": [1.0]})) is None


def test_upper_case_names_and_other_widths(path: Path) -> None:
    columns = {name.upper(): values for name, values in tractor_columns(bands="griz").items()}
    columns["MASKBITS"] = np.full(3, 1 << 19, np.int32)
    columns["FLUX_R"] = columns["FLUX_R"].astype(np.float64)
    columns["TYPE"] = np.full(3, "COMP", "S4")
    path.write_bytes(tractor_bytes(columns))
    subset = tractor_subset(read_tractor(path, UNIT))
    assert subset["maskbits"].to_pylist() == [1 << 19] * 3
    assert subset["type"].to_pylist() == ["COMP"] * 3
    assert subset["flux_i"].null_count == 0


@pytest.mark.parametrize("name", [*NEEDED, "flux_g", "flux_ivar_r", "shape_e1"])
def test_a_missing_needed_column_is_named(path: Path, name: str) -> None:
    columns = tractor_columns()
    del columns[name]
    path.write_bytes(tractor_bytes(columns))
    with pytest.raises(BadData, match=rf"dr9/south/{BRICK} tractor-{BRICK}.fits: expected a column '{name}'"):
        read_tractor(path, UNIT)


def test_a_table_of_another_brick(path: Path) -> None:
    path.write_bytes(tractor_bytes(tractor_columns(brick="0001m002")))
    with pytest.raises(BadData, match=r"expected brickid 455939 in every row, got .*328928"):
        read_tractor(path, UNIT)


def test_a_wrong_name_beside_the_right_id(path: Path) -> None:
    columns = tractor_columns()
    columns["brickname"] = np.array([BRICK, "0001m002", BRICK], "S8")
    path.write_bytes(tractor_bytes(columns))
    with pytest.raises(BadData, match="brickname"):
        read_tractor(path, UNIT)


def test_rows_that_repeat_an_id_are_told_apart(path: Path) -> None:
    columns = tractor_columns(8)
    columns["objid"][:] = [0, 1, 1, 2, 3, 3, 3, 4]
    columns["shape_e1"][1:3] = np.nan
    columns["flux_z"][6] = 999.0
    columns["ra"][3] = np.nan
    path.write_bytes(tractor_bytes(columns))
    subset = tractor_subset(read_tractor(path, UNIT))
    assert stated_rows(subset) == subset.num_rows == 8
    reasons = select(subset, SelectionSettings(), ("g", "r", "z")).to_pylist()
    assert reasons == ["", "", "duplicated_row", "bad_position", *["conflicting_rows"] * 3, ""]
    result = outcomes_table(subset, np.array(reasons, object))
    assert result["status"].to_pylist() == ["selected", "selected", "filtered", "failed", *["failed"] * 3, "selected"]


def test_the_same_objid_in_two_releases_is_no_repetition(path: Path) -> None:
    columns = tractor_columns(2)
    columns["objid"][:] = 5
    columns["release"][1] = 9012
    path.write_bytes(tractor_bytes(columns))
    assert select(tractor_subset(read_tractor(path, UNIT)), SelectionSettings(), ("z",)).to_pylist() == ["", ""]


def test_rows_without_position_are_kept(path: Path) -> None:
    columns = tractor_columns()
    columns["ra"][1] = np.nan
    path.write_bytes(tractor_bytes(columns))
    assert np.isnan(read_tractor(path, UNIT)["ra"].to_pylist()[1])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"<html>no</html>", "readable FITS table"),
        (tractor_bytes(tractor_columns(200))[:-4000], "truncated"),
        (tractor_bytes(tractor_columns(200))[:5000], "readable FITS table|truncated|no table"),
    ],
)
def test_damaged_tables(path: Path, content: bytes, what: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BadData, match=what):
        read_tractor(path, UNIT)


def test_an_empty_table_is_a_table(path: Path) -> None:
    path.write_bytes(tractor_bytes(tractor_columns(0)))
    assert tractor_subset(read_tractor(path, UNIT)).num_rows == 0


def test_what_old_tables_leave_out_is_computed(path: Path) -> None:
    columns = tractor_columns(2)
    owner = brick_by_name(BRICK)
    columns["ra"][1] = owner.ra2 + 0.001
    whole = read_after(path, columns)
    for name in ("brick_primary", "bx", "by"):
        del columns[name]
    table = read_after(path, columns)
    assert table["brick_primary"].to_pylist() == [True, False]
    assert table["bx"].to_pylist()[0] == pytest.approx(whole["bx"].to_pylist()[0], abs=1e-3)
    expected = brick_wcs(owner).all_world2pix([[owner.ra2 + 0.001, owner.dec]], 0)[0]
    assert table["bx"].to_pylist()[1] == pytest.approx(expected[0], abs=1e-3)


def read_after(path: Path, columns: dict[str, np.ndarray]) -> pa.Table:
    path.write_bytes(tractor_bytes(columns))
    return read_tractor(path, UNIT)


def test_dr8_shapes_by_type(path: Path) -> None:
    columns = tractor_columns(6)
    columns["type"] = np.array(["PSF", "REX", "EXP", "DEV", "COMP", "COMP"], "S4")
    columns["fracdev"] = np.array([0, 0, 0, 1, 0.2, 0.8], np.float32)
    for name in ("r", "e1", "e2"):
        for end in ("", "_ivar"):
            columns[f"shapeexp_{name}{end}"] = np.full(6, 1.0, np.float32)
            columns[f"shapedev_{name}{end}"] = np.full(6, 2.0, np.float32)
            del columns[f"shape_{name}{end}"]
    del columns["sersic"]
    subset = tractor_subset(read_after(path, columns))
    assert subset["shape_r"].to_pylist() == [0, 1, 1, 2, 1, 2]
    assert subset["shape_e2_ivar"].to_pylist() == [0, 1, 1, 2, 1, 2]
    assert subset["sersic"].to_pylist() == [0, 1, 1, 4, None, None]


def test_redshifts_that_were_not_computed_are_null(path: Path) -> None:
    columns = tractor_columns(2)
    columns["z_phot_median"] = np.array([0.3, -99], np.float32)
    columns["z_spec"] = np.array([-99, -99], np.float32)
    subset = tractor_subset(read_after(path, columns))
    assert subset["z_phot_median"].to_pylist() == [pytest.approx(0.3), None]
    assert subset["z_spec"].null_count == 2


ZERO = brick_at(0.05, 22.25)
"""A brick that begins at RA 0."""


@pytest.mark.parametrize(
    ("ra", "expected"),
    [
        (0.0003, 0.0003),
        (360.0003, 0.0003),
        (360.0, 0.0),
        (-0.0001, 359.9999),
        (-1e-15, 0.0),
        (-359.9, 0.1),
        (-150.0, None),
        (720.1, None),
        (np.inf, None),
        (1e300, None),
    ],
)
def test_positions_a_whole_turn_off_are_put_right(tmp_path: Path, ra: float, expected: float | None) -> None:
    path, unit = tmp_path / f"tractor-{ZERO.name}.fits", Unit("dr9", "south", ZERO.name)
    columns = tractor_columns(2, ZERO.name)
    columns["ra"][1] = ra
    path.write_bytes(tractor_bytes(columns))
    subset = tractor_subset(read_tractor(path, unit))
    reasons = select(subset, SelectionSettings(), ("g", "r", "z")).to_pylist()
    if expected is None:
        assert reasons == ["", "bad_position"]
    else:
        assert subset["ra"].to_pylist()[1] == pytest.approx(expected, abs=1e-9)
        assert 0 <= subset["ra"].to_pylist()[1] < 360
        assert reasons == ["", ""]


def test_what_a_turn_puts_right_is_primary_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / f"tractor-{ZERO.name}.fits"
    columns = tractor_columns(2, ZERO.name)
    columns["ra"][:] = [360.0003, -0.0003]
    for name in ("brick_primary", "bx", "by"):
        del columns[name]
    path.write_bytes(tractor_bytes(columns))
    table = read_tractor(path, Unit("dr9", "south", ZERO.name))
    assert table["brick_primary"].to_pylist() == [True, False]
    assert np.diff(table["bx"].to_numpy())[0] == pytest.approx(0.0006 * 3600 / 0.262 * np.cos(np.radians(ZERO.dec)), rel=0.01)


def test_a_band_with_a_capital_letter_keeps_it(path: Path) -> None:
    columns = tractor_columns(bands="grzY")
    for table_columns in (columns, {name.upper(): values for name, values in columns.items()} | {"WISE_Y": np.zeros(3, np.float32)}):
        table = read_after(path, table_columns)
        assert bands_of(table) == ("g", "r", "z", "Y")
        assert tractor_subset(table, ("Y",))["flux_Y"].to_pylist() == [20.0] * 3
        assert "wise_Y" not in table.column_names


@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "u8"])
def test_mask_bits_of_every_width_stay_where_they_are(path: Path, kind: str) -> None:
    columns = tractor_columns()
    highest = 8 * np.dtype(kind).itemsize - 1
    columns["maskbits"] = np.array([0, 2, 1 << (highest - 1)], kind)
    columns["maskbits"][1] |= np.array(1, kind) << np.array(highest, kind)
    table = read_after(path, columns)
    values = [value % (1 << 64) for value in tractor_subset(table)["maskbits"].to_pylist()]
    assert values == [0, 2 + (1 << highest), 1 << (highest - 1)]
    assert nameless_bits(table) == [bit for bit in (highest - 1, highest) if bit not in MASKBITS.values()]


def test_what_this_version_does_not_know_is_listed(path: Path) -> None:
    columns = tractor_columns(3, bands="grzY")
    columns["maskbits"] = np.array([0, 1 << 33, 1 << 21], np.int64)
    columns["type"] = np.array(["EXP", "RING", "PSF"], "S4")
    columns["ring_radius"] = np.ones(3, np.float32)
    columns["sersic_g"] = np.ones(3, np.float32)
    unknown = unknown_in(read_after(path, columns))
    assert unknown == {"bands": ["Y"], "columns": ["ring_radius", "sersic_g"], "types": ["RING"], "maskbits": ["21", "33"]}
    assert words(unknown) == ("unknown to this version, left aside: bands Y; columns ring_radius, sersic_g; types RING; maskbits 21, 33")
    assert unknown_in(read_after(path, tractor_columns())) == {}
    assert words({}) == ""


def test_bits_that_the_header_names_are_known(path: Path) -> None:
    columns = tractor_columns()
    columns["maskbits"] = np.full(3, 1 << 21, np.int64)
    path.write_bytes(tractor_bytes(columns, {"MBIT_1": "BRIGHT", "MBIT_21": "NEW"}))
    assert nameless_bits(read_tractor(path, UNIT)) == []


@given(st.integers(0, 0x7FFF), st.integers(1, 662174), st.integers(0, 0x3FFFFF))
def test_packed_ids_round_trip(release: int, brickid: int, objid: int) -> None:
    table = pa.table({"release": [release], "brickid": [brickid], "objid": [objid]})
    assert unpack_id(packed_id(table)[0].as_py()) == (release, brickid, objid)
