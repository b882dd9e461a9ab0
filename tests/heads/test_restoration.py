"""Restoration: filters that keep flux, additions that cannot change a bright pixel, intervals that are made true."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from galpipe.heads.base import StampContext, Truth
from galpipe.heads.restoration import LEVELS, TOGETHER, Restoration, flux_error
from galpipe.heads.sharpen import CANDIDATES, FilterBank, fill, ratio_sigma
from galpipe.lvm.data import degraded_inputs, load_truth
from galpipe.lvm.encoder import Features
from galpipe.lvm.inputs import SHARPENING, Inputs, stamp_inputs
from galpipe.lvm.model import new_model
from tests.lvm.toy import TINY, toy_pack, toy_stamps


def gaussian(sigma: float) -> torch.Tensor:
    grid = torch.arange(160) - 80
    image = torch.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / (2 * sigma**2))
    return 4000 * image / image.sum()


def inputs_of(flux: torch.Tensor, sharpening: float = SHARPENING) -> Inputs:
    """One stamp, the same in each band, of unknown (that is usual) seeing."""
    pixels = torch.asinh(flux).expand(1, 3, 160, 160).contiguous()
    return Inputs(pixels, torch.ones_like(pixels), torch.zeros(1, 13), torch.full((1,), sharpening))


def test_filters_keep_flux_and_undo_the_blur() -> None:
    blurred = inputs_of(gaussian(4.0))
    sigma = float(ratio_sigma(blurred)[0, 0])
    assert sigma == pytest.approx(1.3 / 0.262 / 2.3548 * np.sqrt(1 - SHARPENING**2), rel=1e-3)
    found = torch.sinh(FilterBank()(blurred))[0, :, 1]
    assert found[:2].sum(dim=(-2, -1)).numpy() == pytest.approx(4000, rel=1e-3)
    wanted = gaussian(float(np.sqrt(16 - sigma**2)))
    assert gaussian(4.0).max() < 0.95 * wanted.max()
    assert found[0].numpy() == pytest.approx(wanted.numpy(), abs=0.01 * float(wanted.max()))
    kept = torch.sinh(FilterBank()(inputs_of(gaussian(4.0), sharpening=1.0)))
    assert kept[0, 0, 1].numpy() == pytest.approx(gaussian(4.0).numpy(), abs=1e-3)


def test_lost_flux_comes_back_and_what_was_taken_away_on_purpose_does_not() -> None:
    sigma = float(ratio_sigma(inputs_of(gaussian(6.0)))[0, 0])
    clean = gaussian(6.0)
    blurred = gaussian(float(np.hypot(6.0, sigma)))
    trail = torch.zeros(160, 160)
    trail[:, 20:23] = 30.0
    noise = 0.6 * torch.from_numpy(np.random.default_rng(4).standard_normal((160, 160)).astype(np.float32))
    given = inputs_of(blurred + trail + noise)
    lessened = torch.asinh(0.95 * clean).expand(1, 3, 160, 160).contiguous()
    found = torch.sinh(FilterBank().balanced(lessened, given))[0, 1]
    disk = torch.hypot(*torch.meshgrid(torch.arange(160.0) - 80, torch.arange(160.0) - 80, indexing="ij")) <= 8
    assert float(found[disk].sum() / clean[disk].sum()) == pytest.approx(1, abs=0.01)
    assert torch.equal(found[:, 20:23], torch.sinh(lessened)[0, 1, :, 20:23])
    # a gap says nothing about flux
    nothing = dataclasses.replace(given, valid=torch.zeros_like(given.valid))
    assert torch.equal(FilterBank().balanced(lessened, nothing), lessened)


def test_smooth_candidates_do_not_spread_the_core() -> None:
    """Where a profile falls like an exponential, its logarithm is straight: smoothing leaves it."""
    grid = torch.arange(160) - 80
    radius = torch.sqrt((grid[:, None] ** 2 + grid[None, :] ** 2).float())
    disk = 60 * torch.exp(-radius / 5)
    found = torch.sinh(FilterBank()(inputs_of(disk, sharpening=1.0)))[0, :, 1]
    ring = (radius > 8) & (radius < 14)
    assert (found[:3, ring].sum(dim=-1) / disk[ring].sum()).numpy() == pytest.approx(1, abs=0.04)


def test_a_batch_is_restored_as_with_its_gradients() -> None:
    """In prediction a few galaxies are filtered at a time, in training the whole batch."""
    model = new_model(TINY, 1).eval()
    inputs = stamp_inputs(toy_stamps(TOGETHER + 3))
    at_once = model(inputs).heads["restoration"]["restored"].detach()
    with torch.inference_mode():
        few = model(inputs).heads["restoration"]["restored"]
    assert few.numpy() == pytest.approx(at_once.numpy(), abs=1e-5)


def test_gaps_are_filled_from_around_them() -> None:
    pixels, valid = torch.full((1, 3, 160, 160), 2.0), torch.ones(1, 3, 160, 160)
    valid[0, 0, 60:100, 70:90], valid[0, 1] = 0, 0
    found = fill(pixels * valid, valid)
    assert found[0, 0].numpy() == pytest.approx(2.0)
    assert float(found[0, 1].abs().max()) == 0
    assert torch.equal(found[0, 2], pixels[0, 2])


def test_additions_count_as_flux_where_there_is_data() -> None:
    head = Restoration.build(TINY).eval()
    inputs = inputs_of(gaussian(4.0))
    valid = inputs.valid.clone()
    valid[0, :, 20:30, 20:30] = 0
    inputs = dataclasses.replace(inputs, valid=valid, pixels=inputs.pixels * valid)
    choice = torch.zeros(1, 3 * (CANDIDATES + 1), 80, 80)
    without, added = (head.mixed(choice, torch.full((1, 3, 160, 160), value), inputs)[0, 1] for value in (0.0, 1.0))
    change = (added - without).detach()
    # a sky noise of flux is everything on the sky and nothing in a core of 40; a gap has no flux of its own to keep
    assert float(change[80, 80]) < 0.05
    assert float(change[150, 150]) == pytest.approx(1.0, abs=0.05)
    assert float(change[25, 25]) == pytest.approx(1.0, abs=1e-3)


def test_an_untrained_head_already_sharpens_without_losing_flux() -> None:
    head = Restoration.build(TINY).eval()
    inputs = inputs_of(gaussian(4.0))
    features = Features((), *(torch.zeros(1, 1),) * 3, torch.zeros(1, TINY.decoder, 80, 80), inputs)
    with torch.inference_mode():
        restored = torch.sinh(head(features)["restored"])[0, 1]
    wanted = gaussian(float(np.sqrt(16 - float(ratio_sigma(inputs)[0, 0]) ** 2)))
    middle = (slice(72, 89), slice(72, 89))
    assert float(restored[middle].sum() / wanted[middle].sum()) == pytest.approx(1, abs=0.02)


def test_the_loss_sees_a_flux_that_no_single_pixel_shows() -> None:
    clean, known = torch.zeros(1, 3, 160, 160), torch.ones(1, 1, 160, 160)
    noise = torch.where((torch.arange(160)[:, None] + torch.arange(160)[None, :]) % 2 == 0, 0.1, -0.1).expand(1, 3, 160, 160)
    biased = torch.full((1, 3, 160, 160), 0.1)
    assert float(flux_error(biased, clean, known)) > 20 * float(flux_error(noise, clean, known))
    assert float(flux_error(clean, clean, known)) == 0


def gaussian_answers(scale: float, seed: int) -> tuple[dict[str, np.ndarray], Truth, StampContext]:
    """Answers with Gaussian errors of ``scale`` where a spread of 1 is stated, twice that where pixels were filled."""
    pack = toy_pack(2)
    truth = load_truth(pack, np.arange(2))
    valid = np.ones((2, 3, 160, 160), np.float32)
    valid[:, :, :, 100:] = 0
    errors = np.random.default_rng(seed).normal(0, scale, valid.shape) * np.where(valid > 0, 1, 2)
    outputs = {"restored": (truth.clean + errors).astype(np.float32), "log_sigma": np.zeros_like(valid)}
    return outputs, truth, StampContext(pack.sources, 152, 4, 0.262, valid, valid)


def test_intervals_hold_what_they_say_after_calibration() -> None:
    head = Restoration.build(TINY)
    parts = [head.calibration(*gaussian_answers(0.3, seed)) for seed in (1, 2)]
    facts = head.calibrate({"ratios": np.concatenate([part["ratios"] for part in parts])})
    outputs, truth, context = gaussian_answers(0.3, 3)
    away = np.abs(outputs["restored"] - truth.clean)
    known = np.broadcast_to(truth.known[:, None], away.shape)
    for half, level in zip(head.half_widths(outputs, context.valid), LEVELS, strict=True):
        for measured in (True, False):
            where = known & ((context.valid > 0) == measured)
            assert (away <= half)[where].mean() == pytest.approx(level, abs=0.01)
        assert facts[f"coverage_{100 * level:.0f}_after"] == pytest.approx(level, abs=0.02)
    assert facts["coverage_68_before"] > 0.9
    assert {"factors"} <= set(head.state_dict())


def test_calibration_leaves_what_it_has_too_few_pixels_for() -> None:
    head = Restoration.build(TINY)
    before = head.factors.clone()
    outputs, truth, context = gaussian_answers(0.3, 1)
    empty = dataclasses.replace(truth, known=np.zeros_like(truth.known))
    head.calibrate(head.calibration(outputs, empty, context))
    assert torch.equal(head.factors, before)


def test_a_stamp_turned_is_restored_to_the_image_turned() -> None:
    """The filters know no direction."""
    bank = FilterBank()
    inputs = stamp_inputs(toy_stamps(1))
    turned = dataclasses.replace(inputs, pixels=inputs.pixels.transpose(2, 3).contiguous(), valid=inputs.valid.transpose(2, 3).contiguous())
    assert bank(turned).numpy() == pytest.approx(bank(inputs).transpose(-1, -2).numpy(), abs=1e-3)


def test_training_moves_every_part() -> None:
    model = new_model(TINY, 1)
    pack = toy_pack(2)
    head = model.head("restoration")
    answers = model(degraded_inputs(pack, np.arange(2), 1)).heads["restoration"]
    loss = head.loss(answers, head.targets(load_truth(pack, np.arange(2))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    for name in ("last.weight", "last.bias", "choice.weight", "start", "slope"):
        gradient = head.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0, name
