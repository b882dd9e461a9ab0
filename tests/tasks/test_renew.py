"""A brick whose shard is there: what differs is answered anew, everything else is carried over, and the rows are those of a whole run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from catalogs.outcomes import read_outcomes_meta
from catalogs.provenance import read_inputs
from catalogs.shard import read_shard, read_shard_meta
from galpipe.commit import remove_folder
from galpipe.config import CutSettings, InferSettings, SelectionSettings, Settings
from galpipe.lvm.encoder import LabelTask, ModelSettings
from galpipe.lvm.folder import model_hash
from galpipe.lvm.model import GalaxyModel, grown, new_model
from galpipe.lvm.parts import model_parts
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import load_model, save_model
from galpipe.stamps.result import CutResult, outcomes_table
from galpipe.stamps.store import write_store
from galpipe.survey.releases import Release
from galpipe.survey.remote import Limiter
from galpipe.survey.sources import Source
from galpipe.unit import Receipt
from tasks.catalog import predict_unit
from tasks.chain import chain, files_fingerprint
from tasks.context import RunContext
from tasks.renew import can_begin_at_catalog, renew_unit
from tasks.tile import Engine, process_units
from tests.catalogs.sky import make_sources
from tests.lvm.toy import TINY, toy_stamps
from tests.survey.fake_release import UNIT

ROWS, BATCH = 5, 2
RING = LabelTask("ring", ("no", "yes"))
BEFORE = replace(TINY, heads=("morphology", "parameters"))
FILES, FETCH = {f"tractor-{UNIT.brick}.fits": "0" * 64}, files_fingerprint({f"tractor-{UNIT.brick}.fits": "0" * 64}, ())


@pytest.fixture(scope="module")
def first() -> GalaxyModel:
    return new_model(BEFORE, 1).eval()


@pytest.fixture
def context(tmp_path: Path, first: GalaxyModel) -> RunContext:
    """A brick of five galaxies, cut and predicted by a model of two heads."""
    settings = Settings(infer=InferSettings(batch=BATCH))
    start = RunContext(tmp_path / "root", "main", "run", settings, tmp_path / "none", "none", "code")
    context = with_model(start, first, tmp_path / "first")
    write_stamps(context)
    assert predict_unit(context, UNIT).status == "done"
    return context


def with_model(context: RunContext, model: GalaxyModel, folder: Path) -> RunContext:
    save_model(folder, model, {"name": folder.name, "version": "1"}, "")
    return replace(context, model_folder=folder, model_hash=model_hash(folder))


def write_stamps(context: RunContext) -> None:
    toy, sources = toy_stamps(ROWS), make_sources(UNIT, ROWS)
    for name in ("psfsize", "psfdepth"):
        for band in "grz":
            sources = sources.set_column(sources.column_names.index(f"{name}_{band}"), f"{name}_{band}", toy.sources[f"{name}_{band}"])
    # one galaxy lacks g, so that another calibration is its own
    invvar = toy.invvar_code.copy()
    invvar[3, 0] = 0
    stamps = replace(toy, sources=sources, invvar_code=invvar, attrs={"checksums": FILES, "absent": [], "tractor_rows": ROWS})
    outcomes = outcomes_table(sources, np.array([""] * ROWS, object))
    write_store(context.layout.stamps(UNIT, context.settings.cut.name), CutResult(stamps, outcomes), chain(FETCH, context).cut)


def other_heads(model: GalaxyModel, settings: ModelSettings, shift: Sequence[str] = ()) -> GalaxyModel:
    """The same encoder with other heads; heads in ``shift`` answer otherwise."""
    made = grown(model, settings)
    for name in shift:
        for parameter in made.head(name).parameters():
            parameter.data += 0.05
    return made


def rows_and_parts(context: RunContext) -> tuple[pa.Table, dict[str, object]]:
    rows, meta = read_shard(context.layout.shard(UNIT, "main"))
    return rows.drop_columns(["provenance_id"]), dict(meta.parts)


CASES: dict[str, Callable[[GalaxyModel], GalaxyModel]] = {
    "a new head without pixels": lambda model: other_heads(model, replace(BEFORE, tasks=(RING,))),
    "a changed head without pixels": lambda model: other_heads(model, BEFORE, ("morphology",)),
    "a changed head with pixels": lambda model: other_heads(model, BEFORE, ("parameters",)),
    "a removed head": lambda model: other_heads(model, replace(BEFORE, heads=("morphology",))),
    "both kinds": lambda model: other_heads(model, replace(BEFORE, tasks=(RING,)), ("parameters",)),
}


def damage(shard: Path) -> None:
    """Turn a bit among its right ascensions."""
    chunk = pq.read_metadata(shard).row_group(0).to_dict()["columns"][read_shard(shard)[0].column_names.index("ra")]
    data = bytearray(shard.read_bytes())
    data[chunk["data_page_offset"] + chunk["total_compressed_size"] // 2] ^= 0x10
    shard.write_bytes(bytes(data))


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_of_a_whole_run(context: RunContext, first: GalaxyModel, tmp_path: Path, case: str) -> None:
    later = with_model(context, CASES[case](first), tmp_path / "later")
    renewed = renew_unit(later, UNIT)
    assert renewed.status == "done", renewed.reason
    short, parts = rows_and_parts(later)
    identifier = read_shard_meta(context.layout.shard(UNIT, "main")).provenance_id
    assert "carried" in read_inputs(context.layout, "main", identifier)
    whole = predict_unit(later, UNIT)
    long, whole_parts = rows_and_parts(later)
    assert whole_parts == parts and long.schema.equals(short.schema, check_metadata=True)
    for name in short.column_names:
        # bit for bit, as repr tells them apart; NaN equals NaN
        assert repr(short[name].to_pylist()) == repr(long[name].to_pylist()), name
    assert (renewed.counts, renewed.rows, renewed.fingerprint) == (whole.counts, whole.rows, whole.fingerprint)


def test_a_head_without_pixels_needs_neither_stamps_nor_files(context: RunContext, first: GalaxyModel, tmp_path: Path) -> None:
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    remove_folder(context.layout.stamps(UNIT, context.settings.cut.name))
    before = rows_and_parts(context)[0]
    assert can_begin_at_catalog(later, UNIT, FETCH)
    assert renew_unit(later, UNIT).status == "done"
    after = rows_and_parts(later)[0]
    assert after.select(before.column_names).equals(before) and after["ring_yes_probability"].null_count == 0
    told = read_inputs(context.layout, "main", read_shard_meta(context.layout.shard(UNIT, "main")).provenance_id)["carried"]
    assert told["but"] == ["ring"] and read_inputs(context.layout, "main", int(told["from"]))["model"] == context.model_hash


@pytest.mark.parametrize("case", ["a changed head with pixels", "both kinds"])
def test_a_head_with_pixels_asks_for_the_stamps(context: RunContext, first: GalaxyModel, tmp_path: Path, case: str) -> None:
    later = with_model(context, CASES[case](first), tmp_path / "later")
    assert can_begin_at_catalog(later, UNIT, FETCH)
    remove_folder(context.layout.stamps(UNIT, context.settings.cut.name))
    assert not can_begin_at_catalog(later, UNIT, FETCH)
    receipt = renew_unit(later, UNIT)
    # told where it happens all the same, and the old rows stay
    assert receipt.status == "bad_data" and "stamps" in receipt.reason
    assert read_shard_meta(context.layout.shard(UNIT, "main")).model == context.model_hash


def test_another_encoder_answers_everything_from_the_stamps(context: RunContext, tmp_path: Path) -> None:
    later = with_model(context, new_model(BEFORE, 2).eval(), tmp_path / "later")
    before = rows_and_parts(context)[0]
    assert can_begin_at_catalog(later, UNIT, FETCH)
    assert renew_unit(later, UNIT).status == "done"
    identifier = read_shard_meta(context.layout.shard(UNIT, "main")).provenance_id
    assert "carried" not in read_inputs(context.layout, "main", identifier)
    assert not rows_and_parts(later)[0]["embedding"].equals(before["embedding"])
    remove_folder(context.layout.stamps(UNIT, context.settings.cut.name))
    assert not can_begin_at_catalog(with_model(context, new_model(BEFORE, 3).eval(), tmp_path / "third"), UNIT, FETCH)


def test_other_files_carry_nothing_over(context: RunContext, first: GalaxyModel, tmp_path: Path) -> None:
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    assert not can_begin_at_catalog(later, UNIT, files_fingerprint({"tractor": "1" * 64}, ()))
    assert not can_begin_at_catalog(replace(later, force=True), UNIT, FETCH)


def test_a_run_that_died_before_it_said_so_is_not_repeated(context: RunContext, first: GalaxyModel, tmp_path: Path) -> None:
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    place, shard = context.layout.outcomes(UNIT, "main"), context.layout.shard(UNIT, "main")
    receipt = renew_unit(later, UNIT)
    written = shard.read_bytes(), place.read_bytes()
    # killed between the shard and the ledger
    again = renew_unit(later, UNIT)
    assert replace(again, seconds=0) == replace(receipt, seconds=0) and (shard.read_bytes(), place.read_bytes()) == written
    assert read_outcomes_meta(place).fingerprint == receipt.fingerprint


def test_outcomes_of_other_rows_carry_nothing_over(context: RunContext, first: GalaxyModel, tmp_path: Path) -> None:
    """Outcomes get their name before the shard: a kill between them leaves the new ones beside the old rows."""
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    place, shard = context.layout.outcomes(UNIT, "main"), context.layout.shard(UNIT, "main")
    old = shard.read_bytes()
    renew_unit(later, UNIT)
    shard.write_bytes(old)
    assert not can_begin_at_catalog(replace(later, settings=replace(later.settings, cut=CutSettings(pixscale=0.3))), UNIT, FETCH)
    again = renew_unit(later, UNIT)
    assert again.status == "done" and read_shard_meta(shard).fingerprint == read_outcomes_meta(place).fingerprint
    assert "carried" not in read_inputs(context.layout, "main", read_shard_meta(shard).provenance_id)


def test_stamps_that_another_catalog_cut_do_not_matter_where_no_pixels_are_needed(
    context: RunContext, first: GalaxyModel, tmp_path: Path
) -> None:
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    path = context.layout.stamps(UNIT, context.settings.cut.name)
    shutil.rmtree(path)
    write_stamps(replace(context, settings=replace(context.settings, selection=SelectionSettings("galaxies-z21"))))
    assert can_begin_at_catalog(later, UNIT, FETCH)
    receipt = renew_unit(later, UNIT, FETCH)
    assert receipt.status == "done", receipt.reason
    assert "carried" in read_inputs(context.layout, "main", read_shard_meta(context.layout.shard(UNIT, "main")).provenance_id)


def test_a_damaged_shard_is_named_where_there_are_no_stamps(context: RunContext, first: GalaxyModel, tmp_path: Path) -> None:
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    shard = context.layout.shard(UNIT, "main")
    shutil.rmtree(context.layout.stamps(UNIT, context.settings.cut.name))
    damage(shard)
    receipt = renew_unit(later, UNIT, FETCH)
    assert receipt.status == "bad_data" and shard.name in receipt.reason + receipt.file


def test_a_damaged_shard_is_made_anew(context: RunContext, first: GalaxyModel, tmp_path: Path) -> None:
    later = with_model(context, CASES["a new head without pixels"](first), tmp_path / "later")
    shard = context.layout.shard(UNIT, "main")
    damage(shard)
    assert renew_unit(later, UNIT).status == "done"
    assert "carried" not in read_inputs(context.layout, "main", read_shard_meta(shard).provenance_id)


def test_parts_of_a_model_are_told_apart(first: GalaxyModel, tmp_path: Path) -> None:
    def parts(name: str, model: GalaxyModel) -> tuple[str, dict[str, str]]:
        save_model(tmp_path / name, model, {"name": name}, "")
        found = model_parts(tmp_path / name)
        return found.encoder, dict(found.heads)

    encoder, heads = parts("first", first)
    assert list(heads) == ["morphology", "parameters"]
    # as read back and saved once more, the same
    assert parts("again", load_model(tmp_path / "first").model) == (encoder, heads)
    ring = parts("ring", CASES["a new head without pixels"](first))
    assert ring[0] == encoder and {name: ring[1][name] for name in heads} == heads and set(ring[1]) - set(heads) == {"ring"}
    changed = parts("changed", CASES["a changed head with pixels"](first))
    assert changed[0] == encoder and changed[1]["parameters"] != heads["parameters"] and changed[1]["morphology"] == heads["morphology"]
    other = parts("other", new_model(BEFORE, 2).eval())
    assert other[0] != encoder
    card = json.loads((tmp_path / "first" / "card.json").read_text())
    (tmp_path / "first" / "card.json").write_text(json.dumps(card | {"heads": card["heads"] | {"morphology": 3}}))
    # a version that was raised counts, whatever the weights
    assert model_parts(tmp_path / "first").heads["morphology"] != heads["morphology"]


def test_an_embedding_of_another_length_is_refused(first: GalaxyModel, context: RunContext) -> None:
    rows, _ = read_shard(context.layout.shard(UNIT, "main"))
    short = pa.array([row[:3] for row in rows["embedding"].to_pylist()], pa.list_(pa.float16()))
    wrong = rows.set_column(rows.column_names.index("embedding"), "embedding", short)
    with pytest.raises(Exception, match="an embedding of 16 numbers in each of 5 rows"):
        Predictor.load(context.model_folder).predict_kept(wrong, BATCH, ("morphology",))


class Refusing:
    """A release that must not be asked for anything."""

    base = "nowhere"

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the release was asked: {name}")


@pytest.fixture
def client() -> Iterator[Client]:
    """A worker in this process."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, resources={"GPU": 1}) as cluster,
        Client(cluster) as found,
    ):
        yield found


def test_a_tile_begins_where_there_is_work(context: RunContext, first: GalaxyModel, tmp_path: Path, client: Client) -> None:
    """Neither fetched nor cut: the one receipt is the catalog's, from the embeddings in the shard."""
    later = replace(
        with_model(context, CASES["a new head without pixels"](first), tmp_path / "later"), keep_bricks=False, keep_stamps=False
    )
    remove_folder(context.layout.stamps(UNIT, context.settings.cut.name))
    receipts: list[Receipt] = []
    release = Release("dr9", cast(Source, Refusing()))
    engine = Engine(later, release, client, Limiter(1), receipts.append, Event(), {UNIT: FETCH})
    process_units(engine, [UNIT])
    assert [(receipt.stage, receipt.status) for receipt in receipts] == [("catalog", "done")]
    assert "ring_yes_probability" in read_shard(context.layout.shard(UNIT, "main"))[0].column_names
