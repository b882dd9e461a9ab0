"""HEALPix maps of a catalog: what was looked at, how well, and which galaxies were found there.

A footprint is not a selection function. Each cell of the sky has the number of galaxies, the share of its area that was processed
and is usable, depth, seeing, E(B-V), the density of stars, and each class's count, so that a class's fraction can be drawn against
every condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogs.derive import healpix29
from catalogs.extent import Extent, floats
from catalogs.inventory import Inventory
from catalogs.outcomes import read_outcomes
from catalogs.schema import HEALPIX_ORDER, OPTICAL, band_name
from galpipe.errors import BadData
from galpipe.skymap.cells import CellSums, aligned, cell_area, ratio, share_inside
from galpipe.skymap.inside import inside
from galpipe.skymap.usable import MEANING, usable_points
from galpipe.survey.bricks import brickids_of, geometry_of, ids_at
from galpipe.survey.files import load_brick_files
from galpipe.survey.photometry import nanomaggies_to_mag
from galpipe.unit import Unit

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]

PER_CELL = 10
"""Half of the galaxies should lie in cells of so many of them."""
SMALLEST_SHARE = 0.1
"""A cell of which less was processed has no density: it would be noise."""
ASKED = 0.5
"""A galaxy is of a class where at least so many volunteers would be asked the question."""

_HIDDEN = ("forced_psf_in_mask", "no_ivar", "no_coverage", "bad_flux")
_ELSEWHERE = ("not_primary", "duplicated_row", "conflicting_rows", "bad_position")
BY_SOURCES = (
    "estimated from the survey's own sources: the share of the bricks' primary sources that are not forced to point sources inside "
    "a mask and have data in the selecting band"
)
"""How usable area is told where the bricks' images are not here."""


@dataclass(frozen=True)
class Condition:
    """A quantity of the sky that a map shows.

    Parameters
    ----------
    name, label, unit : str
        Key, words and unit (VOUnit text; empty for a share).
    """

    name: str
    label: str
    unit: str


@dataclass(frozen=True)
class Answer:
    """A class: one answer of one question.

    Parameters
    ----------
    column, question, answer : str
        Column of its vote fraction; both in words.
    """

    column: str
    question: str
    answer: str


@dataclass(frozen=True)
class SkyMaps:
    """Maps on one set of cells.

    Parameters
    ----------
    order : int
        HEALPix order, NESTED.
    cells : ndarray of int64, shape (N,)
        Sorted.
    galaxies : ndarray, shape (N,)
    covered : ndarray, shape (N,)
        Share of each cell that was processed.
    conditions : dict
        Values of shape (N,) by condition, NaN where unknown.
    classes : dict
        ``(hits, tries)`` by answer, shape (N,) each.
    processed : callable
        From RA and Dec (deg, shape (M,)) to whether that position lies in a brick that was processed, and in the region.
    usable_from : str
        What usable area was told from; empty where it is unknown.
    """

    order: int
    cells: NDArray[np.int64]
    galaxies: Floats
    covered: Floats
    conditions: Mapping[Condition, Floats]
    classes: Mapping[Answer, tuple[Floats, Floats]]
    processed: Callable[[Floats, Floats], NDArray[np.bool_]]
    usable_from: str = ""

    @property
    def area(self) -> float:
        """Processed area, square degrees."""
        return float(self.covered.sum() * cell_area(self.order) / 3600)

    @property
    def usable_area(self) -> float:
        """Usable area, square degrees; NaN where it is unknown."""
        share = next((values for item, values in self.conditions.items() if item.name == "usable"), None)
        return float("nan") if share is None else float(np.nansum(self.covered * share) * cell_area(self.order) / 3600)


def answers(names: Sequence[str]) -> list[Answer]:
    """The classes among a catalog's columns: answers of questions with more than one."""
    found: dict[str, list[Answer]] = {}
    for name in names:
        parts = re.fullmatch(r"([^_]+)_(.+)_fraction", name)
        if parts and f"{parts[1]}_proportion_asked" in names:
            found.setdefault(parts[1], []).append(Answer(name, parts[1].replace("-", " "), parts[2].replace("-", " ")))
    return [item for listed in found.values() if len(listed) > 1 for item in listed]


def columns_needed(schema: pa.Schema) -> list[str]:
    """Columns that `take_maps` reads."""
    plain = ["ebv", *(band_name(kind, band) for kind in ("psfdepth", "psfsize") for band in OPTICAL)]
    votes = [item.column for item in answers(schema.names)]
    asked = [name for name in schema.names if name.endswith("_proportion_asked")]
    return [name for name in plain if name in schema.names] + votes + asked


