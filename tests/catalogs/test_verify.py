import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs import hatsfiles
from catalogs.completeness import read_by_brick
from catalogs.hats import MANIFEST, manifest, publish, version_folder
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from catalogs.provenance import record, record_path, record_run
from catalogs.schema import SCHEMA_VERSION
from catalogs.shard import ShardMeta, read_shard, write_shard
from catalogs.verify import verify
from galpipe.errors import BadData
from galpipe.layout import Layout
from galpipe.unit import Receipt, Unit
from tests.catalogs.sky import FAR, UNITS, inputs_of, make_outcomes, make_shard, write_brick


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
    what, behind = found(layout)
    assert "got 1 others since, first dr9/south/0001m002 (publish again?)" in behind
    assert what.startswith("dr9/south/0001m002 catalog/main/dr9/south/000/0001m002.parquet: expected sha256")


def test_shards_that_were_done_again_want_another_publication(layout: Layout) -> None:
    write_brick(layout, UNITS[0], 10, seed=1)
    (what,) = [problem.what for problem in verify(layout, "main")]
    assert what == "expected the shards that it was made from, got 1 others since, first dr9/south/0001m002 (publish again?)"
    publish(layout, "main")
    assert verify(layout, "main") == []


def test_lost_rows(layout: Layout) -> None:
    path = layout.shard(UNITS[0], "main")
    write_shard(path, read_shard(path)[0].slice(1), ShardMeta(UNITS[0], "f0"))
    text = "\n".join(found(layout))
    assert "0001m002.outcomes.parquet: dr9/south/0001m002: expected 10 shard rows, the predicted outcomes, got 9" in text
    assert "got 1 others since, first dr9/south/0001m002 (publish again?)" in text


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
    assert "0001m002.parquet: expected smooth-or-featured_smooth_fraction from 0 to 1, got 1.5 to 1.5" in text
    assert "fractions of smooth-or-featured to add up to 1, got other sums in 10 rows" in text


def test_a_question_that_was_not_asked_is_no_problem(layout: Layout) -> None:
    rewrite(layout, "smooth-or-featured_smooth_fraction", [None] * 10)
    assert all("fraction" not in what for what in found(layout))


def test_one_source_in_two_shards(layout: Layout) -> None:
    shard = make_shard(UNITS[0], 10)
    write_shard(layout.shard(UNITS[1], "main"), shard, ShardMeta(UNITS[1], "f0"))
    write_outcomes(layout.outcomes(UNITS[1], "main"), make_outcomes(UNITS[1], shard), OutcomesMeta(UNITS[1], fingerprint="f0"))
    assert any("expected each source_id once, got 10 of them in dr9/south/0001m002 too" in what for what in found(layout))


def test_a_shard_that_outlived_its_brick(layout: Layout) -> None:
    write_outcomes(layout.outcomes(UNITS[2], "main"), empty(), OutcomesMeta(UNITS[2], "bad_data", "image-r", "cut off"))
    assert any("expected 0 shard rows" in what for what in found(layout))


def test_shards_of_two_models(layout: Layout) -> None:
    table, meta = read_shard(layout.shard(FAR, "main"))
    write_shard(layout.shard(FAR, "main"), table, replace(meta, model="other"))
    text = "\n".join(problem.what for problem in verify(layout, "main"))
    assert "expected shards of one model and configuration, got 3 of model mini, 1 of model other" in text
    assert "expected model other in the provenance record, got mini" in text


def test_left_over_of_a_killed_writer_and_a_shard_in_the_wrong_place(layout: Layout) -> None:
    (layout.catalog("main") / "dr9" / ".aside-x").write_text("")
    layout.shard(FAR, "main").rename(layout.shard(FAR, "main").with_name("1803p400.parquet"))
    text = "\n".join(found(layout))
    assert "expected no unfinished product" in text
    assert "expected unit dr9/north/1803p400 in the footer, got dr9/north/1801p400" in text


def test_without_a_ledger_the_files_are_checked_against_each_other(layout: Layout) -> None:
    assert verify(layout, "main") == []
    rewrite(layout, "ra", [0.05] * 10)
    assert "expected _healpix_29 of (ra, dec), got others" in [problem.what for problem in verify(layout, "main")]


