"""Files go to stores that keep what they had, and a file that was mended or edited takes the place of its earlier self."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from catalogs.join import Origin, build_shard
from galpipe.config import Settings
from galpipe.stamps.store import read_store
from galpipe.survey.bricks import brick_at
from galpipe.unit import Receipt, Unit
from tasks.context import RunContext
from tasks.stamps import RELEASE, ingest, refused_unit

PLACE = (10.0, -5.0)
UNIT = Unit(RELEASE, "all", brick_at(*PLACE).name)


def context_of(root: Path) -> RunContext:
    return RunContext(root, "main", "run", Settings(), Path("/nowhere"), "hash", "0")


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return context_of(tmp_path / "root")


def stamp(path: Path, seed: int, place: tuple[float, float] | None = PLACE) -> Path:
    pixels = np.random.default_rng(seed).normal(0.1, 0.01, (152, 152, 3)).astype(np.float32)
    # a position that is not finite is none
    ra, dec = place or (np.nan, np.nan)
    np.savez(path, cutout=pixels, meta_pixel_scale=0.262, meta_bands_requested="grz", meta_ra=ra, meta_dec=dec)
    return path


def taken_in(context: RunContext, files: Iterable[Path], refused: Iterable[Unit] = ()) -> tuple[set[Unit], dict[Unit, Receipt]]:
    found = list(ingest(context, list(files), frozenset(refused)))
    receipts = [item for item in found if isinstance(item, Receipt)]
    assert len({item.unit for item in receipts}) == len(receipts)
    return {item for item in found if isinstance(item, Unit)}, {item.unit: item for item in receipts}


def store(context: RunContext, unit: Unit = UNIT) -> Path:
    return context.layout.stamps(unit, context.settings.cut.name)


def names(context: RunContext, unit: Unit = UNIT) -> list[str]:
    return sorted(Path(name).name for name in read_store(store(context, unit)).stamps.sources["file"].to_pylist())


def test_a_store_keeps_what_it_had(context: RunContext, tmp_path: Path) -> None:
    first, second = stamp(tmp_path / "a.npz", 1), stamp(tmp_path / "b.npz", 2)
    assert taken_in(context, [first]) == ({UNIT}, {})
    assert taken_in(context, [second]) == ({UNIT}, {})
    assert taken_in(context, [second]) == ({UNIT}, {})
    assert names(context) == ["a.npz", "b.npz"]
    assert read_store(store(context)).counts() == {"sources": 2, "selected": 2, "filtered": 0, "failed": 0}


def test_pictures_are_marked_from_file_to_row(context: RunContext, tmp_path: Path) -> None:
    """The mark of the JPEG route is in the store and in the row; stamps of survey pixels beside it do not have it."""
    pixels = np.random.default_rng(1).integers(20, 90, (152, 152, 3)).astype(np.uint8)
    picture = tmp_path / f"{PLACE[0]:.4f}_{PLACE[1]:.4f}.jpg"
    Image.fromarray(pixels).save(picture, quality=75)
    assert taken_in(context, [picture, stamp(tmp_path / "a.npz", 1)]) == ({UNIT}, {})
    sources = read_store(store(context)).stamps.sources
    rows = build_shard(sources, pa.table({"source_id": sources["source_id"]}), (), Origin(UNIT, 1))
    marks = dict(zip((Path(name).name for name in rows["file"].to_pylist()), rows["jpeg_route"].to_pylist(), strict=True))
    assert marks == {picture.name: True, "a.npz": False}


@pytest.mark.parametrize("setup", ["", "galpipe.commit._exchange = lambda one, other: False\n"], ids=["exchange", "renames"])
@pytest.mark.parametrize("point", ["folder.written", "folder.swapped", "folder.renamed"])
def test_a_kill_while_a_store_is_replaced_loses_no_earlier_stamp(context: RunContext, tmp_path: Path, setup: str, point: str) -> None:
    first, second, third = (stamp(tmp_path / f"{name}.npz", seed) for seed, name in enumerate("abc"))
    taken_in(context, [first])
    script = (
        f"import galpipe.commit\nfrom pathlib import Path\n{setup}"
        "from tests.tasks.test_stamps import context_of\nfrom tasks.stamps import ingest\n"
        f"list(ingest(context_of(Path({str(context.root)!r})), [Path({str(second)!r})]))\n"
    )
    environment = {**os.environ, "GALPIPE_FAULT": point}
    done = subprocess.run([sys.executable, "-c", script], env=environment, start_new_session=True, check=False)
    assert done.returncode == -9
    assert taken_in(context, [third]) == ({UNIT}, {})
    assert set(names(context)) - {"b.npz"} == {"a.npz", "c.npz"}


def test_an_edited_file_replaces_its_earlier_stamp(context: RunContext, tmp_path: Path) -> None:
    edited, other = stamp(tmp_path / "a.npz", 1), stamp(tmp_path / "b.npz", 2)
    taken_in(context, [edited, other])
    before = set(read_store(store(context)).stamps.sources["source_id"].to_pylist())
    stamp(edited, 3)
    taken_in(context, [edited])
    after = set(read_store(store(context)).stamps.sources["source_id"].to_pylist())
    assert names(context) == ["a.npz", "b.npz"]
    assert len(before & after) == 1


def test_an_edited_file_leaves_the_unit_it_was_in(context: RunContext, tmp_path: Path) -> None:
    """Another position is another brick; without a position another content is another bucket."""
    moved, stays = stamp(tmp_path / "a.npz", 1), stamp(tmp_path / "b.npz", 2)
    (bucket,), _ = taken_in(context, [stamp(tmp_path / "c.npz", 3, None)])
    taken_in(context, [moved, stays])
    stamp(moved, 1, (40.0, -5.0))
    written, receipts = taken_in(context, [moved])
    assert written == {UNIT, Unit(RELEASE, "all", brick_at(40.0, -5.0).name)} and not receipts
    assert names(context) == ["b.npz"]
    written, receipts = taken_in(context, [stamp(tmp_path / "c.npz", 4, None)])
    assert bucket in written and len(written) == 2 and not receipts
    assert names(context, bucket) == []


def test_a_renamed_file_is_known_by_its_new_name(context: RunContext, tmp_path: Path) -> None:
    path = stamp(tmp_path / "a.npz", 1)
    taken_in(context, [path])
    taken_in(context, [path.rename(tmp_path / "b.npz")])
    assert names(context) == ["b.npz"]


def test_a_refused_file_that_reads_later_is_done(context: RunContext, tmp_path: Path) -> None:
    bad, good = tmp_path / "a.npz", stamp(tmp_path / "b.npz", 2)
    bad.write_bytes(b"PK")
    units, receipts = taken_in(context, [bad, good])
    assert units == {UNIT} and receipts[refused_unit(str(bad))].status == "bad_data"
    _, again = taken_in(context, [bad, good], receipts)
    assert again == receipts
    stamp(bad, 1)
    _, mended = taken_in(context, [bad, good], receipts)
    (receipt,) = mended.values()
    assert (receipt.unit, receipt.status, receipt.reason) == (refused_unit(str(bad)), "done", "")
    assert taken_in(context, [bad, good]) == ({UNIT}, {})


def test_a_refused_row_that_reads_later_is_done(context: RunContext, tmp_path: Path) -> None:
    path = tmp_path / "list.h5"
    cube = np.random.default_rng(1).normal(0.1, 0.01, (2, 3, 152, 152)).astype(np.float32)
    for plane in (np.zeros_like(cube[1]), cube[1]):
        with h5py.File(path, "w") as file:
            file["images"], file["ra"], file["dec"] = np.stack([cube[0], plane]), [PLACE[0]] * 2, [PLACE[1]] * 2
        _, receipts = taken_in(context, [path], [refused_unit(f"{path}[1]"), refused_unit("elsewhere")])
        (receipt,) = receipts.values()
        assert (receipt.unit, receipt.status) == (refused_unit(f"{path}[1]"), "done" if plane.any() else "bad_data")


def test_a_damaged_store_is_left_alone_and_named(context: RunContext, tmp_path: Path) -> None:
    first, second, far = stamp(tmp_path / "a.npz", 1), stamp(tmp_path / "b.npz", 2), stamp(tmp_path / "c.npz", 3, (40.0, -5.0))
    taken_in(context, [first])
    for shard in (store(context) / "image" / "c").rglob("0"):
        if shard.is_file():
            shard.unlink()
    before = sorted(store(context).rglob("*"))
    units, receipts = taken_in(context, [second, far])
    assert len(units) == 1 and UNIT not in units
    assert receipts[UNIT].status == "bad_data" and str(store(context)) in receipts[UNIT].reason
    assert sorted(store(context).rglob("*")) == before
    store(context).rename(tmp_path / "elsewhere")
    units, receipts = taken_in(context, [first, second], [UNIT])
    assert units == {UNIT} and receipts[UNIT].status == "done"
    assert names(context) == ["a.npz", "b.npz"]
