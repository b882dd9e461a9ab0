"""Sources at the edges of bricks: the fitted position differs from frame to frame, so one can be primary in two tables or in none.

A brick's table cannot know. So sources within `galpipe.survey.neighbours.EDGE` beyond a brick's edge are taken along, and the
catalog's publication, which sees both bricks, keeps each source once (`catalogs.resolve`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.config import SelectionSettings
from galpipe.survey.bricks import Brick
from galpipe.survey.neighbours import EDGE, distance_to_edge
from galpipe.survey.selection import RULES, select

EDGE_REASON = "edge"
"""What the outcome of a predicted source just beyond its brick's edge says."""


def beyond_edge(sources: pa.Table, area: Brick) -> NDArray[np.bool_]:
    """Which sources lie within `EDGE` beyond a brick's edge and are not primary, shape (N,).

    Parameters
    ----------
    sources : pyarrow.Table
        Tractor subset, N rows; those of a table without ``brick_primary`` are not asked for.
    area : Brick
    """
    stated = sources["brick_primary"].cast(pa.int8()).fill_null(-1).to_numpy()
    ra, dec = (np.array(sources[name].cast(pa.float64()).to_numpy(zero_copy_only=False)) for name in ("ra", "dec"))
    distance = distance_to_edge(area, ra, dec)
    beyond: NDArray[np.bool_] = (stated == 0) & (distance > -EDGE) & (distance <= 0)
    return beyond


def select_with_edges(
    sources: pa.Table, settings: SelectionSettings, bands: tuple[str, ...], area: Brick
) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Apply the selection as if the sources just beyond the brick's edge were primary.

    A list of ids is taken as it is.

    Returns
    -------
    reasons : ndarray of str, shape (N,)
        As `galpipe.survey.selection.select`.
    edge : ndarray of bool, shape (N,)
        The selected sources that are not the brick's own.
    """
    if settings.ids_file is not None:
        return np.array(select(sources, settings, bands).to_pylist(), dtype=object), np.zeros(len(sources), bool)
    beyond = beyond_edge(sources, area)
    column = sources.schema.get_field_index("brick_primary")
    stated = sources["brick_primary"].cast(pa.bool_())
    widened = pa.array(stated.fill_null(False).to_numpy() | beyond, mask=np.array(stated.is_null().to_numpy(), bool))
    reasons = np.array(select(sources.set_column(column, "brick_primary", widened), settings, bands).to_pylist(), dtype=object)
    # what a rule leaves out is its neighbour's before it is faint, or a star
    earlier = ("", *RULES[: RULES.index("not_primary")])
    reasons[beyond & ~np.isin(reasons.astype(str), earlier)] = "not_primary"
    return reasons, beyond & (reasons == "")
