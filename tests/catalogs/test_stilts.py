"""TOPCAT's own reader, run from the command line, on what `galpipe query --out` writes."""

import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from catalogs.formats import write_result
from tests.catalogs.sky import UNITS, make_shard

pytestmark = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed (Debian package stilts)")


@pytest.fixture(scope="module")
def shard() -> pa.Table:
    return make_shard(UNITS[0], 6)


def stilts(*words: str) -> str:
    done = subprocess.run(["stilts", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("ending", "form"), [(".fits", "fits"), (".vot", "votable")])
def test_exports_open_with_units_and_values(tmp_path: Path, shard: pa.Table, ending: str, form: str) -> None:
    path = tmp_path / f"x{ending}"
    write_result(shard, path)
    # the columns as TOPCAT's window Column Info shows them
    meta = stilts("tpipe", f"in={path}", f"ifmt={form}", "cmd=meta name class units description", "omode=out", "ofmt=csv", "out=-")
    told = {line.split(",")[0]: line.split(",") for line in meta.splitlines()}
    assert told["ra"][1:3] == ["Double", "deg"]
    assert told["flux_g"][1:3] == ["Float", "nanomaggy"]
    assert told["shape_r"][2] == "arcsec"
    assert told["source_id"][1] == "Long"
    if form == "votable":
        assert "ICRS" in ",".join(told["dec"])
    keep = "cmd=keepcols 'source_id ra mag_r bands_used'"
    rows = stilts("tpipe", f"in={path}", f"ifmt={form}", keep, "omode=out", "ofmt=csv", "out=-").splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == shard["source_id"].to_pylist()
    assert [float(row.split(",")[1]) for row in rows] == shard["ra"].to_pylist()
    assert {row.split(",")[3] for row in rows} == {"grz"}


def test_votables_are_valid(tmp_path: Path, shard: pa.Table) -> None:
    path = tmp_path / "x.vot"
    write_result(shard.select(["source_id", "ra", "dec", "mag_r", "brick_primary", "bands_used"]), path)
    told = stilts("votlint", f"votable={path}")
    assert "ERROR" not in told, told
