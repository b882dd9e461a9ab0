"""Small pieces of sky to compare: real cutouts, and mock ones drawn to the real ones' depth and seeing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.errors import ConfigurationError
from galpipe.mock.cameras import camera, survey_conditions
from galpipe.mock.noise import noise_taps, resample
from galpipe.mock.pixels import Conditions, conditions, expose
from galpipe.mock.psf import size_over_fwhm
from galpipe.mock.release import frame_sources
from galpipe.mock.render import draw_frame
from galpipe.mock.sky import Catalog, brick_sky
from galpipe.mock.spec import MockSpec
from galpipe.mock.survey import Scene, survey_pixels
from galpipe.mock.universe import background_sky, survey_spec
from galpipe.survey.bricks import Brick, brick_wcs

Floats = NDArray[np.float64]

BANDS = ("g", "r", "z")
SIDE = 256
EDGE = 12
"""Pixels cut off a drawn field after resampling."""


@dataclass(frozen=True)
class Field:
    """One piece of sky."""

    name: str
    """Group of the cross-validation."""
    kind: str
    """``real``, ``plain`` or ``survey``."""
    planes: dict[str, Floats]
    """Nanomaggies per 0.262 arcsec pixel, per band, each of shape (H, W)."""
    center: bool = True
    """Whether a large galaxy lies in the middle."""


@dataclass(frozen=True)
class Look:
    """What a real field was like: the mock draws the same."""

    sigma: dict[str, float]
    """Noise of a pixel, nanomaggies."""
    fwhm: dict[str, float]
    """Of stars, arcsec."""
    z_mag: float
    """Of the galaxy in the middle."""


def real_fields(folder: Path) -> list[Field]:
    """The real g, r, z fields of a folder: ``stamps/cutout_*.fits``, ``deblend/cutout_*.fits``, ``lens/*_grz.fits``.

    Raises
    ------
    ConfigurationError
        If there are fewer than six.
    """
    fields = []
    for path in sorted((folder / "stamps").glob("cutout_*.fits")) + sorted((folder / "lens").glob("*_grz.fits")):
        cube = np.asarray(fits.getdata(path), np.float64)
        fields.append(Field(path.stem, "real", dict(zip(BANDS, cube, strict=True)), path.parent.name == "stamps"))
    for path in sorted((folder / "deblend").glob("cutout_*.fits")):
        with fits.open(path) as hdus:
            fields.append(Field(path.stem, "real", {b: np.asarray(hdus[2 * k + 1].data, np.float64) for k, b in enumerate(BANDS)}, False))
    if len(fields) < 6:
        raise ConfigurationError("at least six real g, r, z cutouts", f"{len(fields)}", file=str(folder))
    return fields


def real_single_band(folder: Path) -> tuple[Floats, Floats] | None:
    """Image and inverse variance of the covered corner of the DR6 brick's g band (90Prime, one exposure); None where it is absent."""
    paths = sorted((folder / "release_dr6").glob("coadd/*/*/*image-g.fits.fz"))
    if not paths:
        return None
    image = np.asarray(fits.getdata(paths[0], 1), np.float64)
    invvar = np.asarray(fits.getdata(paths[0].with_name(paths[0].name.replace("image", "invvar")), 1), np.float64)
    rows, columns = (invvar > 0).mean(axis=1) > 0.15, (invvar > 0).mean(axis=0) > 0.4
    return np.ascontiguousarray(image[rows][:, columns]), np.ascontiguousarray(invvar[rows][:, columns])


def real_direct(folder: Path) -> tuple[Floats, Floats] | None:
    """Image and inverse variance of a g-band DECam cutout that was not interpolated again (``deblend/``); None where it is absent."""
    paths = sorted((folder / "deblend").glob("cutout_*.fits"))
    if not paths:
        return None
    with fits.open(paths[0]) as hdus:
        return np.array(hdus[1].data, np.float64, order="C"), np.array(hdus[2].data, np.float64, order="C")


def _sigma_white(look: Look, band: str) -> float:
    """The exposures' own noise for a measured noise, which the interpolation (and the cutout's) has lowered."""
    taps = np.array(noise_taps(camera("south", band).pixscale))
    return look.sigma[band] / float((taps**2).sum()) / 0.93


def like(state: Conditions, look: Look, survey: bool) -> Conditions:
    """Conditions with a real field's depth and seeing."""
    seeing, sigma = dict(state.seeing), dict(state.sigma)
    for band in BANDS:
        seeing[band] = look.fwhm[band] * (size_over_fwhm(camera("south", band)) if survey else 1.0)
        sigma[band] = _sigma_white(look, band)
    return replace(state, seeing=seeing, sigma=sigma)


def mock_spec(kind: str, seed: int, center: tuple[float, float]) -> MockSpec:
    """One brick of ``plain`` (the defaults of `galpipe mock`) or ``survey`` at the training density."""
    plain = MockSpec(bricks=1, seed=seed, center=center, workers=1)
    return plain if kind == "plain" else survey_spec(plain)


POOL = 80
"""Survey-like bricks among which the middles of fields are sought: galaxies as bright as the real ones are rare."""


def hosts(catalog: Catalog, x: Floats, y: Floats, wanted: Floats) -> list[int]:
    """Disk galaxies well inside the frame, each the nearest in z magnitude to a wanted one, none twice."""
    inside = (np.minimum(x, y) > 160) & (np.maximum(x, y) < 3440)
    rows = np.flatnonzero(inside & np.isin(catalog["kind"], ["disk_spiral", "disk_barred"]) & ~catalog["faint"])
    magnitude = 22.5 - 2.5 * np.log10(catalog["flux"][rows, 3])
    found: list[int] = []
    for value in wanted:
        order = [int(rows[k]) for k in np.argsort(np.abs(magnitude - value)) if int(rows[k]) not in found]
        found += order[:1]
    return found


def survey_fields(looks: list[Look], count: int, seed: int) -> Iterator[Field]:
    """Survey-like fields around disk galaxies as bright as the real ones.

    Parameters
    ----------
    looks : list of Look
        Taken in turn.
    count : int
        Fields.
    seed : int
    """
    rng = np.random.default_rng([seed, 41])
    specs = [mock_spec("survey", seed + k, (float(rng.uniform(0, 60)), float(rng.uniform(-2, 2)))) for k in range(min(POOL, 2 * count))]
    catalogs = [brick_sky(spec, spec.brick_list()[0]) for spec in specs]
    used: set[tuple[int, int]] = set()
    for number in range(count):
        look = looks[number % len(looks)]
        best = min(((*_nearest(catalog, look.z_mag, {row for p, row in used if p == pool}), pool) for pool, catalog in enumerate(catalogs)))
        _, row, pool = best
        used.add((pool, row))
        planes = _survey_field(specs[pool], look, catalogs[pool][row])
        yield _cutout(f"survey-{number}", "survey", planes, rng)


def _nearest(catalog: Catalog, z_mag: float, used: set[int]) -> tuple[float, int]:
    """Distance in z magnitude and row of the best unused disk galaxy away from the brick's edge."""
    disk = np.isin(catalog["kind"], ["disk_spiral", "disk_barred"]) & ~catalog["faint"]
    away = (np.abs(catalog["dec"] - np.median(catalog["dec"])) < 0.1) & (np.abs(catalog["ra"] - np.median(catalog["ra"])) < 0.1)
    rows = np.array([row for row in np.flatnonzero(disk & away) if row not in used])
    apart = np.abs(22.5 - 2.5 * np.log10(catalog["flux"][rows, 3]) - z_mag)
    return float(apart.min()), int(rows[np.argmin(apart)])


def _survey_field(spec: MockSpec, look: Look, host: np.void) -> dict[str, NDArray[np.float32]]:
    """Coadd images around a galaxy of a brick, drawn with a real field's depth and seeing."""
    area = spec.brick_list()[0]
    # the field lies well inside the brick: no neighbor's light reaches it
    sources, faint = _placed(area, brick_sky(spec, area)), _placed(area, background_sky(spec, area, empty=False))
    row = int(np.flatnonzero(sources[0]["number"] == host["number"])[0])
    center = (float(sources[1][row]), float(sources[2][row]))
    own = replace(spec, seed=spec.seed * 1000 + int(host["number"]))
    state = like(survey_conditions(spec, area), look, True)
    side = SIDE + 2 * EDGE
    scene = Scene(own, area, state, BANDS, _near(sources, center), _near(faint, center), (side, side))
    return {band: products.image for band, products in survey_pixels(scene)[1].items()}


def _placed(area: Brick, catalog: Catalog) -> tuple[Catalog, Floats, Floats]:
    x, y = brick_wcs(area).all_world2pix(catalog["ra"], catalog["dec"], 0)
    return catalog, x, y


def _near(sources: tuple[Catalog, Floats, Floats], center: tuple[float, float]) -> tuple[Catalog, Floats, Floats]:
    """Sources around a center, in the coordinates of a field that has it in the middle."""
    catalog, x, y = sources
    half = SIDE // 2 + EDGE
    near = (np.abs(x - center[0]) < half + 160) & (np.abs(y - center[1]) < half + 160)
    return catalog[near], x[near] - round(center[0]) + half, y[near] - round(center[1]) + half


def _cutout(name: str, kind: str, planes: dict[str, NDArray[np.float32]], rng: np.random.Generator) -> Field:
    """What the viewer's cutout service makes of coadd pixels: Lanczos-3 at one phase for the whole cutout, edges cut off."""
    phase = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5)))
    return Field(name, kind, {b: resample(p, phase)[EDGE:-EDGE, EDGE:-EDGE].astype(np.float64) for b, p in planes.items()})


def plain_fields(looks: list[Look], count: int, seed: int) -> Iterator[Field]:
    """Fields of the plain sky, cut from whole frames: two frames, each with the depth and seeing of the middle of the looks."""
    rng = np.random.default_rng([seed, 42])
    middle = Look(
        {band: float(np.median([look.sigma[band] for look in looks])) for band in BANDS},
        {band: float(np.median([look.fwhm[band] for look in looks])) for band in BANDS},
        0.0,
    )
    half, made = SIDE // 2 + EDGE, 0
    for frame in range(2):
        spec = mock_spec("plain", seed + frame, (float(rng.uniform(0, 60)), float(rng.uniform(-2, 2))))
        planes, sources = _plain_frame(spec, spec.brick_list()[0], middle)
        wanted = np.array([look.z_mag for look in looks] * (1 + count // (2 * len(looks))))
        for row in hosts(*sources, wanted)[: -(-count // 2)]:
            x, y = round(float(sources[1][row])), round(float(sources[2][row]))
            cut = {band: plane[y - half : y + half, x - half : x + half] for band, plane in planes.items()}
            yield _cutout(f"plain-{made}", "plain", cut, rng)
            made += 1


def _plain_frame(spec: MockSpec, area: Brick, look: Look) -> tuple[dict[str, NDArray[np.float32]], tuple[Catalog, Floats, Floats]]:
    state = like(conditions(spec, area), look, False)
    sources = frame_sources(spec, area, set())
    drawn = draw_frame(*sources, {band: state.seeing[band] for band in BANDS})
    planes = {}
    for band in BANDS:
        planes[band] = expose(drawn.clean.pop(band), band, state, np.random.default_rng([spec.seed, area.brickid, 10 + ord(band)])).image
    return planes, sources
