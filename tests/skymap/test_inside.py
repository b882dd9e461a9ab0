"""Positions in regions, against astropy's separations and the brick grid."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import Latitude, Longitude, SkyCoord
from mocpy import MOC

from galpipe.skymap.inside import inside
from galpipe.survey.region import Everything, parse_region


def points(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    return random.uniform(-2, 2, count) % 360, random.uniform(-2, 2, count)


def test_a_cone_over_ra_0() -> None:
    ra, dec = points()
    far = SkyCoord(ra * u.deg, dec * u.deg).separation(SkyCoord(359.8 * u.deg, 0.1 * u.deg)).deg
    assert np.array_equal(inside(parse_region("cone:359.8,0.1,0.7"), ra, dec), far <= 0.7)


def test_a_box_over_ra_0_and_half_open() -> None:
    ra, dec = points()
    wanted = ((ra >= 359.5) | (ra < 0.5)) & (dec >= -1) & (dec < 1)
    assert np.array_equal(inside(parse_region("box:359.5,0.5,-1,1"), ra, dec), wanted)
    assert inside(parse_region("box:0,1,0,1"), np.array([0.0, 1.0, 0.5]), np.array([0.0, 0.5, 1.0])).tolist() == [True, False, False]


def test_bricks_and_a_moc(tmp_path: Path) -> None:
    ra, dec = points()
    chosen = inside(parse_region("bricks:0001m002"), ra, dec)
    assert chosen.any() and np.all((ra[chosen] < 0.25) & (dec[chosen] >= -0.375) & (dec[chosen] < -0.125))
    moc = MOC.from_cone(Longitude(0, u.deg), Latitude(0, u.deg), radius=1 * u.deg, max_depth=9)
    moc.save(str(tmp_path / "a.fits"), format="fits")
    assert np.array_equal(
        inside(parse_region(f"moc:{tmp_path}/a.fits"), ra, dec), moc.contains_lonlat(Longitude(ra, u.deg), Latitude(dec, u.deg))
    )


def test_rows_without_a_position_lie_in_everything_only() -> None:
    ra, dec = np.array([np.nan, 0.0]), np.array([0.0, np.inf])
    assert inside(Everything(), ra, dec).all() and not inside(parse_region("cone:0,0,180"), ra, dec).any()
