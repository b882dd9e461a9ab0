from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from galpipe.heads.quantities import angle_difference
from galpipe.heads.sep_baseline import columns, sep_columns
from galpipe.lvm.inputs import float_column
from tests.lvm.toy import toy_pack, toy_stamps


def test_sep_measures_the_central_galaxy() -> None:
    stamps = toy_stamps(6)
    table = sep_columns(stamps)
    truth = toy_pack(6).sources
    assert table.schema.names == [column.name for column in columns()]
    assert table["sep_n_objects"].to_pylist() == [1] * 6
    assert set(table["sep_band"].to_pylist()) == {"r"}
    assert float_column(table, "sep_x", 6) == pytest.approx(76, abs=0.3)
    assert float_column(table, "sep_mag", 6) == pytest.approx(float_column(truth, "mag_r", 6), abs=0.15)
    long = float_column(truth, "axis_ratio", 6) < 0.8
    error = angle_difference(float_column(table, "sep_position_angle", 6), float_column(truth, "position_angle", 6))
    assert error[long].max() < 3


def test_sep_takes_another_band_where_r_is_missing() -> None:
    assert sep_columns(toy_stamps(2, ("g", "z")))["sep_band"].to_pylist() == ["z", "z"]


def test_stamps_without_data_have_nulls() -> None:
    stamps = toy_stamps(2)
    mask = stamps.mask.copy()
    mask[1] = 0b111
    table = sep_columns(dataclasses.replace(stamps, mask=mask))
    assert table["sep_n_objects"].to_pylist() == [1, None]
    assert table["sep_mag"].null_count == 1


def test_empty_sky_has_no_objects() -> None:
    stamps = toy_stamps(1)
    quiet = dataclasses.replace(stamps, image=np.zeros_like(stamps.image) + stamps.image[:, :, :1, :1])
    assert sep_columns(quiet)["sep_n_objects"].to_pylist() == [0]
