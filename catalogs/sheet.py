"""A sheet of pictures: the stamps of some rows side by side, from the stores under the root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.stamps.render import label, mosaic, png, to_rgb
from galpipe.stamps.store import Store
from galpipe.unit import Unit

COLUMNS = 5


def picture(layout: Layout, row: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """One row's stamp as a picture, uint8 of shape (S, S, 3); None where its stamp is no longer kept.

    Parameters
    ----------
    layout : Layout
    row : mapping
        ``source_id``, ``release_name``, ``region``, ``brickname``.
    """
    for path in layout.stamps_of(Unit(row["release_name"], row["region"], row["brickname"])):
        try:
            store = Store(path)
            places = np.flatnonzero(store.sources()["source_id"].to_numpy() == row["source_id"])
            if len(places):
                stamps = store.rows([int(places[0])])
                return to_rgb(stamps.flux(0), stamps.bands)
        except BadData:
            continue
    return None


def sheet(layout: Layout, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> tuple[bytes, int]:
    """A PNG of the rows' stamps in their order, each with a text, and how many of them had a stamp.

    Raises
    ------
    BadData
        If no row has a stamp: nothing could be shown.
    """
    drawn = [picture(layout, row) for row in rows]
    shape = next((item.shape for item in drawn if item is not None), None)
    if shape is None:
        raise BadData("stamps of these rows under the root", "none is kept (run with --keep stamps)", file=str(layout.root / "stamps"))
    shown = [np.zeros(shape, np.uint8) if item is None or item.shape != shape else item for item in drawn]
    pictures = [label(item, text) for item, text in zip(shown, texts, strict=True)]
    return png(mosaic(pictures, min(COLUMNS, len(pictures)))), sum(item is not None for item in drawn)
