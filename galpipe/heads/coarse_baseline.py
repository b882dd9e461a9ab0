"""What sep measures on the second, coarser stamp of a large galaxy (see `galpipe.heads.sep_baseline`).

The model was trained at the first stamp's pixel scale, so nothing of it is asked about coarse stamps. Published is only what the
stamp can tell: of a galaxy that the first stamp cuts off or that the atlas lists, not of a source inside its ellipse, where the
object found would be the large galaxy; none where it outgrows the coarse stamp as well, or where pixels within it are missing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galpipe.columns import Column
from galpipe.heads.sep_baseline import PREFERRED, Measured, measure
from galpipe.stamps.coarse import REACH
from galpipe.stamps.stampset import StampSet
from galpipe.survey.largegalaxies import LARGEST_RADIUS, atlas_entries, half_light_radii

WITHIN = 3.0
"""Half-light radii around the source within which pixels must be there."""

LEAST_VALID = 0.95
"""Share of them."""

_TEXTS = {
    "flux": ("nanomaggy", "AUTO flux, background subtracted, dereddened"),
    "mag": ("mag", "AUTO magnitude, dereddened"),
    "a": ("arcsec", "Semi-major axis (second moment)"),
    "b": ("arcsec", "Semi-minor axis (second moment)"),
    "position_angle": ("deg", "Position angle of the major axis, east of north, 0 to 180"),
}


def columns() -> tuple[Column, ...]:
    """Columns of `coarse_columns`, in order."""
    band = Column("coarse_sep_band", pa.string(), "", "Band that sep searched in the coarse stamp of a large galaxy, else null")
    text = "sep on the coarse stamp of a large galaxy: {}; null for other sources, and where that stamp cuts it off or lacks pixels"
    return (band, *(Column(f"coarse_sep_{name}", pa.float32(), unit, text.format(said), 1e-2) for name, (unit, said) in _TEXTS.items()))


def coarse_columns(sources: pa.Table, sets: Iterable[StampSet]) -> pa.Table:
    """Measure the large galaxies among a brick's coarse stamps.

    Parameters
    ----------
    sources : pyarrow.Table
        N rows, of the first stamps, with ``source_id``.
    sets : iterable of StampSet
        Coarse stamps of some of the sources, in any order.

    Returns
    -------
    pyarrow.Table
        N rows, columns as `columns` says; null where nothing is to be published.
    """
    found: dict[int, tuple[str, Measured]] = {}
    for stamps in sets:
        wanted = np.flatnonzero(_measurable(stamps))
        ids = stamps.sources["source_id"].to_pylist()
        for index in wanted.tolist():
            answer = _one(stamps, index)
            if answer is not None:
                found[ids[index]] = answer
    rows = [found.get(source) for source in sources["source_id"].to_pylist()]
    schema = pa.schema([column.field() for column in columns()])
    arrays = [pa.array([None if row is None else row[0] for row in rows], pa.string())]
    for name in _TEXTS:
        values = [None if row is None else row[1].figures[f"sep_{name}"] for row in rows]
        arrays.append(pa.array([value if value is not None and np.isfinite(value) else None for value in values], pa.float32()))
    return pa.table(arrays, schema=schema)


def _measurable(stamps: StampSet) -> npt.NDArray[np.bool_]:
    """Large galaxies that end inside their coarse stamp, shape (N,)."""
    radius = half_light_radii(stamps.sources)
    large = (radius > LARGEST_RADIUS) | atlas_entries(stamps.sources)
    return np.asarray(large & (radius * REACH <= stamps.size // 2 * stamps.pixscale))


def _one(stamps: StampSet, index: int) -> tuple[str, Measured] | None:
    valid = stamps.take([index]).valid()[0]
    radius = float(half_light_radii(stamps.sources)[index])
    line = (np.arange(stamps.size) - stamps.size // 2) * stamps.pixscale
    within = np.hypot(line[:, None], line[None, :]) <= max(WITHIN * radius, stamps.pixscale)
    usable = [b for b in PREFERRED if b in stamps.bands and valid[stamps.bands.index(b)][within].mean() >= LEAST_VALID]
    if not usable:
        return None
    place = stamps.bands.index(usable[0])
    # one background for the whole stamp: in smaller cells the galaxy itself would be taken for sky
    found = measure(stamps.flux(index)[place], ~valid[place], stamps.pixscale, box=stamps.size)
    return (usable[0], found) if np.isfinite(found.figures["sep_flux"]) else None
