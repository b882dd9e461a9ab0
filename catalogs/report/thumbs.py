"""Small pictures of galaxies for the page, from the stamps that are kept."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalogs.report.galaxies import encoded
from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.stamps.render import to_rgb
from galpipe.stamps.store import Store
from galpipe.unit import Unit

SIDE = 96
"""Pixels on a side."""
QUALITY = 86


def thumbnails(layout: Layout, wanted: Iterable[tuple[Unit | None, int]]) -> dict[int, str]:
    """JPEG of each galaxy's stamp as base64, by source_id; galaxies whose stamp is not kept, or damaged, are left out.

    Parameters
    ----------
    layout : Layout
    wanted : iterable of tuple
        Brick and source_id.
    """
    of_unit: dict[Unit, set[int]] = {}
    for unit, source in wanted:
        if unit is not None:
            of_unit.setdefault(unit, set()).add(source)
    made: dict[int, str] = {}
    for unit, sources in sorted(of_unit.items()):
        for path in layout.stamps_of(unit):
            missing = sorted(sources - made.keys())
            if not missing:
                break
            try:
                made |= _of_store(Store(path), missing)
            except BadData:
                # `verify` is the place where a damaged store is a finding
                continue
    return made


def _of_store(store: Store, sources: list[int]) -> dict[int, str]:
    ids = store.sources()["source_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids, sources, sorter=order), max(len(ids) - 1, 0))
    found = [(source, int(order[at])) for source, at in zip(sources, place, strict=True) if len(ids) and ids[order[at]] == source]
    if not found:
        return {}
    stamps = store.rows([row for _, row in found])
    return {source: jpeg(to_rgb(stamps.flux(index), stamps.bands)) for index, (source, _) in enumerate(found)}


def jpeg(picture: NDArray[np.uint8]) -> str:
    """A picture, shape (H, W, 3), made `SIDE` pixels wide, as base64 of a JPEG."""
    buffer = BytesIO()
    Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=QUALITY)
    return encoded(buffer.getvalue())
