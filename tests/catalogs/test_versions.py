"""Versions of a catalog: immutable, found by number and date, pinned."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from catalogs import versions
from catalogs.hats import MANIFEST, publish, version_folder
from catalogs.query import open_catalog
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.sky import FAR, UNITS, write_brick


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def date_of(layout: Layout, version: int, created: str) -> None:
    """Say that a version was made at another time."""
    path = version_folder(layout, "main", version) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": created}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Three versions of 20, 30 and 40 rows, a day apart; read only."""
    layout = Layout(tmp_path_factory.mktemp("made") / "root")
    write_brick(layout, UNITS[0], 10)
    for number, rows in enumerate((10, 20, 30), 1):
        write_brick(layout, FAR, rows, seed=number)
        publish(layout, "main")
        date_of(layout, number, f"2026-11-{20 + number}T12:00:00+00:00")
    return layout


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    """The same to change, its hard links as they were."""
    subprocess.run(["cp", "-a", str(made.root), str(tmp_path / "root")], check=True)
    return Layout(tmp_path / "root")


def test_publishing_again_leaves_every_byte_of_older_versions(layout: Layout) -> None:
    before = {number: contents(version_folder(layout, "main", number)) for number in (1, 2, 3)}
    write_brick(layout, UNITS[0], 12, seed=8)
    write_brick(layout, UNITS[1], 5)
    assert publish(layout, "main").version == 4
    layout.shard(FAR, "main").unlink()
    assert publish(layout, "main").version == 5
    assert {number: contents(version_folder(layout, "main", number)) for number in (1, 2, 3)} == before


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (2, 2),
        ("2", 2),
        ("v3", 3),
        (None, None),
        ("current", None),
        ("2026-11-21", 1),
        ("2026-11-22T11:59:59", 1),
        ("2026-11-22T12:00:00Z", 2),
        ("2026-11-22T13:00:00+02:00", 1),
        ("2030-01-01", 3),
    ],
)
def test_a_version_by_number_or_date(made: Layout, wanted: int | str | None, number: int | None) -> None:
    assert versions.as_of(made, "main", wanted) == number


def test_open_as_of_a_date_reads_the_version_of_then(layout: Layout) -> None:
    for wanted, rows in (("2026-11-21", 20), ("v2", 30), (None, 40)):
        with open_catalog(layout, version=wanted) as catalog:
            assert catalog.sql("SELECT count(*) AS n FROM galaxies")["n"].to_pylist() == [rows]


def test_what_there_is_not_is_told_with_what_there_is(layout: Layout) -> None:
    listed = r"v1 \(2026-11-21T12:00:00Z\), v2 \(2026-11-22T12:00:00Z\), v3 \(2026-11-23T12:00:00Z\)"
    with pytest.raises(ConfigurationError, match=rf"a version of catalog 'main', got v7; there are {listed}"):
        open_catalog(layout, version=7)
    with pytest.raises(
        ConfigurationError, match=rf"created at or before '2026-11-20', got none at 2026-11-20T23:59:59\+00:00; there are {listed}"
    ):
        versions.as_of(layout, "main", "2026-11-20")
    with pytest.raises(ConfigurationError, match="an ISO date or time such as 2026-11-24T16:00, got 'yesterday'"):
        versions.as_of(layout, "main", "yesterday")
    with pytest.raises(ConfigurationError, match="v1; there are none"):
        versions.as_of(layout, "other", 1)


def test_a_reference_may_name_another_catalog(layout: Layout) -> None:
    assert versions.reference(layout, "2") == ("main", 2)
    assert versions.reference(layout, "main@2026-11-21", "other") == ("main", 1)
    assert versions.reference(layout, "main@", "other") == ("main", 3)


def test_what_a_version_is(layout: Layout) -> None:
    first, second, third = (versions.describe(layout, "main", number) for number in (1, 2, 3))
    assert [(item.rows, item.partitions_written, item.partitions_linked, item.current) for item in (first, second, third)] == [
        (20, 2, 0, False),
        (30, 1, 1, False),
        (40, 1, 1, True),
    ]
    assert first.models == ("mini",)
    assert 0 < second.own_bytes < second.bytes
    # an older galpipe did not write down what it linked
    path = version_folder(layout, "main", 2) / MANIFEST
    told = {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("partitions_")}
    path.write_text(json.dumps(told))
    assert versions.describe(layout, "main", 2).partitions_linked == 1


def test_pins(layout: Layout) -> None:
    versions.pin(layout, "main", 1, "the paper")
    assert versions.describe(layout, "main", 1).pin == versions.pins(layout, "main")[1]
    assert versions.pins(layout, "main")[1].note == "the paper"
    with pytest.raises(ConfigurationError, match=r"a pinned version of catalog 'main', got v2; pinned are \[1\]"):
        versions.unpin(layout, "main", 2)
    versions.unpin(layout, "main", 1)
    assert versions.pins(layout, "main") == {}
    with pytest.raises(ConfigurationError, match="version v9"):
        versions.pin(layout, "main", 9)
    with pytest.raises(ConfigurationError, match="version v1"):
        versions.pin(layout, "nobody", 1)
    assert not layout.hats("nobody").exists()
    (layout.hats("main") / versions.PINS).write_text("{")
    with pytest.raises(BadData, match=r"a readable list of pinned versions.*"):
        versions.pins(layout, "main")
