"""Batches from stores and files: all stamps, bounded memory, named refusals, the same from any step on."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from galpipe.errors import BadData, ConfigurationError, ResourceFailure
from galpipe.lvm.order import OrderSettings
from galpipe.lvm.shards import Refused, find_shards
from galpipe.lvm.stream import Place, StampStream
from galpipe.stamps.result import OUTCOMES, CutResult
from galpipe.stamps.store import write_store
from tests.labels.makers import flux, jpeg, parquet, stein
from tests.lvm.stores import marked, numbers_of, store, stores

ORDER = OrderSettings(8, 4, 16, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores")
    stores(path, [7, 1, 13, 30, 2])
    return path


def numbers(stream: StampStream, step: int) -> list[int]:
    return [number for part in stream.batch(step) for number in numbers_of(part.inputs)]


def test_stores_give_every_stamp_once_an_epoch_in_another_order(folder: Path) -> None:
    with StampStream(find_shards([folder]), ORDER) as stream:
        epochs = [[number for step in range(stream.steps) for number in numbers(stream, first + step)] for first in (0, stream.steps)]
        assert all(Counter(epoch) == Counter(range(53)) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_a_stream_begun_in_the_middle_goes_on_bit_by_bit(folder: Path) -> None:
    shards = find_shards([folder])
    with StampStream(shards, ORDER) as straight, StampStream(shards, ORDER, Place(workers=1)) as later:
        kept = [straight.batch(step) for step in range(straight.steps + 2)]
        for step in range(4, straight.steps + 2):
            for one, other in zip(kept[step], later.batch(step), strict=True):
                assert one.lane == other.lane
                for name in ("pixels", "valid", "conditions"):
                    assert torch.equal(getattr(one.inputs, name), getattr(other.inputs, name)), (step, name)


def test_two_ranks_read_what_one_does(folder: Path) -> None:
    shards = find_shards([folder])
    with (
        StampStream(shards, ORDER) as whole,
        StampStream(shards, ORDER, Place(0, 2)) as one,
        StampStream(shards, ORDER, Place(1, 2)) as two,
    ):
        for step in range(whole.steps):
            assert numbers(whole, step) == numbers(one, step) + numbers(two, step)
            assert one.weight(step) + two.weight(step) == pytest.approx(2)
            assert whole.weight(step) == 1


def test_stamps_are_turned_and_told_their_seeing(folder: Path) -> None:
    with StampStream(find_shards([folder]), ORDER) as stream:
        parts = [part.inputs for step in range(stream.steps) for part in stream.batch(step)]
    places = {
        tuple(np.argwhere(part.pixels[row, 1].numpy() == part.pixels[row, 1].max().item())[0]) for part in parts for row in range(len(part))
    }
    assert places == {(y, x) for a, b in ((44, 94), (94, 44)) for y in (a, 160 - a) for x in (b, 160 - b)}
    assert all(bool((part.conditions[:, 9] == 1).all()) for part in parts)


def test_hdf5_and_label_files_join_and_bad_stamps_are_named(tmp_path: Path) -> None:
    stores(tmp_path / "cut", [5])
    cubes = [flux(1), np.zeros((3, 152, 152)), flux(2)]
    stein(tmp_path / "stein.h5", cubes, ra=np.arange(3.0), dec=np.arange(3.0), inds=np.array([4, 5, 6]))
    parquet(tmp_path / "pictures.parquet", [jpeg(3), b"no picture", None, jpeg(4)], id=["a", "b", "c", "d"])
    refused: list[Refused] = []
    shards = find_shards([tmp_path])
    assert shards.rows == [5, 3, 4]
    with StampStream(shards, OrderSettings(4, 2, 4), report=refused.append) as stream:
        found = [part.inputs for step in range(stream.steps) for part in stream.batch(step)]
    assert sum(len(part) for part in found) == 12
    assert sum(int((part.valid.flatten(1).amax(dim=1) == 0).sum()) for part in found) == 3
    named = {(Path(item.file).name, item.row): item.reason for item in refused}
    assert set(named) == {("stein.h5", 1), ("pictures.parquet", 1), ("pictures.parquet", 2)}
    assert "b: " in named["pictures.parquet", 1]


def test_a_damaged_store_does_not_stop_the_stream(tmp_path: Path) -> None:
    lost, closed, torn, _ = stores(tmp_path, [6, 4, 5, 9])
    shutil.rmtree(lost / "image" / "c")
    (closed / "zarr.json").write_text("{")
    (torn / "sources.parquet").write_bytes(b"PAR1")
    refused: list[Refused] = []
    shards = find_shards([tmp_path])
    assert [Path(item.file).name for item in shards.refused] == [closed.name]
    with StampStream(shards, ORDER, report=refused.append) as stream:
        seen = Counter(number for step in range(stream.steps) for number in numbers(stream, step))
    assert seen == Counter(range(15, 24)) + Counter({-1: 11})
    assert Counter(Path(item.file).name for item in refused) == {lost.name: 6, torn.name: 5}
    assert {item.reason for item in refused if item.file.endswith(lost.name)} == {
        "expected pixels that differ, got none, or one value in every band"
    }


def test_nothing_good_at_all_is_an_error(tmp_path: Path) -> None:
    shutil.rmtree(stores(tmp_path, [16])[0] / "image" / "c")
    with StampStream(find_shards([tmp_path]), ORDER) as stream, pytest.raises(BadData, match="a good stamp among the first 16"):
        stream.batch(0)
        stream.batch(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixscale": 0.524}, "stamps of 0.262 arcsec per pixel, got 0.524"),
        ({"softening": (0.004, 0.007, 0.02001)}, "softening 0.02 in z, got 0.02001"),
        ({"bands": ("i", "Y", "u")}, "a band among"),
    ],
)
def test_a_store_cut_otherwise_is_refused_before_anything_runs(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_store(tmp_path / "0001p000.zarr", CutResult(replace(marked(range(3)), **change), OUTCOMES.empty_table()), "abc")
    with pytest.raises(ConfigurationError, match=message) as caught:
        find_shards([tmp_path])
    assert "0001p000.zarr" in caught.value.file


def test_stamps_of_another_size_are_refused(tmp_path: Path) -> None:
    small = marked(range(2))
    cropped = {name: getattr(small, name)[..., :64, :64].copy() for name in ("image", "invvar_code", "mask")}
    write_store(tmp_path / "a.zarr", CutResult(replace(small, **cropped), OUTCOMES.empty_table()), "abc")
    with pytest.raises(ConfigurationError, match="stamps of 152 pixels, got 64"):
        find_shards([tmp_path])


def test_paths_are_found_once_and_asides_are_left_alone(tmp_path: Path) -> None:
    first, second = stores(tmp_path / "release" / "south", [3, 4])
    store(tmp_path / ".aside-0009p000.zarr", range(2))
    found = find_shards([second, tmp_path, first])
    assert [Path(shard.path).name for shard in found.found] == [second.name, first.name]
    with pytest.raises(ConfigurationError, match="a store, file or folder of stamps, got nothing"):
        find_shards([tmp_path / "absent"])


def test_the_digest_follows_content_not_place(tmp_path: Path) -> None:
    stores(tmp_path / "a", [3])
    before = find_shards([tmp_path / "a"]).digest()
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert find_shards([tmp_path / "b"]).digest() == before
    stores(tmp_path / "b", [4])
    assert find_shards([tmp_path / "b"]).digest() != before


def test_a_lost_loader_process_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures.process import BrokenProcessPool

    with StampStream(find_shards([folder]), ORDER) as stream:
        monkeypatch.setattr(stream, "_ask", lambda lane, key: [_Broken(BrokenProcessPool("ended"))])
        with pytest.raises(ResourceFailure, match="fewer workers"):
            stream.batch(0)


class _Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> object:
        raise self.error
