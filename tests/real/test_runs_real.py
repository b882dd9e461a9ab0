"""The command line on real files: a brick at the footprint's edge, stamps of others, files that are broken."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.command import galpipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_prefect")]


def test_a_real_brick_without_a_tractor_table_ends_normally(shared_data: Path, tmp_path: Path) -> None:
    ended = galpipe(["run", "--release", shared_data / "release_dr6", "--as", "dr6", "--region", "all", "--root", tmp_path, "--json"])
    assert ended.status == 0, ended.err[-2000:]
    result = ended.json()
    assert result["counts"]["no_work"] == 1
    told = " ".join(item["reason"] for item in result["absent"])
    assert "image-r" in told
    assert "maskbits" in told
    assert "tractor-0959p805.fits" in told
    status = galpipe(["status", "--root", tmp_path, "--json"])
    assert status.status == 0
    assert {(row["stage"], row["status"]) for row in status.json()["counts"]["stages"]} == {("fetch", "done"), ("cut", "no_work")}


def test_real_stamps_and_broken_files(shared_data: Path, tmp_path: Path) -> None:
    folders = [shared_data / name for name in ("stamps", "lens", "deblend", "stamps_bad")]
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    ended = galpipe(["stamps", *folders, "--root", tmp_path, "--json"])
    assert ended.status == 1, ended.err[-2000:]
    result = ended.json()
    refused = {Path(item["file"]).name for item in result["failures"]}
    assert refused == {"example_bad_pix.fits", "example_incomplete.fits", "copsf_59.1067_-30.4848.fits"}
    assert result["counts"]["predicted"] == len(files) - len(refused)
    shards = [path for path in (tmp_path / "catalog").rglob("*.parquet") if "outcomes" not in path.name and "provenance" not in path.parts]
    named = {Path(file).name for path in shards for file in pq.read_table(path, columns=["file"], partitioning=None)["file"].to_pylist()}
    assert named == {path.name for path in files} - refused
    assert Path(result["report"]).stat().st_size > 100_000
