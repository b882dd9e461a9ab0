from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galpipe.errors import BadData
from galpipe.heads.base import Truth
from galpipe.lvm.data import Batches, Degradation, load_truth, turn_angle, turn_objects, turn_pixels, turned_truth
from galpipe.lvm.inputs import PADDED_SIZE, pad
from galpipe.lvm.pack import concatenate, join_truth, read_pack, write_pack
from galpipe.lvm.pretrain import hide
from tests.lvm.toy import galaxy, toy_pack


def moment_angle(image: np.ndarray) -> float:
    """Position angle from second moments, about the padded middle."""
    grid = np.arange(PADDED_SIZE) - PADDED_SIZE // 2
    x, y = np.meshgrid(-grid, grid)
    east, north, mixed = ((image * part).sum() for part in (x * x, y * y, x * y))
    return float(np.rad2deg(0.5 * np.arctan2(2 * mixed, north - east)) % 180)


@given(angle=st.floats(0, 179.9), turn=st.integers(0, 7))
def test_angles_turn_with_the_pixels(angle: float, turn: int) -> None:
    turned = turn_pixels(pad(galaxy(angle, 0.4, 1.0)[None])[0], turn)
    expected = turn_angle(np.array([angle]), np.array([turn]))[0]
    difference = abs(moment_angle(turned) - expected) % 180
    assert min(difference, 180 - difference) < 0.1


@given(turn=st.integers(0, 7), x=st.integers(10, 150), y=st.integers(10, 150))
def test_objects_turn_with_the_pixels(turn: int, x: int, y: int) -> None:
    image = np.zeros((PADDED_SIZE, PADDED_SIZE))
    image[y - 2 : y + 4, x - 1 : x + 6] = 1
    image[y, x] = 2
    box = turn_objects(np.array([[x, y, x - 1, y - 2, x + 5, y + 3, 0, 0]], np.float32), turn)[0]
    turned = turn_pixels(image, turn)
    rows, columns = np.nonzero(turned)
    assert turned[int(box[1]), int(box[0])] == 2
    assert box[2:6].tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_batches_depend_on_seed_and_step_only() -> None:
    pack = toy_pack(6)
    one, other = (Batches(pack, 4, seed=5).labelled(3) for _ in range(2))
    assert np.array_equal(one[0].pixels.numpy(), other[0].pixels.numpy())
    assert np.array_equal(one[1].clean, other[1].clean)
    assert not np.array_equal(one[0].pixels.numpy(), Batches(pack, 4, seed=6).labelled(3)[0].pixels.numpy())


def test_blurred_stamps_keep_flux_noise_and_truth() -> None:
    pack = toy_pack(4)
    sharp, _ = Batches(pack, 4, 1, Degradation(0.0, 0.0, 0.0)).labelled(0)
    soft, truth = Batches(pack, 4, 1, Degradation(1.0, 0.0, 0.0)).labelled(0)
    assert soft.sharpening.numpy() == pytest.approx(0.85)
    inside = slice(70, 91)
    before, after = (np.sinh(part.pixels.numpy()[:, 1, inside, inside]).sum(axis=(1, 2)) for part in (sharp, soft))
    assert after == pytest.approx(before, rel=0.05)
    corner = (slice(None), 1, slice(6, 40), slice(6, 40))
    assert soft.pixels.numpy()[corner].std() == pytest.approx(sharp.pixels.numpy()[corner].std(), rel=0.1)
    assert np.abs(truth.clean[corner]).max() < 0.05
    assert (soft.conditions[:, 3:6] > sharp.conditions[:, 3:6]).all()


def test_lost_bands_and_gaps_leave_zeros() -> None:
    inputs, _ = Batches(toy_pack(8), 8, 1, Degradation(0.0, 1.0, 1.0)).labelled(0)
    lost = inputs.valid.flatten(2).sum(dim=2) == 0
    assert lost.any(dim=1).all()
    assert inputs.pixels[inputs.valid == 0].abs().max() == 0
    assert np.array_equal(inputs.conditions[:, :3].numpy() == 0, lost.numpy())


def test_hidden_squares_show_nothing() -> None:
    inputs = Batches(toy_pack(2), 2, 1).unlabelled(0)
    shown, asked = hide(inputs, (1, 0))
    assert 0.3 < float(asked.sum() / inputs.valid.sum()) < 0.7
    assert float((shown.pixels * asked).abs().max()) == 0
    assert np.array_equal((shown.valid + asked).numpy(), inputs.valid.numpy())


def test_packs_come_back(tmp_path: Path) -> None:
    pack = toy_pack(3)
    write_pack(tmp_path / "one", pack)
    back = read_pack(tmp_path / "one")
    assert np.array_equal(back.image, pack.image)
    assert back.sources.equals(pack.sources)
    joined = concatenate([back, toy_pack(2, seed=1)])
    assert len(joined) == 5
    assert joined.object_start is not None
    assert joined.object_start.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_folder_that_is_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="a training pack"):
        read_pack(tmp_path)


def test_the_brightest_of_merged_sources_is_the_truth() -> None:
    sources = toy_pack(3).sources.select(["ra", "dec"]).append_column("objid", [[7, 8, 9]])
    truth = toy_pack(4).sources.select(["ra", "redshift"])
    truth = truth.append_column("objid", [[9, 7, 7, -1]]).append_column("flux_r", [[1.0, 2.0, 3.0, 99.0]])
    joined = join_truth(sources, truth)
    redshift = truth["redshift"].to_pylist()
    assert joined["redshift"].to_pylist() == [redshift[2], None, redshift[0]]
    assert joined["true_ra"].null_count == 1
    assert joined["flux_r"].to_pylist() == [3.0, None, 1.0]


def test_truth_lies_in_the_padded_frame() -> None:
    truth: Truth = load_truth(toy_pack(2), np.array([1, 0]))
    assert truth.objects[0][0, :2].tolist() == [80, 80]
    assert truth.segments.shape == (2, PADDED_SIZE, PADDED_SIZE)
    assert not truth.known[:, :4].any()
    assert truth.known[:, 4:-4, 4:-4].all()
    same = turned_truth(truth, np.zeros(2, np.int64))
    assert np.array_equal(same.clean, truth.clean)


def test_untold_seeing_changes_nothing_else() -> None:
    pack = toy_pack(8)
    told, _ = Batches(pack, 8, 1).labelled(0)
    untold, _ = Batches(pack, 8, 1, Degradation(unknown=1.0)).labelled(0)
    assert np.array_equal(told.pixels.numpy(), untold.pixels.numpy())
    assert untold.conditions[:, 3:12].eq(0).all()
    assert not told.conditions[:, 3:12].eq(0).all(dim=1).any()


def test_ranks_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(toy_pack(8), 5, 3)
    whole = batches.rows(0).tolist()
    monkeypatch.setattr("galpipe.lvm.data.ranks", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr("galpipe.lvm.data.rank", lambda rank=rank: rank)
        parts += batches.rows(0).tolist()
    assert sorted(parts) == sorted(whole)
