from pathlib import Path

import cdshealpix.nested
import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import Latitude, Longitude
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.derive import healpix29
from catalogs.join import Origin, build_shard
from catalogs.parquet import read_footer
from catalogs.schema import assemble
from catalogs.shard import ShardMeta, read_shard, read_shard_meta, write_shard
from galpipe.columns import Column
from galpipe.errors import BadData, ConfigurationError
from galpipe.fingerprint import sha256_file
from galpipe.survey.tractor import unpack_id
from galpipe.unit import Unit
from tests.catalogs.sky import HEADS, UNITS, make_predictions, make_shard, make_sources

UNIT = UNITS[0]


def built(sources: pa.Table) -> pa.Table:
    return build_shard(sources, make_predictions(sources), HEADS, Origin(UNIT, 7))


def put(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, pa.array(values, table.schema.field(name).type))


def test_shard_has_the_catalog_schema_and_keeps_row_order() -> None:
    sources = make_sources(UNIT, 12)
    shard = built(sources)
    assert shard.schema.equals(assemble(HEADS), check_metadata=True)
    assert shard["source_id"].equals(sources["source_id"])
    assert shard["release_name"].to_pylist() == ["dr9"] * 12
    assert shard["provenance_id"].to_pylist() == [7] * 12


def test_columns_the_survey_does_not_have_are_null() -> None:
    sources = make_sources(UNIT, 3).drop_columns(["z_spec", "rchisq_g"])
    shard = built(sources)
    assert shard["z_spec"].null_count == shard["rchisq_g"].null_count == 3


def test_magnitudes_follow_from_fluxes() -> None:
    sources = put(make_sources(UNIT, 3), "flux_r", [100.0, -1.0, 10.0])
    sources = put(sources, "flux_ivar_r", [1.0, 1.0, 0.0])
    sources = put(sources, "mw_transmission_r", [0.5, 0.5, 0.5])
    shard = built(sources)
    # 22.5 - 2.5 log10(100) = 17.5; a negative flux and an unobserved band have no magnitude
    assert shard["mag_r"].to_pylist() == [pytest.approx(17.5), None, None]
    assert shard["mag_r_dered"][0].as_py() == pytest.approx(17.5 - 2.5 * np.log10(2), abs=1e-5)


def test_flags_follow_from_mask_bits_and_missing_bands() -> None:
    sources = put(make_sources(UNIT, 6), "maskbits", [0, 1 << 1, 1 << 11, 1 << 12, 1 << 13, 1 << 4])
    sources = put(sources, "valid_frac_g", [0.0, 1.0, 1.0, 1.0, 1.0, None])
    shard = built(sources)
    for row, flag in enumerate(("flag_bright_star", "flag_medium", "flag_galaxy_mask", "flag_cluster", "flag_saturated"), 1):
        assert [index for index, value in enumerate(shard[flag].to_pylist()) if value] == [row]
    assert shard["bands_used"].to_pylist() == ["rz", "grz", "grz", "grz", "grz", "rz"]
    assert shard["degraded"].to_pylist() == [True, False, False, False, False, True]


def test_bands_that_the_model_says_it_used_go_first() -> None:
    sources = make_sources(UNIT, 2)
    predictions = (
        make_predictions(sources).append_column("bands_used", pa.array(["gr", "grz"])).append_column("degraded", pa.array([True, False]))
    )
    shard = build_shard(sources, predictions, HEADS, Origin(UNIT, 7))
    assert shard["bands_used"].to_pylist() == ["gr", "grz"]
    assert shard["degraded"].to_pylist() == [True, False]


def test_large_galaxies_and_their_shreds() -> None:
    sources = put(make_sources(UNIT, 3), "maskbits", [1 << 12, 1 << 12, 0])
    sources = put(put(sources, "ref_cat", ["L3", "", "GE"]), "ref_id", [42, 0, 77])
    shard = built(put(sources, "shape_r", [9.0, 1.0, 1.0]))
    assert shard["sga_id"].to_pylist() == [42, None, None]
    assert shard["is_probable_shred"].to_pylist() == [False, True, False]
    assert shard["stamp_truncated"].to_pylist() == [True, False, False]


