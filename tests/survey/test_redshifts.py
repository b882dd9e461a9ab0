"""Published redshifts, from files of the real format made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.errors import BadData
from galpipe.evaluate.redshifts import by_survey, read_performance
from galpipe.survey.redshiftmatch import match_redshifts
from galpipe.survey.redshifts import SpectroscopicColumns, join_photoz, photoz_of, read_photoz, read_spectra
from galpipe.survey.tractor import read_tractor

ROWS = 5


def write_sweep(path: Path, rows: int = ROWS) -> None:
    """A sweep's identity and positions, in capitals as published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [
        fits.Column("RELEASE", "I", array=np.full(rows, 9010)),
        fits.Column("BRICKID", "J", array=np.full(rows, 330_000)),
        fits.Column("OBJID", "J", array=np.arange(rows)),
        fits.Column("RA", "D", array=10 + np.arange(rows) * 0.01),
        fits.Column("DEC", "D", array=np.full(rows, 2.0)),
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="SWEEP")]).writeto(path, overwrite=True)


def write_photoz(path: Path, rows: int = ROWS, first: int = 0, with_i: bool = False) -> None:
    """The photo-z columns of science release 9 (10.1 with ``with_i``); the second row was not computed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    z = np.linspace(0.1, 0.5, rows).astype(np.float32)
    z[1] = -99
    names = ("MEAN", "MEDIAN", "STD", "L68", "U68", "L95", "U95")
    columns = [
        fits.Column("RELEASE", "I", array=np.full(rows, 9010)),
        fits.Column("BRICKID", "J", array=np.full(rows, 330_000)),
        fits.Column("OBJID", "J", array=first + np.arange(rows)),
    ]
    for end, add in (("", 0.0), ("_I", 0.01))[: 2 if with_i else 1]:
        columns += [fits.Column(f"Z_PHOT_{name}{end}", "E", array=np.where(z < 0, z, z + add)) for name in names]
    columns += [
        fits.Column("Z_SPEC", "E", array=np.where(np.arange(rows) == 2, 0.31, -99)),
        fits.Column("SURVEY", "10A", array=np.where(np.arange(rows) == 2, "GAMA", "")),
        fits.Column("TRAINING", "L", array=np.arange(rows) == 2),
        fits.Column("KFOLD", "I", array=np.full(rows, -1)),
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path, overwrite=True)


def test_a_photoz_sweep_joins_its_sweep_row_by_row(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep" / "9.0" / "sweep-010p000-020p005.fits"
    write_sweep(sweep)
    assert photoz_of(sweep) is None
    for version in ("9.0-photo-z", "9.1-photo-z"):
        write_photoz(tmp_path / "sweep" / version / "sweep-010p000-020p005-pz.fits")
    found = photoz_of(sweep)
    assert found is not None and found.parent.name == "9.1-photo-z"
    joined = join_photoz(read_tractor(sweep), read_photoz(found), found.name)
    assert joined["z_phot_median"].to_pylist() == [pytest.approx(0.1), None, *map(pytest.approx, (0.3, 0.4, 0.5))]
    assert joined["z_spec"].to_pylist() == [None, None, pytest.approx(0.31), None, None]
    assert joined["survey"].to_pylist() == ["", "", "GAMA", "", ""]
    assert joined["training"].to_pylist() == [False, False, True, False, False]
    assert joined["source_id"].null_count == 0 if "source_id" in joined.column_names else True


def test_the_i_band_columns_are_taken_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a-pz.fits"
    write_photoz(path, with_i=True)
    assert read_photoz(path, with_i=True)["z_phot_l68"][0].as_py() == pytest.approx(0.11)
    assert read_photoz(path)["z_phot_l68"][0].as_py() == pytest.approx(0.1)


def test_a_photoz_sweep_of_other_sources_is_refused(tmp_path: Path) -> None:
    sweep, other, short = tmp_path / "s.fits", tmp_path / "o-pz.fits", tmp_path / "t-pz.fits"
    write_sweep(sweep)
    write_photoz(other, first=1)
    write_photoz(short, rows=4)
    table = read_tractor(sweep)
    with pytest.raises(BadData, match=r"o-pz\.fits: expected the sweep's sources in its order, got 5 other ids, the first in row 0"):
        join_photoz(table, read_photoz(other), other.name)
    with pytest.raises(BadData, match="expected 5 rows, as the sweep has, got 4"):
        join_photoz(table, read_photoz(short), short.name)
    with pytest.raises(BadData, match="z_phot_median"):
        read_photoz(sweep)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".fits"])
def test_spectra_are_read_from_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"spectra{ending}"
    columns = {"TARGET_RA": [10.0, 11.0, -0.5, 12.0], "TARGET_DEC": [1.0, 2.0, 3.0, np.nan], "Z": [0.1, 0.2, 0.3, 0.4]}
    columns["ZWARN"] = [0, 4, 0, 0]
    if ending == ".fits":
        made = [fits.Column(name, "J" if name == "ZWARN" else "D", array=np.array(values)) for name, values in columns.items()]
        fits.BinTableHDU.from_columns(made).writeto(path)
    elif ending == ".csv":
        pacsv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path)
    found = read_spectra(path)
    assert found["z_spec"].to_pylist() == [0.1, 0.3]
    assert found["ra"].to_pylist() == [10.0, 359.5]
    assert found["survey"].to_pylist() == ["spectra", "spectra"]
    assert found.schema.metadata == {b"left_out": b"2"}


def test_grades_and_named_columns(tmp_path: Path) -> None:
    path = tmp_path / "grades.csv"
    pacsv.write_csv(pa.table({"ra": [1.0, 2.0], "dec": [0.0, 0.0], "z_best": [0.1, 0.2], "nq": [4, 2], "flag": [1, 9]}), path)
    with pytest.raises(BadData, match="a column for z"):
        read_spectra(path)
    named = SpectroscopicColumns("ra", "dec", "z_best", "flag", (5, 10))
    assert read_spectra(path, named)["z_spec"].to_pylist() == [0.2]
    with pytest.raises(BadData, match="none of 2 rows"):
        read_spectra(path, SpectroscopicColumns("ra", "dec", "z_best", "flag", (20, 30)))
    with pytest.raises(BadData, match="a column 'grade'"):
        read_spectra(path, SpectroscopicColumns("ra", "dec", "z_best", "grade"))
    renamed = tmp_path / "named.csv"
    pacsv.write_csv(pa.table({"RA": [1.0, 2.0], "DEC": [0.0, 0.0], "redshift": [0.1, 0.2], "NQ": [4, 2]}), renamed)
    assert read_spectra(renamed)["z_spec"].to_pylist() == [0.1]


def test_matches_go_by_id_then_by_position_and_each_spectrum_once() -> None:
    sources = pa.table({"ra": [10.0, 10.0 + 0.8 / 3600, 20.0, 359.99999, 50.0], "dec": [0.0] * 5, "source_id": [1, 2, 3, 4, 5]})
    spectra = pa.table(
        {"ra": [10.0 + 0.3 / 3600, 20.0 + 0.1 / 3600, 0.00001, 50.5], "dec": [0.0] * 4, "z_spec": [0.1, 0.2, 0.3, 0.5]}
    ).append_column("source_id", pa.array([None, 3, None, 5], pa.int64()))
    found = match_redshifts(sources, spectra)
    # the first spectrum is nearer to the first source; the id of the last one is another release's
    assert found.rows.tolist() == [0, -1, 1, 2, -1]
    assert found.z[[0, 2, 3]].tolist() == [0.1, 0.2, 0.3]
    assert np.isnan(found.z[[1, 4]]).all()
    assert found.separation[0] == pytest.approx(0.3, abs=1e-4)
    assert found.separation[3] == pytest.approx(0.072, abs=1e-3)
    assert found.by_id == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_every_match_is_within_the_radius_and_none_is_missed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 5 / 3600, (2, 12))
    other = rng.uniform(0, 5 / 3600, (2, 8))
    sources = pa.table({"ra": ra, "dec": dec})
    found = match_redshifts(sources, pa.table({"ra": other[0], "dec": other[1], "z_spec": rng.uniform(0, 1, 8)}))
    apart = np.hypot(ra[:, None] - other[0], dec[:, None] - other[1]) * 3600
    taken = found.rows[found.rows >= 0]
    assert len(set(taken)) == len(taken)
    assert (found.separation[found.rows >= 0] <= 1.0).all()
    left = (found.rows < 0)[:, None] & ~np.isin(np.arange(8), taken)
    assert not (left & (apart < 0.999)).any()


def test_figures_by_survey_stand_beside_the_official_ones() -> None:
    true = np.tile(np.linspace(0.1, 0.5, 50), 2)
    error = 0.02 * np.tile([-1.0, 1.0], 50)
    error[0] = 0.5
    surveys = ["GAMA"] * 50 + ["other"] * 50
    official = [{"survey": "GAMA", "bands": "grz", "nmad": 0.017, "outliers_percent": 1.2}]
    rows = by_survey(true + error * (1 + true), true, surveys, official)
    assert [row["survey"] for row in rows] == ["all", "GAMA", "other"]
    assert rows[1]["outliers"] == pytest.approx(0.02)
    assert rows[2]["sigma_nmad"] == pytest.approx(1.4826 * 0.02, rel=1e-6)
    assert (rows[1]["official_nmad"], rows[2]["official_nmad"]) == (0.017, None)


def test_a_file_without_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("With i band:\n\nnothing\n")
    with pytest.raises(BadData, match=r"x\.txt: expected a table of photo-z accuracy by survey"):
        read_performance(tmp_path / "x.txt")
