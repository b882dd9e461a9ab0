"""A store gives back exactly what was put in, in few files, in one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galpipe.config import SOFTENING
from galpipe.errors import BadData
from galpipe.stamps.cut import OUTCOMES, CutResult
from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.stamps.store import content_hash, read_store, store_fingerprint, store_summary, write_store

BANDS = ("g", "r", "z")


def some_stamps(count: int, seed: int = 3, size: int = 24) -> StampSet:
    rng = np.random.default_rng(seed)
    shape = (count, 3, size, size)
    table = pa.table({"source_id": pa.array(range(count), pa.int64()), "ra": pa.array([1.5] * count, pa.float64()), "file": ["a"] * count})
    return StampSet(
        rng.integers(-32767, 32767, shape, np.int16),
        rng.integers(0, 255, shape, np.uint8),
        rng.integers(0, 255, (count, size, size), np.uint8),
        table,
        BANDS,
        0.262,
        tuple(SOFTENING[band] for band in BANDS),
        {"unit": "dr9/south/0001m002", "wcs": None},
    )


def some_result(count: int, seed: int = 3) -> CutResult:
    return CutResult(some_stamps(count, seed), OUTCOMES.empty_table())


@pytest.mark.parametrize("count", [0, 1, 32, 70])
def test_round_trip_is_bit_equal(tmp_path: Path, count: int) -> None:
    path, result = tmp_path / "0001m002.zarr", some_result(count)
    written = write_store(path, result, "abc")
    back = read_store(path)
    for name in ("image", "invvar_code", "mask"):
        assert np.array_equal(getattr(back.stamps, name), getattr(result.stamps, name))
        assert getattr(back.stamps, name).dtype == getattr(result.stamps, name).dtype
    assert back.stamps.sources.equals(result.stamps.sources)
    assert back.outcomes.schema.equals(OUTCOMES)
    assert back.stamps.attrs == result.stamps.attrs
    assert (back.stamps.bands, back.stamps.softening) == (BANDS, result.stamps.softening)
    assert content_hash(back) == written


def test_few_files_and_one_shard_per_array(tmp_path: Path) -> None:
    path = tmp_path / "b.zarr"
    write_store(path, some_result(70), "abc")
    assert len([file for file in path.rglob("*") if file.is_file()]) == 9
    assert [file for file in (path / "image" / "c").rglob("*") if file.is_file()] == [path / "image/c/0/0/0/0"]
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_is_read_without_the_arrays(tmp_path: Path) -> None:
    path = tmp_path / "b.zarr"
    assert store_fingerprint(path) == ""
    write_store(path, some_result(2), "first")
    write_store(path, some_result(3), "second")
    assert store_fingerprint(path) == "second"
    assert store_summary(path)["rows"] == 3
    assert store_summary(path)["scale"][0] == pytest.approx(2.87e-4, rel=0.01)


def test_content_hash_follows_the_content(tmp_path: Path) -> None:
    assert content_hash(some_result(2)) == content_hash(some_result(2))
    assert content_hash(some_result(2)) != content_hash(some_result(2, seed=4))


def test_a_damaged_store_is_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "b.zarr"
    write_store(path, some_result(2), "abc")
    shard = path / "image/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(BadData, match=r"b\.zarr: expected a readable stamp store"):
        read_store(path)
    (path / "zarr.json").write_text("{}")
    with pytest.raises(BadData, match="expected a stamp store"):
        read_store(path)


def test_wrong_shapes_are_refused() -> None:
    good = some_stamps(2)
    with pytest.raises(BadData, match=r"mask of shape \(2, 24, 24\)"):
        StampSet(good.image, good.invvar_code, good.mask[:1], good.sources, BANDS, 0.262, good.softening)


def test_take_and_concatenate_keep_rows_together() -> None:
    stamps = some_stamps(5)
    turned = concatenate([stamps.take([3]), stamps.take(np.array([0, 4]))])
    assert turned.sources["source_id"].to_pylist() == [3, 0, 4]
    assert np.array_equal(turned.image, stamps.image[[3, 0, 4]])
    with pytest.raises(BadData, match="stamps of one kind"):
        concatenate([stamps, some_stamps(1, size=12)])
