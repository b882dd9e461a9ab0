from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from galpipe.heads.domain import LEVELS, Domain, grain, without_conditions
from galpipe.lvm.frozen import calibrate, fit_frozen
from galpipe.lvm.inputs import MODEL_BANDS, stamp_inputs
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import load_model, save_model
from galpipe.stamps.normalize import codec, encode
from galpipe.stamps.stampset import StampSet
from tests.lvm.toy import TINY, toy_pack

SETTINGS = replace(TINY, heads=("domain",))


@pytest.fixture(scope="module")
def model() -> GalaxyModel:
    """A model of random weights whose domain is the toy galaxies."""
    made = new_model(SETTINGS, 1)
    facts = fit_frozen(made, toy_pack(160).stamps(), seed=1)
    assert facts["domain"]["stamps"] == 160
    return made


def shares(model: GalaxyModel, stamps: StampSet) -> np.ndarray:
    table = Predictor(model, {}, "", device_of("cpu")).predict(stamps)
    return table["out_of_domain"].to_numpy()


def changed(stamps: StampSet, change: object) -> StampSet:
    image = np.array(stamps.image)
    for row in range(len(stamps)):
        flux = change(stamps.flux(row))  # type: ignore[operator]
        image[row] = np.stack([encode(plane, line) for plane, line in zip(flux, (codec(value) for value in stamps.softening), strict=True)])
    return replace(stamps, image=image)


def test_what_the_model_never_saw_is_far_and_what_it_saw_is_not(model: GalaxyModel) -> None:
    held = toy_pack(40, seed=9).stamps()
    assert 0.25 < np.median(shares(model, held)) < 0.9
    strange = {
        "smoothed as a picture is": changed(held, lambda flux: uniform_filter(flux, (1, 3, 3))),
        "empty": changed(held, lambda flux: 0 * flux),
        "saturated": changed(held, lambda flux: flux + 50.0),
        "one band missing": replace(held, mask=held.mask | np.uint8(2)),
        "noise of another scale": changed(held, lambda flux: np.repeat(np.repeat(flux[:, ::2, ::2], 2, 1), 2, 2)),
    }
    for what, stamps in strange.items():
        assert np.median(shares(model, stamps)) > 0.99, what


def test_weights_in_half_precision_say_the_same(model: GalaxyModel, tmp_path: Path) -> None:
    save_model(tmp_path / "model", model, {}, "")
    held = toy_pack(20, seed=9).stamps()
    assert shares(load_model(tmp_path / "model").model, held) == pytest.approx(shares(model, held), abs=0.06)


def test_calibrated_shares_are_uniform_on_stamps_that_trained_nothing() -> None:
    made = new_model(SETTINGS, 1)
    fit_frozen(made, toy_pack(60).stamps(), seed=1)
    pack = toy_pack(128, seed=5)
    facts = calibrate(Predictor(made, {}, "", device_of("cpu")), [pack])
    # of the seven sets of bands only the full one counts
    assert facts["domain"]["stamps"] == 128
    level = (np.arange(128) + 1) / 128
    assert np.sort(shares(made, pack.stamps())) == pytest.approx(level, abs=0.02)


def test_too_few_stamps_leave_the_training_quantiles() -> None:
    head = Domain.build(SETTINGS)
    before = head.quantiles.clone()
    assert head.calibrate({"distance": np.ones(99)}) == {}
    assert torch.equal(head.quantiles, before)
    assert head.calibrate({}) == {}


def test_shares_rise_with_the_distance_and_end_at_0_and_1() -> None:
    head = Domain.build(SETTINGS)
    head.calibrate({"distance": np.random.default_rng(1).gamma(4.0, size=500)})
    ranks = head.ranks(np.linspace(-1, 1000, 400))
    assert (np.diff(ranks) >= 0).all()
    assert (ranks[0], ranks[-1]) == (0, 1)
    assert len(head.quantiles) == LEVELS


def test_grain_tells_smoothed_noise_from_white_noise() -> None:
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 160, 160)).astype(np.float32))
    whole = torch.ones_like(noise)
    assert grain(noise, whole).numpy() == pytest.approx(np.zeros((2, 3)), abs=0.05)
    smooth = torch.from_numpy(uniform_filter(noise.numpy(), (1, 1, 3, 3)))
    assert (grain(smooth, whole) < -0.3).all()
    assert (grain(noise, torch.zeros_like(noise)) == 0).all()


def test_untold_conditions_keep_presence_and_pixel_scale() -> None:
    inputs = stamp_inputs(replace(toy_pack(2).stamps(), pixscale=0.4))
    told = without_conditions(inputs, torch.tensor([True, False])).conditions
    assert torch.equal(told[0], inputs.conditions[0])
    bands = len(MODEL_BANDS)
    assert torch.equal(told[1, :bands], inputs.conditions[1, :bands])
    assert told[1, -1] == inputs.conditions[1, -1] != 0
    assert (told[1, bands:-1] == 0).all()
    # what a stamp without seeing and depth gets from the loader
    bare = toy_pack(2).sources.drop_columns([f"{name}_{band}" for name in ("psfsize", "psfdepth") for band in MODEL_BANDS])
    assert torch.equal(stamp_inputs(replace(toy_pack(2).stamps(), sources=bare, pixscale=0.4)).conditions[1], told[1])
