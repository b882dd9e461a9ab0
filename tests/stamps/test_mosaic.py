"""Stamps that overrun their frame near the poles: the neighbours' pixels show the same sky, and nothing else changes."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from galpipe.config import CutSettings, FetchSettings, SelectionSettings
from galpipe.fingerprint import files_fingerprint
from galpipe.mock.headers import add_wcs
from galpipe.stamps.cut import cut_brick
from galpipe.stamps.result import CutResult
from galpipe.stamps.stampset import FILLED
from galpipe.survey.bricks import BRICK_PIXELS, Brick, brick, brick_at, brick_by_name, brick_wcs, columns_of_row
from galpipe.survey.files import BrickFiles
from galpipe.survey.neighbours import _missing as missing_points
from galpipe.survey.neighbours import completed_by, inside_frame, overrun, stamp_neighbours, touching
from galpipe.survey.releases import open_release
from galpipe.survey.remote import fetch_brick
from galpipe.unit import Unit
from tests.stamps.conftest import Row, write_tractor

SIGMA = 2.0
"""Width of every source, pixels: the PSF of a good night."""

SKY_INVVAR = 1.6e5
FETCH = FetchSettings(products=("image", "invvar"), bands=("z",))


@dataclass(frozen=True)
class Sky:
    """Gaussian sources: positions (deg) and fluxes, shape (N,)."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    flux: NDArray[np.float64]

    def on(self, wcs: WCS, shape: tuple[int, int]) -> NDArray[np.float32]:
        """What a noiseless camera sees on a grid."""
        image = np.zeros(shape)
        reach = int(8 * SIGMA)
        for x, y, flux in zip(*wcs.all_world2pix(self.ra, self.dec, 0), self.flux, strict=True):
            x0, y0 = round(float(x)) - reach, round(float(y)) - reach
            rows, columns = slice(max(y0, 0), max(y0 + 2 * reach, 0)), slice(max(x0, 0), max(x0 + 2 * reach, 0))
            part = image[rows, columns]
            gy, gx = np.mgrid[rows.start : rows.start + part.shape[0], columns.start : columns.start + part.shape[1]]
            part += flux / (2 * np.pi * SIGMA**2) * np.exp(-((gx - x) ** 2 + (gy - y) ** 2) / (2 * SIGMA**2))
        return image.astype(np.float32)


@dataclass(frozen=True)
class Polar:
    """A release of one brick near a pole and the neighbours that complete it."""

    tree: Path
    area: Brick
    sky: Sky

    @property
    def unit(self) -> Unit:
        return Unit("polar", "south", self.area.name)

    def coadd(self, name: str, product: str) -> Path:
        stem = f"legacysurvey-{name}-{product}" + ("" if product == "maskbits" else "-z")
        return self.tree / "south" / "coadd" / name[:3] / name / f"{stem}.fits.fz"

    def publish_sums(self) -> None:
        for folder in [*(self.tree / "south" / "coadd").glob("*/*"), *(self.tree / "south" / "tractor").glob("*")]:
            files = sorted(path for path in folder.iterdir() if path.suffix != ".sha256sum")
            lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
            (folder / f"list_{folder.name}.sha256sum").write_text("".join(lines))

    def fetch(self, folder: Path, unit: Unit | None = None) -> BrickFiles:
        unit = unit or self.unit
        return fetch_brick(open_release(str(self.tree), "polar"), unit, FETCH, folder / unit.brick[:3] / unit.brick)

    def cut(self, files: BrickFiles) -> CutResult:
        return cut_brick(files, CutSettings(bands=("z",)), SelectionSettings(min_valid_frac=0.0))


def write_plane(path: Path, plane: NDArray[np.generic]) -> None:
    """A coadd of the brick that its folder is named after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, area = fits.Header(), brick_by_name(path.parent.name)
    add_wcs(header, area)
    kind = "GZIP_1" if plane.dtype.kind == "f" else "RICE_1"
    level = {"quantize_level": 0.0} if plane.dtype.kind == "f" else {}
    image = fits.CompImageHDU(plane, header, compression_type=kind, tile_shape=(100, 100), **level)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, overwrite=True)


def near_the_pole_side(area: Brick) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels along the poleward edge of a brick's unique area that lie in its frame."""
    ra = np.linspace(area.ra1, area.ra2, 41)[1:-1]
    x, y = brick_wcs(area).all_world2pix(ra, np.full(len(ra), area.dec2 if area.dec > 0 else area.dec1), 0)
    held = (y > 1) & (y < BRICK_PIXELS - 2)
    inward = -1.0 if area.dec > 0 else 1.0
    return x[held], y[held] + inward


