"""Unions of releases: ls-dr10, and such as people make of two folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from galpipe.config import FetchSettings
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from galpipe.mock.server import MockServer
from galpipe.survey.bricks import brick_at
from galpipe.survey.plan import make_plan, resolve
from galpipe.survey.releases import open_release
from galpipe.survey.remote import changed_remotely, fetch_brick
from galpipe.survey.tables import read_brick_table
from galpipe.unit import Unit
from tests.survey.fake_release import bytes_of, table_bytes, write, write_list

NORTH, BOTH, LOW = (brick_at(192.8, dec).name for dec in (40.1, 33.1, 10.1))
BELOW = brick_at(10.1, 33.1).name
"""North of the rule's declination, but below the Galactic plane."""

FETCH = FetchSettings(products=("image",), bands=("g", "i"), retries=1, timeout=5.0, back_off=0.01)


def member(root: Path, name: str, region: str, bricks: list[str], bands: str, primary: list[bool] | None = None) -> Path:
    """A release of one region, every brick with one image per band and a published list."""
    tree = root / name
    write(tree, f"{region}/survey-bricks-{name}-{region}.fits.gz", table_bytes(bricks, bands, primary))
    for seed, brick in enumerate(bricks):
        folder = f"{region}/coadd/{brick[:3]}/{brick}"
        for band in bands:
            write(tree, f"{folder}/legacysurvey-{brick}-image-{band}.fits.fz", bytes_of(500 + seed, ord(band)))
        write_list(tree, folder, f"legacysurvey_{name}_{region}_coadd_{brick[:3]}_{brick}.sha256sum")
    return tree


@pytest.fixture
def trees(tmp_path: Path) -> dict[str, Path]:
    """DR10 has only a south, which reaches beyond the rule's declination; DR9's tree has more than its north."""
    new = member(tmp_path / "data", "dr10", "south", [LOW, BOTH, BELOW], "griz")
    old = member(tmp_path / "data", "dr9", "north", [NORTH, BOTH, BELOW, LOW], "grz")
    member(tmp_path / "data", "dr9", "south", [LOW, BOTH], "grz")
    return {"south": new, "north": old}


def spec(parts: dict[str, object]) -> str:
    return ",".join(f"{region}={place}" for region, place in parts.items())


def test_ls_dr10_is_dr10_south_and_dr9_north() -> None:
    release = open_release("ls-dr10")
    assert release.name == "ls-dr10"
    assert release.unit("south", "0001m002") == Unit("dr10", "south", "0001m002")
    assert release.unit("north", "0001m002") == Unit("dr9", "north", "0001m002")
    root = "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey"
    assert release.source.base == f"south={root}/dr10/, north={root}/dr9/"


def test_each_brick_comes_once_and_under_the_name_of_its_own_release(trees: dict[str, Path]) -> None:
    release = open_release(spec(trees))
    assert release.name == "dr10+dr9"
    plan = make_plan(release, "all", FETCH)
    assert [str(unit) for unit in plan.units] == [f"dr9/north/{BOTH}", f"dr9/north/{NORTH}", f"dr10/south/{LOW}", f"dr10/south/{BELOW}"]
    assert plan.bands == {"north": ("g",), "south": ("g", "i")}
    alone = make_plan(open_release(str(trees["south"])), f"bricks:{LOW}", FETCH)
    assert alone.units[0] in plan.units


def test_files_come_from_the_member_and_are_proven_by_its_lists(trees: dict[str, Path], tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    with MockServer(tmp_path / "data") as server:
        release = open_release(spec({region: f"{server.url}{tree.name}" for region, tree in trees.items()}))
        for unit in make_plan(release, "all", FETCH).units:
            files = fetch_brick(release, unit, FETCH, layout.brick_folder(unit))
            assert files.counts()["verified"] == len(files.bands) == (2 if unit.region == "south" else 1)
            assert all(f"/{unit.release}/{unit.region}/" in item.url for item in files.records if item.url)
            assert changed_remotely(release, files) == ()
    assert (layout.root / "bricks/dr9/north" / BOTH[:3] / BOTH / "fetch.json").exists()
    assert not (layout.root / "bricks/dr10/south" / BOTH[:3] / BOTH).exists()


def test_one_name_may_be_given_to_all(trees: dict[str, Path]) -> None:
    plan = make_plan(open_release(spec(trees), "mine"), "all", FETCH)
    assert {(unit.release, unit.region) for unit in plan.units} == {("mine", "north"), ("mine", "south")}


def test_a_brick_that_both_tables_claim_goes_by_the_rule(trees: dict[str, Path]) -> None:
    for region, names in (("south", [LOW, BOTH, BELOW]), ("north", [NORTH, BOTH, BELOW, LOW])):
        tree = trees[region]
        content = table_bytes(names, "grz", primary=[True] * len(names))
        write(tree, f"{region}/survey-bricks-{tree.name}-{region}.fits.gz", content)
    units = make_plan(open_release(spec(trees)), "all", FETCH).units
    assert [str(unit) for unit in units] == [f"dr9/north/{BOTH}", f"dr9/north/{NORTH}", f"dr10/south/{LOW}", f"dr10/south/{BELOW}"]


def test_what_the_table_says_comes_before_the_rule() -> None:
    north = read_brick_table(table_bytes([BOTH, LOW], primary=[False, True]), "n")
    south = read_brick_table(table_bytes([BOTH, LOW], primary=[True, False]), "s")
    owned, notes = resolve({"north": north, "south": south})
    assert owned["north"].tolist() == [False, True]
    assert owned["south"].tolist() == [True, False]
    assert notes == []


def test_a_region_that_the_rule_does_not_know_comes_last_and_is_told() -> None:
    tables = {
        name: read_brick_table(table_bytes(bricks), name) for name, bricks in {"east": [LOW, BOTH, NORTH], "south": [LOW, BOTH]}.items()
    }
    owned, notes = resolve(tables)
    # the south has no claim to what lies north of the rule's declination
    assert owned["east"].tolist() == [False, True, True]
    assert owned["south"].tolist() == [True, False]
    assert notes == ["1 bricks are in several regions, and no rule is known for east"]
    together = np.concatenate(list(owned.values()))
    assert together.sum() == len({LOW, BOTH, NORTH})


def test_a_member_without_its_region_is_refused(trees: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"expected north/coadd/ in dr10"):
        open_release(f"south={trees['south']},north={trees['south']}").regions()


@pytest.mark.parametrize("text", ["south=nowhere,north=dr9", "south=,north=dr9", "a/b=dr9", "south=dr10,north"])
def test_a_union_of_what_is_not_there(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a release"):
        open_release(text)