def test_what_a_truncated_stamp_cannot_tell_is_null() -> None:
    units = {"lvm_mag_r": "mag", "lvm_mag_r_sigma": "mag", "lvm_half_light_radius": "arcsec", "sep_theta": "deg", "sep_flux": "nanomaggy"}
    others = {"lvm_axis_ratio": "", "restoration_sigma_r": "nanomaggy", "sep_x": "pix"}
    heads = [*HEADS, *(Column(name, pa.float32(), unit) for name, unit in (units | others).items())]
    sources = put(make_sources(UNIT, 3), "shape_r", [9.0, 8.0, None])
    predictions = make_predictions(sources)
    for name in units | others:
        predictions = predictions.append_column(name, pa.array([1.0, 2.0, 3.0], pa.float32()))
    shard = build_shard(sources, predictions, heads, Origin(UNIT, 7))
    assert shard["stamp_truncated"].to_pylist() == [True, False, None]
    for name in units:
        assert shard[name].to_pylist() == [None, 2.0, 3.0], name
    for name in others:
        assert shard[name].to_pylist() == [1.0, 2.0, 3.0], name
    # what the survey measured on the whole galaxy stays
    assert shard["shape_r"][0].as_py() == 9.0


def test_beyond_volunteers_is_small_or_faint() -> None:
    sources = put(make_sources(UNIT, 3), "shape_r", [3.0, 2.0, 3.0])
    sources = put(put(sources, "psfsize_r", [1.2] * 3), "flux_r", [100.0, 100.0, 10.0])
    assert built(sources)["beyond_volunteers"].to_pylist() == [False, True, True]


def test_a_source_without_position_has_no_pixel() -> None:
    sources = put(make_sources(UNIT, 3), "ra", [float("nan"), None, 0.05])
    assert built(sources)["_healpix_29"].null_count == 2


@given(st.floats(0, 360), st.floats(-90, 90))
@settings(deadline=None, max_examples=50)
def test_healpix_index_decodes_to_the_position(ra: float, dec: float) -> None:
    index = healpix29(np.array([ra]), np.array([dec]))
    lon, lat = cdshealpix.nested.healpix_to_lonlat(index.to_numpy(), 29)
    there = Longitude(ra % 360, u.deg), Latitude(dec, u.deg)
    apart = np.hypot((lon.deg[0] - there[0].deg + 180) % 360 - 180, 0) * np.cos(np.radians(dec))
    assert abs(apart) < 1e-6
    assert lat.deg[0] == pytest.approx(there[1].deg, abs=1e-6)


@given(st.integers(0, 32767), st.integers(1, 662174), st.integers(0, (1 << 22) - 1))
def test_packed_id_round_trip(release: int, brickid: int, objid: int) -> None:
    assert unpack_id((release << 42) | (brickid << 22) | objid) == (release, brickid, objid)


