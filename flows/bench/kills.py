"""Kill a run at every named fault point and after its k-th ledger event, run again, and compare with a run that nobody disturbed.

Whom: the coordinator, its worker, both. What must be equal afterwards: every shard and outcomes file byte for byte, every Parquet
file of the published version byte for byte, what the ledger says of every brick; and `catalogs.verify` must find nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.bench.figures import Figure, Size
from flows.bench.forked import Ended, RunArguments, WarmProcess
from galpipe import faults
from galpipe.errors import RemoteFailure
from galpipe.faults import Pass
from galpipe.layout import Layout
from galpipe.mock.spec import MockSpec

EVENTS = 30
"""Values of k: after the first, second, ... event of the ledger."""

STAGES = ("start", "fetch", "cut", "catalog", "publish", "end")
"""Of a run, in order: what it writes before its first brick and after its publication counts too."""

WITH_WORKERS = ("fetch", "cut", "catalog")
"""Stages while which there are workers to kill."""

CATALOG = "main"

SPEC = MockSpec(bricks=10, seed=3, galaxies=3, faint=3, stars=3, workers=1, bands=("z",), empty_bricks=tuple(range(2, 10)))
"""Ten bricks of one band give thirty events; two have galaxies, because a cut reads whole bands."""


@dataclass(frozen=True)
class Kill:
    """Where a run is killed, and who dies.

    Parameters
    ----------
    at : Pass
        As the unbroken run passed it.
    stage : str
    whom : str
    region : str
    """

    at: Pass
    stage: str
    whom: str
    region: str

    def __str__(self) -> str:
        return f"{self.whom} at {self.at.point}:{self.at.number} ({self.stage})"


@dataclass(frozen=True)
class Outcome:
    """What became of a killed run.

    Parameters
    ----------
    kill : Kill
    struck : bool
        Whether somebody was killed.
    survived : bool
        Whether the run after it ended well.
    problems : tuple of str
        What is not as after an unbroken run; empty if nothing is.
    """

    kill: Kill
    struck: bool
    survived: bool
    problems: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing was lost, doubled or left in disorder."""
        return self.struck and self.survived and not self.problems

    def __str__(self) -> str:
        verdict = "equal" if self.equal else f"NOT EQUAL {self.problems}" if self.struck else "nobody was killed"
        return f"{self.kill}: {verdict}"


@dataclass(frozen=True)
class Proof:
    """What kills are tried on.

    Parameters
    ----------
    warm : WarmProcess
    release : str
    place : Path
        Folder for the roots of runs.
    model : Path
    """

    warm: WarmProcess
    release: str
    place: Path
    model: Path

    def arguments(self, root: Path, region: str, environment: dict[str, str] | None = None) -> RunArguments:
        """A run with one worker and a small model, without a report."""
        settings = {
            "fetch": {"bands": ["g", "r", "z"]},
            "infer": {"batch": 4, "model": str(self.model)},
            "cluster": {"workers": 1},
        }
        options = {"alias": "mock", "report": False, "quiet": True, "keep": ["bricks", "stamps"], "settings": settings}
        return RunArguments(self.release, region, root, options, environment or {})

    def run(self, root: Path, region: str, environment: dict[str, str] | None = None) -> Ended:
        """One run, to its end."""
        return self.warm.run(self.arguments(root, region, environment), root.with_name(f"{root.name}-log"))

    def unbroken(self, region: str) -> tuple[Path, list[Pass]]:
        """The root of a run that nobody disturbs, and the fault points that it passed.

        Raises
        ------
        RemoteFailure
            If it does not end well.
        """
        number = len(list(self.place.glob("unbroken-*/")))
        root, folder = self.place / f"unbroken-{number}", self.place / f"passes-{number}"
        folder.mkdir()
        ended = self.run(root, region, {faults.FOLDER: str(folder)})
        if ended.status or ended.result["status"] != "ok":
            raise RemoteFailure("an unbroken run", f"{ended.result} {ended.log[-2000:]}")
        return root, faults.passes(folder)

    def attempt(self, kill: Kill, expected: dict[str, Any]) -> Outcome:
        """Run, kill, run again, compare with the `state` of an unbroken run."""
        root, folder = self.place / "root", self.place / "faults"
        for path in (root, folder):
            shutil.rmtree(path, ignore_errors=True)
        folder.mkdir()
        environment = {faults.FAULT: f"{kill.at.point}:{kill.at.number}", faults.FOLDER: str(folder), faults.VICTIM: kill.whom}
        first = self.warm.start(self.arguments(root, kill.region, environment), self.place / "first")
        broken = first.wait()
        # at once: orphaned workers of the first run may still be writing
        again = self.run(root, kill.region)
        first.end()
        struck = faults.struck(folder) is not None and (kill.whom == "worker" or broken.status == -9)
        survived = again.status == 0 and again.result["status"] == "ok"
        problems = tuple(differences(root, expected)) if survived else (f"{again.result} {again.log[-500:]}",)
        return Outcome(kill, struck, survived, problems)


def state(root: Path) -> dict[str, Any]:
    """Everything that two runs of the same region must agree on, by what it is; files as bytes.

    Parameters
    ----------
    root : Path
        No run is at work on it.
    """
    from catalogs.hats import CURRENT
    from catalogs.ledger import ledger_of

    layout = Layout(root)
    shards = [path for path in layout.catalog(CATALOG).rglob("*.parquet") if "provenance" not in path.parts]
    published = (layout.hats(CATALOG) / CURRENT).resolve()
    found: dict[str, Any] = {layout.relative(path): path.read_bytes() for path in shards}
    found |= {f"published/{path.relative_to(published)}": path.read_bytes() for path in published.rglob("Npix=*.parquet")}
    found["published"] = published.name
    with ledger_of(layout) as ledger:
        rows = ledger.table(CATALOG).drop(["seconds", "run_id", "updated_at"]).to_pylist()
    return found | {f"ledger/{row['release']}/{row['region']}/{row['brick']}/{row['stage']}": row for row in rows}


