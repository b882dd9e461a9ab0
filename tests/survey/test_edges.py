"""What the cut takes along beyond a brick's edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galpipe.config import SelectionSettings
from galpipe.survey.bricks import brick_by_name, brick_wcs
from galpipe.survey.edges import select_with_edges
from galpipe.survey.neighbours import distance_to_edge
from galpipe.survey.tractor import read_tractor, tractor_subset
from tests.stamps.conftest import UNIT, Row, write_tractor

AREA = brick_by_name(UNIT.brick)
BEYOND = {"near": 0.3, "far": 0.7, "star": 0.3, "faint": 0.3, "own": -0.3}
"""Arcsec beyond the eastern edge, across RA 0 from the brick."""


@pytest.fixture
def sources(tmp_path: Path) -> pa.Table:
    rows = []
    for name, arcsec in BEYOND.items():
        x, y = brick_wcs(AREA).all_world2pix((AREA.ra1 - arcsec / 3600) % 360, AREA.dec, 0)
        kind, flux = ("PSF" if name == "star" else "SER"), (1.0 if name == "faint" else 50.0)
        rows.append(Row(float(x), float(y), kind, flux, primary=name == "own"))
    write_tractor(tmp_path / "tractor.fits", rows)
    return tractor_subset(read_tractor(tmp_path / "tractor.fits", UNIT))


def test_only_what_would_be_predicted_and_lies_just_beyond_is_taken_along(sources: pa.Table) -> None:
    reasons, edge = select_with_edges(sources, SelectionSettings(), ("g", "r", "z"), AREA)
    assert dict(zip(BEYOND, reasons, strict=True)) == {
        "near": "",
        "far": "not_primary",
        "star": "not_primary",
        "faint": "not_primary",
        "own": "",
    }
    assert edge.tolist() == [True, False, False, False, False]


def test_a_list_of_ids_is_taken_as_it_is(sources: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text(str(sources["source_id"][1].as_py()))
    reasons, edge = select_with_edges(sources, SelectionSettings(f"ids:{path}"), ("g", "r", "z"), AREA)
    assert reasons.tolist() == ["not_in_list", "", "not_in_list", "not_in_list", "not_in_list"]
    assert not edge.any()


@pytest.mark.parametrize("name", ["0001m002", "3598p322", "0999p800", "0180p897", "1800m900"])
def test_distance_to_the_edge_is_that_on_the_sky(name: str) -> None:
    """Against the great circle from points on either side of each edge; both sides of RA 0."""
    area = brick_by_name(name)
    for side, sign in (("dec1", 1), ("dec2", -1)):
        if abs(getattr(area, side)) == 90:
            continue
        for arcsec in (-0.4, 0.4):
            dec = getattr(area, side) + sign * arcsec / 3600
            assert distance_to_edge(area, np.array([area.ra]), np.array([dec]))[0] == pytest.approx(arcsec, abs=1e-3)
    if area.ra2 - area.ra1 < 360:
        for side, sign in (("ra1", 1), ("ra2", -1)):
            for arcsec in (-0.4, 0.4):
                ra = (getattr(area, side) + sign * arcsec / 3600 / np.cos(np.radians(area.dec))) % 360
                assert distance_to_edge(area, np.array([ra]), np.array([area.dec]))[0] == pytest.approx(arcsec, abs=1e-3)
