from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galpipe.survey import photometry as ph

fluxes = st.floats(1e-6, 1e7)


@given(fluxes)
def test_flux_and_magnitude_round_trip(flux: float) -> None:
    assert float(ph.mag_to_nanomaggies(ph.nanomaggies_to_mag(flux))) == pytest.approx(flux, rel=1e-12)


@given(st.floats(0.01, 0.999), st.floats(0, 179.999))
def test_ellipticity_round_trip(ba: float, pa: float) -> None:
    e1, e2 = ph.ellipticity(ba, pa)
    assert float(ph.axis_ratio(e1, e2)) == pytest.approx(ba, abs=1e-9)
    turned = (float(ph.position_angle(e1, e2)) - pa + 90) % 180 - 90
    assert abs(turned) < 1e-6


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_position_angle_is_in_half_open_range(e1: float, e2: float) -> None:
    assert 0 <= float(ph.position_angle(e1, e2)) < 180


def test_tractor_axes() -> None:
    # e1 > 0 north-south, e1 < 0 east-west, e2 > 0 towards +RA +Dec
    assert ph.position_angle([0.3, -0.3, 0, 0], [0, 0, 0.3, -0.3]).tolist() == [0, 90, 45, 135]


def test_known_values() -> None:
    assert float(ph.nanomaggies_to_mag(1.0)) == 22.5
    assert float(ph.nanomaggies_to_mag(10.0)) == pytest.approx(20.0)
    assert float(ph.mag_error(10.0, 1.0)) == pytest.approx(0.10857, abs=1e-5)
    assert float(ph.deredden(8.0, 0.8)) == pytest.approx(10.0)
    assert float(ph.depth_to_mag(25.0)) == pytest.approx(22.5)
    # reference: g noise of about 0.004 nanomaggies a pixel at typical depth and seeing
    assert float(ph.pixel_sigma(2000.0, 1.3, 0.262)) == pytest.approx(0.00299, abs=1e-4)


def test_what_has_no_value_is_nan() -> None:
    assert np.isnan(ph.nanomaggies_to_mag([0.0, -1.0, np.nan])).all()
    assert np.isnan(ph.mag_error([1.0, -1.0], [0.0, 4.0])).all()
    assert np.isnan(ph.deredden([1.0], [0.0])).all()
    assert np.isnan(ph.depth_to_mag([0.0, -1.0])).all()
    assert np.isnan(ph.pixel_sigma([0.0], [1.0], 0.262)).all()
