"""Cone searches by pyvo, over HTTP: what comes back is what the catalog says."""

from __future__ import annotations

import io
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import pyvo
from astropy.io import fits, votable
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from pyvo.dal.exceptions import DALQueryError

from catalogs.query import open_catalog
from catalogs.serve.votable import CHUNK, Answer, pieces
from galpipe.layout import Layout

CONES = [
    (0.1, 0.05, 0.2, 3),
    (0.0, 0.0, 0.3, 2),
    (359.95, -0.05, 0.25, 3),
    (10.0, 90.0, 0.1, 1),
    (200.0, 89.93, 0.08, 2),
    (50.0, 30.0, 0.5, 2),
]
"""Plain, over RA 0 from both sides, at and beside the pole, and empty."""


def parsed(content: bytes) -> Table:
    """A VOTable read by a reader that forgives nothing."""
    return votable.parse(io.BytesIO(content), verify="exception").get_first_table().to_table()


@pytest.mark.parametrize(("ra", "dec", "radius", "verbosity"), CONES)
def test_a_search_gives_the_rows_of_the_catalog(
    url: str, served_layout: Layout, ra: float, dec: float, radius: float, verbosity: int
) -> None:
    found = pyvo.dal.SCSService(f"{url}scs?").search((ra, dec), radius=radius, verbosity=verbosity).to_table()
    with open_catalog(served_layout) as catalog:
        expected = catalog.cone(ra, dec, radius)
    assert len(found) == expected.num_rows and (len(found) > 0) == (dec != 30.0)
    assert list(found["id"]) == [str(value) for value in expected["source_id"].to_pylist()]
    for name in found.colnames[1:]:
        same(found[name], expected[name])


def same(column: object, expected: pa.ChunkedArray) -> None:
    values = np.ma.asarray(column)
    for got, hidden, wanted in zip(values.data, np.ma.getmaskarray(values), expected.to_pylist(), strict=True):
        if wanted is None:
            assert np.all(hidden) or got != got or got == ""
        elif isinstance(wanted, list):
            assert np.array_equal(np.asarray(got, np.float32), np.asarray(wanted, np.float32))
        else:
            assert got == wanted or (got != got and wanted != wanted)


def test_verbosity_says_how_many_columns(url: str, served_layout: Layout) -> None:
    service = pyvo.dal.SCSService(f"{url}scs?")
    names = [service.search((0.1, 0.0), radius=0.1, verbosity=level).to_table().colnames for level in (1, 2, 3)]
    assert names[0] == ["id", "source_id", "ra", "dec", "separation"]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert {"mag_r", "z_mock", "smooth-or-featured_smooth_fraction", "flag_cluster"} <= set(names[1])
    with open_catalog(served_layout) as catalog:
        assert set(catalog.schema.names) - set(names[2]) == {"detections"}


def test_the_record_has_id_and_position_in_the_words_of_the_standard(url: str) -> None:
    record = pyvo.dal.SCSService(f"{url}scs?UCD=1&").search((0.1, 0.0), radius=0.2)[0]
    assert record.id == str(record["source_id"])
    assert (record.pos.ra.deg, record.pos.dec.deg) == (record["ra"], record["dec"])


def test_columns_have_units_ucds_and_descriptions(url: str) -> None:
    content = httpx.get(f"{url}scs?RA=0.1&DEC=0&SR=0.2&VERB=3").content
    fields = {item.name: item for item in votable.parse(io.BytesIO(content), verify="exception").get_first_table().fields}
    assert fields["id"].ucd == "meta.id;meta.main" and fields["id"].datatype == "char"
    assert (fields["ra"].ucd, fields["ra"].unit.to_string(), fields["ra"].datatype) == ("pos.eq.ra;meta.main", "deg", "double")
    assert (str(fields["flux_r"].unit), str(fields["flux_ivar_r"].unit)) == ("nanomaggy", "1 / nanomaggy2")
    assert fields["mag_w1"].ucd == "phot.mag;em.IR.3-4um" and "mock only" in str(fields["z_mock"].description)
    assert [item.name for item in fields.values() if not str(item.description or "")] == []
    for item in fields.values():
        if item.ucd:
            parse_ucd(item.ucd, check_controlled_vocabulary=True, has_colon=True)


