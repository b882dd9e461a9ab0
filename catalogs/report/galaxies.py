"""The report's galaxies: which are shown, their pictures, and the answers beside them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogs.report.rows import UNIT, Sample, field_text, read_rows
from catalogs.report.words import measured
from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.stamps.render import png, to_rgb
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import Store
from galpipe.unit import Unit

SHOWN = 24
PER_GROUP = 6
MOST_BRICKS = 8
"""Bricks whose stamps are opened."""

FEATURED = "smooth-or-featured_featured-or-disk_fraction"
REDSHIFTS = ("z_lvm", "z_mock")
RADII = ("lvm_half_light_radius", "shape_r")
SPREADS = ((f"{FEATURED}_hi", f"{FEATURED}_lo"),)
WANTED = ("source_id", FEATURED, f"{FEATURED}_hi", f"{FEATURED}_lo", *RADII, "lvm_half_light_radius_sigma")

MOST_BOXES = 40
ASKED = 0.5
"""Share of volunteers from which on a later question's answer is shown."""

MOST_QUESTIONS = 5

Restore = Callable[[StampSet, Sequence[int]], NDArray[np.float32]]


@dataclass(frozen=True)
class Pictures:
    """What the report needs of a model to draw.

    Parameters
    ----------
    restore : callable
        From stamps and K of their rows to restored images, float32 of shape (K, 3, S, S): g, r, z in nanomaggies per pixel.
    card : mapping
        The model's card, for its name and scores.
    """

    restore: Restore
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """One detection, in picture pixels (row 0 at the top)."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    score: float


@dataclass(frozen=True)
class Card:
    """One galaxy as the page shows it.

    Parameters
    ----------
    source_id : int
    place, why : str
        Brick and position; why it was picked.
    answers : list of tuple
        (label, value, remark).
    size : int
        Pixels on a side of the pictures; 0 without pictures.
    stamp, restored : str
        PNG as base64; empty where there is none.
    boxes : list of Box
    coarse : str
        PNG of the second, coarser stamp as base64; empty for a galaxy without one.
    coarse_width : float
        Arcsec on a side of it.
    """

    source_id: int
    place: str
    why: str
    answers: list[tuple[str, str, str]]
    size: int = 0
    stamp: str = ""
    restored: str = ""
    boxes: list[Box] = field(default_factory=list)
    coarse: str = ""
    coarse_width: float = 0.0


@dataclass(frozen=True)
class _Shown:
    """The stamps of some sources, in their order.

    Parameters
    ----------
    stamps : StampSet
    coarse : dict
        The second stamp of those that have one, by place in the order.
    """

    stamps: StampSet
    coarse: dict[int, StampSet]


def cards(layout: Layout, name: str, sample: Sample, cut: str, pictures: Pictures | None) -> list[Card]:
    """Pick galaxies and prepare what is shown of each.

    Parameters
    ----------
    layout : Layout
    name : str
    sample : Sample
        With the columns `WANTED`, those that there are.
    cut : str
        Name of the cut settings, under which stamps lie.
    pictures : Pictures or None
        None leaves restored images out.
    """
    chosen = choose(sample, lambda unit: layout.stamps(Unit.parse(unit), cut).exists())
    made: dict[int, Card] = {}
    for text in dict.fromkeys(unit for unit, _, _ in chosen):
        unit, mine = Unit.parse(text), {source: why for where, source, why in chosen if where == text}
        rows = read_rows(layout, name, unit, list(mine))
        shown = _stamps(layout.stamps(unit, cut), [row["source_id"] for row in rows])
        restored = _restored(shown, pictures)
        for index, row in enumerate(rows):
            answers = describe(row, sample.schema)
            place = f"{unit.brick}  RA {row['ra']:.4f}  Dec {row['dec']:.4f}" if row.get("ra") is not None else unit.brick
            place += "  JPEG route" if row.get("jpeg_route") else ""
            card = Card(row["source_id"], place, mine[row["source_id"]], answers)
            made[row["source_id"]] = _with_pictures(card, shown, index, (restored, row.get("detections") or [])) if shown else card
    return [made[source] for _, source, _ in chosen if source in made]


def choose(sample: Sample, has_stamps: Callable[[str], bool]) -> list[tuple[str, int, str]]:
    """Which galaxies are shown: some at random, the largest, the most featured, the least certain.

    Parameters
    ----------
    sample : Sample
    has_stamps : callable
        Whether a unit's stamps are on disk; where any are, only those units are chosen from.

    Returns
    -------
    list of tuple
        (unit, source_id, why), no galaxy twice, at most `SHOWN`, from at most `MOST_BRICKS` bricks.
    """
    if not sample.table.num_rows or "source_id" not in sample.table.column_names:
        return []
    names = sample.table[UNIT].to_pylist()
    units = list(dict.fromkeys(names))
    # the first of an even spread over the catalog, so that a large one is not shown by its corner alone
    stored = [unit for unit in units if has_stamps(unit)] or units
    kept = set(stored[:: max(1, -(-len(stored) // MOST_BRICKS))])
    rows = np.flatnonzero([unit in kept for unit in names])
    order: dict[int, str] = {}
    for why, ranking in _rankings(sample, rows):
        fresh = [int(row) for row in ranking if int(row) not in order][: PER_GROUP if why != "picked at random" else SHOWN]
        order |= dict.fromkeys(fresh[: SHOWN - len(order)], why)
    ids = sample.table["source_id"].to_pylist()
    return [(names[row], ids[row], why) for row, why in order.items()]


def _rankings(sample: Sample, rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    """Rows of each group, best first; the random group last, as it fills up what the others leave."""

    def top(values: NDArray[np.float64]) -> NDArray[np.int64]:
        own = values[rows] if len(values) else np.full(len(rows), np.nan)
        known = rows[np.isfinite(own)]
        ranked: NDArray[np.int64] = known[np.argsort(-own[np.isfinite(own)], kind="stable")]
        return ranked

    # the model gives no size of what its stamp cuts off; the survey does
    radius = np.zeros(0)
    for own in filter(len, map(sample.values, RADII)):
        radius = np.where(np.isfinite(radius), radius, own) if len(radius) else own
    high, low = (sample.values(name) for name in SPREADS[0])
    spread = high - low if len(high) and len(low) else np.zeros(0)
    random = np.random.default_rng(len(rows)).permutation(rows)
    return [
        ("among the most featured", top(sample.values(FEATURED))),
        ("among the largest", top(radius)),
        ("among the least certain", top(spread)),
        ("picked at random", random),
    ]


def _stamps(path: Path, ids: Sequence[int]) -> _Shown | None:
    """The stamps of some sources in their order; None where the store is gone, damaged, or of other sources."""
    if not path.exists():
        return None
    try:
        store = Store(path)
        rows = _places(store, ids)
        if len(rows) < len(ids):
            return None
        coarse: dict[int, StampSet] = {}
        for binning in store.coarse:
            coarse |= {place: store.rows([row], binning) for place, row in _places(store, ids, binning).items()}
        return _Shown(store.rows(list(rows.values())), coarse)
    except BadData:
        # `verify` is the place where a damaged store is a finding; a report shows what it can
        return None


def _places(store: Store, ids: Sequence[int], binning: int = 1) -> dict[int, int]:
    """Row of each id, by its place among the ids; those without a stamp of that scale are left out."""
    known = {source: row for row, source in enumerate(store.sources(binning)["source_id"].to_pylist())}
    return {place: known[source] for place, source in enumerate(ids) if source in known}


def _restored(shown: _Shown | None, pictures: Pictures | None) -> NDArray[np.float32] | None:
    if shown is None or pictures is None or not len(shown.stamps):
        return None
    return pictures.restore(shown.stamps, range(len(shown.stamps)))


def _with_pictures(card: Card, shown: _Shown, index: int, drawn: tuple[NDArray[np.float32] | None, list[dict[str, Any]]]) -> Card:
    restored, detections = drawn
    stamps, coarse = shown.stamps, shown.coarse.get(index)
    return replace(
        card,
        size=stamps.size,
        stamp=encoded(png(to_rgb(stamps.flux(index), stamps.bands))),
        restored="" if restored is None else encoded(png(to_rgb(restored[index]))),
        boxes=boxes_of(detections, stamps.size),
        # the stretch is one of surface brightness: flux per pixel of the survey
        coarse="" if coarse is None else encoded(png(to_rgb(coarse.flux(0) / coarse.binning**2, coarse.bands))),
        coarse_width=0.0 if coarse is None else coarse.size * coarse.pixscale,
    )


def encoded(data: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(data).decode()


def boxes_of(detections: Sequence[Mapping[str, Any]], size: int) -> list[Box]:
    """Detections as boxes in picture pixels; those without a box are left out."""
    boxes = []
    for item in list(detections)[:MOST_BOXES]:
        corners = [item.get(key) for key in ("x0", "y0", "x1", "y1")]
        if any(value is None for value in corners):
            continue
        x0, y0, x1, y1 = (float(value) for value in corners if value is not None)
        # pixel centers are whole numbers and row 0 is south, pictures count edges from the top
        boxes.append(Box(x0, size - 1 - y1, x1 - x0 + 1, y1 - y0 + 1, str(item.get("class") or ""), float(item.get("score") or 0.0)))
    return boxes


def describe(row: Mapping[str, Any], schema: pa.Schema) -> list[tuple[str, str, str]]:
    """A galaxy's main answers, whichever of them the catalog has: (label, value, remark)."""
    lines = [(question, value, _learned(schema, column)) for question, value, column in morphology(row)]
    for band in ("g", "r", "z"):
        column = f"lvm_mag_{band}"
        if column in row:
            tractor = f"Tractor {measured(row.get(f'mag_{band}_dered'))}"
            lines.append((f"mag {band}", measured(row[column], row.get(f"{column}_sigma")), tractor))
    if "lvm_half_light_radius" in row:
        value = measured(row["lvm_half_light_radius"], row.get("lvm_half_light_radius_sigma"))
        lines.append(("radius, arcsec", value, f"Tractor {measured(row.get('shape_r'))}"))
    if row.get("coarse_sep_mag") is not None:
        lines.append((f"mag {row['coarse_sep_band']}, coarse stamp", measured(row["coarse_sep_mag"]), "sep"))
    name = next((name for name in REDSHIFTS if name in row), "")
    if name:
        lines.append(("redshift", measured(row[name], row.get(f"{name}_sigma"), digits=3), _learned(schema, name) or "mock only"))
    if row.get("n_detections") is not None:
        sep = f"sep {row['sep_n_objects']}" if row.get("sep_n_objects") is not None else ""
        lines.append(("objects found", str(row["n_detections"]), sep))
    return lines


def _learned(schema: pa.Schema, column: str) -> str:
    return field_text(schema, column, "learned")


def morphology(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The top answer of each question that most volunteers would be asked: (question, answer with interval, column)."""
    questions: dict[str, list[str]] = {}
    for column in row:
        found = re.fullmatch(r"([^_]+)_(.+)_fraction", column)
        if found and row[column] is not None:
            questions.setdefault(found[1], []).append(column)
    lines = []
    for question, columns in questions.items():
        asked = row.get(f"{question}_proportion_asked")
        # a question has several answers: one fraction alone is some other column
        if len(columns) < 2 or (asked is not None and asked < ASKED):
            continue
        best = max(columns, key=lambda column: float(row[column]))
        answer = best.removeprefix(f"{question}_").removesuffix("_fraction").replace("-", " ")
        low, high = row.get(f"{best}_lo"), row.get(f"{best}_hi")
        interval = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
        lines.append((question.replace("-", " "), f"{answer} {row[best]:.2f}{interval}", best))
    return lines[:MOST_QUESTIONS]
