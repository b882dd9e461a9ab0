"""Why a brick is done again: each cause by name, found without reading rows and without writing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.join import Origin, build_shard
from catalogs.ledger import Ledger
from catalogs.outcomes import OutcomesMeta, write_outcomes
from catalogs.provenance import record
from catalogs.shard import ShardMeta, write_shard
from galpipe.config import CutSettings, InferSettings, SelectionSettings, Settings
from galpipe.lvm.encoder import LabelTask
from galpipe.lvm.folder import model_hash
from galpipe.lvm.model import grown, new_model
from galpipe.lvm.weights import save_model
from galpipe.survey.files import FETCH_FILE, BrickFiles, FileRecord
from galpipe.unit import Receipt, Unit
from tasks.catalog import inputs_of
from tasks.chain import chain, files_fingerprint
from tasks.changes import Cause, Changes, differences, files_changed
from tasks.context import RunContext
from tasks.plan import find_changes
from tasks.recipe import Recipe, known_recipes, recipe_of, remember_recipe
from tests.catalogs.sky import HEADS, make_outcomes, make_predictions, make_sources
from tests.lvm.toy import TINY

UNITS = tuple(Unit("dr9", "south", name) for name in ("0001m002", "0003m002", "0006m002"))
FIRST = UNITS[0]
RING = LabelTask("ring", ("no", "yes"))


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(tmp_path / "root", "main", "run", Settings(), tmp_path, "model", "code")


@pytest.fixture
def ledger(context: RunContext) -> Ledger:
    """Three bricks, all done."""
    found = Ledger(context.layout.ledger)
    remember_recipe(context)
    for unit in UNITS:
        finish(context, found, unit)
    return found


def sums(unit: Unit, seed: int = 0) -> dict[str, str]:
    names = (f"legacysurvey-{unit.brick}-image-g.fits.fz", f"legacysurvey-{unit.brick}-image-r.fits.fz", f"tractor-{unit.brick}.fits")
    return dict.fromkeys(names, f"{seed:064x}")


def finish(context: RunContext, ledger: Ledger, unit: Unit) -> None:
    """What a brick leaves that was done."""
    links = chain(files_fingerprint(sums(unit), ()), context)
    identifier = record(context.layout, "main", inputs_of(context, unit, sums(unit), ()))
    sources = make_sources(unit, 2)
    shard = build_shard(sources, make_predictions(sources), HEADS, Origin(unit, identifier))
    write_shard(context.layout.shard(unit, "main"), shard, ShardMeta(unit, links.catalog, identifier, context.model_hash, {"predicted": 2}))
    write_outcomes(context.layout.outcomes(unit, "main"), make_outcomes(unit, shard), OutcomesMeta(unit, fingerprint=links.catalog))
    stages = {"fetch": links.fetch, "cut": links.cut, "catalog": links.catalog}
    ledger.record([Receipt(unit, stage, "done", fingerprint=text) for stage, text in stages.items()], "run", "main")


def causes(context: RunContext, ledger: Ledger, units: tuple[Unit, ...] = UNITS) -> dict[Unit, list[str]]:
    return {unit: [str(cause) for cause in found] for unit, found in find_changes(context, ledger, units).causes.items()}


def test_nothing_changed(context: RunContext, ledger: Ledger) -> None:
    found = find_changes(context, ledger, UNITS, settled=True)
    assert (found.up_to_date, found.to_do, set(found.fetched)) == (3, [], set(UNITS))
    assert not find_changes(context, ledger, UNITS).fetched
    assert found.as_dict() == {"up_to_date": 3, "to_do": 0, "redo": {"brick": 0, "inference": 0, "heads": 0}, "causes": []}


def test_bricks_that_were_never_done_or_not_finished(context: RunContext, ledger: Ledger) -> None:
    new, begun = Unit("dr9", "south", "0008m002"), Unit("dr9", "south", "0011m002")
    ledger.record([Receipt(begun, "fetch", "done", fingerprint="f")], "run", "main")
    assert causes(context, ledger, (*UNITS, new, begun)) == {new: ["never done"], begun: ["begun by a run that did not finish it"]}


@pytest.mark.parametrize("stage", ["fetch", "cut", "catalog"])
def test_failures_are_tried_again(context: RunContext, ledger: Ledger, stage: str) -> None:
    bad = Unit("dr9", "south", "0008m002")
    before = {"fetch": [], "cut": ["fetch"], "catalog": ["fetch", "cut"]}[stage]
    done = [Receipt(bad, name, "done", fingerprint=name) for name in before]
    ledger.record([*done, Receipt(bad, stage, "bad_data", reason="torn")], "run", "main")
    assert causes(context, ledger, (*UNITS, bad)) == {bad: [f"failed before, tried again ({stage}: bad_data)"]}
    assert bad not in find_changes(context, ledger, (*UNITS, bad)).fetched


SETTINGS: dict[str, tuple[Callable[[Settings], Settings], str, str]] = {
    "cut": (lambda now: replace(now, cut=CutSettings(("g", "r"))), "cut settings changed (bands g r z to g r)", "brick"),
    "selection": (
        lambda now: replace(now, selection=SelectionSettings("galaxies-z21")),
        "selection changed (name galaxies-z20 to galaxies-z21)",
        "brick",
    ),
    "batch": (lambda now: replace(now, infer=InferSettings(batch=7)), "inference settings changed (batch 32 to 7)", "inference"),
}


@pytest.mark.parametrize("which", SETTINGS)
def test_settings_that_changed(context: RunContext, ledger: Ledger, which: str) -> None:
    change, words, redo = SETTINGS[which]
    batch = context.settings.infer.batch
    other = replace(context, settings=change(context.settings))
    assert causes(other, ledger) == {key: [words.replace("batch 32", f"batch {batch}")] for key in UNITS}
    assert find_changes(other, ledger, UNITS).as_dict()["redo"][redo] == 3


@pytest.mark.parametrize("stage", ["cut", "infer", "catalog"])
def test_an_algorithm_version_that_was_raised(context: RunContext, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    from galpipe.fingerprint import ALGORITHM_VERSIONS

    old = ALGORITHM_VERSIONS[stage]
    monkeypatch.setitem(ALGORITHM_VERSIONS, stage, old + 1)
    assert causes(context, ledger) == {key: [f"algorithm version raised ({stage} {old} to {old + 1})"] for key in UNITS}
    found = find_changes(context, ledger, UNITS).as_dict()["redo"]
    assert found["brick" if stage == "cut" else "inference"] == 3


def test_a_model_s_parts(context: RunContext, tmp_path: Path) -> None:
    """The encoder, a head that is new, changed or gone: each is told."""
    settings = replace(TINY, heads=("morphology",))
    first = new_model(settings, 1)
    changed = grown(first, settings)
    changed.head("morphology").prior += 1  # type: ignore[operator]
    models = {
        "first": first,
        "added": grown(first, replace(settings, tasks=(RING,))),
        "changed": changed,
        "removed": grown(first, replace(settings, heads=())),
        "encoder": new_model(settings, 2),
    }
    of: dict[str, RunContext] = {}
    for name, model in models.items():
        save_model(tmp_path / name, model, {"name": name}, "")
        of[name] = replace(context, model_folder=tmp_path / name, model_hash=model_hash(tmp_path / name))
    with Ledger(context.layout.ledger) as ledger:
        remember_recipe(of["first"])
        finish(of["first"], ledger, FIRST)
        told = {name: causes(of[name], ledger, (FIRST,)) for name in models}
        redo = {name: find_changes(of[name], ledger, (FIRST,)).as_dict()["redo"] for name in models}
    assert told == {
        "first": {},
        "added": {FIRST: ["new head `ring`"]},
        "changed": {FIRST: ["head changed `morphology`"]},
        "removed": {FIRST: ["head removed `morphology`"]},
        "encoder": {FIRST: [f"encoder changed (model {of['first'].model_hash} to {of['encoder'].model_hash})"]},
    }
    assert [name for name, counts in redo.items() if counts["heads"]] == ["added", "changed", "removed"]
    assert redo["encoder"]["inference"] == 1


def test_files_that_were_fetched_anew_but_not_made_into_rows(context: RunContext, ledger: Ledger) -> None:
    """The run that fetched them was killed: they are told by name, from the shard's record and the files that lie there."""
    now = sums(FIRST) | {f"legacysurvey-{FIRST.brick}-image-g.fits.fz": "9" * 64}
    folder = context.layout.brick_folder(FIRST)
    records = tuple(FileRecord(name, name, "image", "g", "verified", text, 1) for name, text in sorted(now.items()))
    folder.mkdir(parents=True)
    (folder / FETCH_FILE).write_text(BrickFiles(FIRST, folder, records).to_json())
    ledger.record([Receipt(FIRST, "fetch", "done", fingerprint=files_fingerprint(now, ()))], "run", "main")
    assert causes(context, ledger) == {FIRST: ["files changed (image-g)"]}
    # and what else changed is told with it, though no recipe tells
    other = replace(context, settings=replace(context.settings, selection=SelectionSettings("galaxies-z21")))
    assert causes(other, ledger)[FIRST] == ["files changed (image-g)", "selection changed (name galaxies-z20 to galaxies-z21)"]


