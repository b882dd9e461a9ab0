"""The paired test tells what a route loses, and claims nothing on too little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from flows.cli.evaluate import evaluate
from galpipe.errors import BadData
from galpipe.evaluate import jpeg_route
from galpipe.evaluate.jpeg_figure import draw
from galpipe.evaluate.jpeg_route import CONTROL, Column, compare, embedding_change, flux_residuals, head_changes, mirrored, through, verdict
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.stamps.pictures import KINDS
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.stretch import GZ_DECALS
from tests.labels.makers import cube
from tests.lvm.toy import TINY, toy_pack

GALAXY10, RINGS = KINDS["legacy_galaxy10"], KINDS["legacy_rings"]


@pytest.fixture(scope="module")
def stamps() -> StampSet:
    return toy_pack(4).stamps()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(new_model(TINY, 1), {}, "toy", device_of("cpu"))


def residuals(stamps: StampSet, **changes: Any) -> dict[str, dict[str, float]]:
    kind = replace(GALAXY10, **changes)
    found = flux_residuals(stamps, list(through(stamps, kind)), kind)
    return {entry["bin"]: entry for entry in found if entry["band"] == "r"}


def test_bins_hold_every_pixel_once(stamps: StampSet) -> None:
    found = residuals(stamps)
    assert sum(entry["pixels"] for entry in found.values()) == len(stamps) * 152 * 152
    # 21 mag per square arcsec are 0.27 nanomaggies a pixel, 24 are 0.017, 25 are 0.007
    assert 0.27 < residuals(stamps, stretch=GZ_DECALS)["20-21"]["flux"] < 0.69 and 0.006 < found["24-25"]["flux"] < 0.018


def test_coarser_coding_loses_more(stamps: StampSet) -> None:
    fine, coarse = residuals(stamps, quality=98, subsampling=0), residuals(stamps, quality=40)
    for name in ("22-23", "23-24"):
        assert fine[name]["nmad"] < 0.6 * coarse[name]["nmad"]
        assert abs(fine[name]["median"]) < 0.03 * fine[name]["flux"]


def test_cores_beyond_white_are_counted_not_averaged(stamps: StampSet) -> None:
    """These galaxies are white in g from 0.36 nanomaggies a pixel on, so that neither band's flux is known there."""
    found = residuals(stamps, quality=98, subsampling=0)
    assert found["20-21"]["clipped"] > 0.9 > 0.1 > found["22-23"]["clipped"]


def test_pictures_have_the_size_of_the_set(stamps: StampSet) -> None:
    assert next(through(stamps, GALAXY10)).shape == (152, 152, 3)
    assert next(through(stamps, RINGS)).shape == (424, 424, 3)


def test_mirrored_stamps_keep_the_source_s_pixel(stamps: StampSet) -> None:
    turned = mirrored(stamps)
    assert np.array_equal(turned.image[..., 76], stamps.image[..., 76])
    assert np.array_equal(turned.image[..., 70:83], stamps.image[..., 82:69:-1])


def test_routes_and_control_are_compared(stamps: StampSet, predictor: Predictor) -> None:
    results = compare(predictor, stamps, [GALAXY10, RINGS])
    assert [item["route"] for item in results] == ["legacy_galaxy10", "legacy_rings", CONTROL]
    for item in results:
        assert item["galaxies"] == 4 and set(item["heads"]) <= {"morphology", "parameters", "detection", "restoration", "domain"}
        assert -1 <= item["embedding"]["cosine_least"] <= item["embedding"]["cosine"] <= 1.0001
        assert item["heads"]["morphology"]["columns"]["smooth-or-featured_smooth_fraction"]["galaxies"] == 4
    assert draw({"real": results}).startswith(b"\x89PNG")
    with pytest.raises(BadData, match="at least two stamps"):
        compare(predictor, stamps.take([0]), [RINGS])


def test_figures_of_known_changes() -> None:
    vectors = np.eye(3)
    moved = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    change = embedding_change(vectors, moved)
    assert (change["cosine"], change["cosine_least"], change["between_galaxies"], change["found_again"]) == (1.0, 0.8, 0.0, 1.0)
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan])
    direct = [Column("a", "h", values), Column("flat", "h", np.zeros(5))]
    heads = head_changes(direct, [Column("a", "h", values + 0.3), Column("flat", "h", np.ones(5))])
    assert list(heads["h"]["columns"]) == ["a"]
    figures = heads["h"]["columns"]["a"]
    assert figures["median"] == pytest.approx(0.3) and figures["galaxies"] == 4
    assert figures["relative"] == pytest.approx(0.3 / (1.4826 * 1.0))
    assert heads["h"]["holding"] == 1.0


def test_claims_need_galaxies_published_constants_and_a_small_change() -> None:
    heads = {"good": {"change": 0.1}, "bad": {"change": 0.5}}
    route = {"route": "legacy_rings", "galaxies": 40, "photometric": True, "heads": heads}
    symbolic = route | {"route": "sdss_gz1_classes", "photometric": False}
    told = verdict([route, symbolic, {"route": CONTROL, "galaxies": 40, "heads": heads}])
    assert told["supported"] == {"legacy_rings": ["good"], "sdss_gz1_classes": []}
    few = verdict([route | {"galaxies": 14}])
    assert few["supported"] == {"legacy_rings": []} and "14 real galaxies" in few["reason"]
    assert verdict([])["supported"] == {}


def test_verb(tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        cube(tmp_path / "real" / f"{seed}.fits", seed)
    (tmp_path / "real" / "bad.fits").write_bytes(b"no")
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: predictor)
    monkeypatch.setattr(jpeg_route.compare, "__defaults__", ((GALAXY10,),))
    arguments = ["jpeg", "--real", str(tmp_path / "real"), "--mock", "0", "--plot", str(tmp_path / "a.png")]
    ended = CliRunner().invoke(evaluate, [*arguments, "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["counts"] == {"real": 2} and told["verdict"]["supported"] == {"legacy_galaxy10": []}
    assert [item["file"] for item in told["failures"]] == [str(tmp_path / "real" / "bad.fits")]
    assert (tmp_path / "a.png").stat().st_size > 1000
    text = CliRunner().invoke(evaluate, arguments)
    assert "JPEG route" in text.stdout and "claims supported: none" in text.stdout
    assert CliRunner().invoke(evaluate, ["jpeg", "--mock", "0", "--json"]).exit_code == 2
