"""A head that real redshifts trained says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from galpipe.errors import BadData
from galpipe.lvm import realredshift
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.lvm.realredshift import learn_redshift
from galpipe.lvm.weights import load_model, save_model
from tests.lvm.toy import TINY, toy_pack


def predictor() -> Predictor:
    return Predictor(new_model(TINY, 1), {}, "", device_of("cpu"))


def test_redshifts_that_follow_the_flux_are_learned_and_the_columns_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realredshift, "LEAST_REDSHIFTS", 100)
    monkeypatch.setattr(realredshift, "STEPS", 300)
    pack, own = toy_pack(160), predictor()
    mag = np.array([value.as_py() for value in pack.sources["mag_r"]])
    redshift = 0.1 + 0.2 * (mag - mag.min())
    redshift[:8] = np.nan
    before = own.predict(pack.stamps())
    weights = own.model.head("parameters").state_dict()["gaussian.weight"].clone()
    facts = learn_redshift(own, pack.stamps(), redshift, "toy spectra")
    assert (facts["redshifts"], facts["trained"], facts["calibrated"]) == ("toy spectra", 114, 38)
    assert (own.model.head("parameters").state_dict()["gaussian.weight"] == weights).all()
    save_model(tmp_path / "m", own.model, {"name": "toy", "version": "1"} | facts, "")
    again = Predictor(load_model(tmp_path / "m").model, {}, "", device_of("cpu")).predict(pack.stamps())
    assert "z_mock" in before.column_names and not any(name.startswith("z_mock") for name in again.column_names)
    answered = np.array(again["z_lvm"].to_pylist())[8:]
    assert np.corrcoef(answered, redshift[8:])[0, 1] > 0.8


def test_too_few_redshifts_are_refused() -> None:
    with pytest.raises(BadData, match="expected at least 500 redshifts, got 3 of 4 stamps have one"):
        learn_redshift(predictor(), toy_pack(4).stamps(), np.array([0.1, 0.2, np.nan, 0.3]), "spectra.fits")