@pytest.mark.parametrize("query", ["SR=0", "SR=0.3&MAXREC=0"])
def test_the_columns_alone(url: str, query: str) -> None:
    table = parsed(httpx.get(f"{url}scs?RA=0&DEC=0&{query}").content)
    assert len(table) == 0 and {"id", "ra", "dec", "mag_r"} <= set(table.colnames)


def test_more_rows_than_asked_for_are_marked(url: str) -> None:
    service = pyvo.dal.SCSService(f"{url}scs?")
    whole = service.search((0.0, 0.0), radius=0.3, verbosity=1).to_table()
    content = httpx.get(f"{url}scs?RA=0&DEC=0&SR=0.3&VERB=3&MAXREC=5").content
    part = parsed(content)
    assert list(part["id"]) == list(whole["id"][:5]) and np.array_equal(part["separation"], whole["separation"][:5])
    assert [info.value for info in votable.parse(io.BytesIO(content)).resources[0].infos if info.name == "QUERY_STATUS"] == [
        "OK",
        "OVERFLOW",
    ]
    exact = httpx.get(f"{url}scs?RA=0&DEC=0&SR=0.3&MAXREC={len(whole)}").content
    assert len(parsed(exact)) == len(whole) and b"OVERFLOW" not in exact


@pytest.mark.parametrize("form", ["csv", "fits"])
def test_other_formats_have_the_same_rows(url: str, form: str) -> None:
    answer = httpx.get(f"{url}scs", params={"RA": 0.1, "DEC": 0, "SR": 0.3, "RESPONSEFORMAT": form, "MAXREC": 7})
    whole = parsed(httpx.get(f"{url}scs?ra=0.1&dec=0&sr=0.3&maxrec=7").content)
    assert answer.headers["x-overflow"] == "true"
    if form == "csv":
        rows = pacsv.read_csv(io.BytesIO(answer.content))
        assert rows["source_id"].to_pylist() == list(whole["source_id"]) and rows.column_names == whole.colnames
    else:
        with fits.open(io.BytesIO(answer.content)) as hdus:
            assert np.array_equal(hdus[1].data["source_id"], whole["source_id"])
            assert hdus[1].columns["mag_r"].unit == "mag"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "RA: a number from 0 to 360, got none"),
        ("RA=1&DEC=1", "SR: a number from 0 to 1, got none"),
        ("RA=as3f&DEC=1&SR=0.1", "RA: a number from 0 to 360, got 'as3f'"),
        ("RA=nan&DEC=1&SR=0.1", "got 'nan'"),
        ("RA=1&DEC=91.0&SR=0.1", "DEC: a number from -90 to 90, got '91.0'"),
        ("RA=1&DEC=1&SR=-1", "SR: a number from 0 to 1, got '-1'"),
        ("RA=1&DEC=1&SR=1.5", "SR: a number from 0 to 1, got '1.5'"),
        ("RA=1&RA=2&DEC=1&SR=0.1", "RA once, got 2 times"),
        ("RA=1&DEC=1&SR=0.1&VERB=9", "VERB: one of 1, 2, 3"),
        ("RA=1&DEC=1&SR=0.1&MAXREC=-3", "MAXREC: a whole number from 0"),
        ("RA=1&DEC=1&SR=0.1&RESPONSEFORMAT=pickle", "RESPONSEFORMAT: one of"),
        ("RA=<script>&DEC=1&SR=0.1", "got '<script>'"),
        ("RA=1);DROP TABLE galaxies--&DEC=1&SR=0.1", "RA: a number"),
    ],
)
def test_a_wrong_request_is_told_as_the_standard_wants(url: str, query: str, reason: str) -> None:
    answer = httpx.get(f"{url}scs?{query}")
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/x-votable+xml"
    tree = votable.parse(io.BytesIO(answer.content), verify="exception")
    assert [info.name for info in tree.infos] == ["Error"] and reason in tree.infos[0].value
    assert [(info.name, info.value) for info in tree.resources[0].infos] == [("QUERY_STATUS", "ERROR")]
    assert b"<script" not in answer.content


