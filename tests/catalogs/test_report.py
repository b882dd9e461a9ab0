"""The report page: whole, self-contained, and honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from catalogs.collection import Binding, bind
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from catalogs.report.figures import around, comparisons, histograms, sky_map
from catalogs.report.galaxies import Pictures, boxes_of, choose, describe, morphology
from catalogs.report.page import write_report
from catalogs.report.rows import UNIT, Sample
from catalogs.report.words import group_reasons, grouped, human_bytes, human_seconds, measured
from flows.cli.pictures import report
from galpipe.config import CutSettings
from galpipe.layout import Layout
from galpipe.stamps.result import CutResult
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import write_store
from galpipe.unit import Receipt
from tests.catalogs.sky import UNITS, make_shard, make_sources, write_brick

RUN = "20260101T000000-abcdef"


class _Page(HTMLParser):
    """Collects what a page would load, and the tags it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for key, value in attrs if key in ("src", "href")]


def summary(**changes: Any) -> dict[str, Any]:
    counts = {"bricks": 3, "up_to_date": 0, "done": 2, "no_work": 0, "failed_bricks": 1, "sources": 46, "predicted": 40, "detections": 39}
    whole: dict[str, Any] = {
        "status": "failed",
        "run_id": RUN,
        "counts": counts,
        "stages": {"fetch": {"done": 3}, "catalog": {"done": 2, "bad_data": 1}},
        "bytes": 5_000_000,
        "seconds": 20.0,
        "failures": [
            {"unit": str(UNITS[2]), "file": "tractor-0001p000.fits", "kind": "bad_data", "reason": "truncated <script>alert(1)</script>"}
        ],
        "absent": [
            {"unit": str(unit), "file": "", "kind": "absent", "reason": f"absent: legacysurvey-{unit.brick}-image-g.fits.fz"}
            for unit in UNITS
        ],
        "publication": None,
    }
    return whole | changes


def fill(layout: Layout) -> None:
    """Two bricks of 20 galaxies, one that failed, a ledger."""
    for unit in UNITS[:2]:
        write_brick(layout, unit, 20)
    write_outcomes(layout.outcomes(UNITS[2], "main"), empty(), OutcomesMeta(UNITS[2], "bad_data", "tractor", "truncated"))
    bind(layout, "main", Binding({"cut": {"bands": ["g", "r", "z"], "size": 16}}, "mini", "0123456789abcdef"))
    with Ledger(layout.ledger) as ledger:
        ledger.record([Receipt(unit, "catalog", "done", rows=20, seconds=1.5) for unit in UNITS[:2]], RUN, "main")
    folder = layout.run_folder(RUN)
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(
        json.dumps({"release": "http://there/dr9", "alias": "dr9", "region": "cone:0,0,1", "name": "main"})
    )
    (folder / "summary.json").write_text(json.dumps(summary()))


def store(layout: Layout, size: int = 16) -> None:
    """Stamps of the first brick only."""
    sources = make_sources(UNITS[0], 20)
    rows = sources.num_rows
    image = np.random.default_rng(1).integers(-500, 500, (rows, 3, size, size)).astype(np.int16)
    stamps = StampSet(
        image,
        np.ones((rows, 3, size, size), np.uint8),
        np.zeros((rows, size, size), np.uint8),
        sources,
        ("g", "r", "z"),
        0.262,
        (0.004, 0.007, 0.02),
    )
    write_store(layout.stamps(UNITS[0], CutSettings(size=size).name), CutResult(stamps, pa.table({"status": ["selected"] * rows})), "f")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    fill(made)
    return made


def test_the_page_is_one_file_that_loads_nothing(layout: Layout) -> None:
    path = write_report(layout, "main", summary(), None)
    text = path.read_text()
    page = _Page(text)
    assert path == layout.run_folder(RUN) / "report.html"
    assert page.loaded and all(item.startswith(("data:image/png;base64,", "#")) for item in page.loaded)
    assert "link" not in page.tags and "script" not in page.tags and "url(" not in text


def test_the_page_says_what_came_in_went_out_and_failed(layout: Layout) -> None:
    text = write_report(layout, "main", summary(), None).read_text()
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert "dr9, cone:0,0,1" in plain and RUN in plain and "0123456789abcdef" in plain
    assert "40 of 46 sources" in plain and "2.0 galaxies/s" in plain and "6.0 bricks/min" in plain
    assert "40 galaxies 3.0 s" in plain  # rows and seconds of work, from the ledger
    assert "bad input, set aside" in plain and "&lt;script&gt;" in text
    assert "absent: legacysurvey-BRICK-image-g.fits.fz 3" in plain
    assert "dr9/south 3 46 46 40 40 closed" in plain
    assert "filtered fainter than the limit 6 13.0 %" in plain
    assert "No stamps are on disk" in plain


def test_books_that_do_not_close_are_shown(layout: Layout) -> None:
    layout.shard(UNITS[0], "main").unlink()
    assert "does not add up" in write_report(layout, "main", summary(), None).read_text()


def test_galaxies_are_shown_with_stamp_boxes_and_restored_image(layout: Layout) -> None:
    store(layout)
    pictures = Pictures(lambda stamps, rows: np.zeros((len(rows), 3, stamps.size, stamps.size), np.float32), {"scores": []})
    text = write_report(layout, "main", summary(), pictures).read_text()
    assert text.count("<article") == 20  # only galaxies of the brick whose stamps are there
    assert text.count('href="data:image/png;base64,') == 40
    assert "Restored images are for the eye only" in text and "mock only" in text


