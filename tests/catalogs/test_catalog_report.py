"""The page of a catalog: whole, self-contained, repeatable, and its numbers those of the rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.extent import Extent
from catalogs.hats import publish
from catalogs.report.columngroups import column_lines, group_of, picked_columns
from catalogs.report.columnstats import EXTREMES, OTHERS, ColumnSums
from catalogs.report.completeness import completeness
from catalogs.report.histogram import HEIGHT, WIDTH, of_numbers, of_texts
from catalogs.report.thumbs import thumbnails
from flows.cli.pictures import report
from galpipe.layout import Layout
from galpipe.survey.region import parse_region
from tests.catalogs.sky import UNITS, make_shard
from tests.catalogs.test_maps import ROWS, write_sky
from tests.catalogs.test_report import RUN, _Page, store, summary


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    made = Layout(tmp_path_factory.mktemp("sky"))
    write_sky(made)
    publish(made, "main")
    store(made)
    return made


def run(layout: Layout, *options: str) -> dict[str, object]:
    result = CliRunner().invoke(report, ["--root", str(layout.root), *options, "--json"])
    assert result.exit_code == 0, result.output
    told: dict[str, object] = json.loads(result.stdout)
    return told


def words(path: object) -> str:
    text = re.sub(r"<style>.*?</style>", " ", Path(str(path)).read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_the_page_of_a_version_is_whole_loads_nothing_and_repeats(layout: Layout) -> None:
    told = run(layout, "--catalog")
    path = Path(str(told["report"]))
    assert path == layout.root / "reports" / "main" / "v1.html" and told["counts"]["rows"] == 2 * ROWS
    text, plain = path.read_text(), words(path)
    page = _Page(text)
    assert page.loaded and all(item.startswith(("data:image/", "#")) for item in page.loaded)
    assert "link" not in page.tags and "script" not in page.tags and "url(" not in text
    assert "moc.fits of the version: MOC of order" in plain
    assert "main, version 1" in plain and "240 in 2 bricks with rows" in plain and "0.125 deg²" in plain
    assert "dr9/south 2 0 1" in plain and "bad input, set aside" in plain and "tractor truncated" in plain
    assert "point source 600" in plain and "forced to a point source inside a mask 120" in plain
    assert "data:image/jpeg;base64," in text and "no stamp" in plain  # of the brick whose stamps are there, and of the other
    for name in make_shard(UNITS[0], 1).column_names:
        assert re.search(rf"<h4>{re.escape(name)}[,<]", text) or name in ("embedding", "detections", "z_mock_pdf"), name
    maps = Path(str(told["maps"])).read_bytes()
    again = run(layout, "--catalog", "--out", str(layout.root / "again.html"))
    pictures = [re.findall(r"base64,([^\"]+)", file) for file in (text, Path(str(again["report"])).read_text())]
    assert pictures[0] == pictures[1] and Path(str(again["maps"])).read_bytes() == maps


def test_a_region_and_chosen_columns(layout: Layout) -> None:
    inside = make_shard(UNITS[0], ROWS)
    in_box = inside.filter(pa.array(inside["ra"].to_numpy() < 0.2))
    told = run(layout, "--box", "0,0.2,-1,1", "--columns", "mag_model_r", "--galaxies", "3", "--seed", "2")
    assert told["counts"]["rows"] == in_box.num_rows
    assert str(told["report"]).endswith("v1-box-0-0.2-1-1.html") or "v1-box" in str(told["report"])
    text = Path(str(told["report"])).read_text()
    assert re.findall(r'<div class="ends"><div><h4>([^<]*)', text) == ["mag_model_r"]
    mags, ids = in_box["mag_model_r"].to_numpy(), in_box["source_id"].to_numpy()
    shown = re.findall(r"<b>([^<]*)</b><span>(\d+)</span>", text.split('id="ends"')[1])
    order = np.argsort(mags)
    assert [int(source) for _, source in shown] == ids[order[:EXTREMES]].tolist() + ids[order[::-1][:EXTREMES]].tolist()
    assert float(shown[0][0]) == pytest.approx(mags.min(), abs=1e-3)
    assert "3 of" in words(told["report"])


def test_live_shards_and_a_catalog_without_a_row(layout: Layout, tmp_path: Path) -> None:
    assert run(layout, "--live")["counts"]["rows"] == 2 * ROWS  # type: ignore[index]
    empty = Layout(tmp_path)
    write_sky(empty, UNITS[:1], rows=0)
    publish(empty, "main")
    for options in (["--catalog"], ["--live"]):
        told = run(empty, *options)
        assert told["counts"]["rows"] == 0 and "There are no galaxies" in words(told["report"])  # type: ignore[index]
    told = run(layout, "--cone", "180,40,0.5", "--out", str(tmp_path / "far.html"))
    assert told["maps"] is None and "No row has a position in this region" in words(told["report"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--columns", "mag_model_x"], "near: mag_model_r"),
        (["--as-of", "7"], "v7; there are"),
        (["--as-of", "1999-01-01"], "created at or before"),
        (["--cone", "1,2"], "3 numbers"),
        (["--cone", "1,2,3", "--region", "all"], "one of --region, --cone, --box"),
        (["--live", "--as-of", "1"], "one of --live and --as-of"),
        (["--run", RUN, "--catalog"], "either --run"),
        (["--name", "other", "--live"], "'other'"),
    ],
)
def test_a_wrong_wish_is_refused_in_words(layout: Layout, options: list[str], reason: str) -> None:
    result = CliRunner().invoke(report, ["--root", str(layout.root), *options, "--json"])
    assert result.exit_code == 2 and reason in json.loads(result.stdout)["failures"][0]["reason"]


def test_the_page_of_a_run_has_the_main_maps(layout: Layout) -> None:
    from catalogs.report.page import write_report

    text = write_report(layout, "main", summary(failures=[], absent=[]), None).read_text()
    assert 'alt="Maps of the catalog"' in text and "galpipe report --catalog" in text


def test_completeness_lists_what_is_missing_first(layout: Layout) -> None:
    extent = Extent(layout, "main", 1)
    told = completeness(extent, extent.stock())
    assert [line.status for line in told.bricks] == ["bad_data", "done", "done"] and told.all_bricks == 3
    assert told.regions[0].closed and told.regions[0].failed_bricks == 1
    assert sum(counts[0] for _, _, counts in told.reasons) == told.regions[0].sources["filtered"]
    one = Extent(layout, "main", 1, parse_region("bricks:0001m002"))
    assert completeness(one, one.stock()).all_bricks == 1


TABLE = pa.concat_tables([make_shard(unit, 150) for unit in UNITS])


@given(st.lists(st.integers(1, 449), max_size=6), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_batches_do_not_matter_to_ends_and_sample(cuts: list[int], seed: int) -> None:
    wanted = ["mag_model_r", "maskbits"]
    small = TABLE.select([*wanted, "source_id", "release_name", "region", "brickname", "type"])
    sums, whole = ColumnSums(small.schema, wanted, seed), ColumnSums(small.schema, wanted, seed)
    whole.add(small)
    bounds = [0, *sorted(set(cuts)), small.num_rows]
    for start, stop in pairwise(bounds):
        sums.add(small.slice(start, stop - start))
    assert sums.sample.equals(whole.sample) and sums.sample.num_rows == small.num_rows
    for name in wanted:
        facts, values = sums.facts[name], small[name].to_numpy()
        assert facts.lowest == whole.facts[name].lowest and facts.highest == whole.facts[name].highest
        assert [pick.value for pick in facts.lowest] == np.sort(values)[:EXTREMES].tolist()
        assert [pick.value for pick in facts.highest] == np.sort(values)[::-1][:EXTREMES].tolist()
        assert (facts.low, facts.high, facts.nulls) == (values.min(), values.max(), 0)
    assert sums.facts["type"].texts == {"SER": 450}


def test_a_large_catalog_is_sampled_the_same_from_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogs.report.columnstats.SAMPLE", 40)
    samples = []
    for rows in (np.arange(450), np.random.default_rng(0).permutation(450)):
        sums = ColumnSums(TABLE.schema, [])
        for part in np.array_split(rows, 7):
            sums.add(TABLE.take(pa.array(part)))
        samples.append(sums.sample["source_id"].to_pylist())
    assert samples[0] == samples[1] and len(samples[0]) == 40


@given(
    st.lists(st.floats(-1e30, 1e30) | st.floats(1e-6, 1e6) | st.just(float("nan")), max_size=80)
    | st.lists(st.integers(-5, 30).map(float), max_size=80),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_histogram_counts_every_value_and_stays_on_its_plane(values: list[float], share: bool) -> None:
    known = np.array(values)[np.isfinite(values)] if values else np.zeros(0)
    drawn = of_numbers(np.array(values), share=share)
    if drawn is None:
        assert not len(known)
        return
    assert sum(int(bar.text.rsplit(": ", 1)[1]) for bar in drawn.bars) == len(known)
    assert all(-0.1 <= bar.x <= WIDTH and 0 < bar.height <= HEIGHT + 1e-6 for bar in drawn.bars)
    assert all(-0.1 <= tick.x <= WIDTH + 0.1 for tick in drawn.ticks)


def test_axes_are_logarithmic_where_it_helps() -> None:
    random = np.random.default_rng(1)
    wide = of_numbers(10 ** random.uniform(-3, 3, 1000))
    assert wide is not None and wide.log_values and [tick.label for tick in wide.ticks][:2] == ["0.01", "0.1"]
    narrow, spiked = of_numbers(random.uniform(15, 20, 1000)), of_numbers(np.r_[np.zeros(2000), random.normal(size=100)])
    assert narrow is not None and not narrow.log_values and spiked is not None and spiked.log_counts
    shares = of_numbers(10 ** random.uniform(-30, 0, 1000), share=True)
    assert shares is not None and not shares.log_values
    assert of_texts(Counter({"a": 3, "": 1})) == [("a", 3, 1.0), ("(empty)", 1, 1 / 3)]


def test_columns_are_grouped_by_task_and_vote_fractions_end_where_the_question_is_asked() -> None:
    schema = TABLE.schema
    assert group_of("smooth-or-featured_smooth_fraction", schema) == "Morphology"
    assert group_of("psfdepth_z", schema) == "Observing conditions" and group_of("mag_model_r", schema) == "Photometry"
    picked = picked_columns(schema)
    assert (
        "mag_model_r" in picked
        and "smooth-or-featured_proportion_asked" not in picked
        and "source_id" not in picked_columns(schema, ["all"])
    )
    column = "smooth-or-featured_smooth_fraction"
    asked = np.where(np.arange(450) % 2 == 0, 1.0, 0.1).astype(np.float32)
    place = TABLE.column_names.index("smooth-or-featured_proportion_asked")
    table = TABLE.set_column(place, TABLE.schema.field(place), pa.array(asked))
    sums = ColumnSums(table.schema, [column])
    sums.add(table)
    highest = np.sort(table[column].to_numpy()[::2])[::-1][:EXTREMES]
    assert [pick.value for pick in sums.facts[column].highest] == highest.tolist()
    assert sum(len(lines) for lines in column_lines(sums).values()) == len(sums.schema)


def test_texts_beyond_a_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogs.report.columnstats.MOST_TEXTS", 3)
    table = TABLE.slice(0, 10).select(["source_id", "release_name", "region", "brickname"])
    table = table.append_column("file", pa.array([f"f{row}" for row in range(10)]))
    sums = ColumnSums(table.schema, [])
    sums.add(table)
    assert sum(sums.facts["file"].texts.values()) == 10 and sums.facts["file"].texts[OTHERS] == 7


def test_thumbnails_of_missing_and_damaged_stores_are_left_out(layout: Layout, tmp_path: Path) -> None:
    ids = make_shard(UNITS[0], 3)["source_id"].to_pylist()
    made = thumbnails(layout, [(UNITS[0], ids[2]), (UNITS[0], ids[0]), (UNITS[0], 5), (UNITS[1], 7), (None, 9)])
    assert set(made) == {ids[0], ids[2]} and made[ids[0]] != made[ids[2]]
    other = Layout(tmp_path)
    store(other)
    (other.stamps(UNITS[0], "grz16") / "zarr.json").write_text("{}")
    assert thumbnails(other, [(UNITS[0], ids[0])]) == {}
