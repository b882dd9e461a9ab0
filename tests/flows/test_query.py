import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from catalogs.hats import publish
from flows.__main__ import cli
from flows.bench.figures import Size
from flows.bench.query import run
from galpipe.layout import Layout
from tests.catalogs.sky import UNITS, make_shard, write_brick


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = Layout(tmp_path_factory.mktemp("root"))
    for unit in UNITS:
        write_brick(layout, unit, 12)
    publish(layout, "main")
    return layout.root


def ask(root: Path, *words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["query", "--root", str(root), *words])
    return done.exit_code, done.stdout, done.stderr


def rows(root: Path, *words: str) -> list[list[object]]:
    code, out, err = ask(root, *words, "--json")
    assert code == 0, err
    return json.loads(out)["rows"]


def test_sql_on_pieces_of_sky(root: Path) -> None:
    count = "SELECT count(*) AS n FROM galaxies"
    everything = rows(root, count)
    assert everything == [["36"]]
    for words in (("--cone", "0,0,5"), ("--box", "350,10,-5,5"), ("--polygon", "355,-5,5,-5,5,5,355,5"), ("--moc", "0/0-11")):
        assert rows(root, count, *words) == everything
        assert len(rows(root, *words, "--columns", "source_id")) == 36
    west = rows(root, "SELECT max(ra) FROM galaxies", "--box", "0,0.1,-5,5")
    assert float(west[0][0]) < 0.1
    assert ask(root, count, "--box", "0,0.1,-5,5")[0] == 0


def test_a_table_is_matched(root: Path, tmp_path: Path) -> None:
    shard = make_shard(UNITS[0], 12)
    mine = pa.table({"RA": [*shard["ra"].to_pylist()[:3], 100.0], "DEC": [*shard["dec"].to_pylist()[:3], None], "name": list("abcd")})
    pacsv.write_csv(mine, tmp_path / "mine.csv")
    out = tmp_path / "matched.parquet"
    code, _, err = ask(root, "--match", str(tmp_path / "mine.csv"), "--radius", "1", "--columns", "source_id", "--out", str(out))
    assert code == 0, err
    assert "3 rows have a galaxy within 1 arcsec, of 4 rows in mine.csv, 1 of them without a position" in err
    table = pq.read_table(out)
    assert table["name"].to_pylist() == ["a", "b", "c"]
    assert table["source_id"].to_pylist() == shard["source_id"].to_pylist()[:3]
    assert table.schema.field("separation").metadata[b"unit"] == b"arcsec"


def test_look_alikes(root: Path) -> None:
    asked = make_shard(UNITS[0], 12)["source_id"][0].as_py()
    found = rows(root, "--similar", str(asked), "--n", "4", "--columns", "source_id,mag_r")
    assert len(found) == 4
    assert str(asked) not in [row[0] for row in found]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "got none"),
        (("SELECT 1", "--id", "5"), "got --id and SQL"),
        (("--cone", "0,0,1", "--moc", "5/1"), "one piece of sky"),
        (("--match", "nowhere.csv"), "--match FILE with --radius ARCSEC, got no radius"),
        (("--match", "nowhere.csv", "--radius", "1"), "no such file"),
        (("SELECT 1", "--columns", "ra"), "the columns of SQL in its SELECT"),
        (("--cone", "0,0,1", "--columns", "raa"), "the nearest is 'ra'"),
    ],
)
def test_wrong_questions_end_with_status_2(root: Path, words: tuple[str, ...], message: str) -> None:
    code, _, err = ask(root, *words)
    assert code == 2
    assert message in err


def test_the_bench_finds_the_rows_that_lsdb_finds() -> None:
    # it raises where the two differ
    figures = {figure.name: figure for figure in run(Size(1, 1))}
    assert "40000 rows of 20 columns" in figures["lsdb_over_cone"].what
    assert figures["cone_p95"].value >= figures["cone_median"].value > 0