def test_a_flipped_bit_is_found_without_a_ledger(layout: Layout) -> None:
    path = layout.shard(FAR, "main")
    chunk = pq.read_metadata(path).row_group(0).column(10)
    data = bytearray(path.read_bytes())
    # inside the last page of a column, where only its checksum can tell
    data[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    assert any(problem.file.endswith("1801p400.parquet") for problem in verify(layout, "main"))


def named(layout: Layout) -> list[tuple[str, str, str]]:
    """Problems as brick, name of the file, and what."""
    return [(problem.unit, Path(problem.file).name, problem.what) for problem in verify(layout, "main")]


def partition_with(layout: Layout, unit: Unit) -> Path:
    """The published file that has rows of a brick."""
    for path in version_folder(layout, "main").glob("dataset/Norder=*/Dir=*/Npix=*.parquet"):
        if unit.brick in pq.read_table(path, columns=["brickname"], partitioning=None)["brickname"].to_pylist():
            return path
    raise AssertionError(f"no partition with {unit}")


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("mag_model_r", 1e9, "expected mag_model_r from -10 to 70, got 1e+09 to 1e+09"),
        ("dec", 123.0, "expected dec from -90 to 90"),
        ("flux_ivar_g", -1.0, "expected flux_ivar_g 0 or more, got -1 to -1"),
        ("mag_r", 99.0, "expected mag_r from -10 to 70, got 99 to 99"),
        ("ebv", float("inf"), "expected ebv 0 or more, got inf to inf"),
        ("z_phot_l68", 9.0, "expected z_phot_l68 not above z_phot_u68, got 10 rows where it is"),
    ],
)
def test_values_beyond_what_a_column_may_hold(layout: Layout, column: str, value: float, what: str) -> None:
    rewrite(layout, column, [value] * 10)
    told = [text for unit, file, text in named(layout) if (unit, file) == (str(UNITS[0]), "0001m002.parquet")]
    assert any(text.startswith(what) for text in told)


def test_a_unit_that_is_missing_or_another(layout: Layout) -> None:
    path = layout.shard(UNITS[0], "main")
    table, meta = read_shard(path)
    fields = [item.with_metadata({"unit": "Jy"}) if item.name == "flux_g" else item for item in table.schema]
    fields = [item.remove_metadata() if item.name == "mag_model_r" else item for item in fields]
    write_shard(path, table.cast(pa.schema(fields)), meta)
    told = [what for unit, _, what in named(layout) if unit]
    assert "expected unit 'nanomaggy' in the metadata of flux_g, got 'Jy'" in told
    assert "expected unit 'mag' in the metadata of mag_model_r, got ''" in told


def test_a_published_file_that_does_not_read(layout: Layout) -> None:
    path = partition_with(layout, FAR)
    path.write_bytes(path.read_bytes()[:-50])
    assert any(file == path.name and "expected a readable partition" in what for _, file, what in named(layout))


def test_a_flipped_bit_in_a_published_file(layout: Layout) -> None:
    path = partition_with(layout, FAR)
    chunk = pq.read_metadata(path).row_group(0).column(10)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    assert any(file == path.name for _, file, _ in named(layout))


def test_published_rows_that_are_lost_altered_or_gone(layout: Layout) -> None:
    path = partition_with(layout, FAR)
    whole = pq.read_table(path, partitioning=None)
    pq.write_table(whole.slice(1), path)
    told = named(layout)
    assert (str(FAR), path.name, "expected 10 rows of the brick's shard, got 9") in told
    assert any(file == path.name and what == "expected 10 rows by _metadata, got 9" for _, file, what in told)
    place = whole.schema.get_field_index("mag_model_r")
    altered = pa.array([*whole["mag_model_r"].to_pylist()[:-1], 19.5], pa.float32())
    pq.write_table(whole.set_column(place, whole.schema.field(place), altered), path)
    assert named(layout) == [(str(FAR), path.name, "expected the values of the brick's shard, got others")]
    path.unlink()
    told = named(layout)
    assert (str(FAR), "v1", "expected a partition for 10 rows of the shard, got none") in told
    assert any(file == path.name and "that _metadata lists, got no file" in what for _, file, what in told)


