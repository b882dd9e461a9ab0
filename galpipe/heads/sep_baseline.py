"""The classical baseline beside detection: sep (Source Extractor as a library, Barbary 2016, doi 10.21105/joss.00058).

Not a head: it sees the stamp's pixels, not the encoder's features, and learns nothing. Bertin & Arnouts 1996 define the quantities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sep

from galpipe.columns import Column
from galpipe.stamps.stampset import StampSet

PREFERRED = ("r", "z", "g", "i")
"""The band that is searched: the first of these with enough valid pixels."""

LEAST_VALID = 0.3
THRESHOLD = 1.5
"""Detection threshold in units of the background's rms."""

LEAST_AREA = 5
BOX = 38
"""Pixels of a background cell: a quarter of a stamp."""

REACH = 8.0
"""Pixels (2.1 arcsec) from the source within which the nearest object is taken as the source's own."""

KRON, AUTO_FACTOR, LEAST_RADIUS = 6.0, 2.5, 3.5

_TEXTS = {
    "sep_x": ("pix", "x of the object nearest to the source, stamp pixels"),
    "sep_y": ("pix", "y of the object nearest to the source, stamp pixels"),
    "sep_a": ("arcsec", "Semi-major axis (second moment) of that object"),
    "sep_b": ("arcsec", "Semi-minor axis (second moment) of that object"),
    "sep_theta": ("deg", "Angle of its major axis from the x axis toward y, -90 to 90"),
    "sep_position_angle": ("deg", "Position angle of its major axis, east of north, 0 to 180"),
    "sep_flux": ("nanomaggy", "AUTO flux of that object, background subtracted, dereddened"),
    "sep_mag": ("mag", "AUTO magnitude of that object, dereddened"),
}


@dataclass(frozen=True)
class Measured:
    """What sep found in one stamp; figures are NaN where no object is near the source.

    Parameters
    ----------
    count : int
        Objects in the stamp.
    figures : dict
        By column name.
    """

    count: int
    figures: dict[str, float]


def columns() -> tuple[Column, ...]:
    """Columns of `sep_columns`, in order."""
    counted = Column("sep_n_objects", pa.int16(), "", f"Objects that sep finds in the stamp over {THRESHOLD} sigma; null without data", 1.0)
    band = Column("sep_band", pa.string(), "", "Band that sep searched; null without data")
    return (counted, band, *(Column(name, pa.float32(), unit, f"sep: {text}", 1e-2) for name, (unit, text) in _TEXTS.items()))


def sep_columns(stamps: StampSet) -> pa.Table:
    """Run sep on every stamp.

    Parameters
    ----------
    stamps : StampSet
        N stamps.

    Returns
    -------
    pyarrow.Table
        N rows, columns as `columns` says; null where nothing could be measured.
    """
    rows = [_one(stamps, index) for index in range(len(stamps))]
    arrays: dict[str, pa.Array] = {
        "sep_n_objects": pa.array([None if item is None else item[1].count for item in rows], pa.int16()),
        "sep_band": pa.array([None if item is None else item[0] for item in rows], pa.string()),
    }
    for name in _TEXTS:
        values = [None if item is None else item[1].figures[name] for item in rows]
        arrays[name] = pa.array([value if value is not None and np.isfinite(value) else None for value in values], pa.float32())
    schema = pa.schema([column.field() for column in columns()])
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _one(stamps: StampSet, index: int) -> tuple[str, Measured] | None:
    plane = search_plane(stamps, index)
    return None if plane is None else (plane[0], measure(plane[1], plane[2], stamps.pixscale))


@dataclass(frozen=True)
class Extracted:
    """What sep sees of one plane.

    Parameters
    ----------
    plane : ndarray
        Float32, shape (S, S): background subtracted, masked pixels 0 before.
    noise : float
        Rms of the background.
    objects : ndarray
        Structured, shape (K,), as `sep.extract` gives them.
    segments : ndarray
        int32, shape (S, S): 1 + object that owns the pixel, 0 = none.
    """

    plane: npt.NDArray[np.float32]
    noise: float
    objects: npt.NDArray[np.void]
    segments: npt.NDArray[np.int32]


