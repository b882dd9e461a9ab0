"""Whatever kills a run, or hinders it, the next one ends in the rows of a run that nobody disturbed.

The complete set of kills is ``galpipe bench kills``; here is a quick one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalogs.hats import CURRENT, publish
from flows.bench.forked import WarmProcess
from flows.bench.kills import SPEC, Proof, at_events, at_points, differences, figures, small_model, state
from galpipe import faults
from galpipe.errors import ResourceFailure
from galpipe.faults import FAULT_POINTS, Pass
from galpipe.layout import Layout
from galpipe.mock.release import make_release

pytestmark = pytest.mark.slow

TWO = replace(SPEC, bricks=2, empty_bricks=(1,))


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    place = tmp_path_factory.mktemp("kills")
    release = make_release(place / "mock-dr9", TWO).release
    model = small_model(place / "model")
    with WarmProcess(model) as warm:
        yield Proof(warm, str(release), place, model)


@pytest.fixture(scope="module")
def brick() -> str:
    return f"bricks:{TWO.brick_list()[0].name}"


@pytest.fixture(scope="module")
def unbroken(proof: Proof, brick: str) -> tuple[Path, list[Pass]]:
    return proof.unbroken(brick)


@pytest.fixture(scope="module")
def expected(unbroken: tuple[Path, list[Pass]]) -> dict[str, Any]:
    return state(unbroken[0])


def test_an_unbroken_run_passes_every_point(unbroken: tuple[Path, list[Pass]], expected: dict[str, Any]) -> None:
    root, passed = unbroken
    assert {item.point for item in passed} == set(FAULT_POINTS)
    assert list(differences(root, expected)) == []
    assert sum(name.startswith("published/catalog/") for name in expected) == 1
    assert sum(name.startswith("ledger/") for name in expected) == 3


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_killed_at_every_point(proof: Proof, unbroken: tuple[Path, list[Pass]], expected: dict[str, Any], brick: str, point: str) -> None:
    """Coordinator and worker die at once, at the last stage that passes the point."""
    kill = [kill for kill in at_points(*unbroken, brick, ("both",)) if kill.at.point == point][-1]
    outcome = proof.attempt(kill, expected)
    assert outcome.equal, str(outcome)


@pytest.mark.parametrize(("event", "whom"), [(1, "coordinator"), (2, "worker"), (3, "coordinator")])
def test_killed_after_an_event(
    proof: Proof, unbroken: tuple[Path, list[Pass]], expected: dict[str, Any], brick: str, event: int, whom: str
) -> None:
    (kill,) = at_events(unbroken[1], brick, (event,), (whom,))
    outcome = proof.attempt(kill, expected)
    assert outcome.equal, str(outcome)
    assert figures([outcome])[-1].value == 1.0


@pytest.mark.parametrize("whom", ["coordinator", "worker"])
def test_killed_inside_a_worker(proof: Proof, unbroken: tuple[Path, list[Pass]], expected: dict[str, Any], brick: str, whom: str) -> None:
    """A worker's death does not end the run, and what it left half-written is gone at the end; an orphan harms nothing."""
    kill = next(kill for kill in at_points(*unbroken, brick, (whom,)) if (kill.at.point, kill.stage) == ("file.written", "catalog"))
    outcome = proof.attempt(kill, expected)
    assert outcome.equal, str(outcome)


