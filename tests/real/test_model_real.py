"""The real stamps as training input."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from galpipe.lvm.mocksky import real_pack


def test_real_stamps_join_the_pre_training(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "stamps").symlink_to(shared_data / "stamps")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.parquet").symlink_to(shared_data / "labels" / "legacy_galaxy10.parquet")
    pack = real_pack(tmp_path)
    assert pack is not None
    assert len(pack) == 14 + 52
    assert not pack.has_truth
    valid = (pack.mask == 0).mean(axis=(1, 2))
    assert np.median(valid) > 0.99
