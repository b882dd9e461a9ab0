"""Mock bricks to calibrate on: few, but unlike each other, so that depth, seeing, crowding and region can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from galpipe.errors import ConfigurationError
from galpipe.lvm.mocksky import FULL, training_specs
from galpipe.mock.spec import MockSpec

CALIBRATION_SEED_OFFSET = 4200
"""Calibration bricks have seeds this far from the training bricks'; the benchmark's begin with 5,004 and 5,101."""

FIRST_SEED_OFFSET = 4000
"""The same of weights up to version 3, whose two calibration bricks were drawn as training bricks are."""

MOST_BRICKS = 100
"""Calibration bricks that have seeds of their own."""

THIN, MIDDLE = (1500, 22.5), (3000, 22.5)
"""Faint galaxies in a brick and their limit, as `FULL`."""

PLACES: tuple[tuple[tuple[float, float], tuple[int, float]], ...] = (
    ((40.4, 4.4), FULL),
    ((270.7, 47.8), THIN),
    ((229.7, -15.4), THIN),
    ((238.6, 65.8), FULL),
    ((41.3, 20.7), FULL),
    ((327.6, 44.8), MIDDLE),
)
"""Centers and densities of the first bricks, chosen by the seeing and depth that the sky of seed 5201 has there: deep and sharp, shallow
and blurred, shallow, deep, shallow and sharp, blurred; south and north in turn."""


def calibration_specs(bricks: int, seed: int, sky: str = "survey") -> list[MockSpec]:
    """One spec per brick, south and north in turn; a longer list begins with the shorter one.

    Parameters
    ----------
    bricks : int
        At most `MOST_BRICKS`.
    seed : int
        Seed of the first brick; the k-th has ``seed + k``.
    sky : str
        ``plain`` or ``survey``.
    """
    if bricks > MOST_BRICKS:
        raise ConfigurationError(f"at most {MOST_BRICKS} bricks to calibrate on", str(bricks))
    specs = []
    for number, spec in enumerate(training_specs(bricks, seed, sky)):
        center, density = PLACES[number] if number < len(PLACES) else (spec.center, (THIN, FULL)[number // 2 % 2])
        specs.append(replace(spec, center=center, faint=density[0], faint_limit=density[1]))
    return specs


def calibration_specs_of(names: Sequence[str], bricks: int, sky_seed: int, sky: str) -> list[MockSpec]:
    """The bricks that a model was calibrated on, by what its card says.

    Parameters
    ----------
    names : sequence of str
        ``<brick>-<seed>`` of its calibration packs; none where the card does not say.
    bricks : int
    sky_seed : int
        Of its first training brick.
    sky : str
    """
    first = sky_seed + FIRST_SEED_OFFSET
    if not names or f"{first}" in {name.rpartition("-")[2] for name in names}:
        return training_specs(bricks, first, sky)
    return calibration_specs(bricks, sky_seed + CALIBRATION_SEED_OFFSET, sky)
