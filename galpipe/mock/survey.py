"""A frame of the survey-like sky (``MockSpec.sky = "survey"``): sources, PSF and pixels with the survey's dirt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galpipe.config import SURVEY_PIXSCALE
from galpipe.mock.cameras import camera
from galpipe.mock.canvas import draw_view
from galpipe.mock.exposures import Coverage, Stars, core_fwhm, coverage, expose_survey
from galpipe.mock.fourier import View
from galpipe.mock.frame import Frame
from galpipe.mock.pixels import BandPixels, Conditions, mask_image
from galpipe.mock.render import Drawn
from galpipe.mock.sky import Catalog
from galpipe.mock.spec import MockSpec
from galpipe.survey.bricks import BRICK_PIXELS, Brick

Floats = NDArray[np.float64]
Sources = tuple[Catalog, Floats, Floats]

REGISTRATION = 0.02
"""Scatter of a band's positions against the others', arcsec per axis."""


@dataclass(frozen=True)
class Scene:
    """What a frame shows, and through which bands."""

    spec: MockSpec
    area: Brick
    state: Conditions
    bands: tuple[str, ...]
    sources: Sources
    """Sources that may be fitted, with their pixel positions."""
    background: Sources
    """Galaxies too faint for that."""
    shape: tuple[int, int] = (BRICK_PIXELS, BRICK_PIXELS)


def _rng(scene: Scene, purpose: int, band: str = "") -> np.random.Generator:
    return np.random.default_rng([*scene.spec.entropy(scene.area.brickid, purpose), *(ord(letter) for letter in band)])


def survey_frame(scene: Scene) -> Frame:
    """Draw a frame.

    Parameters
    ----------
    scene : Scene
        Of the whole brick; smaller shapes are for `survey_pixels`.
    """
    drawn, pixels, _ = survey_pixels(scene)
    catalog, x, y = scene.sources
    return Frame(scene.spec, scene.area, scene.state, catalog, x, y, drawn, pixels, mask_image(scene.area, catalog, (x, y), pixels))


def survey_pixels(scene: Scene) -> tuple[Drawn, dict[str, BandPixels], dict[str, Coverage]]:
    """Noiseless images, coadd products and coverage of a scene.

    The noiseless images hold the sources that may be fitted and the faint background, blurred by the PSF's core, without artefacts.
    """
    region, state = scene.spec.region, scene.state
    cameras = {band: camera(region, band) for band in scene.bands}
    covers = {band: coverage(_rng(scene, 31, band), state, band, cameras[band], scene.shape) for band in scene.bands}
    shifts = {band: tuple(_rng(scene, 32, band).normal(0, REGISTRATION / SURVEY_PIXSCALE, 2).tolist()) for band in scene.bands}

    def draw(sources: Sources) -> Drawn:
        catalog, x, y = sources
        fwhm = {band: core_fwhm(covers[band], cameras[band], x, y, state.seeing[band]) for band in scene.bands}
        return draw_view(catalog, (x, y), View(cameras, state.sigma, fwhm, shifts), scene.shape)

    drawn, faint = draw(scene.sources), draw(scene.background)
    pixels = {}
    for band in scene.bands:
        drawn.clean[band] += faint.clean[band]
        stars = Stars.of(scene.sources[0], (scene.sources[1] + shifts[band][0], scene.sources[2] + shifts[band][1]), band)
        given = (band, cameras[band], state.sigma[band])
        pixels[band] = expose_survey(drawn.clean[band], covers[band], stars, given, _rng(scene, 33, band))
    return drawn, pixels, covers
