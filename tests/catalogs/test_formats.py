import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from catalogs.formats import from_astropy, to_astropy, to_json, to_pandas, write_result
from galpipe.errors import ConfigurationError
from tests.catalogs.sky import UNITS, make_shard

BIG = 39632176735584465


@pytest.fixture(scope="module")
def shard() -> pa.Table:
    return make_shard(UNITS[0], 6)


def read(path: Path) -> Table:
    with warnings.catch_warnings():
        # nanomaggies are in no standard
        warnings.simplefilter("ignore")
        return Table.read(path)


def test_json_keeps_ids_and_marks_missing_numbers() -> None:
    table = pa.table(
        {
            "source_id": pa.array([BIG, None], pa.int64()),
            "objid": pa.array([1, 2], pa.int32()),
            "z": pa.array([float("nan"), 0.5]),
            "deep": pa.array([[{"id": BIG, "x": float("inf")}], []], pa.list_(pa.struct([("id", pa.int64()), ("x", pa.float32())]))),
            "ok": [True, None],
        }
    )
    body = to_json(table)
    assert body == {
        "columns": ["source_id", "objid", "z", "deep", "ok"],
        "rows": [[str(BIG), 1, None, [{"id": str(BIG), "x": None}], True], [None, 2, 0.5, [], None]],
    }
    assert json.loads(json.dumps(body, allow_nan=False)) == body


def test_json_of_a_whole_shard(tmp_path: Path, shard: pa.Table) -> None:
    assert write_result(shard, tmp_path / "x.json") == []
    body = json.loads((tmp_path / "x.json").read_text())
    assert len(body["rows"]) == 6
    assert body["rows"][0][body["columns"].index("source_id")] == str(shard["source_id"][0].as_py())


def test_parquet_keeps_everything(tmp_path: Path, shard: pa.Table) -> None:
    assert write_result(shard, tmp_path / "x.parquet") == []
    assert pq.read_table(tmp_path / "x.parquet").equals(shard)


def test_fits_has_units_vectors_and_masked_integers(tmp_path: Path, shard: pa.Table) -> None:
    notes = write_result(shard, tmp_path / "x.fits")
    assert [note.split()[1] for note in notes] == ["'detections'"]
    back = read(tmp_path / "x.fits")
    assert back["ra"].unit == "deg"
    assert str(back["flux_g"].unit) == "nanomaggy"
    assert list(back["source_id"]) == shard["source_id"].to_pylist()
    assert back["embedding"].shape == (6, 8)
    assert np.allclose(back["embedding"][2], shard["embedding"][2].as_py())
    assert back["sga_id"].mask.all()
    assert np.isnan(np.ma.filled(back["flux_i"], np.nan)).all()
    assert list(back["bands_used"]) == ["grz"] * 6


@pytest.mark.parametrize("ending", [".vot", ".xml"])
def test_votable_has_units_and_descriptions(tmp_path: Path, shard: pa.Table, ending: str) -> None:
    write_result(shard, tmp_path / f"x{ending}")
    back = read(tmp_path / f"x{ending}")
    assert back["dec"].unit == "deg"
    assert back["dec"].description == "Declination, ICRS"
    assert list(back["source_id"]) == shard["source_id"].to_pylist()


def test_csv_leaves_nested_columns_out_and_says_so(tmp_path: Path, shard: pa.Table) -> None:
    notes = write_result(shard, tmp_path / "x.csv")
    assert sorted(note.split()[1] for note in notes) == ["'detections'", "'embedding'", "'z_mock_pdf'"]
    assert pacsv.read_csv(tmp_path / "x.csv")["source_id"].to_pylist() == shard["source_id"].to_pylist()


def test_pandas_keeps_ids_whole_and_tells_units(shard: pa.Table) -> None:
    table = shard.set_column(shard.column_names.index("ref_id"), "ref_id", pa.array([BIG, *[None] * 5], pa.int64()))
    frame = to_pandas(table)
    assert frame["ref_id"].tolist()[0] == BIG
    assert frame["ref_id"].isna().tolist() == [False] + [True] * 5
    assert frame.attrs["units"]["flux_g"] == "nanomaggy"
    assert frame.attrs["descriptions"]["ra"] == "Right ascension, ICRS"


def test_astropy_and_back(shard: pa.Table) -> None:
    flat = shard.select(["source_id", "ra", "flux_g", "sga_id", "brick_primary", "bands_used", "embedding"])
    back = from_astropy(to_astropy(flat))
    for name in ("source_id", "ra", "flux_g", "sga_id", "brick_primary", "bands_used"):
        assert back[name].to_pylist() == flat[name].to_pylist()
    assert back["embedding"].to_pylist() == flat["embedding"].cast(pa.list_(pa.float32())).to_pylist()
    assert back.schema.field("ra").metadata[b"unit"] == b"deg"


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".fits", ".vot", ".json"])
def test_a_result_without_rows_is_written(tmp_path: Path, shard: pa.Table, ending: str) -> None:
    write_result(shard.slice(0, 0), tmp_path / f"x{ending}")
    assert (tmp_path / f"x{ending}").stat().st_size > 0


def test_an_unknown_ending_is_refused(tmp_path: Path, shard: pa.Table) -> None:
    with pytest.raises(ConfigurationError, match=r"ending in one of .*got '\.xlsx'"):
        write_result(shard, tmp_path / "x.xlsx")
