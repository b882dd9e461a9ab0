from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from galpipe.lvm.data import load_truth
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.mocksky import mock_pack, training_specs
from galpipe.lvm.pack import read_pack
from galpipe.mock.spec import MockSpec
from galpipe.stamps.normalize import codec, normalized


def test_training_bricks_are_spread_and_repeatable() -> None:
    specs = training_specs(8, 100)
    assert specs[:3] == training_specs(3, 100)
    dirty = training_specs(3, 100, "survey")
    assert [spec.center for spec in dirty] == [spec.center for spec in specs[:3]] and {spec.sky for spec in dirty} == {"survey"}
    assert {spec.region for spec in specs} == {"north", "south"}
    assert {spec.like for spec in specs} == {"dr9", "dr10"}
    assert len({spec.brick_list()[0].name for spec in specs}) == 8
    assert len({spec.seed for spec in specs}) == 8


def test_a_brick_becomes_a_pack_with_its_truth(tmp_path: Path) -> None:
    spec = MockSpec(bricks=1, seed=5, galaxies=12, faint=30, stars=20, bands=MODEL_BANDS, store_truth_images=True, workers=1)
    path = mock_pack(spec, tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    pack = read_pack(path)
    assert mock_pack(spec, tmp_path) == path
    assert len(pack) >= 6
    known = np.isfinite(pack.sources["mag_r"].cast(pa.float64()).to_numpy(zero_copy_only=False))
    assert known.mean() > 0.8
    truth = load_truth(pack, np.arange(len(pack)))
    central = [np.hypot(item[:, 0] - 80, item[:, 1] - 80).min() if len(item) else 99.0 for item in truth.objects]
    assert np.median(central) < 2
    line = codec(pack.stamps().softening[1])
    assert pack.clean is not None
    difference = normalized(pack.image[:, 1], line) - normalized(pack.clean[:, 1], line)
    assert abs(np.median(difference)) < 0.3
    assert 0.3 < np.median(np.abs(difference)) < 1.5
