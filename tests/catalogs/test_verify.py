from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs.hats import publish
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from catalogs.shard import ShardMeta, read_shard, write_shard
from catalogs.verify import verify
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, make_outcomes, make_shard, write_brick


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for unit in (*UNITS, FAR):
        write_brick(layout, unit, 10)
    with Ledger(layout.ledger) as ledger:
        ledger.rebuild(layout, "main")
    publish(layout, "main")
    return layout


def found(layout: Layout) -> list[str]:
    with Ledger(layout.ledger) as ledger:
        return [f"{problem.unit} {problem.file}: {problem.what}" for problem in verify(layout, "main", ledger)]


def rewrite(layout: Layout, name: str, values: list[object]) -> None:
    """Another column in the first brick's shard, with its footer."""
    path = layout.shard(UNITS[0], "main")
    table, meta = read_shard(path)
    index = table.schema.get_field_index(name)
    field = table.schema.field(name)
    write_shard(path, table.set_column(index, field, pa.array(values, field.type)), meta)


def test_a_sound_catalog_has_no_problem(layout: Layout) -> None:
    assert found(layout) == []


def test_a_shard_changed_behind_the_ledgers_back(layout: Layout) -> None:
    rewrite(layout, "mag_model_r", [20.0] * 10)
    (what,) = found(layout)
    assert what.startswith("dr9/south/0001m002 catalog/main/dr9/south/000/0001m002.parquet: expected sha256")


def test_lost_rows(layout: Layout) -> None:
    path = layout.shard(UNITS[0], "main")
    write_shard(path, read_shard(path)[0].slice(1), ShardMeta(UNITS[0], "f0"))
    text = "\n".join(found(layout))
    assert "0001m002.outcomes.parquet: dr9/south/0001m002: expected 10 shard rows, the predicted outcomes, got 9" in text
    assert "expected 39 rows, those of the shards that have a position, got 40 (publish again?)" in text


def test_a_missing_shard_and_a_missing_outcomes_file(layout: Layout) -> None:
    layout.shard(UNITS[0], "main").unlink()
    layout.outcomes(UNITS[1], "main").unlink()
    text = "\n".join(found(layout))
    assert "0001m002.parquet: expected the shard of 10 rows that the ledger records, got no file" in text
    assert "0003m002.parquet: expected an outcomes file beside the shard, got none" in text


def test_a_truncated_shard(layout: Layout) -> None:
    path = layout.shard(FAR, "main")
    path.write_bytes(path.read_bytes()[:-100])
    assert any("1801p400.parquet: expected a readable shard" in what for what in found(layout))


def test_fractions_out_of_range_or_not_adding_up(layout: Layout) -> None:
    rewrite(layout, "smooth-or-featured_smooth_fraction", [1.5] * 10)
    text = "\n".join(found(layout))
    assert "expected smooth-or-featured_smooth_fraction from 0 to 1, got 1.5 to 1.5" in text
    assert "fractions of smooth-or-featured to add up to 1, got other sums in 10 rows" in text


def test_a_question_that_was_not_asked_is_no_problem(layout: Layout) -> None:
    rewrite(layout, "smooth-or-featured_smooth_fraction", [None] * 10)
    assert all("fraction" not in what for what in found(layout))


def test_one_source_in_two_shards(layout: Layout) -> None:
    shard = make_shard(UNITS[0], 10)
    write_shard(layout.shard(UNITS[1], "main"), shard, ShardMeta(UNITS[1], "f0"))
    write_outcomes(layout.outcomes(UNITS[1], "main"), make_outcomes(UNITS[1], shard), OutcomesMeta(UNITS[1], fingerprint="f0"))
    assert any("expected each source_id once, got 10 of them more often" in what for what in found(layout))


def test_a_shard_that_outlived_its_brick(layout: Layout) -> None:
    write_outcomes(layout.outcomes(UNITS[2], "main"), empty(), OutcomesMeta(UNITS[2], "bad_data", "image-r", "cut off"))
    assert any("expected 0 shard rows" in what for what in found(layout))


def test_shards_of_two_models(layout: Layout) -> None:
    table, meta = read_shard(layout.shard(FAR, "main"))
    write_shard(layout.shard(FAR, "main"), table, replace(meta, model="other"))
    assert [problem.what for problem in verify(layout, "main")] == [
        "expected shards of one model and configuration, got 3 of model mini, 1 of model other"
    ]


def test_left_over_of_a_killed_writer_and_a_shard_in_the_wrong_place(layout: Layout) -> None:
    (layout.catalog("main") / "dr9" / ".aside-x").write_text("")
    layout.shard(FAR, "main").rename(layout.shard(FAR, "main").with_name("1803p400.parquet"))
    text = "\n".join(found(layout))
    assert "expected no unfinished product" in text
    assert "expected unit dr9/north/1803p400 in the footer, got dr9/north/1801p400" in text


def test_without_a_ledger_the_files_are_checked_against_each_other(layout: Layout) -> None:
    assert verify(layout, "main") == []
    rewrite(layout, "ra", [0.05] * 10)
    assert [problem.what for problem in verify(layout, "main")] == ["expected _healpix_29 of (ra, dec), got others"]


def test_a_flipped_bit_is_found_without_a_ledger(layout: Layout) -> None:
    path = layout.shard(FAR, "main")
    chunk = pq.read_metadata(path).row_group(0).column(10)
    data = bytearray(path.read_bytes())
    # inside the last page of a column, where only its checksum can tell
    data[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    assert any(problem.file.endswith("1801p400.parquet") for problem in verify(layout, "main"))
