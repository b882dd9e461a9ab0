"""Cut every selected galaxy of a brick: whole-band reads, one band in memory at a time, all stamps at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.config import SOFTENING, SURVEY_PIXSCALE, CutSettings, SelectionSettings
from galpipe.errors import ConfigurationError, NoWork
from galpipe.stamps.flags import flag_plane
from galpipe.stamps.mosaic import completion_of
from galpipe.stamps.normalize import codec, encode, encode_invvar, in_range
from galpipe.stamps.stampset import FILLED, StampSet, has_transmission, usable_transmission
from galpipe.survey.bricks import BRICK_PIXELS, brick_by_name, brick_wcs
from galpipe.survey.coadd import read_band
from galpipe.survey.edges import EDGE_REASON, select_with_edges
from galpipe.survey.files import BrickFiles
from galpipe.survey.selection import FAILURES
from galpipe.survey.tractor import read_tractor, stated_rows, tractor_subset
from galpipe.survey.unknown import unknown_in

CHUNK = 128
"""Stamps gathered at a time: bounds the float arrays beside one band (about 40 MB)."""

WCS_CARDS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")

OUTCOMES = pa.schema(
    [
        ("release", pa.int32()),
        ("brickid", pa.int32()),
        ("objid", pa.int32()),
        ("source_id", pa.int64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
"""One row per source of the Tractor table; status ``selected``, ``filtered`` or ``failed``, reason empty when selected.

