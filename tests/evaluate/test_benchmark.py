from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from galpipe.errors import BadData, ConfigurationError
from galpipe.evaluate.benchmark import BENCHMARK, LABEL_FILE, SMALL, benchmark_packs, check_brick, claim_folder, pack_rows
from galpipe.lvm.calibrationsky import CALIBRATION_SEED_OFFSET, FIRST_SEED_OFFSET, MOST_BRICKS, calibration_specs
from galpipe.lvm.frozen import HELD_SEED_OFFSET
from galpipe.lvm.pack import read_pack
from galpipe.lvm.train import TrainSettings


def test_the_drawn_bricks_are_the_pinned_ones_and_are_kept(small_benchmark: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_benchmark.rglob("*.npy")}
    done: list[tuple[int, int]] = []
    paths = benchmark_packs(small_benchmark, SMALL, lambda what, count, total: done.append((count, total)))
    assert done == [(1, 1)]
    assert {path: path.stat().st_mtime_ns for path in small_benchmark.rglob("*.npy")} == before
    pack = read_pack(paths[0])
    wanted = {"flux_r", "flux_ivar_r", "shape_r", "sersic", "psfsize_r", "psfdepth_r", "release", "true_flux_r", "redshift"}
    assert wanted <= set(pack.sources.column_names)


def test_a_changed_sky_is_noticed(small_benchmark: Path) -> None:
    brick = SMALL.bricks[0]
    path = benchmark_packs(small_benchmark, SMALL)[0]
    with pytest.raises(BadData, match="truth digest"):
        check_brick(dataclasses.replace(brick, truth="0" * 16), path)
    brighter = tuple(level * 1.01 for level in brick.levels)
    with pytest.raises(BadData, match="pixel levels"):
        check_brick(dataclasses.replace(brick, levels=brighter), path)


def test_a_folder_holds_one_benchmark(tmp_path: Path) -> None:
    claim_folder(tmp_path / "a", SMALL)
    claim_folder(tmp_path / "a", SMALL)
    with pytest.raises(ConfigurationError, match="give another folder"):
        claim_folder(tmp_path / "a", BENCHMARK)
    label = tmp_path / "a" / LABEL_FILE
    label.write_text(json.dumps(json.loads(label.read_text()) | {"sky_version": 0}))
    with pytest.raises(ConfigurationError, match="sky_version"):
        claim_folder(tmp_path / "a", SMALL)
    label.write_text("{")
    with pytest.raises(ConfigurationError, match="as JSON"):
        claim_folder(tmp_path / "a", SMALL)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "something").write_text("")
    with pytest.raises(ConfigurationError, match="an empty folder"):
        claim_folder(tmp_path / "b", SMALL)


def test_the_benchmark_shares_no_seed_and_no_place_with_a_training() -> None:
    settings = TrainSettings()
    trained = range(settings.sky_seed, settings.sky_seed + HELD_SEED_OFFSET // 4)
    held = range(settings.sky_seed + HELD_SEED_OFFSET, settings.sky_seed + HELD_SEED_OFFSET + 1000)
    first, old = settings.sky_seed + CALIBRATION_SEED_OFFSET, settings.sky_seed + FIRST_SEED_OFFSET
    # those of old weights were two
    calibrated = {*range(first, first + MOST_BRICKS), old, old + 1}
    bricks = [*BENCHMARK.bricks, *BENCHMARK.training, *SMALL.bricks]
    assert not {brick.spec.seed for brick in bricks} & {*trained, *held, *calibrated}
    assert len({brick.spec.seed for brick in bricks}) == len({brick.spec.brick_list()[0].name for brick in bricks}) == len(bricks)
    places = {spec.brick_list()[0].name for spec in calibration_specs(12, first)}
    assert not {brick.spec.brick_list()[0].name for brick in bricks} & places and len(places) == 12
    assert {brick.spec.region for brick in BENCHMARK.bricks} == {brick.spec.region for brick in BENCHMARK.training} == {"north", "south"}
    assert {brick.spec.sky for brick in bricks} == {"survey"}


def test_rows_of_a_pack_keep_their_objects(small_benchmark: Path) -> None:
    pack = read_pack(benchmark_packs(small_benchmark, SMALL)[0])
    some = pack_rows(pack, np.array([3, 1]))
    assert pack.objects is not None and pack.object_start is not None and some.objects is not None and some.object_start is not None
    for place, row in enumerate((3, 1)):
        own = pack.objects[pack.object_start[row] : pack.object_start[row + 1]]
        assert np.array_equal(some.objects[some.object_start[place] : some.object_start[place + 1]], own)
        assert np.array_equal(some.image[place], pack.image[row])
    assert some.sources["objid"].to_pylist() == [pack.sources["objid"][row].as_py() for row in (3, 1)]
