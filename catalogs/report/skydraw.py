"""Maps of the sky as PNG bytes: HEALPix cells in an equal-area projection around a region, or the whole sky in Mollweide's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import Latitude, Longitude
from astropy.visualization.wcsaxes import WCSAxes
from astropy.visualization.wcsaxes.frame import EllipticalFrame, RectangularFrame
from astropy.wcs import WCS
from cdshealpix.nested import lonlat_to_healpix
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from mocpy import MOC
from numpy.typing import NDArray

from catalogs.report.style import INK, MUTED, figure_of, png_of, pretty_unit
from galpipe.skymap.cells import cell_area, points_in

Floats = NDArray[np.float64]

WHOLE_SKY = 100.0
"""Degrees across from which a map is of the whole sky."""
SKY_CENTER = 120.0
"""RA in the middle of a map of the whole sky: both galactic caps of the survey stay whole."""
MOLLWEIDE_WIDTH = 720 / np.pi * np.sqrt(2) - 1.0
"""Degrees across in the plane of the projection, just within its edge, where ticks still find the sky."""
PIXELS = 420
"""Pixels of a map's raster across."""
ACROSS = 3
"""Maps side by side."""
SLIMMEST = 0.35
"""A frame's shorter side over its longer one, at least."""
EMPTY = "#d3dade"
"""Color of a cell that was processed and has no value."""


OUTLINE = "#c7562f"
OUTLINE_CELLS = 3
"""Cells of a coverage map across the frame from which on its edge is drawn."""


@dataclass(frozen=True)
class Panel:
    """One map.

    Parameters
    ----------
    title, unit : str
    values : ndarray, shape (N,)
        One per cell; NaN is drawn as empty.
    colors : str
        Name of a matplotlib colormap.
    """

    title: str
    unit: str
    values: Floats
    colors: str = "viridis"


@dataclass(frozen=True)
class Ground:
    """What the maps of a page have in common.

    Parameters
    ----------
    cells : ndarray of int64, shape (N,)
        NESTED, sorted.
    order : int
    processed : callable
        From RA and Dec (deg, shape (M,)) to whether that position was processed.
    outline : MOC or None
        A coverage map whose edge is drawn on the first map.
    """

    cells: NDArray[np.int64]
    order: int
    processed: Callable[[Floats, Floats], NDArray[np.bool_]]
    outline: MOC | None = None


@dataclass(frozen=True)
class Frame:
    """A piece of sky on paper.

    Parameters
    ----------
    wcs : WCS
        East to the left.
    width, height : int
        Of its raster, pixels.
    whole : bool
        Whether it is the whole sky.
    """

    wcs: WCS
    width: int
    height: int
    whole: bool


def frame_around(ground: Ground) -> Frame:
    """The frame that holds what was processed of the cells, with a small margin.

    Parameters
    ----------
    ground : Ground
        With at least one cell.
    """
    ra, dec = (angles.ravel() for angles in points_in(ground.cells, ground.order, 2 if len(ground.cells) > 2000 else 4))
    kept = ground.processed(ra, dec)
    if kept.any():
        ra, dec = ra[kept], dec[kept]
    lon, lat = np.radians(ra), np.radians(dec)
    vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    mean = vectors.mean(axis=1)
    middle = mean / max(float(np.linalg.norm(mean)), 1e-9)
    reach = 2 * np.degrees(np.arccos(np.clip(middle @ vectors, -1, 1)).max())
    if reach > WHOLE_SKY:
        return _frame("MOL", (SKY_CENTER, 0.0), (MOLLWEIDE_WIDTH, MOLLWEIDE_WIDTH / 2), True)
    center = (float(np.degrees(np.arctan2(middle[1], middle[0])) % 360), float(np.degrees(np.arcsin(middle[2]))))
    first = _frame("ZEA", center, (1.0, 1.0), False).wcs
    x, y = first.world_to_pixel_values(ra, dec)
    scale = abs(float(first.wcs.cdelt[0]))
    extent = (float(np.ptp(x)) * scale, float(np.ptp(y)) * scale)
    margin = 0.06 * max(extent)
    extent = (max(extent[0], SLIMMEST * extent[1]), max(extent[1], SLIMMEST * extent[0]))
    shift = ((x.min() + x.max()) / 2, (y.min() + y.max()) / 2)
    # centered on the middle of the drawn area, which is not the mean of its points
    ra0, dec0 = first.pixel_to_world_values(*shift)
    return _frame("ZEA", (float(ra0), float(dec0)), (extent[0] + 2 * margin, extent[1] + 2 * margin), False)


