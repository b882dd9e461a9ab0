"""Cut every selected galaxy of a brick: whole-band reads, one band in memory at a time, many stamps at once.

A crowded brick's stamps do not fit in memory; they come in blocks, and then the bands stay in memory instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.config import SOFTENING, SURVEY_PIXSCALE, CutSettings, SelectionSettings
from galpipe.errors import ConfigurationError, NoWork
from galpipe.stamps.coarse import BINNINGS, binnings
from galpipe.stamps.mosaic import completion_of
from galpipe.stamps.normalize import codec, encode, encode_invvar, in_range
from galpipe.stamps.planes import Planes
from galpipe.stamps.result import Block, CutResult, gather_blocks, outcomes_table
from galpipe.stamps.stampset import FILLED, StampSet, has_transmission, usable_transmission
from galpipe.stamps.windows import Windows
from galpipe.survey.bricks import BRICK_PIXELS, brick_by_name, brick_wcs
from galpipe.survey.edges import select_with_edges
from galpipe.survey.files import BrickFiles
from galpipe.survey.tractor import read_tractor, stated_rows, tractor_subset
from galpipe.survey.unknown import unknown_in

CHUNK = 128
"""Stamps gathered at a time: bounds the float arrays beside one band (about 40 MB)."""

BLOCK = 256
"""Stamps cut at a time: bounds their arrays (59 MB with three bands). The galaxies with z < 20 of an average brick are one block."""

WCS_CARDS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def cut_brick(files: BrickFiles, settings: CutSettings, selection: SelectionSettings) -> CutResult:
    """Cut and normalize the selected sources of a fetched brick, in memory; raises as `BrickCut`.

    Parameters
    ----------
    files : BrickFiles
    settings : CutSettings
    selection : SelectionSettings

    Returns
    -------
    CutResult
        Outcomes of every source; no stamps where no source is selected or none has pixels.
    """
    return gather_blocks(BrickCut(files, settings, selection))


class BrickCut:
    """A brick whose table was read, and which is to be cut once.

    Parameters
    ----------
    files : BrickFiles
    settings : CutSettings
    selection : SelectionSettings
    block : int
        Stamps cut at a time; the stamps do not depend on it.

    Raises
    ------
    NoWork
        If the brick has no Tractor table.
    BadData
        If a file is corrupt or contradicts the brick.
    ConfigurationError
        If the settings ask for another pixel scale than the survey's.
    """

    def __init__(self, files: BrickFiles, settings: CutSettings, selection: SelectionSettings, block: int = BLOCK) -> None:
        unit = str(files.unit)
        if settings.pixscale != SURVEY_PIXSCALE:
            raise ConfigurationError(f"cut.pixscale {SURVEY_PIXSCALE} for bricks", repr(settings.pixscale), unit=unit)
        path = files.path("tractor")
        if path is None:
            raise NoWork("a Tractor table", "absent", unit=unit, file=f"tractor-{files.unit.brick}.fits")
        self._files, self._settings, self._selection, self._block = files, settings, selection, block
        table = read_tractor(path, files.unit)
        self._sources = tractor_subset(table)
        self._reasons, self._edge = select_with_edges(self._sources, selection, files.bands, brick_by_name(files.unit.brick))
        self._rows = np.flatnonzero(self._reasons == "")
        self._binnings = binnings(self._sources, settings.size, settings.pixscale)[self._rows]
        self._attrs = _attrs(files, settings, selection) | {"tractor_rows": stated_rows(self._sources), "unknown": unknown_in(table)}

    @property
    def outcomes(self) -> pa.Table:
        """One row per source of the Tractor table, schema `OUTCOMES`; complete after the last of `blocks`."""
        return outcomes_table(self._sources, self._reasons, self._edge)

    def blocks(self) -> Iterator[Block]:
        """Stamps of the selected sources that have pixels, in the order of the table; one block without any if there are none.

        Raises
        ------
        BadData
            If an image is corrupt.
        """
        starts = range(0, max(1, len(self._rows)), self._block)
        planes = Planes(self._files, self._settings.bands, keep=len(starts) > 1 or bool(self._binnings.any()))
        self._attrs = self._attrs | {"wcs": self._cards(planes)}
        for start in starts:
            rows = self._rows[start : start + self._block]
            sources = self._sources.take(pa.array(rows))
            stamps, fractions = self._stamps(planes, sources, 1)
            covered = np.asarray((fractions >= self._selection.min_valid_frac).any(axis=1))
            self._reasons[rows[~covered]] = "no_coverage"
            yield self._with_coarse(planes, stamps, (self._binnings[start : start + self._block], covered))

    def _cards(self, planes: Planes) -> dict[str, Any]:
        """Projection of the brick, from the first image that there is."""
        present = next((band for band in self._settings.bands if planes.has(band)), None) if len(self._rows) else None
        if present is None:
            return dict(self._attrs["wcs"])
        header = planes.header("image", present)
        return {name: header[name] for name in WCS_CARDS if name in header}

    def _with_coarse(self, planes: Planes, stamps: StampSet, chosen: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> Block:
        """The covered stamps and the second ones of the large galaxies among them; what those had joins the table."""
        binning, covered = chosen
        coarse = []
        bands = self._settings.bands
        scale, shares = np.full(len(stamps), np.nan), np.full((len(stamps), len(bands)), np.nan)
        for factor in BINNINGS:
            mine = np.flatnonzero((binning == factor) & covered)
            if len(mine):
                second, fractions = self._stamps(planes, stamps.sources.take(pa.array(mine)).select(self._sources.column_names), factor)
                coarse.append(second)
                scale[mine], shares[mine] = second.pixscale, fractions
        facts = {"coarse_pixscale": scale} | {f"coarse_valid_frac_{band}": shares[:, b] for b, band in enumerate(bands)}
        nullable = {name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in facts.items()}
        parts = (stamps.image, stamps.invvar_code, stamps.mask, with_columns(stamps.sources, nullable))
        whole = StampSet(*parts, stamps.bands, stamps.pixscale, stamps.softening, stamps.attrs)
        return Block(whole if covered.all() else whole.take(np.flatnonzero(covered)), tuple(coarse))

    def _stamps(self, planes: Planes, sources: pa.Table, binning: int) -> tuple[StampSet, NDArray[np.float64]]:
        """Stamps of the given sources at one scale, and their valid fractions, shape (N, B)."""
        count, bands, size = len(sources), self._settings.bands, self._settings.size
        softening = tuple(SOFTENING[band] * binning for band in bands)
        x, y = _positions(self._files, sources)
        windows = Windows.around(x, y, size, (BRICK_PIXELS, BRICK_PIXELS), binning)
        shape = (count, len(bands), size, size)
        image, invvar = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
        mask = np.zeros((count, size, size), np.uint8)
        fractions = np.zeros((count, len(bands)))
        # the neighbours complete first stamps only: a coarse one reaches beyond its frame nearly always
        completion = completion_of(self._files, windows, bands) if binning == 1 else None
        for b, band in enumerate(bands):
            image[:, b] = encode(np.zeros(1), codec(softening[b]))
            if not planes.has(band) or not count:
                mask |= np.uint8(1 << b)
                continue
            cut = BandCut(b, band, windows, softening[b], usable_transmission(sources, band))
            _cut_band(planes, cut, (image, invvar, mask))
            if completion is not None:
                completion.fill(cut, (image, invvar, mask))
            fractions[:, b] = 1 - np.mean((mask & np.uint8(1 << b)) != 0, axis=(1, 2))
        covered = completion.covered(bands) if completion is not None else None
        for rows in _chunks(count, binning):
            part = windows.part(rows)
            outside = part.any(part.outside())
            mask[rows][outside if covered is None else outside & ~covered[rows]] |= FILLED
        facts = _facts(planes, windows, (x, y)) | {f"valid_frac_{band}": fractions[:, b] for b, band in enumerate(bands)}
        if self._files.neighbours and binning == 1:
            facts["mosaic_frac"] = np.zeros(count) if covered is None else covered.mean(axis=(1, 2))
        facts["pixscale"] = np.full(count, self._settings.pixscale * binning)
        corrected = [has_transmission(sources, band) | (fractions[:, b] == 0) for b, band in enumerate(bands)]
        facts["dereddened"] = np.all(corrected, axis=0)
        attrs = self._attrs if binning == 1 else self._attrs | {"binning": binning}
        table = with_columns(sources, facts)
        return StampSet(image, invvar, mask, table, bands, self._settings.pixscale * binning, softening, attrs), fractions


def _attrs(files: BrickFiles, settings: CutSettings, selection: SelectionSettings) -> dict[str, Any]:
    grid = brick_wcs(brick_by_name(files.unit.brick)).to_header()
    cards = {name: grid[name] for name in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")}
    scale = settings.pixscale / 3600
    return {
        "unit": str(files.unit),
        "checksums": files.checksums,
        "absent": list(files.absent),
        "bands_present": list(files.bands),
        "cut": asdict(settings) | {"bands": list(settings.bands)},
        "selection": asdict(selection),
        "dereddened": True,
        "wcs": cards | {"CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale},
    }


@dataclass(frozen=True)
class BandCut:
    """What cutting one band needs to know: its index and letter, windows, softening of the codes, transmission of each source."""

    index: int
    band: str
    windows: Windows
    softening: float
    transmission: NDArray[np.float64]


def _cut_band(planes: Planes, cut: BandCut, out: tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """Fill one band's pixels, inverse variances and mask bits."""
    image, invvar, mask = out
    bit, line, flags = np.uint8(1 << cut.index), codec(cut.softening), planes.flags()
    plane, _ = planes.read("image", cut.band)
    for rows in _chunks(len(image), cut.windows.binning):
        windows = cut.windows.part(rows)
        outside = windows.outside()
        flux = windows.fluxes(np.asarray(windows.gather(plane) / cut.transmission[rows, None, None].astype(np.float32), np.float32))
        image[rows, cut.index] = encode(flux, line)
        bad = outside if flags is None else outside | ((windows.gather(flags) & bit) != 0)
        mask[rows] |= np.where(windows.any(bad) | ~in_range(flux, line), bit, np.uint8(0))
        image[rows, cut.index][windows.any(outside)] = encode(np.zeros(1), line)[0]
    del plane
    plane, _ = planes.read("invvar", cut.band)
    for rows in _chunks(len(image), cut.windows.binning):
        windows = cut.windows.part(rows)
        # the flux was divided by the transmission, so its inverse variance is multiplied by its square
        weight = windows.gather(plane) * (cut.transmission[rows, None, None] ** 2).astype(np.float32)
        weight[windows.outside()] = 0.0
        codes = encode_invvar(windows.weights(weight))
        invvar[rows, cut.index] = codes
        mask[rows] |= np.where(codes == 0, bit, np.uint8(0))