def test_shards_that_are_missing_or_damaged(context: RunContext, ledger: Ledger) -> None:
    first, second, third = (context.layout.shard(unit, "main") for unit in UNITS)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-20])
    third.write_bytes(context.layout.outcomes(UNITS[2], "main").read_bytes())
    told = causes(context, ledger)
    assert told[UNITS[0]] == ["shard missing"]
    assert told[UNITS[1]] == ["shard damaged (a readable Parquet file)"]
    assert told[UNITS[2]] == ["shard damaged (a shard's footer)"]


def test_a_shard_of_an_earlier_run_is_not_the_one_that_was_recorded(context: RunContext, ledger: Ledger) -> None:
    shard = context.layout.shard(FIRST, "main")
    before = shard.read_bytes()
    other = replace(context, settings=replace(context.settings, selection=SelectionSettings("galaxies-z21")))
    finish(other, ledger, FIRST)
    shard.write_bytes(before)
    assert causes(other, ledger, (FIRST,)) == {FIRST: ["shard damaged (not the one that the ledger knows)"]}


def test_force_says_what_would_have_been_left_alone(context: RunContext, ledger: Ledger) -> None:
    forced = replace(context, force=True, settings=replace(context.settings, infer=InferSettings(batch=9)))
    finish(forced, ledger, FIRST)
    told = causes(forced, ledger)
    assert told[FIRST] == ["up to date, but forced"] and all("batch" in told[unit][0] for unit in UNITS[1:])
    # from the files on, all of them
    assert not find_changes(forced, ledger, UNITS).fetched