def _frame(projection: str, center: tuple[float, float], extent: tuple[float, float], whole: bool) -> Frame:
    scale = max(extent) / PIXELS
    width, height = (max(40, int(np.ceil(side / scale))) for side in extent)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval, wcs.wcs.cdelt = list(center), [-scale, scale]
    wcs.wcs.crpix = [(width + 1) / 2, (height + 1) / 2]
    wcs.array_shape = (height, width)
    return Frame(wcs, width, height, whole)


def _raster(frame: Frame, ground: Ground) -> NDArray[np.int64]:
    """Which cell lies under each pixel of the frame, by place in its cells; -1 where nothing was processed. Shape (height, width)."""
    cells = ground.cells
    y, x = np.mgrid[0 : frame.height, 0 : frame.width]
    ra, dec = frame.wcs.pixel_to_world_values(x.ravel(), y.ravel())
    good = np.isfinite(ra) & np.isfinite(dec)
    if frame.whole:
        # beyond the ellipse a projection may still answer, with a position that it draws elsewhere
        back = frame.wcs.world_to_pixel_values(np.where(good, ra, 0.0), np.where(good, dec, 0.0))
        good &= np.hypot(back[0] - x.ravel(), back[1] - y.ravel()) < 0.5
    good[good] = ground.processed(ra[good], dec[good])
    place = np.full(len(ra), -1)
    index = lonlat_to_healpix(Longitude(ra[good] % 360, u.deg), Latitude(dec[good], u.deg), ground.order).astype(np.int64)
    near = np.minimum(np.searchsorted(cells, index), len(cells) - 1)
    place[good] = np.where(cells[near] == index, near, -1)
    return place.reshape(frame.height, frame.width)