A selected source just beyond its brick's edge has reason `EDGE_REASON`.
"""


@dataclass(frozen=True)
class CutResult:
    """What cutting a brick gave.

    Parameters
    ----------
    stamps : StampSet
        May hold no stamp at all.
    outcomes : pyarrow.Table
        Schema `OUTCOMES`, one row per source of the Tractor table.
    """

    stamps: StampSet
    outcomes: pa.Table

    def counts(self) -> dict[str, int]:
        """Sources by status; they add up to the rows of the Tractor table."""
        status = self.outcomes["status"].to_pylist()
        return {"sources": len(status)} | {name: status.count(name) for name in ("selected", "filtered", "failed")}


@dataclass(frozen=True)
class Windows:
    """Where N square stamps lie in a frame.

    Parameters
    ----------
    x0, y0 : ndarray of int64, shape (N,)
        Frame pixel of each stamp's ``[0, 0]``; may lie outside the frame.
    size : int
        Pixels on a side.
    shape : tuple of int
        Rows and columns of the frame.
    """

    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    size: int
    shape: tuple[int, int]

    @classmethod
    def around(cls, x: NDArray[np.float64], y: NDArray[np.float64], size: int, shape: tuple[int, int]) -> Windows:
        """Windows whose ``[size // 2, size // 2]`` is the nearest pixel, ``floor(x + 0.5)``, of 0-based positions, shape (N,)."""
        far = 10 * BRICK_PIXELS
        nearest = [np.floor(np.clip(values, -far, far) + 0.5).astype(np.int64) for values in (x, y)]
        return cls(nearest[0] - size // 2, nearest[1] - size // 2, size, shape)

    def part(self, rows: slice) -> Windows:
        """Some of the windows."""
        return Windows(self.x0[rows], self.y0[rows], self.size, self.shape)

    def outside(self) -> NDArray[np.bool_]:
        """True where a stamp's pixel lies outside the frame, shape (N, S, S)."""
        step = np.arange(self.size)
        y, x = self.y0[:, None] + step, self.x0[:, None] + step
        beyond: NDArray[np.bool_] = ((y < 0) | (y >= self.shape[0]))[:, :, None] | ((x < 0) | (x >= self.shape[1]))[:, None, :]
        return beyond

    def gather(self, plane: NDArray[Any]) -> NDArray[Any]:
        """The stamps' pixels of a plane, shape (N, S, S); meaningless where `outside`."""
        step = np.arange(self.size)
        y = np.clip(self.y0[:, None] + step, 0, self.shape[0] - 1)
        x = np.clip(self.x0[:, None] + step, 0, self.shape[1] - 1)
        stamps: NDArray[Any] = plane[y[:, :, None], x[:, None, :]]
        return stamps


def cut_brick(files: BrickFiles, settings: CutSettings, selection: SelectionSettings) -> CutResult:
    """Cut and normalize the selected sources of a fetched brick.

    Parameters
    ----------
    files : BrickFiles
    settings : CutSettings
    selection : SelectionSettings

    Returns
    -------
    CutResult
        Outcomes of every source; no stamps where no source is selected or none has pixels.

    Raises
    ------
    NoWork
        If the brick has no Tractor table.
    BadData
        If a file is corrupt or contradicts the brick.
    ConfigurationError
        If the settings ask for another pixel scale than the survey's.
    """
    unit = str(files.unit)
    if settings.pixscale != SURVEY_PIXSCALE:
        raise ConfigurationError(f"cut.pixscale {SURVEY_PIXSCALE} for bricks", repr(settings.pixscale), unit=unit)
    path = files.path("tractor")
    if path is None:
        raise NoWork("a Tractor table", "absent", unit=unit, file=f"tractor-{files.unit.brick}.fits")
    table = read_tractor(path, files.unit)
    sources = tractor_subset(table)
    reasons, edge = select_with_edges(sources, selection, files.bands, brick_by_name(files.unit.brick))
    rows = np.flatnonzero(reasons == "")
    stamps, fractions = _cut(files, settings, sources.take(pa.array(rows)))
    covered = (fractions >= selection.min_valid_frac).any(axis=1)
    reasons[rows[~covered]] = "no_coverage"
    if not covered.all():
        stamps = stamps.take(np.flatnonzero(covered))
    attrs = _attrs(files, settings, selection) | stamps.attrs | {"tractor_rows": stated_rows(sources), "unknown": unknown_in(table)}
    stamps = StampSet(stamps.image, stamps.invvar_code, stamps.mask, stamps.sources, stamps.bands, stamps.pixscale, stamps.softening, attrs)
    return CutResult(stamps, outcomes_table(sources, reasons, edge))


def outcomes_table(sources: pa.Table, reasons: NDArray[np.object_], edge: NDArray[np.bool_] | None = None) -> pa.Table:
    """Outcomes of the sources of a brick.

    Parameters
    ----------
    sources : pyarrow.Table
        Tractor subset, N rows.
    reasons : ndarray of str, shape (N,)
        Empty for a selected source.
    edge : ndarray of bool, shape (N,), optional
        The selected sources that lie just beyond the brick's edge.
    """
    # too few pixels to predict is a reason to leave a source out, not a failure
    status = ["selected" if not reason else "failed" if reason in FAILURES else "filtered" for reason in reasons]
    told = reasons if edge is None else np.where(edge & (reasons == ""), EDGE_REASON, reasons)
    columns = [sources[name] for name in OUTCOMES.names[:6]]
    return pa.table([*columns, pa.array(status, pa.string()), pa.array(told.tolist(), pa.string())], schema=OUTCOMES)


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


def _cut(files: BrickFiles, settings: CutSettings, sources: pa.Table) -> tuple[StampSet, NDArray[np.float64]]:
    """Stamps of the given sources and their valid fractions, shape (N, B)."""
    count, bands, size = len(sources), settings.bands, settings.size
    x, y = _positions(files, sources)
    windows = Windows.around(x, y, size, (BRICK_PIXELS, BRICK_PIXELS))
    shape = (count, len(bands), size, size)
    image, invvar = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    mask = np.zeros((count, size, size), np.uint8)
    fractions = np.zeros((count, len(bands)))
    attrs: dict[str, Any] = {}
    flags = flag_plane(files, bands) if count else None
    completion = completion_of(files, windows, bands)
    for b, band in enumerate(bands):
        image[:, b] = encode(np.zeros(1), codec(SOFTENING[band]))
        absent = files.path("image", band) is None or files.path("invvar", band) is None
        if absent or not count:
            mask |= np.uint8(1 << b)
            continue
        cut = BandCut(b, band, windows, flags, usable_transmission(sources, band))
        header = _cut_band(files, cut, (image, invvar, mask))
        if completion is not None:
            completion.fill(cut, (image, invvar, mask))
        attrs.setdefault("wcs", {name: header[name] for name in WCS_CARDS if name in header})
        fractions[:, b] = 1 - np.mean((mask & np.uint8(1 << b)) != 0, axis=(1, 2))
    covered = completion.covered(bands) if completion is not None else None
    for rows in _chunks(count):
        outside = windows.part(rows).outside()
        mask[rows][outside if covered is None else outside & ~covered[rows]] |= FILLED
    facts = _facts(files, windows, (x, y), bands) | {f"valid_frac_{band}": fractions[:, b] for b, band in enumerate(bands)}
    if files.neighbours:
        facts["mosaic_frac"] = np.zeros(count) if covered is None else covered.mean(axis=(1, 2))
    facts["pixscale"] = np.full(count, settings.pixscale)
    corrected = [has_transmission(sources, band) | (fractions[:, b] == 0) for b, band in enumerate(bands)]
    facts["dereddened"] = np.all(corrected, axis=0)
    softening = tuple(SOFTENING[band] for band in bands)
    return StampSet(image, invvar, mask, with_columns(sources, facts), bands, settings.pixscale, softening, attrs), fractions


@dataclass(frozen=True)
class BandCut:
    """What cutting one band needs to know: its index and letter, windows, mask flags, transmission of each source."""

    index: int
    band: str
    windows: Windows
    flags: NDArray[np.uint8] | None
    transmission: NDArray[np.float64]


def _cut_band(files: BrickFiles, cut: BandCut, out: tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint8]]) -> fits.Header:
    """Fill one band's pixels, inverse variances and mask bits; returns the image's header."""
    image, invvar, mask = out
    bit, line = np.uint8(1 << cut.index), codec(SOFTENING[cut.band])
    plane, header = read_band(files, "image", cut.band)
    for rows in _chunks(len(image)):
        windows = cut.windows.part(rows)
        flux = windows.gather(plane) / cut.transmission[rows, None, None].astype(np.float32)
        image[rows, cut.index] = encode(flux, line)
        bad = ~in_range(flux, line) | windows.outside()
        if cut.flags is not None:
            bad |= (windows.gather(cut.flags) & bit) != 0
        mask[rows] |= np.where(bad, bit, np.uint8(0))
        image[rows, cut.index][windows.outside()] = encode(np.zeros(1), line)[0]
    del plane
    plane, _ = read_band(files, "invvar", cut.band)
    for rows in _chunks(len(image)):
        windows = cut.windows.part(rows)
        # the flux was divided by the transmission, so its inverse variance is multiplied by its square
        weight = windows.gather(plane) * (cut.transmission[rows, None, None] ** 2).astype(np.float32)
        weight[windows.outside()] = 0.0
        codes = encode_invvar(weight)
        invvar[rows, cut.index] = codes
        mask[rows] |= np.where(codes == 0, bit, np.uint8(0))
    return header


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _positions(files: BrickFiles, sources: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """0-based brick pixels of the sources: bx, by, or the brick's projection where they are not given; shape (N,) each."""
    x, y, ra, dec = (np.array(sources[name].cast(pa.float64()).to_numpy(zero_copy_only=False)) for name in ("bx", "by", "ra", "dec"))
    missing = ~(np.isfinite(x) & np.isfinite(y))
    if missing.any():
        x[missing], y[missing] = brick_wcs(brick_by_name(files.unit.brick)).all_world2pix(ra[missing], dec[missing], 0)
    return x, y


def _facts(
    files: BrickFiles, windows: Windows, position: tuple[NDArray[np.float64], NDArray[np.float64]], bands: tuple[str, ...]
) -> dict[str, NDArray[Any] | pa.Array]:
    half = windows.size // 2
    center_x, center_y = windows.x0 + half, windows.y0 + half
    facts: dict[str, NDArray[Any] | pa.Array] = {
        "stamp_dx": position[0] - center_x,
        "stamp_dy": position[1] - center_y,
        "stamp_x0": windows.x0.astype(np.int32),
        "stamp_y0": windows.y0.astype(np.int32),
    }
    for band in bands:
        facts[f"nexp_{band}"] = pa.nulls(len(center_x), pa.int32())
        if len(center_x) and files.path("nexp", band) is not None:
            plane, _ = read_band(files, "nexp", band)
            rows, columns = (np.clip(values, 0, limit - 1) for values, limit in zip((center_y, center_x), plane.shape, strict=True))
            facts[f"nexp_{band}"] = plane[rows, columns].astype(np.int32)
    return facts


def with_columns(table: pa.Table, columns: Mapping[str, NDArray[Any] | pa.Array]) -> pa.Table:
    """A table with columns added; float64 arrays are stored as float32."""
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            values = pa.array(values.astype(np.float32) if values.dtype == np.float64 else values)
        table = table.append_column(name, values)
    return table