def differences(root: Path, expected: dict[str, Any]) -> Iterator[str]:
    """What is not as in the `state` of an unbroken run, and what `catalogs.verify` finds."""
    import pyarrow.parquet as pq

    from catalogs.inventory import shard_files
    from catalogs.ledger import ledger_of
    from catalogs.shard import read_shard_meta
    from catalogs.verify import verify

    found = state(root)
    yield from (f"lost: {name}" for name in sorted(expected.keys() - found.keys()))
    yield from (f"not in an unbroken run: {name}" for name in sorted(found.keys() - expected.keys()))
    yield from (f"other content: {name}" for name in sorted(found.keys() & expected.keys()) if found[name] != expected[name])
    layout = Layout(root)
    runs = [pq.read_table(path) for path in layout.catalog(CATALOG).glob("provenance/runs/*.parquet")]
    known = {identifier for table in runs for identifier in table["provenance_id"].to_pylist()}
    for unit, path in shard_files(layout, CATALOG):
        if read_shard_meta(path).provenance_id not in known:
            yield f"no run is known to have made {unit}"
    with ledger_of(layout) as ledger:
        yield from (f"verify: {problem}" for problem in verify(layout, CATALOG, ledger))


def stage_of(root: Path, where: str) -> str:
    """The stage of a run that a pass belongs to."""
    if where in STAGES:
        return where
    parts = Path(where).relative_to(root).parts
    if parts[0] in ("bricks", "stamps", "hats"):
        return {"bricks": "fetch", "stamps": "cut", "hats": "publish"}[parts[0]]
    if parts[-1] in ("collection.json", "request.json") or "recipes" in parts:
        return "start"
    return "end" if parts[0] == "runs" or "runs" in parts else "catalog"


def at_points(root: Path, passed: Sequence[Pass], region: str, whom: Sequence[str] = faults.WHOM) -> list[Kill]:
    """A kill at the first pass of every fault point in every stage that passes it, for each of ``whom``."""
    first: dict[tuple[str, str], Pass] = {}
    for item in passed:
        first.setdefault((item.point, stage_of(root, item.where)), item)
    return [
        Kill(item, stage, victim, region)
        for victim in whom
        for (_, stage), item in first.items()
        if victim != "worker" or stage in WITH_WORKERS
    ]


def at_events(passed: Sequence[Pass], region: str, numbers: Sequence[int], whom: Sequence[str] = faults.WHOM) -> list[Kill]:
    """A kill after each of the given events of the ledger, for each of ``whom``."""
    events = {item.number: item for item in passed if item.point == "ledger.after"}
    return [Kill(events[number], events[number].where, victim, region) for victim in whom for number in numbers if number in events]


def small_model(folder: Path) -> Path:
    """A model of every head that answers nonsense quickly and always the same."""
    from galpipe.lvm.encoder import ModelSettings
    from galpipe.lvm.model import new_model
    from galpipe.lvm.weights import save_model

    tiny = ModelSettings(dims=8, depths=(1, 1, 1, 1), attention_heads=(1, 1, 2, 2), stem=8, decoder=8, embedding=16)
    save_model(folder, new_model(tiny, 1), {"name": "tiny", "version": "1"}, "")
    return folder


def run(size: Size) -> list[Figure]:
    """Every kill of the complete set, told on standard error as it goes on; ``size`` does not matter."""
    from flows.cli.common import say
    from galpipe.mock.release import make_release

    outcomes = []
    with tempfile.TemporaryDirectory(prefix="galpipe-kills-") as place:
        folder = Path(place)
        made = make_release(folder / "mock-dr9", SPEC)
        model = small_model(folder / "model")
        with WarmProcess(model) as warm:
            proof = Proof(warm, str(made.release), folder, model)
            for outcome in complete(proof, f"bricks:{made.bricks[0]}"):
                outcomes.append(outcome)
                say(f"{len(outcomes):>4} {outcome}")
    return figures(outcomes)


def complete(proof: Proof, brick: str) -> Iterator[Outcome]:
    """Kill at every point, on one brick; then after every event of all bricks."""
    root, passed = proof.unbroken(brick)
    expected = state(root)
    for kill in at_points(root, passed, brick):
        yield proof.attempt(kill, expected)
    root, passed = proof.unbroken("all")
    expected = state(root)
    for kill in at_events(passed, "all", range(1, EVENTS + 1)):
        yield proof.attempt(kill, expected)


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Kills survived with equal rows, per stage and whom, and the total."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda item: (STAGES.index(item.kill.stage), faults.WHOM.index(item.kill.whom))):
        groups[f"{outcome.kill.stage}, {outcome.kill.whom}"].append(outcome)
    groups["all"] = list(outcomes)
    return [_share(name, members) for name, members in groups.items()]


def _share(name: str, members: Sequence[Outcome]) -> Figure:
    struck = [item for item in members if item.struck]
    survived, equal = sum(item.survived for item in struck), sum(item.equal for item in struck)
    what = f"{len(struck)} kills, {survived} survived, {equal} with rows equal and verify clean"
    return Figure(name, equal / len(struck) if struck else float("nan"), "of kills", what)