def test_what_is_lost_or_doubled_is_seen(unbroken: tuple[Path, list[Pass]], expected: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(unbroken[0], root, symlinks=True)
    (shard,) = [path for path in Layout(root).catalog("main").rglob("*.parquet") if path.name == f"{TWO.brick_list()[0].name}.parquet"]
    shutil.copy(shard, shard.with_name("1503p022.parquet"))
    told = " ".join(differences(root, expected))
    assert "not in an unbroken run" in told
    assert "expected each source_id once" in told
    (shard.with_name("1503p022.parquet")).unlink()
    shard.unlink()
    assert any(item.startswith("lost:") for item in differences(root, expected))


def test_two_runs_at_once_end_in_one_result(proof: Proof, brick: str, tmp_path: Path) -> None:
    """The second waits for the first and does only what that left."""
    root = tmp_path / "root"
    first = proof.warm.start(proof.arguments(root, brick), tmp_path / "first")
    second = proof.warm.start(proof.arguments(root, "all"), tmp_path / "second")
    ended = [first.wait(), second.wait()]
    assert [item.status for item in ended] == [0, 0], [item.log[-2000:] for item in ended]
    (waited,) = [item for item in ended if "waiting for it to end" in item.log]
    assert "at work on it (host" in waited.log
    counts = [item.result["counts"] for item in ended]
    assert sum(item["done"] for item in counts) == 2
    alone, _ = proof.unbroken("all")
    expected = {name: value for name, value in state(alone).items() if name != "published"}
    found = state(root)
    assert {name: found[name] for name in found if name != "published"} == expected
    assert set(differences(root, state(root))) == set()


@pytest.mark.parametrize(("point", "stage"), [("download.part", "fetch"), ("folder.written", "cut"), ("ledger.before", "catalog")])
def test_a_disk_that_refuses(
    proof: Proof, unbroken: tuple[Path, list[Pass]], expected: dict[str, Any], brick: str, tmp_path: Path, point: str, stage: str
) -> None:
    """The run ends at once, names the file and records nothing as done; the next one does the rest."""
    at = next(kill.at for kill in at_points(*unbroken, brick, ("both",)) if (kill.at.point, kill.stage) == (point, stage))
    environment = {faults.FAULT: f"{point}:{at.number}", faults.FOLDER: str(tmp_path), faults.VICTIM: faults.DISK}
    full = proof.run(tmp_path / "root", brick, environment)
    refused(full.result, tmp_path / "root")
    assert proof.run(tmp_path / "root", brick).status == 0
    assert list(differences(tmp_path / "root", expected)) == []


def refused(result: dict[str, Any], root: Path) -> None:
    """A run ended as it should on a full disk; every name holds a whole product."""
    assert (result["status"], result["kind"]) == ("failed", "resource"), result
    assert "No space left on device" in result["error"] or "disk is full" in result["error"], result
    assert result["file"], result
    assert not [path for path in (root / "hats").rglob(CURRENT) if not path.exists()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, where the system lets a test have one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def used(folder: Path) -> int:
    """Bytes below a folder on a disk of 4 kB pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_disk_that_fills_up(
    proof: Proof, unbroken: tuple[Path, list[Pass]], expected: dict[str, Any], brick: str, small_disk: Path
) -> None:
    """Room for a part of the files, for all of them, for nearly everything; the same root each time, and then room enough."""
    root, log = small_disk / "root", small_disk.with_name("log")
    files, everything = used(unbroken[0] / "bricks"), used(unbroken[0])
    unpublished = proof.arguments(root, brick)
    unpublished = replace(unpublished, options={**unpublished.options, "publish": False})
    for capacity in (files // 3, files + 60_000, everything - used(unbroken[0] / "hats") - 30_000):
        with room_for(small_disk, capacity):
            ended = proof.warm.run(unpublished, log)
        assert ended.status == 1
        refused(ended.result, root)
    assert proof.warm.run(unpublished, log).status == 0
    layout = Layout(root)
    with room_for(small_disk, used(root) + 20_000), pytest.raises(ResourceFailure, match=r"hats/main\S*: expected room to write"):
        publish(layout, "main")
    assert [path.name for path in layout.hats("main").iterdir() if path.name[0] != "."] == []
    assert publish(layout, "main").status == "published"
    assert list(differences(root, expected)) == []


@contextmanager
def room_for(disk: Path, capacity: int) -> Iterator[None]:
    """Fill a disk so that it is one of ``capacity`` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, shutil.disk_usage(disk).total - capacity)
    try:
        yield
    finally:
        ballast.unlink()