def build(tree: Path, area: Brick) -> Polar:
    """Sources on both sides of the poleward edge, seen by the frames of the brick and of its neighbours."""
    random = np.random.default_rng(area.brickid)
    x, y = near_the_pole_side(area)
    outward = 1.0 if area.dec > 0 else -1.0
    spread = (np.repeat(x, 6) + random.uniform(-60, 60, 6 * len(x)), np.repeat(y, 6) + outward * random.uniform(-40, 74, 6 * len(x)))
    ra, dec = brick_wcs(area).all_pix2world(*spread, 0)
    made = Polar(tree, area, Sky(ra, dec, random.uniform(5, 60, len(ra))))
    for other in (area, *stamp_neighbours(area)):
        mask, invvar = np.zeros((BRICK_PIXELS, BRICK_PIXELS), np.int16), np.full((BRICK_PIXELS, BRICK_PIXELS), SKY_INVVAR, np.float32)
        write_plane(made.coadd(other.name, "image"), made.sky.on(brick_wcs(other), mask.shape))
        write_plane(made.coadd(other.name, "invvar"), invvar)
        write_plane(made.coadd(other.name, "maskbits"), mask)
    table = tree / "south" / "tractor" / area.name[:3] / f"tractor-{area.name}.fits"
    table.parent.mkdir(parents=True)
    write_tractor(table, [Row(float(bx), float(by)) for bx, by in zip(x, y, strict=True)], area.name)
    made.publish_sums()
    return made


@pytest.fixture(scope="module")
def northern(tmp_path_factory: pytest.TempPathFactory) -> Polar:
    """A brick at Dec 84."""
    return build(tmp_path_factory.mktemp("north") / "polar", brick_at(100.0, 84.0))


@pytest.fixture
def copy(northern: Polar, tmp_path: Path) -> Polar:
    """The same in a folder of the test's own."""
    shutil.copytree(northern.tree, tmp_path / "polar")
    return replace(northern, tree=tmp_path / "polar")


def check_against_the_sky(made: Polar, result: CutResult) -> int:
    """Compare every completed stamp with the sky on its own grid; returns how many there are."""
    stamps = result.stamps
    share = stamps.sources["mosaic_frac"].to_numpy()
    assert not (stamps.mask & FILLED).any()
    for row in np.flatnonzero(share > 0):
        wcs = stamps.wcs(int(row))
        assert wcs is not None
        truth = made.sky.on(wcs, (stamps.size, stamps.size)) / 0.95
        error = stamps.flux(int(row))[0] - truth
        # the peak of the brightest source is 2.5 nanomaggies: 0.4 % of it, from interpolation and from the codes
        assert np.abs(error).max() < 0.01
        # pixels of the neighbours do hold light
        assert truth.max() > 0.2
    return int((share > 0).sum())


def test_completed_stamps_show_the_sky_of_their_own_grid(northern: Polar, tmp_path: Path) -> None:
    result = northern.cut(northern.fetch(tmp_path))
    assert check_against_the_sky(northern, result) >= 4
    share = result.stamps.sources["mosaic_frac"].to_numpy()
    assert 0 < share.max() <= overrun(northern.area)[3] / result.stamps.size
    assert (share == 0).any()


@pytest.mark.parametrize("where", [(33.0, -85.0), (77.0, 89.25)])
def test_the_same_in_the_south_and_beside_the_pole(tmp_path: Path, where: tuple[float, float]) -> None:
    made = build(tmp_path / "polar", brick_at(*where))
    assert check_against_the_sky(made, made.cut(made.fetch(tmp_path))) >= 4


def test_pixels_of_the_own_frame_stay_as_they_are(northern: Polar, tmp_path: Path) -> None:
    files = northern.fetch(tmp_path)
    alone = northern.cut(replace(files, records=tuple(item for item in files.records if "@" not in item.product)))
    whole = northern.cut(files)
    assert "mosaic_frac" not in alone.stamps.sources.column_names
    inside = (alone.stamps.mask & FILLED) == 0
    assert not inside.all()
    for mine, theirs in ((whole.stamps.image, alone.stamps.image), (whole.stamps.invvar_code, alone.stamps.invvar_code)):
        assert np.array_equal(mine[:, 0][inside], theirs[:, 0][inside])
    assert np.array_equal(whole.stamps.mask[inside], alone.stamps.mask[inside])
    assert whole.outcomes.equals(alone.outcomes)