def sky_maps(ground: Ground, panels: Sequence[Panel]) -> bytes | None:
    """Maps of the same cells side by side, each with its color bar.

    Parameters
    ----------
    ground : Ground
    panels : sequence of Panel

    Returns
    -------
    bytes or None
        PNG; None where there is no cell or nothing to show.
    """
    if not len(ground.cells) or not panels:
        return None
    frame = frame_around(ground)
    place = _raster(frame, ground)
    rows = -(-len(panels) // ACROSS)
    # inches: a map, and what its color bar, labels and title need around it
    wide, bar, left, top, below = 2.7, 0.92, 0.62, 0.36, 0.42
    tall = min(wide * frame.height / frame.width, 4.4)
    width, height = ACROSS * (wide + bar) + left, rows * (tall + top + below)
    figure = figure_of(width, height, placed=True)
    for index, panel in enumerate(panels):
        row, column = divmod(index, ACROSS)
        x, y = left + column * (wide + bar), height - (row + 1) * (tall + top + below) + below
        box = (x / width, y / height, min(wide, tall * frame.width / frame.height) / width, tall / height)
        axes = WCSAxes(figure, box, wcs=frame.wcs, frame_class=EllipticalFrame if frame.whole else RectangularFrame)
        figure.add_axes(axes)
        scale = figure.add_axes((box[0] + (1.12 if frame.whole else 1.03) * box[2], box[1], 0.09 / width, box[3]))
        _draw(axes, scale, place, panel)
        if index == 0 and ground.outline is not None and outline_shows(ground):
            _outline(axes, frame, ground.outline)
        _ticks(axes, frame, bottom=index + ACROSS >= len(panels), first=column == 0)
    return png_of(figure)


def _draw(axes: WCSAxes, scale: Axes, place: NDArray[np.int64], panel: Panel) -> None:
    shown = place >= 0
    look = {"origin": "lower", "interpolation": "nearest", "aspect": "equal"}
    axes.imshow(np.where(shown, 0.0, np.nan), cmap=ListedColormap([EMPTY]), **look)
    drawn = axes.imshow(np.where(shown, panel.values[place], np.nan), cmap=panel.colors, norm=_limits(panel.values), **look)
    axes.set_title(panel.title, fontsize=8.5, color=INK, loc="left", pad=5)
    bar = scale.figure.colorbar(drawn, cax=scale, ticks=MaxNLocator(4), format="%g")
    bar.outline.set_visible(False)
    scale.tick_params(labelsize=7, colors=MUTED, length=2)
    scale.set_title(pretty_unit(panel.unit), fontsize=7.5, color=INK, loc="left", pad=5)


def outline_shows(ground: Ground) -> bool:
    """Whether the cells of the outline are small enough that its edge tells something of the map."""
    if ground.outline is None or not len(ground.cells):
        return False
    frame = frame_around(ground)
    side = np.sqrt(cell_area(ground.outline.max_order)) / 60
    return bool(side < min(frame.width, frame.height) * abs(float(frame.wcs.wcs.cdelt[0])) / OUTLINE_CELLS)


def _outline(axes: WCSAxes, frame: Frame, moc: MOC) -> None:
    y, x = np.mgrid[0 : frame.height, 0 : frame.width]
    ra, dec = frame.wcs.pixel_to_world_values(x.ravel(), y.ravel())
    good = np.isfinite(ra) & np.isfinite(dec)
    within = np.zeros(len(ra))
    within[good] = moc.contains_lonlat(Longitude(ra[good] % 360, u.deg), Latitude(dec[good], u.deg))
    if 0 < within.sum() < len(within):
        axes.contour(within.reshape(y.shape), levels=[0.5], colors=[OUTLINE], linewidths=0.9)


def _limits(values: Floats) -> Normalize:
    """From the 2nd to the 98th percentile, so that one odd cell does not make all others one color."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2, 98]) if len(known) else (0.0, 1.0)
    if high - low < 1e-6 * max(1.0, abs(high)):
        low, high = low - 0.5e-3 * max(1.0, abs(low)), high + 0.5e-3 * max(1.0, abs(high))
    return Normalize(float(low), float(high))


def _ticks(axes: WCSAxes, frame: Frame, *, bottom: bool, first: bool) -> None:
    lon, lat = axes.coords
    for item, shown, text in ((lon, bottom, "RA, deg"), (lat, first, "Dec, deg")):
        item.set_major_formatter(_degrees(frame))
        item.set_format_unit(u.deg, decimal=True, show_decimal_unit=False)
        # on the sky itself, where the whole of it is drawn
        halo = [withStroke(linewidth=1.6, foreground="white")] if frame.whole else []
        item.set_ticklabel(size=7, color=INK if frame.whole else MUTED, exclude_overlapping=True, path_effects=halo)
        if frame.whole:
            item.set_ticks(spacing=(60 if item is lon else 30) * u.deg)
        else:
            item.set_ticks(number=4)
        item.set_axislabel(text if shown and (item is lat or not frame.whole) else " ", size=8, color=INK)
        item.grid(color="#8b9aa3", alpha=0.35, linewidth=0.5)
        item.tick_params(length=0 if frame.whole else 3, color=MUTED)
    axes.coords.frame.set_color(MUTED)
    axes.coords.frame.set_linewidth(0.7)


def _degrees(frame: Frame) -> str:
    """As many decimals as the frame's width needs."""
    across = frame.width * abs(float(frame.wcs.wcs.cdelt[0]))
    return "d" if across > 20 else "d.d" if across > 1.2 else "d.dd"
