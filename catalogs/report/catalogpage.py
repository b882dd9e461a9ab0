"""The page of a catalog: maps, class fractions against the conditions, completeness, every column, galaxies at random and at the ends.

One HTML file with its style and pictures inside, and beside it the maps as a FITS table. One pass over the rows, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.extent import Extent
from catalogs.hats import manifest
from catalogs.inventory import Inventory
from catalogs.maps import MapSums, SkyMaps
from catalogs.report.columngroups import column_lines, picked_columns
from catalogs.report.columnstats import ColumnSums, unit_of_row
from catalogs.report.completeness import completeness, status_in_words
from catalogs.report.histogram import label
from catalogs.report.mapfile import as_fits
from catalogs.report.page import render
from catalogs.report.rows import field_text
from catalogs.report.skypart import coverage_text, sky_part
from catalogs.report.style import pretty_unit
from catalogs.report.thumbs import thumbnails
from catalogs.report.words import grouped, measured
from galpipe.code_version import code_version
from galpipe.commit import write_bytes
from galpipe.survey.region import Everything

TEMPLATE = "catalog.html.jinja"

MOST_IMAGES = 60
"""Bricks whose images are read for usable area (0.3 s each)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wishes:
    """What of a catalog report may be chosen.

    Parameters
    ----------
    region_text : str
        The region as it was asked for.
    columns : tuple of str
        Columns whose extreme galaxies are shown; empty for the model's answers, ``all`` for all.
    random : int
        Galaxies shown at random.
    seed : int
        Of what is drawn at random.
    """

    region_text: str = "all"
    columns: tuple[str, ...] = ()
    random: int = 24
    seed: int = 0


@dataclass(frozen=True)
class Thumb:
    """One galaxy in a row of small pictures."""

    source_id: int
    value: str
    picture: str


def write_catalog_report(extent: Extent, path: Path, wishes: Wishes, progress: Progress | None = None) -> dict[str, Any]:
    """Write the page of a catalog, and its maps as FITS beside it.

    Parameters
    ----------
    extent : Extent
    path : Path
        Of the page.
    wishes : Wishes
    progress : callable, optional
        Called with (rows read, rows expected).

    Returns
    -------
    dict
        ``report``, ``maps`` (None without a cell), ``rows``, ``cells``, ``order``.

    Raises
    ------
    ConfigurationError
        If a wanted column is not there, or the version is not.
    BadData
        If a file does not read.
    """
    stock, schema = extent.stock(), extent.schema()
    columns = ColumnSums(schema, picked_columns(schema, wishes.columns) if len(schema) else [], wishes.seed)
    sums = MapSums(schema)
    rows, expected = 0, sum(entry.rows for entry in stock.shards)
    for batch in extent.batches(columns.schema.names):
        columns.add(batch)
        sums.add(batch)
        rows += batch.num_rows
        if progress:
            progress(rows, max(expected, rows))
    maps = sums.finish(extent, stock, MOST_IMAGES)
    maps_path = path.with_suffix(".maps.fits") if len(maps.cells) else None
    page = render(
        TEMPLATE,
        {
            **_heading(extent, wishes, maps, stock),
            "tiles": _tiles(rows, maps, stock),
            **sky_part(extent, maps),
            "complete": completeness(extent, stock),
            "cut": not isinstance(extent.region, Everything),
            **_galaxies(extent, columns, wishes),
            "groups": column_lines(columns),
            "nested": columns.nested,
            "sampled": "all rows" if columns.sample.num_rows == rows else f"a random sample of {grouped(columns.sample.num_rows)} rows",
            "maps_file": maps_path.name if maps_path else "",
        },
        {"unit": pretty_unit, "number": label, "status": status_in_words},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if maps_path:
        write_bytes(maps_path, as_fits(maps))
    write_bytes(path, page.encode())
    return {"report": str(path), "maps": str(maps_path) if maps_path else None, "rows": rows, "cells": len(maps.cells), "order": maps.order}


def _heading(extent: Extent, wishes: Wishes, maps: SkyMaps, stock: Inventory) -> dict[str, Any]:
    told = manifest(extent.folder) if extent.version is not None else {}
    version = f"version {extent.version}" if extent.version is not None else "shards as they are now"
    models = sorted({entry.model for entry in stock.shards if entry.model})
    facts = [
        ("catalog", extent.name),
        ("version", f"{version}, published {told['created']}" if told.get("created") else version),
        ("region", wishes.region_text),
        ("model", ", ".join(models) or "–"),
        ("code", code_version()),
        ("report made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("coverage", coverage_text(extent)),
        ("seed", str(wishes.seed)),
        ("root", str(extent.layout.root)),
    ]
    title = f"{extent.name}, {version}" + ("" if isinstance(extent.region, Everything) else f", {wishes.region_text}")
    return {"title": title, "facts": facts, "seed": wishes.seed}


def _tiles(rows: int, maps: SkyMaps, stock: Inventory) -> list[tuple[str, str, str]]:
    area, usable = maps.area, maps.usable_area
    tiles = [("galaxies", grouped(rows), f"in {grouped(sum(1 for entry in stock.shards if entry.rows))} bricks with rows")]
    if area > 0:
        tiles.append(("area processed", f"{area:.3g} deg²", f"{maps.order and grouped(len(maps.cells))} cells of order {maps.order}"))
        if np.isfinite(usable):
            tiles.append(("usable area", f"{usable:.3g} deg²", f"{100 * usable / area:.2f} % of it"))
        tiles.append(("density", f"{maps.galaxies.sum() / area:.4g} deg⁻²", "galaxies per processed area"))
    return tiles


def _galaxies(extent: Extent, columns: ColumnSums, wishes: Wishes) -> dict[str, Any]:
    sample = columns.sample
    chosen = sample.slice(0, wishes.random).to_pylist() if sample.num_columns else []
    facts = {name: item for name, item in columns.facts.items() if item.lowest}
    picks = [pick for item in facts.values() for pick in [*item.lowest, *item.highest]]
    units = [(unit_of_row(row), row["source_id"]) for row in chosen]
    pictures = thumbnails(extent.layout, [*units, *((pick.unit, pick.source_id) for pick in picks)])
    random = [Thumb(row["source_id"], measured(row.get("mag_r"), unit="mag"), pictures.get(row["source_id"], "")) for row in chosen]
    ends = []
    for name, item in facts.items():
        told = {key: field_text(columns.schema, name, key) for key in ("unit", "description")} | {"name": name}
        told["unit"] = pretty_unit(told["unit"])
        sides = {
            side: [Thumb(pick.source_id, label(pick.value), pictures.get(pick.source_id, "")) for pick in listed]
            for side, listed in (("lowest", item.lowest), ("highest", item.highest))
        }
        ends.append(told | sides)
    return {
        "random": random,
        "random_of": f"{len(random)} of {grouped(columns.facts['source_id'].rows)} galaxies" if random else "",
        "ends": ends,
        "any_stamp": bool(pictures),
    }
