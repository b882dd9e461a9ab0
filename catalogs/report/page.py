"""The page of one run: what came in, what came out, what failed and why, and galaxies to look at.

One HTML file with its style and pictures inside: it can be sent to somebody, and opens without a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from catalogs.collection import Binding, read_binding
from catalogs.extent import Extent
from catalogs.inventory import Inventory
from catalogs.ledger import has_ledger, ledger_of
from catalogs.report import figures
from catalogs.report.galaxies import WANTED, Card, Pictures, cards, encoded
from catalogs.report.rows import Sample, brick_states, outcome_totals, read_sample, take_inventory
from catalogs.report.skypart import main_maps
from catalogs.report.words import group_reasons, grouped, human_bytes, human_seconds, kind_in_words, rule_in_words
from galpipe.code_version import code_version
from galpipe.commit import write_bytes
from galpipe.config import settings_from
from galpipe.layout import Layout

REPORT_FILE = "report.html"
TEMPLATE = "report.html.jinja"

MOST_REASONS = 60
"""Lines of the tables of what was absent or failed; the ledger has everything."""

STAGES = ("fetch", "cut", "catalog")
STAGE_ROWS = {"fetch": "files", "cut": "stamps", "catalog": "galaxies"}


@dataclass(frozen=True)
class StageLine:
    """One stage in the table of counts and rates."""

    stage: str
    states: str
    rows: str
    work: str
    rate: str


@dataclass(frozen=True)
class RegionLine:
    """Completeness of one region: sources in and outcomes out."""

    place: str
    bricks: int
    sources: int
    predicted: int
    filtered: int
    failed: int
    rows: int

    @property
    def closed(self) -> bool:
        """Whether every source has an outcome and every predicted one a row."""
        return self.sources == self.predicted + self.filtered + self.failed and self.predicted == self.rows


def write_report(layout: Layout, name: str, summary: Mapping[str, Any], pictures: Pictures | None) -> Path:
    """Write the page of a run to ``runs/<run_id>/report.html``.

    Parameters
    ----------
    layout : Layout
    name : str
        The catalog's name.
    summary : mapping
        The run's summary as ``summary.json`` has it; keys that are missing are left out of the page.
    pictures : Pictures or None
        The model's hands; None (no weights here, or others than the catalog's) leaves restored images out.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    BadData
        If a shard or outcomes file does not read.
    ResourceFailure
        If the disk refuses the write.
    """
    stock = take_inventory(layout, name)
    sample = read_sample(layout, name, stock, [*figures.columns_drawn(), *WANTED])
    binding = read_binding(layout, name) or Binding()
    shown = cards(layout, name, sample, _cut_name(binding), pictures)
    drawings = {
        "sky": figures.sky_map(brick_states(stock, summary.get("failures", []))),
        "histograms": figures.histograms(sample),
        "comparisons": figures.comparisons(sample),
    }
    sky = main_maps(Extent(layout, name), stock)
    page = render(
        TEMPLATE,
        {
            **_heading(layout, name, summary, binding),
            **_accounts(layout, summary, stock),
            **_gallery(shown, sample, pictures),
            "figures": {key: encoded(data) if data else "" for key, data in drawings.items()} | sky,
        },
    )
    path = layout.run_folder(str(summary["run_id"])) / REPORT_FILE
    write_bytes(path, page.encode())
    return path


def render(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[[Any], str]] | None = None) -> str:
    """A page from its template; the filter ``grouped`` is always there."""
    # names of files and reasons of failures are other people's text: escaped, always
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update({"grouped": grouped, **(filters or {})})
    return environment.get_template(template).render(values)


def _cut_name(binding: Binding) -> str:
    cut = binding.settings.get("cut")
    return settings_from({"cut": dict(cut)} if cut else {}).cut.name


def _request(layout: Layout, run_id: str) -> dict[str, Any]:
    """What the run was asked for; empty where nobody wrote it down."""
    try:
        told: dict[str, Any] = json.loads((layout.run_folder(run_id) / "request.json").read_text())
    except (OSError, ValueError):
        return {}
    return told


def _heading(layout: Layout, name: str, summary: Mapping[str, Any], binding: Binding) -> dict[str, Any]:
    run_id = str(summary["run_id"])
    request = _request(layout, run_id)
    release = str(request.get("alias") or request.get("release") or "–")
    facts = [
        ("release", release),
        ("region", str(request.get("region") or "–")),
        ("catalog", name),
        ("run", run_id),
        ("model", f"{binding.model or '–'}  {binding.model_hash}".strip()),
        ("code", code_version()),
        ("report made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("root", str(layout.root)),
    ]
    published = summary.get("publication") or {}
    return {
        "title": f"{release}, {request.get('region') or name}",
        "status": summary.get("status", ""),
        "facts": facts,
        "published": published,
    }


def _accounts(layout: Layout, summary: Mapping[str, Any], stock: Inventory) -> dict[str, Any]:
    counts, seconds = summary.get("counts", {}), float(summary.get("seconds") or 0.0)
    return {
        "tiles": _tiles(counts, seconds, float(summary.get("bytes") or 0)),
        "nothing_to_do": bool(counts.get("bricks")) and counts.get("up_to_date") == counts.get("bricks"),
        "stages": _stages(layout, summary, seconds),
        "failures": group_reasons(summary.get("failures", []))[:MOST_REASONS],
        "absent": group_reasons(summary.get("absent", []))[:MOST_REASONS],
        "outcomes": _outcomes(stock),
        "regions": _regions(stock),
    }


def _tiles(counts: Mapping[str, int], seconds: float, size: float) -> list[tuple[str, str, str]]:
    """The large figures at the top: (label, figure, remark)."""
    done, predicted = counts.get("done", 0), counts.get("predicted", 0)
    ended = [f"{grouped(counts[key])} {text}" for key, text in _BRICK_ENDS if counts.get(key)]
    tiles = [
        ("bricks in the plan", grouped(counts.get("bricks", 0)), ", ".join(ended)),
        ("galaxies predicted", grouped(predicted), f"of {grouped(counts.get('sources', 0))} sources"),
        ("objects detected", grouped(counts.get("detections", 0)), "in their stamps"),
        ("time", human_seconds(seconds), f"{human_bytes(size)} of survey files" if size else "nothing fetched"),
    ]
    if seconds > 0 and done:
        tiles.append(("rate", f"{predicted / seconds:.1f} galaxies/s", f"{60 * done / seconds:.1f} bricks/min"))
    return tiles


_BRICK_ENDS = (("done", "done"), ("up_to_date", "up to date"), ("no_work", "without work"), ("failed_bricks", "failed"))


def _stages(layout: Layout, summary: Mapping[str, Any], seconds: float) -> list[StageLine]:
    """Counts and rates by stage; rows and seconds of work come from the ledger, where there is one."""
    totals: list[dict[str, Any]] = []
    if has_ledger(layout):
        with ledger_of(layout) as ledger:
            totals = ledger.run_totals(str(summary["run_id"]))
    lines = []
    counted: Mapping[str, Mapping[str, int]] = summary.get("stages", {})
    for stage in [name for name in STAGES if name in counted] + [name for name in counted if name not in STAGES]:
        own = [row for row in totals if row["stage"] == stage]
        rows, work = sum(row["rows"] for row in own), sum(row["seconds"] for row in own)
        ended = sum(counted[stage].values())
        states = ", ".join(f"{grouped(count)} {kind_in_words(state)}" for state, count in sorted(counted[stage].items()))
        rate = f"{60 * ended / seconds:.1f} bricks/min" if seconds > 0 else "–"
        if stage == "fetch" and seconds > 0 and summary.get("bytes"):
            rate += f", {human_bytes(float(summary['bytes']) / seconds)}/s"
        if stage == "catalog" and seconds > 0 and rows:
            rate += f", {rows / seconds:.1f} galaxies/s"
        lines.append(
            StageLine(
                stage, states, f"{grouped(rows)} {STAGE_ROWS.get(stage, 'rows')}" if own else "–", human_seconds(work) if own else "–", rate
            )
        )
    return lines


def _outcomes(stock: Inventory) -> list[tuple[str, str, int, float]]:
    """Outcomes of the whole catalog by reason: (outcome, reason in words, sources, share)."""
    totals = outcome_totals(stock)
    sources = sum(totals.get("sources", {}).values())
    lines = []
    for status in ("predicted", "filtered", "failed"):
        reasons: Mapping[str, int] = totals.get(status, {})
        # a status without reasons is one line, one with reasons has a line for each
        parts = {key: count for key, count in reasons.items() if key} or {"": reasons.get("", 0)}
        lines += [(status, rule_in_words(key), count, count / sources if sources else 0.0) for key, count in _largest_first(parts)]
    return lines


def _largest_first(parts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(parts.items(), key=lambda item: (-item[1], item[0]))


def _regions(stock: Inventory) -> list[RegionLine]:
    lines = []
    for place, told in stock.completeness().items():
        predicted, filtered, failed = (told.get(f"sources:{status}", 0) for status in ("predicted", "filtered", "failed"))
        lines.append(RegionLine(place, told.get("bricks", 0), told.get("sources", 0), predicted, filtered, failed, told.get("rows", 0)))
    return lines


def _gallery(shown: Sequence[Card], sample: Sample, pictures: Pictures | None) -> dict[str, Any]:
    card = pictures.card if pictures else {}
    return {
        "galaxies": shown,
        "any_stamp": any(item.stamp for item in shown),
        "any_restored": any(item.restored for item in shown),
        "sampled": f"{grouped(sample.read)} of {grouped(sample.shards)} bricks with rows" if sample.read < sample.shards else "",
        "rows": sample.table.num_rows,
        "scores": [_score(item) for item in card.get("scores", []) if isinstance(item, Mapping) and "name" in item],
    }


def _score(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """One line of the model card: (figure, the model's, a constant answer's)."""
    unit = f" {item['unit']}" if item.get("unit") else ""
    values = [f"{item[key]:.3g}{unit}" if isinstance(item.get(key), int | float) else "–" for key in ("value", "constant")]
    return str(item["name"]), values[0], values[1]