class MapSums:
    """Adds up batches of rows, then becomes `SkyMaps`.

    Parameters
    ----------
    schema : pyarrow.Schema
        The catalog's.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._answers = answers(schema.names)
        self._conditions = [
            *(Condition(f"depth_{band}", f"depth in {band}, 5 sigma, point source", "mag") for band in OPTICAL),
            *(Condition(f"seeing_{band}", f"seeing in {band}, FWHM", "arcsec") for band in OPTICAL),
            Condition("ebv", "E(B-V)", "mag"),
        ]
        self._sums = CellSums([item.name for item in self._conditions] + [item.column for item in self._answers])

    def add(self, table: pa.Table) -> None:
        """Add rows; those without a position are in no cell."""
        index = healpix29(floats(table, "ra"), floats(table, "dec"))
        placed = np.asarray(index.is_valid())
        if placed.any():
            values = np.column_stack([*_conditions(table), *_memberships(table, self._answers)])
            self._sums.add(index.fill_null(0).to_numpy()[placed], values[placed])

    def finish(self, extent: Extent, stock: Inventory, most_images: int, progress: Progress | None = None) -> SkyMaps:
        """The maps, with what the outcomes and the bricks' images say.

        Parameters
        ----------
        extent : Extent
        stock : Inventory
            Of the extent.
        most_images : int
            Usable area is told from the bricks' images where all of them are here and they are not more than this.
        progress : callable, optional
            Called with (outcomes files read, files).
        """
        sums = self._sums
        sums.settle(PER_CELL)
        done = [extent.unit_of(entry.path) for entry in stock.outcomes if entry.rows]
        sources = _sources(extent, done, progress)
        pixels = _pixels(extent, done, most_images)
        for other in (sources, pixels):
            if other is not None:
                sums.coarsen(min(sums.order, other.order))
        for other in (sources, pixels):
            if other is not None:
                other.coarsen(sums.order)
        bricks = brickids_of([unit.brick for unit in done]) if done else np.zeros(0, np.int64)
        processed = partial(_processed, extent, bricks)
        cells, covered = _ground(np.concatenate([sums.cells, sources.cells]), sums.order, bricks[bricks > 0], processed)
        known = {item: aligned_means(sums, item.name, cells) for item in self._conditions}
        conditions = {item: values for item, values in known.items() if np.isfinite(values).any()}
        usable, source = _usable(cells, sources, pixels)
        if source:
            conditions[Condition("usable", "usable share of the area", "")] = np.where(covered > 0, usable, np.nan)
        if sources.sums("told").sum():
            area = covered * np.where(np.isfinite(usable), usable, 1.0)
            stars = aligned(cells, sources.cells, sources.sums("star"))
            enough = area >= SMALLEST_SHARE
            density = np.where(enough, stars / np.where(enough, area * cell_area(sums.order), 1.0), np.nan)
            conditions[Condition("stars", "density of point sources (type PSF)", "arcmin-2")] = density
        galaxies = aligned(cells, sums.cells, sums.rows)
        classes = {
            item: (aligned(cells, sums.cells, sums.sums(item.column)), aligned(cells, sums.cells, sums.counts(item.column)))
            for item in self._answers
        }
        return SkyMaps(sums.order, cells, galaxies, covered, conditions, classes, processed, source)


def take_maps(extent: Extent, stock: Inventory, most_images: int) -> SkyMaps:
    """Maps of an extent in one pass over the columns they need; as `MapSums`."""
    schema = extent.schema()
    sums = MapSums(schema)
    for batch in extent.batches(columns_needed(schema)):
        sums.add(batch)
    return sums.finish(extent, stock, most_images)


def aligned_means(sums: CellSums, name: str, cells: NDArray[np.int64]) -> Floats:
    """Means of a value in other cells of the same order; NaN where there is none."""
    return ratio(aligned(cells, sums.cells, sums.sums(name)), aligned(cells, sums.cells, sums.counts(name)))


def _conditions(table: pa.Table) -> list[Floats]:
    depth, seeing = [], []
    for band in OPTICAL:
        ivar, size = floats(table, band_name("psfdepth", band)), floats(table, band_name("psfsize", band))
        # the flux of a point source at five times its error, 1 / sqrt(depth)
        flux = np.where(ivar > 0, 5 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), np.nan)
        depth.append(nanomaggies_to_mag(flux))
        seeing.append(np.where(size > 0, size, np.nan))
    return [*depth, *seeing, floats(table, "ebv")]


def _memberships(table: pa.Table, classes: Sequence[Answer]) -> list[Floats]:
    """1 where a galaxy's most voted answer is this one, 0 where another is, NaN where the question is not asked of it."""
    out: dict[str, Floats] = {}
    for question in dict.fromkeys(item.question for item in classes):
        mine = [item.column for item in classes if item.question == question]
        votes = np.column_stack([floats(table, column) for column in mine])
        asked = floats(table, f"{question.replace(' ', '-')}_proportion_asked") >= ASKED
        known = asked & np.isfinite(votes).all(axis=1)
        best = np.where(known, np.nan_to_num(votes, nan=-1.0).argmax(axis=1), -1)
        out |= {column: np.where(known, best == place, np.nan) for place, column in enumerate(mine)}
    return [out[item.column] for item in classes]