def extract(flux: npt.NDArray[np.float32], masked: npt.NDArray[np.bool_], box: int = BOX) -> Extracted | None:
    """Objects of one plane (arguments as `measure`); None without noise, or where sep's buffers overflow."""
    plane = np.ascontiguousarray(np.where(masked, 0, flux), dtype=np.float32)
    background = sep.Background(plane, mask=masked, bw=box, bh=box)
    plane = plane - background.back()
    noise = float(background.globalrms)
    if not noise > 0:
        return None
    try:
        found, segments = sep.extract(plane, THRESHOLD, err=noise, mask=masked, minarea=LEAST_AREA, segmentation_map=True)
    except Exception as error:
        # sep raises a bare Exception when its buffers overflow in a crowded stamp; anything else is a bug
        if "object" not in str(error) and "pixel" not in str(error):
            raise
        return None
    return Extracted(plane, noise, found, segments)


def search_plane(stamps: StampSet, index: int) -> tuple[str, npt.NDArray[np.float32], npt.NDArray[np.bool_]] | None:
    """Band, flux and mask of the plane of one stamp that is searched; None where no band has enough valid pixels."""
    valid = stamps.take([index]).valid()[0]
    share = valid.mean(axis=(1, 2))
    usable = [band for band in PREFERRED if band in stamps.bands and share[stamps.bands.index(band)] >= LEAST_VALID]
    if not usable:
        return None
    place = stamps.bands.index(usable[0])
    return usable[0], stamps.flux(index)[place], ~valid[place]


def measure(flux: npt.NDArray[np.float32], masked: npt.NDArray[np.bool_], pixscale: float, box: int = BOX) -> Measured:
    """Background, extraction and AUTO photometry of one plane.

    Parameters
    ----------
    flux : ndarray
        Float32, shape (S, S), nanomaggies per pixel, north up, east left.
    masked : ndarray
        Bool, shape (S, S).
    pixscale : float
        Arcsec per pixel.
    box : int
        Pixels on a side of a background cell.
    """
    empty = dict.fromkeys(_TEXTS, float("nan"))
    extracted = extract(flux, masked, box)
    if extracted is None:
        return Measured(0, empty)
    plane, found = extracted.plane, extracted.objects
    middle = flux.shape[0] // 2
    away = np.hypot(found["x"] - middle, found["y"] - middle)
    if not len(found) or away.min() > REACH:
        return Measured(len(found), empty)
    own = found[int(away.argmin())]
    total = _auto_flux(plane, own, masked)
    theta = float(np.rad2deg(own["theta"]))
    figures = {
        "sep_x": float(own["x"]),
        "sep_y": float(own["y"]),
        "sep_a": float(own["a"]) * pixscale,
        "sep_b": float(own["b"]) * pixscale,
        "sep_theta": theta,
        # x runs west, so an angle from x toward y is 90 deg more than one from north toward east
        "sep_position_angle": float(np.mod(theta - 90.0, 180.0)),
        "sep_flux": total,
        "sep_mag": 22.5 - 2.5 * float(np.log10(total)) if total > 0 else float("nan"),
    }
    return Measured(len(found), figures)


def _auto_flux(plane: npt.NDArray[np.float32], own: np.void, masked: npt.NDArray[np.bool_]) -> float:
    shape = ([own["x"]], [own["y"]], [max(own["a"], 0.5)], [max(own["b"], 0.5)], [np.clip(own["theta"], -np.pi / 2, np.pi / 2)])
    radius, _ = sep.kron_radius(plane, *shape, KRON, mask=masked)
    if AUTO_FACTOR * radius[0] * np.sqrt(own["a"] * own["b"]) < LEAST_RADIUS or not np.isfinite(radius[0]):
        flux, _, _ = sep.sum_circle(plane, [own["x"]], [own["y"]], LEAST_RADIUS, mask=masked, subpix=1)
    else:
        flux, _, _ = sep.sum_ellipse(plane, *shape, AUTO_FACTOR * radius[0], mask=masked, subpix=1)
    return float(flux[0])