def test_a_catalog_without_recipes_is_told_by_its_records(context: RunContext, ledger: Ledger) -> None:
    for path in context.layout.recipes("main").iterdir():
        path.unlink()
    (context.layout.recipes("main") / "torn.json").write_text('{"cut"')
    other = replace(context, settings=replace(context.settings, selection=SelectionSettings("galaxies-z21")), model_hash="another")
    assert causes(other, ledger, (FIRST,)) == {
        FIRST: ["selection changed (name galaxies-z20 to galaxies-z21)", "encoder changed (model model to another)"]
    }
    assert known_recipes(context) == []


def test_nothing_is_written(context: RunContext, ledger: Ledger) -> None:
    def content() -> dict[Path, bytes]:
        files = [path for path in context.root.rglob("*") if path.is_file() and not path.name.startswith("ledger.sqlite-")]
        return {path: path.read_bytes() for path in files}

    before = content()
    causes(replace(context, model_hash="another", force=True), ledger)
    assert content() == before


def test_changes_are_counted_by_cause_and_named() -> None:
    found = Changes(4, {UNITS[0]: (Cause("never_done"),), UNITS[1]: (Cause("head_added", "rings"),)}, dict.fromkeys(UNITS[1:], "f"))
    image = f"legacysurvey-{UNITS[1].brick}-image-g.fits.fz"
    changed = found.with_files(
        {UNITS[1]: (image, f"tractor-{UNITS[1].brick}.fits"), UNITS[2]: (f"legacysurvey-{UNITS[2].brick}-maskbits.fits.fz",)}
    )
    told = changed.as_dict()
    assert {entry["text"]: (entry["bricks"], entry["units"]) for entry in told["causes"]} == {
        "files changed (image-g, tractor)": (1, [str(UNITS[1])]),
        "files changed (maskbits)": (1, [str(UNITS[2])]),
        "never done": (1, [str(UNITS[0])]),
        "new head `rings`": (1, [str(UNITS[1])]),
    }
    assert (told["up_to_date"], told["to_do"], told["redo"]) == (1, 3, {"brick": 3, "inference": 0, "heads": 0})
    assert not changed.fetched


def test_a_neighbour_s_file_is_called_so() -> None:
    assert str(files_changed(FIRST, ["legacysurvey-0003m002-image-g.fits.fz"])) == "files changed (image-g of a neighbour)"


PLAIN = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=3), max_size=3)
NAME = st.text(max_size=4)
VERSIONS = st.dictionaries(st.sampled_from(["cut", "infer", "catalog"]), st.integers(1, 9))
RECIPES = st.builds(Recipe, PLAIN, PLAIN, st.integers(1, 64), NAME, NAME, st.dictionaries(NAME, NAME), st.integers(1, 9), VERSIONS)


@given(RECIPES, RECIPES)
def test_recipes_are_read_back_and_differ_only_with_a_reason(one: Recipe, other: Recipe) -> None:
    assert Recipe.from_json(one.to_json()) == one
    assert differences(one, one) == ()
    same = replace(one, encoder="", heads={}) == replace(other, encoder="", heads={})
    assert (differences(one, other) == ()) == same


def test_the_chain_of_a_recipe_is_the_run_s(context: RunContext) -> None:
    assert recipe_of(context).chains()("f" * 32) == chain("f" * 32, context)
