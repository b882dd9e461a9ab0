"""Codes of flux and inverse variance: round trips, and rounding against the pixel's noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from galpipe.config import SOFTENING
from galpipe.stamps.normalize import (
    CEILING,
    ELECTRONS_WITHIN_TENTH,
    INVVAR_FIRST,
    INVVAR_LAST,
    codec,
    decode,
    decode_invvar,
    encode,
    encode_invvar,
    in_range,
    normalized,
    rounding,
)

BANDS = st.sampled_from(sorted(SOFTENING))
GAINS = {"g": 2240.0, "r": 1940.0, "i": 2000.0, "z": 2000.0}
"""Electrons per nanomaggie of a DECaLS coadd of nominal depth: zero points 25.3, 25.4, 25.2, 25.0 (1 e-/s), 134 to 200 s."""

FULL_WELL = 1.6e5
SKY = {"g": 0.002, "r": 0.003, "i": 0.005, "z": 0.008}
"""Noise of real deep DR9 pixels, nanomaggies."""


@given(BANDS, hnp.arrays(np.int16, st.integers(1, 50), elements=st.integers(-32767, 32767)))
def test_codes_survive_decoding(band: str, codes: np.ndarray) -> None:
    line = codec(SOFTENING[band])
    assert np.array_equal(encode(decode(codes, line), line), codes)


@given(BANDS, st.floats(0.0, 1.0))
def test_rounding_is_below_a_tenth_of_the_noise_from_minus_five_sigma_to_saturation(band: str, where: float) -> None:
    line, sky, gain = codec(SOFTENING[band]), SKY[band], GAINS[band]
    # evenly in asinh from -5 sigma to where two exposures of half the coadd's depth saturate
    flux = sky * np.sinh(np.arcsinh(-5.0) + where * (np.arcsinh(2 * FULL_WELL / gain / sky) - np.arcsinh(-5.0)))
    noise = np.sqrt(sky**2 + max(flux, 0.0) / gain)
    error = abs(float(decode(encode(np.array([flux]), line), line)[0]) - flux)
    assert error < 0.1 * noise


@given(BANDS, st.floats(100.0, 1e6), st.floats(-1.0, 1.0))
def test_the_limit_in_electrons_holds_at_any_depth(band: str, gain: float, where: float) -> None:
    line = codec(SOFTENING[band])
    flux = min(10**where * ELECTRONS_WITHIN_TENTH / gain, ELECTRONS_WITHIN_TENTH / gain, CEILING)
    sky = 3e-4
    assert float(rounding(flux, line)) <= 0.1 * np.hypot(sky, np.sqrt(flux / gain))


@given(BANDS, st.floats(-0.3, CEILING))
def test_error_stays_within_the_stated_rounding(band: str, flux: float) -> None:
    line = codec(SOFTENING[band])
    error = abs(float(decode(encode(np.array([flux]), line), line)[0]) - flux)
    # float32 arithmetic adds a little to half a step
    assert error <= 1.02 * float(rounding(flux, line)) + 2e-7 * abs(flux)


@given(BANDS, st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_any_float_gets_a_code_inside_the_range(band: str, flux: float) -> None:
    line = codec(SOFTENING[band])
    value = float(decode(encode(np.array([flux]), line), line)[0])
    assert line.floor * 1.001 <= value <= line.ceiling * 1.001
    assert bool(in_range(np.array([flux]), line)[0]) == (np.isfinite(flux) and line.floor <= flux <= line.ceiling)


@pytest.mark.parametrize("band", sorted(SOFTENING))
def test_range_covers_deep_negatives_and_a_thousand_nanomaggies(band: str) -> None:
    line = codec(SOFTENING[band])
    assert line.floor == pytest.approx(-100 * SOFTENING[band])
    assert line.ceiling == pytest.approx(CEILING) and CEILING >= 1000
    assert float(normalized(encode(np.zeros(1), line), line)[0]) == pytest.approx(0.0, abs=line.scale / 2 * 1.01)


def test_a_softening_must_be_positive() -> None:
    with pytest.raises(ValueError, match="softening must be positive, got 0"):
        codec(0.0)


@given(st.floats(INVVAR_FIRST, INVVAR_LAST))
def test_inverse_variance_keeps_its_value_to_five_percent(value: float) -> None:
    assert float(decode_invvar(encode_invvar(np.array([value])))[0]) == pytest.approx(value, rel=0.047)


@given(hnp.arrays(np.uint8, st.integers(1, 50)))
def test_inverse_variance_codes_survive(codes: np.ndarray) -> None:
    assert np.array_equal(encode_invvar(decode_invvar(codes)), codes)


@given(st.floats(max_value=0.0, allow_infinity=True) | st.just(float("nan")) | st.just(float("inf")))
def test_no_inverse_variance_is_code_zero(value: float) -> None:
    assert encode_invvar(np.array([value]))[0] == 0
    assert decode_invvar(np.array([0], np.uint8))[0] == 0