def _chunks(count: int, binning: int) -> list[slice]:
    step = max(1, CHUNK // binning**2)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _positions(files: BrickFiles, sources: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """0-based brick pixels of the sources: bx, by, or the brick's projection where they are not given; shape (N,) each."""
    x, y, ra, dec = (np.array(sources[name].cast(pa.float64()).to_numpy(zero_copy_only=False)) for name in ("bx", "by", "ra", "dec"))
    missing = ~(np.isfinite(x) & np.isfinite(y))
    if missing.any():
        x[missing], y[missing] = brick_wcs(brick_by_name(files.unit.brick)).all_world2pix(ra[missing], dec[missing], 0)
    return x, y


def _facts(
    planes: Planes, windows: Windows, position: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> dict[str, NDArray[Any] | pa.Array]:
    center_x, center_y = windows.centers()
    facts: dict[str, NDArray[Any] | pa.Array] = {
        "stamp_dx": (position[0] - center_x) / windows.binning,
        "stamp_dy": (position[1] - center_y) / windows.binning,
        "stamp_x0": windows.x0.astype(np.int32),
        "stamp_y0": windows.y0.astype(np.int32),
    }
    middle = tuple(np.floor(values).astype(np.int64) for values in (center_y, center_x))
    for band in planes.bands:
        facts[f"nexp_{band}"] = pa.nulls(len(center_x), pa.int32())
        if len(center_x) and planes.files.path("nexp", band) is not None:
            facts[f"nexp_{band}"] = planes.at("nexp", band, (middle[0], middle[1])).astype(np.int32)
    return facts


def with_columns(table: pa.Table, columns: Mapping[str, NDArray[Any] | pa.Array]) -> pa.Table:
    """A table with columns added; float64 arrays are stored as float32."""
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            values = pa.array(values.astype(np.float32) if values.dtype == np.float64 else values)
        table = table.append_column(name, values)
    return table
