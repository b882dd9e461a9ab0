"""Input that is wrong in one place: the brick's other sources, and the run's other bricks, are done all the same."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from catalogs.outcomes import read_outcomes, read_outcomes_meta
from catalogs.shard import read_shard
from catalogs.verify import verify
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, Settings
from galpipe.lvm.weights import model_hash, shipped_folder
from galpipe.mock.spec import MockSummary
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.unit import Receipt, Unit
from tasks.catalog import predict_unit, record_without_rows
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit
from tests.survey.fake_release import write_list


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    folder = shipped_folder()
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z"), products=("image", "invvar")))
    return RunContext(tmp_path / "root", "main", "run", settings, folder, model_hash(folder), code_version())


class Tree:
    """A release of one mock brick, linked, so that single files can be replaced."""

    def __init__(self, made: MockSummary, root: Path) -> None:
        self.root, self.brick = root, made.bricks[0]
        self.unit = Unit("mock", "south", self.brick)
        self.coadd = f"south/coadd/{self.brick[:3]}/{self.brick}"
        self.tractor = f"south/tractor/{self.brick[:3]}"
        for folder in (self.coadd, self.tractor):
            shutil.copytree(made.release / folder, root / folder, copy_function=lambda one, other: Path(other).symlink_to(one))
        shutil.copy(made.release / "south/survey-bricks-dr9-south.fits.gz", root / "south")

    def image(self, product: str) -> Path:
        return self.root / self.coadd / f"legacysurvey-{self.brick}-{product}.fits.fz"

    @property
    def table(self) -> Path:
        return self.root / self.tractor / f"tractor-{self.brick}.fits"

    def edit(self, path: Path, change: Callable[[fits.HDUList], None]) -> None:
        """Change a file and publish the sum of what it is now: the survey itself made the mistake."""
        with fits.open(path, disable_image_compression=True) as hdus:
            change(hdus)
            content = fits.HDUList([fits.PrimaryHDU(header=hdus[0].header), *hdus[1:]])
            path.unlink()
            content.writeto(path)
        self.publish()

    def publish(self) -> None:
        start = f"legacysurvey_dr9_south_coadd_{self.brick[:3]}_{self.brick}"
        for folder, name in ((self.coadd, start), (self.tractor, f"legacysurvey_dr9_south_tractor_{self.brick[:3]}")):
            if (self.root / folder).exists():
                (self.root / folder / f"{name}.sha256sum").unlink(missing_ok=True)
                write_list(self.root, folder, f"{name}.sha256sum")

    def run(self, context: RunContext, *stages: str) -> list[Receipt]:
        """The stages one after the other, until one ends without a product."""
        release, receipts = open_release(str(self.root), "mock"), []
        for stage in stages or ("fetch", "cut", "catalog"):
            if stage == "fetch":
                receipts.append(fetch_unit(context, release, self.unit, Limiter(2)))
            else:
                receipts.append({"cut": cut_unit, "catalog": predict_unit}[stage](context, self.unit))
            if receipts[-1].status != "done":
                record_without_rows(context, receipts[-1])
                break
        return receipts


@pytest.fixture
def tree(mock_release: MockSummary, tmp_path: Path) -> Tree:
    return Tree(mock_release, tmp_path / "tree")


def test_rows_that_are_wrong_cost_only_themselves(tree: Tree, context: RunContext) -> None:
    def spoil(hdus: fits.HDUList) -> None:
        data = hdus[1].data
        bright = np.flatnonzero(data["brick_primary"] & (data["flux_z"] > 20) & (data["type"] != "PSF"))
        copied, disputed, turned, lost, flagged = bright[:5]
        rows = [*range(len(data)), copied, copied, disputed]
        table = fits.BinTableHDU.from_columns(hdus[1].columns, nrows=len(rows))
        for name in data.names:
            table.data[name] = data[name][rows]
        table.data["flux_z"][-1] += 1
        table.data["ra"][turned] += 360
        table.data["ra"][lost] = 1000.0
        table.data["maskbits"][flagged] |= 1 << 14
        hdus[1] = table

    before = len(fits.getdata(tree.table))
    tree.edit(tree.table, spoil)
    fetched, cut, done = tree.run(context)
    assert (fetched.status, cut.status, done.status) == ("done", "done", "done"), done.reason
    assert cut.reason == "unknown to this version, left aside: maskbits 14"
    outcomes = read_outcomes(context.layout.outcomes(tree.unit, "main"))
    assert outcomes.num_rows == before + 3 == done.counts["sources"]
    reasons = Counter(zip(outcomes["status"].to_pylist(), outcomes["reason"].to_pylist(), strict=True))
    assert reasons["filtered", "duplicated_row"] == 2
    assert reasons["failed", "conflicting_rows"] == 2
    assert reasons["failed", "bad_position"] == 1
    rows, _ = read_shard(context.layout.shard(tree.unit, "main"))
    ids = rows["source_id"].to_pylist()
    assert len(set(ids)) == len(ids) == done.rows == reasons["predicted", ""]
    assert max(rows["ra"].to_pylist()) < 360
    assert 1 << 14 in {bits & 1 << 14 for bits in rows["maskbits"].to_pylist()}
    assert verify(context.layout, "main") == []


@pytest.mark.parametrize(
    ("product", "card", "value", "told"),
    [
        ("image-g", "BRICK", "0001m002", "expected BRICK {brick}, of the file's name, got '0001m002'"),
        ("invvar-r", "BRICKID", 17, "expected BRICKID {brickid}, of the file's name, got 17"),
        ("image-z", "CRVAL1", 12.5, "expected CRVAL1 .*, of brick {brick}, got 12.5"),
        ("maskbits", "CD1_1", 7.3e-05, "expected CD1_1 .*, of brick {brick}, got 7.3e-05"),
    ],
)
def test_an_image_of_another_brick_is_named(tree: Tree, context: RunContext, product: str, card: str, value: object, told: str) -> None:
    def spoil(hdus: fits.HDUList) -> None:
        hdus[1].header[card] = value

    brickid = fits.getval(tree.image(product), "BRICKID", 1)
    tree.edit(tree.image(product), spoil)
    fetched, cut = tree.run(context)
    assert (fetched.status, cut.status) == ("done", "bad_data")
    assert cut.file == f"legacysurvey-{tree.brick}-{product}.fits.fz"
    pattern = f"{tree.unit} {cut.file}: {told.format(brick=tree.brick, brickid=brickid)}"
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(cut.reason)
    meta = read_outcomes_meta(context.layout.outcomes(tree.unit, "main"))
    assert (meta.status, meta.file, meta.reason) == ("bad_data", cut.file, cut.reason)


def test_a_table_of_another_brick_is_named(tree: Tree, context: RunContext, mock_release: MockSummary) -> None:
    other = mock_release.bricks[1]
    tree.table.unlink()
    shutil.copy(mock_release.release / "south" / "tractor" / other[:3] / f"tractor-{other}.fits", tree.table)
    tree.publish()
    fetched, cut = tree.run(context)
    assert (fetched.status, cut.status, cut.file) == ("done", "bad_data", tree.table.name)
    assert cut.reason.startswith(f"{tree.unit} {tree.table.name}: expected brickid ")


def test_a_release_without_any_tractor_table_ends_well(tree: Tree, context: RunContext) -> None:
    shutil.rmtree(tree.root / "south" / "tractor")
    fetched, cut = tree.run(context)
    assert (fetched.status, cut.status) == ("done", "no_work")
    assert fetched.reason == f"absent: tractor-{tree.brick}.fits"
    meta = read_outcomes_meta(context.layout.outcomes(tree.unit, "main"))
    assert (meta.status, meta.file) == ("no_work", f"tractor-{tree.brick}.fits")
    assert "expected a Tractor table, got absent" in meta.reason