def test_pyvo_raises_what_the_service_told(url: str) -> None:
    with pytest.raises(DALQueryError, match=r"SR: a number from 0 to 1, got '5\.0'"):
        pyvo.dal.SCSService(f"{url}scs?").search((1.0, 2.0), radius=5.0)


def test_many_clients_at_once_get_their_own_rows(url: str, served_layout: Layout) -> None:
    """More than the three connections that the server has."""
    places = [(float(ra), float(dec)) for ra in (359.8, 359.95, 0.05, 0.2) for dec in (-0.1, -0.03, 0.04, 0.1)] * 2

    def ask(place: tuple[float, float]) -> list[int]:
        answer = httpx.get(f"{url}scs", params={"RA": place[0], "DEC": place[1], "SR": 0.06, "VERB": 1}, timeout=60)
        return list(parsed(answer.raise_for_status().content)["source_id"])

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, places))
    with open_catalog(served_layout) as catalog:
        expected = [catalog.cone(*place, 0.06, ["source_id"])["source_id"].to_pylist() for place in places]
    assert answers == expected and any(expected)


def test_a_long_answer_comes_in_pieces_and_keeps_what_is_hard_to_write() -> None:
    rows = 2 * CHUNK + 1
    hard = ["<a & b>", "", None, 'quo"te', "tab\té", "bell\x07"]
    table = pa.table(
        {
            "text": pa.array([hard[n % 6] for n in range(rows)]),
            "number": pa.array([[1.5, float("nan"), float("inf"), -float("inf"), None, 1e-30][n % 6] for n in range(rows)], pa.float32()),
            "count": pa.array([[None, 2**62, -1][n % 3] for n in range(rows)], pa.int64()),
            "yes": pa.array([[True, False][n % 2] for n in range(rows)]),
            "vector": pa.array([[[1.0, 2.5], []][n % 2] for n in range(rows)], pa.list_(pa.float16())),
        }
    )
    made = list(pieces(Answer(table, title="a < b")))
    assert len(made) == 5
    back = parsed(b"".join(made))
    assert list(back["text"][:6]) == ["<a & b>", "", "", 'quo"te', "tab\té", "bell"]
    assert (
        np.ma.is_masked(back["number"][1])
        and back["number"][2] == np.inf
        and back["number"][3] == -np.inf
        and np.ma.is_masked(back["number"][4])
    )
    assert back["number"][5] == np.float32(1e-30)
    assert np.ma.is_masked(back["count"][0]) and back["count"][1] == 2**62
    assert list(back["yes"][:2]) == [True, False]
    assert list(back["vector"][0]) == [1.0, 2.5] and len(back["vector"][1]) == 0
    assert len(back) == rows


@pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")
def test_topcat_finds_what_it_looks_for(url: str, tmp_path: Path) -> None:
    """By stilts, TOPCAT without windows, which complains of a service that does not keep to the standard."""
    (tmp_path / "mine.csv").write_text("mine_ra,mine_dec\n0.0,0.0\n")
    command = ["stilts", "coneskymatch", "servicetype=cone", f"serviceurl={url}scs?UCD=1&", "in=mine.csv", "ifmt=csv", "usefoot=false"]
    command += ["ra=mine_ra", "dec=mine_dec", "sr=0.1", "find=all", "out=found.csv", "ofmt=csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    assert "violates" not in done.stderr
    found = pacsv.read_csv(tmp_path / "found.csv")["source_id"].to_pylist()
    expected = parsed(httpx.get(f"{url}scs?RA=0&DEC=0&SR=0.1&VERB=1").content)["source_id"]
    assert found and sorted(found) == sorted(expected)