def _processed(extent: Extent, bricks: NDArray[np.int64], ra: Floats, dec: Floats) -> NDArray[np.bool_]:
    return np.isin(ids_at(ra, dec), bricks) & inside(extent.region, ra, dec)


def _ground(
    filled: NDArray[np.int64], order: int, bricks: NDArray[np.int64], processed: Callable[[Floats, Floats], NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], Floats]:
    """Cells that hold a source or lie in a processed brick, and the share of each that was processed."""
    found = [filled]
    # points closer than a cell is wide: 15 arcmin of a brick against a cell's 3438 / 2**order
    side = int(np.ceil(2 * 15 / (3438 / 2**order))) + 2
    step = (np.arange(side) + 0.5) / side
    for part in np.array_split(bricks, max(1, len(bricks) * side**2 // 2_000_000)):
        box = {key: value[:, None, None] for key, value in geometry_of(part).items()}
        ra = np.broadcast_to(box["ra1"] + (box["ra2"] - box["ra1"]) * step[None, None, :], (len(part), side, side)).ravel()
        dec = np.broadcast_to(box["dec1"] + (box["dec2"] - box["dec1"]) * step[None, :, None], (len(part), side, side)).ravel()
        within = processed(ra, dec)
        found.append(np.unique(healpix29(ra[within], dec[within]).to_numpy() >> (2 * (HEALPIX_ORDER - order))))
    cells = np.unique(np.concatenate(found))
    return cells, share_inside(cells, order, processed)


def _sources(extent: Extent, done: Sequence[Unit], progress: Progress | None) -> CellSums:
    """Sources of the bricks by what the outcomes say of them: stars, those that tell usable area, those that are usable.

    A list of ids says nothing of what it does not name, so bricks selected by one are left out.
    """
    sums = CellSums(("star", "told", "usable"))
    for count, unit in enumerate(done, 1):
        path = extent.layout.outcomes(unit, extent.name)
        if not path.exists():
            # the version may be older than the outcomes that are there now
            continue
        table = read_outcomes(path)
        ra, dec = floats(table, "ra"), floats(table, "dec")
        reason = table["reason"]
        if pc.any(pc.equal(reason, "not_in_list")).as_py():
            continue
        index = healpix29(ra, dec)
        # 'edge' are sources of the neighbour that were predicted here too
        other = np.asarray(pc.is_in(reason, pa.array([*_ELSEWHERE, "edge"])))
        mine = np.asarray(index.is_valid()) & ~other & inside(extent.region, ra, dec)
        star = np.asarray(pc.equal(reason, "type_psf"))
        hidden = np.asarray(pc.is_in(reason, pa.array(_HIDDEN)))
        values = np.column_stack([star, np.ones(len(star)), ~hidden]).astype(np.float64)
        sums.add(index.fill_null(0).to_numpy()[mine], values[mine])
        if progress:
            progress(count, len(done))
    return sums


def _pixels(extent: Extent, done: Sequence[Unit], most: int) -> CellSums | None:
    """Points of the bricks' images and how many are usable; None where not every brick's images are here."""
    if not done or len(done) > most:
        return None
    sums = CellSums(("usable",))
    for unit in done:
        files = load_brick_files(extent.layout.brick_folder(unit), unit)
        if files is None:
            return None
        try:
            index, usable = usable_points(files)
        except (BadData, OSError):
            # images that were removed, or are damaged: `verify` tells, a report uses what it has
            return None
        sums.add(index, usable[:, None].astype(np.float64))
    return sums


def _usable(cells: NDArray[np.int64], sources: CellSums, pixels: CellSums | None) -> tuple[Floats, str]:
    """Usable share of what was processed of each cell, and what it was told from."""
    if pixels is not None:
        return aligned_means(pixels, "usable", cells), f"measured on the bricks' images: {MEANING}"
    if sources.sums("told").sum():
        return aligned_means(sources, "usable", cells), BY_SOURCES
    return np.full(len(cells), np.nan), ""
