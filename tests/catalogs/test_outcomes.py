from pathlib import Path

import pyarrow as pa
import pytest

from catalogs.outcomes import OutcomesMeta, check_totals, count, empty, finish, read_outcomes, read_outcomes_meta, write_outcomes
from galpipe.errors import BadData
from tests.catalogs.sky import UNITS

UNIT = UNITS[0]


def cut(status: list[str], reason: list[str]) -> pa.Table:
    rows = len(status)
    ids = {"release": [9011] * rows, "brickid": [1] * rows, "objid": list(range(rows)), "source_id": list(range(rows))}
    return pa.table(ids | {"ra": [0.0] * rows, "dec": [0.0] * rows, "status": status, "reason": reason})


SIX = cut(["selected", "filtered", "selected", "failed", "filtered", "selected"], ["", "faint", "", "bad_position", "not_primary", ""])


def test_every_source_gets_one_outcome() -> None:
    table = finish(SIX, {0, 5}, {2: "no_coverage"})
    assert table["status"].to_pylist() == ["predicted", "filtered", "failed", "failed", "filtered", "predicted"]
    assert table["reason"].to_pylist() == ["", "faint", "no_coverage", "bad_position", "not_primary", ""]
    assert count(table) == {
        "sources": 6,
        "predicted": 2,
        "filtered": 2,
        "failed": 2,
        "failed:bad_position": 1,
        "failed:no_coverage": 1,
        "filtered:faint": 1,
        "filtered:not_primary": 1,
    }
    check_totals(table, 2, UNIT, sources=6)


@pytest.mark.parametrize(
    ("predicted", "failed", "got"),
    [
        ({0}, {}, "2 in neither"),
        ({0, 2, 5}, {5: "nan"}, "1 in both"),
        ({0, 1, 2, 5}, {}, "1 not selected"),
    ],
)
def test_books_that_do_not_close_are_refused(predicted: set[int], failed: dict[int, str], got: str) -> None:
    with pytest.raises(BadData, match=rf"{UNIT}: expected each of 3 selected sources .*{got}"):
        finish(SIX, predicted, failed, UNIT)


def test_totals_are_checked() -> None:
    table = finish(SIX, {0, 2, 5})
    with pytest.raises(BadData, match="expected 3 shard rows, the predicted outcomes, got 4"):
        check_totals(table, 4, UNIT)
    with pytest.raises(BadData, match="one outcome per source, got 6 repeated"):
        check_totals(pa.concat_tables([table, table]), 6, UNIT)


def test_a_source_that_was_lost_on_the_way_is_noticed() -> None:
    table = finish(SIX.slice(1), {2, 5})
    with pytest.raises(BadData, match="expected 6 outcomes, one for each row of the Tractor table, got 5"):
        check_totals(table, 2, UNIT, sources=6)


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.outcomes.parquet"
    table = finish(SIX, {0, 2, 5})
    counts = write_outcomes(path, table, OutcomesMeta(UNIT, fingerprint="f"))
    assert read_outcomes(path).equals(table)
    assert read_outcomes_meta(path) == OutcomesMeta(UNIT, fingerprint="f", counts=counts)


def test_a_failed_brick_has_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a.outcomes.parquet"
    write_outcomes(path, empty(), OutcomesMeta(UNIT, "bad_data", "image-g.fits.fz", "truncated"))
    told = read_outcomes_meta(path)
    assert (told.status, told.file, told.reason, told.counts["sources"]) == ("bad_data", "image-g.fits.fz", "truncated", 0)
