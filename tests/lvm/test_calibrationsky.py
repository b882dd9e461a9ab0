from __future__ import annotations

import numpy as np

from galpipe.lvm.calibrationsky import CALIBRATION_SEED_OFFSET, FIRST_SEED_OFFSET, calibration_specs, calibration_specs_of
from galpipe.lvm.mocksky import training_specs
from galpipe.mock.cameras import survey_conditions
from galpipe.mock.spec import MockSpec


def depth_and_seeing(spec: MockSpec) -> tuple[float, float]:
    """5 sigma depth of a point source (mag) and FWHM (arcsec) in r."""
    state = survey_conditions(spec, spec.brick_list()[0])
    pixels = 2 * np.sqrt(np.pi) * state.seeing["r"] / 2.3548 / 0.262
    return 22.5 - 2.5 * np.log10(5 * state.sigma["r"] * pixels), state.seeing["r"]


def test_six_bricks_tell_depth_seeing_crowding_and_region_apart() -> None:
    specs = calibration_specs(6, 1001 + CALIBRATION_SEED_OFFSET)
    assert specs[:2] == calibration_specs(2, 1001 + CALIBRATION_SEED_OFFSET)
    for region in ("south", "north"):
        own = [spec for spec in specs if spec.region == region]
        depths, seeing = zip(*(depth_and_seeing(spec) for spec in own), strict=True)
        assert max(depths) - min(depths) > 0.25
        assert max(seeing) / min(seeing) > 1.1
        assert {spec.faint_limit for spec in own} == {22.5, 23.7}
    full = [depth_and_seeing(spec)[0] for spec in specs if spec.faint_limit > 23]
    assert max(full) - min(full) > 0.5


def test_old_cards_keep_the_bricks_that_they_were_calibrated_on() -> None:
    old = calibration_specs_of(("2775m085-5001", "0735p487-5002"), 2, 1001, "survey")
    assert old == training_specs(2, 1001 + FIRST_SEED_OFFSET, "survey")
    assert [f"{spec.brick_list()[0].name}-{spec.seed}" for spec in old] == ["2775m085-5001", "0735p487-5002"]
    assert calibration_specs_of((), 2, 1001, "survey") == old
    new = calibration_specs(6, 1001 + CALIBRATION_SEED_OFFSET)
    names = [f"{spec.brick_list()[0].name}-{spec.seed}" for spec in new]
    assert calibration_specs_of(names, 6, 1001, "survey") == new
