"""A galaxy that is there twice stays on one side of every split: same image, coded again, 3 arcsec, or the same survey id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from galpipe.errors import ConfigurationError
from galpipe.labels.groups import ALIKE, Groups, fingerprint, grey, group_rows
from galpipe.labels.labelset import open_labels
from tests.labels.makers import again, cube, flux, jpeg, parquet, stein


def pairs(groups: Groups) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    places = [(which, row) for which, numbers in enumerate(groups.numbers) for row in range(len(numbers))]
    number = {place: int(groups.numbers[place[0]][place[1]]) for place in places}
    return {(one, other) for one in places for other in places if one < other and number[one] == number[other] >= 0}


def test_images_coded_again_are_one_galaxy(tmp_path: Path) -> None:
    images = [jpeg(seed) for seed in range(6)]
    first = parquet(tmp_path / "a.parquet", [*images, images[3]], id=[f"a{k}" for k in range(7)])
    second = parquet(tmp_path / "b.parquet", [jpeg(20), again(images[1], 96, 75), again(images[2], 152, 60)], id=["x", "y", "z"])
    groups = group_rows([open_labels(first), open_labels(second)])
    assert pairs(groups) == {((0, 3), (0, 6)), ((0, 1), (1, 1)), ((0, 2), (1, 2))}
    assert groups.repeated() == 3 and groups.shared() == 2


def test_different_galaxies_are_not_alike() -> None:
    prints = np.stack([fingerprint(grey(jpeg(seed))) for seed in range(40)]).astype(np.float32)
    alike = prints @ prints.T
    assert np.allclose(np.diag(alike), 1, atol=0.01)
    assert alike[~np.eye(40, dtype=bool)].max() < ALIKE - 0.2


def test_positions_within_three_arcsec_are_one_galaxy(tmp_path: Path) -> None:
    ra = np.array([0.0003, 359.9999, 10.0, 10.0])
    dec = np.array([0.0, 0.0, 60.0, 60.002])
    path = stein(tmp_path / "a.h5", [flux(seed) for seed in range(4)], ra=ra, dec=dec)
    assert pairs(group_rows([open_labels(path)])) == {((0, 0), (0, 1))}
    assert pairs(group_rows([open_labels(path)], within=1.0)) == set()


def test_survey_ids_join_sets(tmp_path: Path) -> None:
    """Galaxy Zoo 2's dr7objid is Galaxy Zoo 1's id; ids that a table holds as floats match what rounds to them; row numbers do not."""
    gz1 = parquet(tmp_path / "a.parquet", [jpeg(1), jpeg(2), jpeg(3)], id=["587722981748965649", "587722981748969999", "3"])
    gz2 = parquet(tmp_path / "b.parquet", [jpeg(4), jpeg(5)], id=["3", "4"], dr7objid=[1, 587722981748965649])
    cube(tmp_path / "c.fits", 6)
    (tmp_path / "c.csv").write_text("file,gz1_objid\nc.fits,5.8772298174897e+17\n")
    sets = [open_labels(gz1), open_labels(gz2), open_labels(tmp_path / "c.csv")]
    assert float("587722981748969999") == 5.8772298174897e17
    assert pairs(group_rows(sets)) == {((0, 0), (1, 1)), ((0, 1), (2, 0))}


def test_rows_without_an_image_are_in_no_group(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [jpeg(1), None, jpeg(2)[:200]], id=["a", "b", "c"])
    groups = group_rows([open_labels(path)])
    assert groups.numbers[0].tolist() == [0, -1, -1]
    assert [item.id for item in groups.dropped] == ["b", "c"]
    assert [part.tolist() for part in groups.split(1.0)] == [[True, False, False]]


def test_splits_are_fixed_and_keep_groups_together(tmp_path: Path) -> None:
    images = [jpeg(seed) for seed in range(40)]
    both = parquet(tmp_path / "a.parquet", images, id=[str(k) for k in range(40)])
    part = parquet(tmp_path / "b.parquet", [again(images[k], 120, 80) for k in (5, 9, 30)], id=["x", "y", "z"])
    groups = group_rows([open_labels(both), open_labels(part)])
    whole, few = groups.split(0.3)
    assert whole[[5, 9, 30]].tolist() == few.tolist()
    assert 4 <= whole.sum() <= 20
    # other rows, another order: a galaxy falls as before
    turned = parquet(tmp_path / "c.parquet", images[39:9:-1], id=[str(k) for k in range(30)])
    alone = group_rows([open_labels(turned)]).split(0.3)[0]
    kept = [k for k in range(39, 9, -1) if k != 30]
    assert [bool(whole[k]) for k in kept] == [bool(alone[39 - k]) for k in kept]
    assert not np.array_equal(groups.split(0.3, "other")[0], whole)
    with pytest.raises(ConfigurationError, match="share from 0 to 1"):
        groups.split(1.5)
