"""Stamps that already exist, brought to the form that bricks' stamps have: `galpipe stamps FILE...`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import cos, radians
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.config import SOFTENING, SURVEY_PIXSCALE, CutSettings
from galpipe.errors import BadData
from galpipe.stamps.normalize import codec, encode, encode_invvar, in_range
from galpipe.stamps.readers import RawStamp, read_raw
from galpipe.stamps.resample import Pixels, Resampled, estimate_sigma, to_stamp
from galpipe.stamps.stampset import FILLED, StampSet, concatenate
from galpipe.survey.bricks import BRICKS, Brick, brick_at, brick_by_id
from galpipe.survey.tractor import subset_schema

GROUP = 256
"""Stamps of one file that are handed on together."""

CENTER = 5
"""Half-width, input pixels of 0.262 arcsec, of the middle that every band with data must cover."""

NEIGHBOUR = 0.4
"""Degrees between the centers of neighbouring bricks, at most (they are 0.25 wide; rows are offset to each other)."""

EXTRA = pa.schema(
    [
        ("file", pa.string()),
        ("invvar_estimated", pa.bool_()),
        ("jpeg_route", pa.bool_()),
        ("resampled", pa.bool_()),
        ("scale_assumed", pa.bool_()),
        ("pixscale_input", pa.float32()),
        ("per_survey_pixel", pa.bool_()),
    ]
)
"""Columns that only stamps of files have."""


@dataclass(frozen=True)
class ExternalSettings:
    """How files become stamps."""

    cut: CutSettings = field(default_factory=CutSettings)
    picture_pixscale: float | None = None
    """Arcsec per pixel of JPEG and PNG pictures; None takes a picture to span a standard stamp."""
    pixel_values: Literal["auto", "own", "survey"] = "auto"
    """What pixel values mean where the scale is not 0.262 arcsec. ``own``: nanomaggies per pixel of the file. ``survey``:
    nanomaggies per 0.262 arcsec pixel. ``auto``: ``survey`` for files that the survey's viewer made (cards SURVEY, VERSION, IMAGETYP,
    BANDS), because its cutout service interpolates pixel values without scaling them by the pixel's area: in its zoomed cutouts
    neighboring pixels repeat the same value, with the noise of a whole survey pixel. ``own`` for all others."""


def read_stamps(files: Sequence[Path], settings: ExternalSettings | None = None) -> Iterator[StampSet | BadData]:
    """Read stamps from files of any known kind.

    Parameters
    ----------
    files : sequence of Path
        FITS cubes or lists of images, npz, Stein-layout HDF5, JPEG, PNG.
    settings : ExternalSettings, optional

    Yields
    ------
    StampSet or BadData
        Per file one set of one stamp (HDF5: sets of at most `GROUP`), or the error that names the file and why it is refused. A
        refused file never stops the others.
    """
    used = settings or ExternalSettings()
    for path in files:
        group: list[StampSet] = []
        try:
            for raw in read_raw(path, used.picture_pixscale):
                try:
                    group.append(convert(raw, used)) if isinstance(raw, RawStamp) else (yield raw)
                except BadData as error:
                    yield error
                if len(group) == GROUP:
                    yield concatenate(group)
                    group = []
        except BadData as error:
            yield error
        if group:
            yield concatenate(group)


def convert(raw: RawStamp, settings: ExternalSettings) -> StampSet:
    """One stamp of a file as a `StampSet` of one.

    Parameters
    ----------
    raw : RawStamp
    settings : ExternalSettings

    Returns
    -------
    StampSet
        Resampled (flux conserved) and cropped to the cut's size around the image's middle; dereddened only where the file gives
        transmissions.

    Raises
    ------
    BadData
        If no band of the cut is there, or a band has data but none at the galaxy.
    """
    cut = settings.cut
    shared = [band for band in cut.bands if band in raw.bands]
    if not shared:
        raise BadData(f"a band among {','.join(cut.bands)}", f"bands {','.join(raw.bands)}", file=raw.file)
    order = [raw.bands.index(band) for band in shared]
    pixels = _input_pixels(raw, order, _survey_values(raw, settings))
    _refuse_destroyed(raw, shared, pixels.good)
    stamp = to_stamp(pixels, raw.grid, cut.size, cut.pixscale)
    return _assemble(raw, shared, stamp, cut)


def _survey_values(raw: RawStamp, settings: ExternalSettings) -> bool:
    return raw.per_survey_pixel if settings.pixel_values == "auto" else settings.pixel_values == "survey"


def _input_pixels(raw: RawStamp, order: list[int], per_survey_pixel: bool) -> Pixels:
    flux = raw.flux[order]
    # a pixel without coverage is exactly 0 in the survey's products; where invvar is given, that says it
    good = np.isfinite(flux) & ((flux != 0) if raw.invvar is None else (raw.invvar[order] > 0))
    if raw.known is not None:
        good &= raw.known[order]
    variance = None
    if raw.invvar is not None:
        weight = raw.invvar[order]
        variance = np.where(good, 1 / np.where(weight > 0, weight, 1), 0).astype(np.float32)
    flux = np.where(np.isfinite(flux), flux, 0).astype(np.float32)
    area = np.float32((raw.grid.pixscale / SURVEY_PIXSCALE) ** 2) if per_survey_pixel else np.float32(1)
    # the variance of interpolated values scales like one survey pixel's: area times less per pixel, not area squared
    return Pixels(flux * area, good, None if variance is None else variance * area)


def _refuse_destroyed(raw: RawStamp, bands: list[str], good: NDArray[np.bool_]) -> None:
    """A band may be absent as a whole; one that has data elsewhere but none at the galaxy is damaged."""
    if not good.any():
        raise BadData("a pixel with data", f"none in {','.join(bands)}", file=raw.file)
    if raw.jpeg_route:
        return
    half = max(1, round(CENTER * SURVEY_PIXSCALE / raw.grid.pixscale))
    y, x = good.shape[1] // 2, good.shape[2] // 2
    for band, plane in zip(bands, good, strict=True):
        middle = plane[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        if plane.any() and middle.mean() < 0.5:
            got = f"{1 - plane.mean():.0%} of the band without data (0, NaN or invvar 0), the middle included"
            raise BadData(f"pixels at the galaxy in band {band}", got, file=raw.file)


def _assemble(raw: RawStamp, shared: list[str], stamp: Resampled, cut: CutSettings) -> StampSet:
    count, size = len(cut.bands), cut.size
    image, invvar = np.zeros((1, count, size, size), np.int16), np.zeros((1, count, size, size), np.uint8)
    mask = np.zeros((1, size, size), np.uint8)
    facts: dict[str, Any] = {}
    for b, band in enumerate(cut.bands):
        line = codec(SOFTENING[band])
        image[0, b] = encode(np.zeros(1), line)
        good = np.zeros((size, size), bool)
        if band in shared:
            index = shared.index(band)
            transmission = _transmission(raw, band) or 1.0
            flux = stamp.flux[index] / np.float32(transmission)
            good = stamp.good[index] & in_range(flux, line)
            variance = np.full(good.shape, estimate_sigma(flux, good) ** 2)
            if stamp.variance is not None:
                given = stamp.variance[index] / np.float32(transmission**2)
                variance = np.where(given > 0, given, variance)
            image[0, b] = encode(flux, line)
            invvar[0, b] = np.where(good, encode_invvar(1 / variance), 0)
        mask[0] |= np.where(good, 0, 1 << b).astype(np.uint8)
        facts[f"valid_frac_{band}"] = float(good.mean())
    mask[0][stamp.outside] |= FILLED
    facts["dereddened"] = all(_transmission(raw, band) is not None for band in shared)
    softening = tuple(SOFTENING[band] for band in cut.bands)
    table = sources_table(raw, cut, facts, stamp)
    return StampSet(image, invvar, mask, table, cut.bands, cut.pixscale, softening, attrs_of(cut))


def _transmission(raw: RawStamp, band: str) -> float | None:
    """What the file says of Galactic dust in a band; None where it says nothing that can be used."""
    value = float(raw.facts.get(f"mw_transmission_{band}", np.nan))
    return value if np.isfinite(value) and value > 0 else None


def attrs_of(cut: CutSettings) -> dict[str, Any]:
    """Attributes that all stamps of files share."""
    return {
        "unit": "stamps",
        "cut": asdict(cut) | {"bands": list(cut.bands)},
        "dereddened": "where mw_transmission is given",
        "wcs": None,
    }


def content_id(raw: RawStamp) -> int:
    """63-bit hash of a stamp's bands and pixels: the same galaxy file has the same id under any name."""
    digest = hashlib.sha256(f"{''.join(raw.bands)} {raw.flux.shape}".encode())
    digest.update(np.ascontiguousarray(raw.flux, "<f4").tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def sources_table(raw: RawStamp, cut: CutSettings, facts: dict[str, Any], stamp: Resampled) -> pa.Table:
    """The row of a stamp: the Tractor subset's schema (null where unknown), per-stamp columns, `EXTRA`."""
    known: dict[str, Any] = dict(raw.facts) | {"source_id": content_id(raw)}
    if raw.ra is not None and raw.dec is not None:
        brick = _brick(raw.facts.get("brickid"), raw.ra, raw.dec)
        known |= {"ra": raw.ra, "dec": raw.dec, "brickid": brick.brickid, "brickname": brick.name}
    extra = {
        "file": raw.file,
        "invvar_estimated": stamp.variance is None,
        "jpeg_route": raw.jpeg_route,
        "resampled": not raw.grid.matches(cut.pixscale),
        "scale_assumed": raw.scale_assumed,
        "pixscale_input": raw.grid.pixscale,
        "per_survey_pixel": raw.per_survey_pixel,
    }
    floats = {"stamp_dx": stamp.offset[0], "stamp_dy": stamp.offset[1]}
    per_stamp = pa.schema(
        [(name, pa.float32()) for name in floats]
        + [(name, pa.int32()) for name in ("stamp_x0", "stamp_y0", *(f"nexp_{band}" for band in cut.bands))]
        + [(f"valid_frac_{band}", pa.float32()) for band in cut.bands]
        + [("pixscale", pa.float32()), ("dereddened", pa.bool_())]
    )
    values = known | floats | facts | {"pixscale": cut.pixscale} | extra
    schema = pa.schema([*subset_schema(), *per_stamp, *EXTRA])
    return pa.table([_one(values.get(item.name), item.type) for item in schema], schema=schema)


def _brick(brickid: float | None, ra: float, dec: float) -> Brick:
    """The brick that a file names, else, or where that one is elsewhere on the sky, the owner of the position."""
    owner = brick_at(ra, dec)
    if brickid is None or not 1 <= brickid <= BRICKS or brickid == owner.brickid:
        return owner
    named = brick_by_id(int(brickid))
    # a source near an edge is in the frames of both, and the survey's own choice stands
    near = abs(named.dec - owner.dec) <= NEIGHBOUR and abs((named.ra - owner.ra + 180) % 360 - 180) * cos(radians(dec)) <= NEIGHBOUR
    return named if near else owner


def _one(value: Any, kind: pa.DataType) -> pa.Array:
    if value is not None and pa.types.is_integer(kind):
        value = int(value)
    return pa.array([value], kind)