@given(rows=st.integers(0, 40), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_shard_round_trip_is_exact_and_its_bytes_are_reproducible(tmp_path_factory: pytest.TempPathFactory, rows: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("shard")
    shard = make_shard(UNIT, rows, seed)
    meta = ShardMeta(UNIT, "f", 7, "mini", {"predicted": rows})
    kept, first = write_shard(folder / "a.parquet", shard, meta)
    # the same rows in other chunks and in another file
    pieces = pa.concat_tables([shard.slice(0, rows // 2), shard.slice(rows // 2)])
    again, second = write_shard(folder / "b.parquet", pieces, meta)
    back, told = read_shard(folder / "a.parquet")
    assert back.equals(shard, check_metadata=False)
    assert [item.metadata for item in back.schema] == [item.metadata for item in shard.schema]
    assert first == second == sha256_file(folder / "a.parquet")
    assert kept == again == told == read_shard_meta(folder / "a.parquet")
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert ShardMeta.from_json(kept.as_json()) == kept


def test_the_content_hash_knows_rows_and_columns_but_not_the_footer(tmp_path: Path) -> None:
    shard = make_shard(UNIT, 5)

    def content(table: pa.Table, fingerprint: str = "f") -> str:
        return write_shard(tmp_path / "x.parquet", table, ShardMeta(UNIT, fingerprint))[0].content_hash

    assert content(shard) == content(shard, "another")
    assert content(put(shard, "mag_model_r", [1.0, 2.0, 3.0, 4.0, 5.0])) != content(shard)
    assert content(shard.rename_columns(["x" if name == "z_mock" else name for name in shard.column_names])) != content(shard)


def test_float16_and_nested_columns_keep_their_types(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.parquet", make_shard(UNIT, 5), ShardMeta(UNIT))
    back, _ = read_shard(tmp_path / "x.parquet")
    assert back.schema.field("embedding").type == pa.list_(pa.float16())
    assert back["detections"][2].as_py()[1]["is_primary_detection"] is False


def test_predictions_must_be_of_the_same_rows() -> None:
    sources = make_sources(UNIT, 4)
    with pytest.raises(BadData, match=r"0001m002: expected 4 predictions, got 3"):
        build_shard(sources, make_predictions(sources.slice(1)), HEADS, Origin(UNIT, 1))
    named = make_predictions(sources).append_column("source_id", sources["source_id"].take([1, 0, 2, 3]))
    with pytest.raises(BadData, match=r"order of the sources"):
        build_shard(sources, named, HEADS, Origin(UNIT, 1))


def test_a_repeated_id_is_refused() -> None:
    sources = pa.concat_tables([make_sources(UNIT, 2)] * 2)
    with pytest.raises(BadData, match=r"one distinct source_id per row, got 0 null, 2 of 4 distinct"):
        built(sources)


def test_heads_and_answers_must_agree() -> None:
    sources = make_sources(UNIT, 2)
    predictions = make_predictions(sources).drop_columns(["z_mock"]).append_column("guess", pa.array([1, 2]))
    with pytest.raises(ConfigurationError, match=r"missing \['z_mock'\], undeclared \['guess'\]"):
        build_shard(sources, predictions, HEADS, Origin(UNIT, 1))


def test_a_column_of_another_kind_is_refused_by_name() -> None:
    sources = make_sources(UNIT, 2)
    odd = sources.set_column(sources.schema.get_field_index("nobs_g"), "nobs_g", pa.array(["many", "few"]))
    with pytest.raises(BadData, match=r"int32 in column 'nobs_g'"):
        built(odd)


def test_counts_must_match_the_rows(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"expected 9 rows, the count of predicted sources, got 2"):
        write_shard(tmp_path / "x.parquet", make_shard(UNIT, 2), ShardMeta(UNIT, counts={"predicted": 9}))
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "0001m002.parquet"
    write_shard(path, make_shard(UNIT, 4), ShardMeta(UNIT))
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"<html>", "cut": whole[: len(whole) // 2]}[damage])
    for read in (read_shard, read_shard_meta, read_footer):
        with pytest.raises(BadData, match=r"0001m002\.parquet: expected a readable"):
            read(path)


def test_a_foreign_parquet_file_is_not_a_shard(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(BadData, match=r"key 'galpipe' in the Parquet footer"):
        read_shard_meta(tmp_path / "x.parquet")


def test_unit_of_the_stamps_route() -> None:
    unit = Unit("stamps", "all", "1126p222")
    sources = make_sources(UNIT, 2).select(["source_id", "ra", "dec"])
    shard = build_shard(sources, make_predictions(sources), HEADS, Origin(unit, 1))
    assert shard["release_name"].to_pylist() == ["stamps"] * 2
    assert shard["flux_r"].null_count == shard["mag_r"].null_count == shard["beyond_volunteers"].null_count == 2
    assert shard["degraded"].to_pylist() == [True, True]