def test_a_version_of_many_partitions_needs_no_metadata_file(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    path = partition_with(layout, FAR)
    metadata = (version_folder(layout, "main") / "dataset" / "_metadata").resolve()
    metadata.unlink()
    assert any(file == "_metadata" for _, file, _ in named(layout))
    monkeypatch.setattr(hatsfiles, "METADATA_PARTITIONS", 1)
    assert named(layout) == []
    path.unlink()
    assert any(file == path.name and "that partition_info.csv lists, got no file" in what for _, file, what in named(layout))


def test_a_version_that_says_other_totals(layout: Layout) -> None:
    path = version_folder(layout, "main") / MANIFEST
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"rows": 41}))
    assert [what for _, _, what in named(layout)] == ["expected 41 published rows by galpipe.json, got 40"]
    path.write_text(json.dumps(told | {"schema": SCHEMA_VERSION + 1}))
    assert any(f"expected schema version {SCHEMA_VERSION} or older" in what for _, _, what in named(layout))


def test_rows_without_the_record_of_what_they_were_made_from(layout: Layout) -> None:
    _, meta = read_shard(layout.shard(FAR, "main"))
    path = record_path(layout, "main", meta.provenance_id)
    content = path.read_bytes()
    path.write_text('{"unit":"dr9/north/1801p400"}')
    assert any(unit == str(FAR) and "expected inputs that hash to" in what for unit, _, what in named(layout))
    path.unlink()
    assert (str(FAR), "1801p400.parquet", f"expected a record of provenance_id {meta.provenance_id}, got none") in named(layout)
    path.write_bytes(content)
    assert named(layout) == []


def test_what_belongs_to_nothing(layout: Layout) -> None:
    stranger = Unit("dr9", "south", "0050m002")
    layout.brick_folder(stranger).mkdir(parents=True)
    layout.stamps(stranger, "grz152").mkdir(parents=True)
    identifier = record(layout, "main", inputs_of(stranger))
    record_run(layout, "main", "run-1", [1234])
    told = named(layout)
    assert [file for unit, file, _ in told if unit == str(stranger)] == ["0050m002.zarr", "0050m002", f"{identifier}.json"]
    assert ("", "run-1.parquet", "expected a record of each provenance id, got none of 1, first 1234") in told
    # a brick that was fetched and not finished is the ledger's
    with Ledger(layout.ledger) as ledger:
        ledger.record([Receipt(stranger, "fetch", "done")], "run-1", "main")
        assert not [problem for problem in verify(layout, "main", ledger) if problem.file.endswith(("0050m002.zarr", "0050m002"))]


def test_a_ledger_row_without_any_file(layout: Layout) -> None:
    with Ledger(layout.ledger) as ledger:
        ledger.record([Receipt(Unit("dr9", "south", "0050m002"), "catalog", "bad_data", reason="cut off")], "run", "main")
    (what,) = found(layout)
    assert what.startswith("dr9/south/0050m002 catalog/main/dr9/south/005/0050m002.outcomes.parquet: expected the outcomes of a brick")


def test_a_shard_of_a_newer_schema_is_refused_by_name(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogs.parquet.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    write_brick(layout, UNITS[0], 10)
    monkeypatch.undo()
    wanted = (
        rf"0001m002\.parquet: expected schema version {SCHEMA_VERSION} or older.*, got version {SCHEMA_VERSION + 1}, written by a newer"
    )
    with pytest.raises(BadData, match=wanted):
        read_shard(layout.shard(UNITS[0], "main"))
    with pytest.raises(BadData, match="written by a newer one"):
        publish(layout, "main")
    assert any(unit == str(UNITS[0]) and "written by a newer one" in what for unit, _, what in named(layout))


def test_a_version_says_of_each_brick_what_became_of_it(layout: Layout) -> None:
    failed = Unit("dr9", "south", "0005m002")
    write_outcomes(layout.outcomes(failed, "main"), empty(), OutcomesMeta(failed, "bad_data", "image-r", "cut off", stage="cut"))
    publish(layout, "main")
    folder = version_folder(layout, "main")
    table = read_by_brick(folder)
    assert table is not None
    rows = {row["brick"]: row for row in table.to_pylist()}
    assert (rows["0005m002"]["status"], rows["0005m002"]["file"], rows["0005m002"]["reason"]) == ("bad_data", "image-r", "cut off")
    done = rows["1801p400"]
    assert [done[name] for name in ("region", "status", "sources", "predicted", "filtered", "rows")] == ["north", "done", 13, 10, 3, 10]
    assert json.loads(done["counts"])["filtered:faint"] == 3
    assert manifest(folder)["totals"]["bricks"] == 5
    assert named(layout) == []