def test_without_a_model_stamps_are_shown_alone(layout: Layout) -> None:
    store(layout)
    text = write_report(layout, "main", summary(), None).read_text()
    assert text.count('href="data:image/png;base64,') == 20 and "Restored images are left out" in text


def test_a_damaged_store_costs_the_pictures_only(layout: Layout) -> None:
    store(layout)
    (layout.stamps(UNITS[0], "grz16") / "zarr.json").write_text("{}")
    text = write_report(layout, "main", summary(), None).read_text()
    assert text.count("<article") == 20 and "data:image/png" in text


def test_a_run_without_any_galaxy_has_a_page(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    text = write_report(layout, "main", {"run_id": RUN}, None).read_text()
    assert "The catalog has no galaxies" in text and "No brick has ended yet" in text
    write_brick(layout, UNITS[0], 0)
    assert "The catalog has no galaxies" in write_report(layout, "main", summary(failures=[], absent=[]), None).read_text()


def test_the_same_catalog_draws_the_same_pictures(layout: Layout) -> None:
    pages = [re.findall(r"base64,([^\"]+)", write_report(layout, "main", summary(), None).read_text()) for _ in range(2)]
    assert pages[0] == pages[1]


def sample_of(table: pa.Table) -> Sample:
    return Sample(table, table.schema, 1, 1)


def test_choice_mixes_groups_without_repeating_a_galaxy() -> None:
    rows = make_shard(UNITS[0], 60).append_column(UNIT, pa.array(["a"] * 30 + ["b"] * 30))
    chosen = choose(sample_of(rows), lambda unit: unit == "b")
    assert len(chosen) == 24 and len({source for _, source, _ in chosen}) == 24
    assert {unit for unit, _, _ in chosen} == {"b"}
    assert {why for _, _, why in chosen} == {"among the most featured", "among the largest", "picked at random"}
    assert choose(sample_of(rows.slice(0, 0)), lambda unit: True) == []


def test_drawings_live_without_their_columns() -> None:
    bare = sample_of(pa.table({"source_id": [1, 2]}))
    assert histograms(bare) is None and comparisons(bare) is None
    nulls = sample_of(
        pa.table(
            {"mag_z": pa.array([None, None], pa.float32()), "lvm_mag_r": [1.0, 2.0], "mag_r_dered": pa.array([None, None], pa.float32())}
        )
    )
    assert comparisons(nulls) is None and (histograms(nulls) or b"").startswith(b"\x89PNG")


def test_sky_map_skips_what_is_no_brick_and_stays_whole_over_ra_0() -> None:
    assert sky_map({"stamps/all/nopos-1f": "done"}) is None
    assert (
        sky_map({"dr9/south/3598p000": "done", "dr9/south/0001p000": "bad_data", "stamps/all/refused-aa": "bad_data"}) or b""
    ).startswith(b"\x89PNG")
    assert np.ptp(around(np.array([359.9, 0.1, 0.3]), 0.05)) == pytest.approx(0.4)


def test_boxes_turn_rows_upside_down_and_skip_what_has_none() -> None:
    found = [{"x0": 2.0, "y0": 0.0, "x1": 4.0, "y1": 9.0, "class": "star", "score": 0.5}, {"ra": 1.0, "score": 0.4}]
    boxes = boxes_of(found, 10)
    assert [(box.x, box.y, box.width, box.height, box.kind) for box in boxes] == [(2.0, 0.0, 3.0, 10.0, "star")]


def test_answers_name_the_top_answer_where_the_question_is_asked() -> None:
    row = {
        "smooth-or-featured_smooth_fraction": 0.2,
        "smooth-or-featured_featured-or-disk_fraction": 0.8,
        "smooth-or-featured_featured-or-disk_fraction_lo": 0.7,
        "smooth-or-featured_featured-or-disk_fraction_hi": 0.9,
        "bar_strong_fraction": 0.9,
        "bar_no_fraction": 0.1,
        "bar_proportion_asked": 0.2,
        "lvm_bulge_fraction": 0.3,
    }
    assert [line[:2] for line in morphology(row)] == [("smooth or featured", "featured or disk 0.80 (0.70 to 0.90)")]
    lines = describe({"z_mock": 0.1, "z_mock_sigma": float("nan"), "lvm_mag_r": None, "mag_r_dered": 17.5}, pa.schema([]))
    assert lines == [("mag r", "–", "Tractor 17.50"), ("redshift", "0.100", "mock only")]


def test_words() -> None:
    assert (human_bytes(999), human_bytes(1.5e12), grouped(1234567)) == ("999 B", "1.5 TB", "1\u202f234\u202f567")
    assert (human_seconds(59.94), human_seconds(75), human_seconds(7300)) == ("59.9 s", "1 min 15 s", "2 h 1 min")
    assert measured(float("nan")) == "–" and measured(1.0, 0.5, "mag") == "1.00 ± 0.50 mag"
    reasons = group_reasons([{"unit": "dr9/south/0001m002", "kind": "error", "reason": "dr9/south/0001m002 x-0001m002.fits: boom"}])
    assert [(item.kind, item.text) for item in reasons] == [("an error in the program", "x-BRICK.fits: boom")]


def test_verb_makes_the_page_of_the_newest_run_again(layout: Layout) -> None:
    result = CliRunner().invoke(report, ["--root", str(layout.root), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["run_id"] == RUN and Path(told["report"]).exists()


def test_verb_refuses_a_run_that_is_not_there(layout: Layout) -> None:
    result = CliRunner().invoke(report, ["--root", str(layout.root), "--run", "nothing", "--json"])
    assert result.exit_code == 2 and json.loads(result.stdout)["failures"][0]["kind"] == "configuration"
