from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from galpipe.config import FetchSettings
from galpipe.errors import BadData, ConfigurationError
from galpipe.mock.server import MockServer
from galpipe.survey.bricks import brick_at, brick_by_name
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import Release, open_release
from galpipe.survey.tables import brick_table, read_brick_table
from tests.survey.fake_release import BRICK, coadd_path, make_tree, table_bytes, write

NORTH_ONLY, BOTH, LOW = (brick_at(112.67, dec).name for dec in (34.25, 32.75, 22.25))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """North and south, with two bricks in both."""
    root = tmp_path / "dr9"
    for region, names in (("north", [NORTH_ONLY, BOTH, LOW]), ("south", [BOTH, LOW])):
        write(root, f"{region}/survey-bricks-dr9-{region}.fits.gz", table_bytes(names))
        (root / region / "coadd").mkdir()
    (root / "external").mkdir()
    return root


def units(release: Release, region: str = "all") -> list[str]:
    return [str(unit) for unit in make_plan(release, region).units]


def test_north_and_south_are_resolved(two: Path) -> None:
    release = open_release(str(two))
    assert release.name == "dr9"
    assert release.regions() == ("north", "south")
    assert brick_by_name(BOTH).dec >= 32.375
    assert units(release) == [f"dr9/north/{BOTH}", f"dr9/north/{NORTH_ONLY}", f"dr9/south/{LOW}"]


def test_the_table_s_own_resolution_wins(two: Path) -> None:
    for region, primary in (("north", [True, False, True]), ("south", [True, False])):
        names = [NORTH_ONLY, BOTH, LOW] if region == "north" else [BOTH, LOW]
        write(two, f"{region}/survey-bricks-dr9-{region}.fits.gz", table_bytes(names, primary=primary))
    assert units(open_release(str(two))) == [f"dr9/north/{LOW}", f"dr9/north/{NORTH_ONLY}", f"dr9/south/{BOTH}"]


def test_south_of_the_galactic_plane_is_south(tmp_path: Path) -> None:
    name = "0101p342"
    for region in ("north", "south"):
        write(tmp_path / "dr9", f"{region}/survey-bricks-dr9-{region}.fits.gz", table_bytes([name]))
        (tmp_path / "dr9" / region / "coadd").mkdir()
    assert units(open_release(str(tmp_path / "dr9"))) == [f"dr9/south/{name}"]


def test_a_release_with_one_region_is_not_resolved(tmp_path: Path) -> None:
    make_tree(tmp_path / "dr10", {})
    write(tmp_path / "dr10", "south/survey-bricks-dr10-south.fits.gz", table_bytes([NORTH_ONLY], "griz", primary=[False]))
    (tmp_path / "dr10" / "south" / "survey-bricks-dr9-south.fits.gz").unlink()
    release = open_release(str(tmp_path / "dr10"))
    assert release.bands("south") == ("g", "r", "i", "z")
    assert units(release) == [f"dr10/south/{NORTH_ONLY}"]


def test_a_tree_without_regions_ids_and_edges(tmp_path: Path) -> None:
    write(tmp_path / "old", "survey-bricks-dr6.fits.gz", table_bytes([BRICK], full=False))
    write(tmp_path / "old", "survey-bricks.fits.gz", table_bytes([BRICK, LOW, BOTH]))
    (tmp_path / "old" / "coadd").mkdir()
    release = open_release(str(tmp_path / "old"))
    assert release.regions() == ("all",)
    assert release.prefix("all") == ""
    assert release.label("all") == "dr6"
    (row,) = release.brick_table("all").to_pylist()
    brick = brick_by_name(BRICK)
    assert (row["brickid"], row["ra1"], row["dec2"]) == (brick.brickid, brick.ra1, brick.dec2)
    assert row["survey_primary"] is None
    wanted = release.wanted_files(make_plan(release, "all").units[0], FetchSettings(), ("g",))
    assert wanted[0].path == f"coadd/{BRICK[:3]}/{BRICK}/legacysurvey-{BRICK}-image-g.fits.fz"
    assert [item.product for item in wanted] == ["image", "invvar", "nexp", "maskbits", "tractor"]


def test_a_tree_without_a_table_is_listed(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "mine", {coadd_path("image", "g"): b"x"})
    (root / "south" / "survey-bricks-dr9-south.fits.gz").unlink()
    assert units(open_release(str(root))) == [f"mine/south/{BRICK}"]
    with MockServer(root) as server:
        assert units(open_release(server.url, "mine")) == [f"mine/south/{BRICK}"]


@pytest.mark.parametrize("listing", [True, False])
def test_the_same_over_http(two: Path, listing: bool) -> None:
    with MockServer(two.parent, listing=listing) as server:
        release = open_release(server.url + "dr9/")
        assert release.name == "dr9"
        assert release.regions() == ("north", "south")
        assert units(release) == units(open_release(str(two)))


def test_the_estimate_is_measured(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "dr9", {coadd_path("image", "g"): bytes(1000), coadd_path("invvar", "g"): bytes(500)})
    plan = make_plan(open_release(str(root)), "all")
    assert (plan.files_estimate, plan.bytes_estimate) == (2, 1500)
    with MockServer(root) as server:
        assert make_plan(open_release(server.url, "dr9"), "all") == plan


def test_names_that_the_release_does_not_have(two: Path) -> None:
    plan = make_plan(open_release(str(two)), f"bricks:{LOW},0001m002")
    assert plan.missing == ("0001m002",)
    assert [unit.brick for unit in plan.units] == [LOW]


def test_a_region_with_no_bricks(two: Path) -> None:
    with pytest.raises(ConfigurationError, match="a region with bricks in it, got 'cone:200,-40,1'"):
        make_plan(open_release(str(two)), "cone:200,-40,1")


@pytest.mark.parametrize("spec", ["dr12", "nowhere/at/all", "south=dr10,north", ""])
def test_an_unknown_release(spec: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a release"):
        open_release(spec) if spec else open_release("no such thing")


def test_known_names_and_names_from_addresses() -> None:
    assert open_release("dr10").source.base == "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey/dr10/"
    assert open_release("http://example.org/data/dr9/").name == "dr9"
    assert open_release("http://example.org/data/dr9/", "mine").name == "mine"
    assert open_release("http://127.0.0.1:80/").name == "127.0.0.1-80"
    with pytest.raises(ConfigurationError, match="letters"):
        open_release("http://example.org/x", "a/b")


def test_a_folder_that_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a release tree"):
        open_release(str(tmp_path)).regions()


@pytest.mark.parametrize("content", [b"", b"<html></html>", table_bytes([BRICK])[:300], b"\x1f\x8bnonsense"])
def test_a_damaged_brick_table(tmp_path: Path, content: bytes) -> None:
    root = make_tree(tmp_path / "dr9", {})
    write(root, "south/survey-bricks-dr9-south.fits.gz", content)
    with pytest.raises(BadData, match=r"survey-bricks-dr9-south.fits.gz: expected a readable table of bricks"):
        make_plan(open_release(str(root)), "all")


def test_names_outside_the_grid_are_refused() -> None:
    content = table_bytes([BRICK])
    assert read_brick_table(content, "t")["nexp_g"].to_pylist() == [2]
    assert "nexp" not in read_brick_table(content, "t").column_names
    with pytest.raises(BadData, match="1126p223"):
        brick_table(np.array(["1126p223"]), {}, "t")