def test_bad_pixels_of_a_neighbour_are_bad_for_all_that_takes_part_of_them(copy: Polar, tmp_path: Path) -> None:
    """A saturated pixel, one without weight and one that is not a number."""
    stamps = copy.cut(copy.fetch(tmp_path / "before")).stamps
    row = int(np.argmax(stamps.sources["mosaic_frac"].to_numpy()))
    wcs = stamps.wcs(row)
    assert wcs is not None
    outside = np.flatnonzero(np.arange(stamps.size) + stamps.sources["stamp_y0"][row].as_py() >= BRICK_PIXELS)
    spots = {"maskbits": (30, int(outside[3])), "invvar": (60, int(outside[3])), "image": (90, int(outside[3]))}
    values: dict[str, float] = {"maskbits": 1 << 4, "invvar": 0.0, "image": np.nan}
    for product, (x, y) in spots.items():
        ra, dec = wcs.all_pix2world(x, y, 0)
        for other in stamp_neighbours(copy.area):
            path = copy.coadd(other.name, product)
            plane = np.array(fits.getdata(path))
            ox, oy = (round(float(value)) for value in brick_wcs(other).all_world2pix(ra, dec, 0))
            if 0 <= ox < BRICK_PIXELS and 0 <= oy < BRICK_PIXELS:
                plane[oy, ox] = values[product]
                write_plane(path, plane)
    copy.publish_sums()
    after = copy.cut(copy.fetch(tmp_path / "after")).stamps
    assert not stamps.mask[row].any()
    for x, y in spots.values():
        # as far as an interpolation reaches, in the strip; not beyond
        assert after.mask[row, y - 1 : y + 2, x - 1 : x + 2].all()
        assert not after.mask[row, y, x - 5] and not after.mask[row, y, x + 5]
    good = after.mask[row] == 0
    assert np.abs(after.flux(row)[0] - stamps.flux(row)[0])[good].max() < 1e-3


def test_a_neighbour_that_the_release_lacks_leaves_the_pixels_open(copy: Polar, tmp_path: Path) -> None:
    for other in stamp_neighbours(copy.area):
        shutil.rmtree(copy.coadd(other.name, "image").parent)
    files = copy.fetch(tmp_path)
    assert len(files.absent) == 3 * len(stamp_neighbours(copy.area))
    stamps = copy.cut(files).stamps
    assert (stamps.sources["mosaic_frac"].to_numpy() == 0).all()
    assert (stamps.mask & FILLED).any()


def test_a_changed_neighbour_is_another_input(copy: Polar, tmp_path: Path) -> None:
    before = copy.fetch(tmp_path / "before")
    other = stamp_neighbours(copy.area)[0]
    path = copy.coadd(other.name, "image")
    write_plane(path, np.array(fits.getdata(path)) + np.float32(1e-3))
    copy.publish_sums()
    after = copy.fetch(tmp_path / "after")
    changed = {name for name in before.checksums if before.checksums[name] != after.checksums[name]}
    assert changed == {path.name}
    prints = [files_fingerprint(files.checksums, files.absent) for files in (before, after)]
    assert prints[0] != prints[1]


def test_a_file_that_a_neighbour_has_is_not_fetched_twice(copy: Polar, tmp_path: Path) -> None:
    """In both orders, as a brick may come before or after the one whose frame it needs."""
    other = stamp_neighbours(copy.area)[0]
    beside = replace(copy.unit, brick=other.name)
    for first, second in ((copy.unit, beside), (beside, copy.unit)):
        root = tmp_path / first.brick
        copy.fetch(root, first)
        files = copy.fetch(root, second)
        name = copy.coadd(other.name, "image").name
        assert (files.folder / name).samefile(root / first.brick[:3] / first.brick / name)
        told = {item.name: item.status for item in files.records}
        assert told[name] == "verified"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 720), st.floats(0, 1, exclude_max=True))
def test_neighbours_cover_what_a_frame_lacks_and_only_near_the_poles(row: int, along: float) -> None:
    area = brick(row, int(along * columns_of_row(row)))
    found = stamp_neighbours(area)
    if abs(area.dec) <= 74.0:
        assert found == () and not any(overrun(area))
        return
    assert bool(found) == any(overrun(area))
    if found:
        ra, dec = missing_points(area)
        depth = np.max([np.nan_to_num(inside_frame(other, ra, dec), nan=-1e9) for other in found], axis=0)
        assert depth.min() >= 2.0
        assert all(area in completed_by(other) for other in found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 720), st.floats(0, 1, exclude_max=True))
def test_bricks_touch_each_other(row: int, along: float) -> None:
    area = brick(row, int(along * columns_of_row(row)))
    near = touching(area)
    assert area not in near
    assert all(area in touching(other) for other in near)
    # a step over each edge and corner leads to one of them
    for ra in (area.ra1, area.ra, area.ra2):
        for dec in (area.dec1, area.dec, area.dec2):
            for step in (-1e-6, 1e-6):
                across = brick_at((ra + step) % 360, float(np.clip(dec + step, -90, 90)))
                assert across == area or across in near
