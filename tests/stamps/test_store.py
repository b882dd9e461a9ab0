"""A store gives back exactly what was put in, in few files, in one step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from galpipe.config import SOFTENING
from galpipe.errors import BadData
from galpipe.stamps import storewriter
from galpipe.stamps.result import OUTCOMES, Block, CutResult
from galpipe.stamps.stampset import StampSet, concatenate
from galpipe.stamps.store import Store, content_hash, delete_store, read_store, store_files, store_fingerprint, store_summary, write_store

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


@pytest.mark.parametrize("count", [31, 32, 64, 70, 96])
def test_a_crowded_brick_has_several_shards_each_written_once(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the blocks fall, the store is the same, and so is its content's hash."""
    monkeypatch.setattr(storewriter, "SHARD_STAMPS", 32)
    whole = some_result(count)

    class InBlocks:
        outcomes = whole.outcomes

        def blocks(self) -> Iterator[Block]:
            for start in range(0, count, 13):
                yield Block(whole.stamps.take(range(start, min(start + 13, count))))

    path = tmp_path / "b.zarr"
    assert write_store(path, InBlocks(), "abc") == content_hash(whole)
    back = read_store(path)
    assert all(np.array_equal(getattr(back.stamps, name), getattr(whole.stamps, name)) for name in ("image", "invvar_code", "mask"))
    assert back.stamps.sources.equals(whole.stamps.sources)
    assert len([file for file in (path / "image" / "c").rglob("*") if file.is_file()]) == -(-count // 32)
    store = Store(path)
    some = store.rows([count - 1, 0, 5])
    assert np.array_equal(some.image, whole.stamps.image[[count - 1, 0, 5]])
    assert [len(part) for part in store.batches(40)] == ([40] * (count // 40) + ([count % 40] if count % 40 else []))
    store.check()


def test_a_store_that_was_not_read_to_the_end_is_not_proven(tmp_path: Path) -> None:
    write_store(tmp_path / "b.zarr", some_result(5), "abc")
    store = Store(tmp_path / "b.zarr")
    next(store.batches(3))
    with pytest.raises(BadData, match="undamaged"):
        store.check()


def test_a_store_of_an_earlier_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.zarr"
    write_store(path, some_result(2), "abc")
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace("galpipe-stamps-3", "galpipe-stamps-2"))
    assert store_fingerprint(path) == ""
    with pytest.raises(BadData, match=r"format galpipe-stamps-3, got 'galpipe-stamps-2'"):
        read_store(path)


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


def _lose_a_shard(path: Path) -> None:
    shutil.rmtree(path / "image" / "c")


def _change_a_pixel(path: Path) -> None:
    group = zarr.open_group(str(path), mode="r+", zarr_format=3)
    mask = np.asarray(group["mask"][:])  # type: ignore[index]
    mask[1, 3, 3] ^= 1
    group["mask"][:] = mask  # type: ignore[index]


def _change_a_row(path: Path) -> None:
    table = pq.read_table(path / "sources.parquet")
    pq.write_table(table.set_column(1, "ra", pa.array([9.0] * len(table))), path / "sources.parquet")


def _lose_a_row(path: Path) -> None:
    table = pq.read_table(path / "sources.parquet")
    pq.write_table(table.slice(1), path / "sources.parquet")


@pytest.mark.parametrize("damage", [_lose_a_shard, _change_a_pixel, _change_a_row, _lose_a_row])
def test_content_that_is_not_what_was_written_is_bad_data(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "b.zarr"
    write_store(path, some_result(3), "abc")
    damage(path)
    with pytest.raises(BadData, match=r"b\.zarr: expected"):
        read_store(path)


def test_the_hash_does_not_see_how_a_table_lies_in_memory(tmp_path: Path) -> None:
    """Bytes under nulls, slices and chunks are no content: a store must read back whatever tables it was made from."""
    stamps, hidden = some_stamps(3), np.array([False, True, False])
    columns = {
        "z_spec": pa.array(np.array([1.0, 7.0, 3.0]), mask=hidden),
        "nexp_g": pa.array(np.array([1, 7, 3], np.int32), mask=hidden),
        "flag": pa.array(np.array([True, True, False]), mask=hidden),
        "name": pa.array(["x", "a", None, "bc"]).slice(1),
        "nothing": pa.nulls(3, pa.float32()),
    }
    table = stamps.sources
    for name, values in columns.items():
        table = table.append_column(name, values)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    results = [CutResult(replace(stamps, sources=item), OUTCOMES.empty_table()) for item in (table, chunked)]
    assert content_hash(results[0]) == content_hash(results[1])
    write_store(tmp_path / "b.zarr", results[1], "abc")
    assert read_store(tmp_path / "b.zarr").stamps.sources.equals(table)
    other = table.set_column(table.schema.get_field_index("name"), "name", pa.array(["ab", None, "c"]))
    assert content_hash(CutResult(replace(stamps, sources=other), OUTCOMES.empty_table())) != content_hash(results[0])


def test_files_of_a_store_are_read_without_the_arrays(tmp_path: Path) -> None:
    result = some_result(2)
    write_store(tmp_path / "a.zarr", result, "abc")
    nameless = replace(result.stamps, sources=result.stamps.sources.drop_columns("file"))
    write_store(tmp_path / "b.zarr", replace(result, stamps=nameless), "abc")
    shutil.rmtree(tmp_path / "a.zarr" / "image")
    assert store_files(tmp_path / "a.zarr") == ["a", "a"]
    assert store_files(tmp_path / "b.zarr") == [None, None]


def test_a_deleted_store_is_gone(tmp_path: Path) -> None:
    write_store(tmp_path / "b.zarr", some_result(1), "abc")
    delete_store(tmp_path / "b.zarr")
    delete_store(tmp_path / "b.zarr")
    assert not list(tmp_path.iterdir())


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
