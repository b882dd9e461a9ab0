from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from flows.cli.detect import detect as verb
from galpipe.config import SOFTENING
from galpipe.errors import BadData
from galpipe.heads.base import StampContext
from galpipe.heads.detection import Detection
from galpipe.heads.objectlist import decode_runs, find
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.field import SkyField, brick_field, file_field
from galpipe.lvm.inputs import MARGIN, stamp_inputs
from galpipe.lvm.mocksky import local_files
from galpipe.lvm.model import new_model
from galpipe.lvm.tiles import SLACK, STEP, detect, join, tile_stamps, tiling
from galpipe.lvm.weights import save_model
from galpipe.mock.spec import MockSummary
from galpipe.mock.truth import truth_objects
from galpipe.stamps.stampset import StampSet, plain_wcs
from galpipe.unit import Unit
from tests.lvm.toy import TINY


class Seer:
    """Stands in for a trained model: raw outputs as the head gives them, made from the peaks of the pixels themselves."""

    model_hash = "seer"

    def __init__(self) -> None:
        self.model = SimpleNamespace(head=lambda name: Detection.build(TINY))

    def raw(self, stamps: StampSet, batch: int) -> Any:
        inputs = stamp_inputs(stamps)
        pixels, valid = inputs.pixels.numpy(), inputs.valid.numpy()
        maps = np.zeros((len(stamps), 11, 80, 80), np.float32)
        maps[:, 0], foreground = -8.0, np.full((len(stamps), 160, 160), -9.0, np.float32)
        for index in range(len(stamps)):
            light = pixels[index, min(1, pixels.shape[1] - 1)]
            padded = np.pad(light, 2, constant_values=-np.inf)
            around = np.max([padded[2 + dy : 162 + dy, 2 + dx : 162 + dx] for dy in range(-2, 3) for dx in range(-2, 3)], axis=0)
            for y, x in np.argwhere((light == around) & (light > 3)):
                half = 3.0 + 0.1 * (x % 2)
                maps[index, :, y // 2, x // 2] = [6, x / 2 - x // 2, y / 2 - y // 2, *[np.log(half + 0.5)] * 4, -5, 0, 0, 3]
            foreground[index] = np.where(light > 2, 9, -9)
        context = StampContext(stamps.sources, stamps.size, MARGIN, stamps.pixscale, pixels, valid)
        return SimpleNamespace(heads={"detection": {"maps": maps, "foreground": foreground}}, context=context)


def sky(places: np.ndarray, shape: tuple[int, int]) -> SkyField:
    """Stars of 3 px FWHM without noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    plane = np.zeros(shape, np.float32)
    for px, py in places:
        near = slice(max(int(py) - 8, 0), int(py) + 9), slice(max(int(px) - 8, 0), int(px) + 9)
        plane[near] += np.exp(-((x[near] - px) ** 2 + (y[near] - py) ** 2) / (2 * 1.3**2)).astype(np.float32)
    flux = np.stack([plane * SOFTENING[band] * 300 for band in "grz"])
    return SkyField("sky", ("g", "r", "z"), flux, np.ones(flux.shape, bool), plain_wcs((150.0, 2.0), (0.0, 0.0), 0.262))


def grid(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Places at least 14 px apart, many of them on the borders of tiles; fewer in a tile than the head lists at most."""
    rng = np.random.default_rng(seed)
    candidates = rng.uniform(4, np.array(shape)[::-1] - 5, (500, 2))
    borders = [(a + b) / 2 + 75.5 for a, b in zip(tiling(shape).x0[:-1], tiling(shape).x0[1:], strict=True)]
    candidates[:100, 0] = rng.choice(borders, 100) + rng.uniform(-0.6, 0.6, 100)
    kept: list[np.ndarray] = []
    for place in candidates:
        if all(np.hypot(*(place - other)) > 14 for other in kept):
            kept.append(place)
    return np.array(kept)


def test_tiles_cover_every_pixel_and_overlap() -> None:
    for shape in ((152, 152), (100, 300), (3600, 3600), (153, 249)):
        tiles = tiling(shape)
        for corners, length in ((tiles.x0, shape[1]), (tiles.y0, shape[0])):
            assert corners[0] == 0
            assert corners[-1] + 152 >= length
            assert len(corners) == 1 or np.diff(corners).max() <= STEP
    assert len(tiling((3600, 3600))) == 37**2


def test_every_object_is_found_once_wherever_it_lies() -> None:
    shape = (400, 520)
    places = grid(shape, 3)
    done: list[tuple[int, int]] = []
    table = detect(Seer(), sky(places, shape), progress=lambda what, count, total: done.append((count, total)))  # type: ignore[arg-type]
    assert done[-1] == (len(tiling(shape)),) * 2
    found = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    away = np.hypot(found[:, None, 0] - places[None, :, 0], found[:, None, 1] - places[None, :, 1])
    assert (away.min(axis=0) < 1.5).all(), "lost"
    assert len(found) == len(places), "doubles"
    assert len(set(table["tile"].to_pylist())) == len(tiling(shape))


def test_positions_boxes_masks_and_fluxes_are_of_the_whole_image() -> None:
    places = np.array([[200.0, 210.0], [60.0, 330.0]])
    image = sky(places, (400, 520))
    table = detect(Seer(), image).sort_by("x")  # type: ignore[arg-type]
    assert table["x"].to_pylist() == pytest.approx([60, 200])
    assert table["dec"].to_pylist() == pytest.approx([2 + 330 * 0.262 / 3600, 2 + 210 * 0.262 / 3600], abs=1e-5)
    for row in table.to_pylist():
        box = slice(row["y0"], row["y1"] + 1), slice(row["x0"], row["x1"] + 1)
        mask = decode_runs(row["mask_rle"], (row["y1"] - row["y0"] + 1, row["x1"] - row["x0"] + 1))
        assert mask.sum() == row["area"] > 9
        assert row["flux_r"] == pytest.approx(float(image.flux[1][box][mask].sum()), rel=1e-5)
        assert row["flux_r"] > 0.7 * image.flux[1][box].sum()
        assert not row["truncated"]


def test_an_image_finds_what_its_stamps_find(mock_release: MockSummary) -> None:
    """Injected truth of a mock brick: tiles are as complete as stamps centered on the sources."""
    brick = mock_release.bricks[0]
    image = brick_field(local_files(mock_release.release, Unit(mock_release.like, mock_release.region, brick)))
    assert 0.9 < image.conditions["psfsize_r"] < 2.0
    seer = Seer()
    table = detect(seer, image)  # type: ignore[arg-type]
    found = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    truth = truth_objects(mock_release.truth, brick).table.to_pylist()
    true = np.array([[row["bx"], row["by"]] for row in truth if row["snr_r"] > 40 and 90 < row["bx"] < 3500 and 90 < row["by"] < 3500])
    assert len(true) > 30
    tiled = np.array([np.hypot(*(found - place).T).min() < 4 for place in true])
    alone = []
    for x, y in np.round(true).astype(int):
        part = slice(y - 76, y + 76), slice(x - 76, x + 76)
        small = SkyField("stamp", image.bands, image.flux[:, part[0], part[1]], image.valid[:, part[0], part[1]], None, image.conditions)
        raw = seer.raw(tile_stamps(small, tiling((152, 152)), [0]), 1)
        maps = raw.heads["detection"]
        centers = find(maps["maps"][0], maps["foreground"][0], raw.context).centers - MARGIN
        alone.append(len(centers) > 0 and np.hypot(*(centers - 76).T).min() < 4)
    assert np.mean(alone) > 0.5
    assert abs(tiled.mean() - np.mean(alone)) < 0.03
    pairs = np.hypot(found[:, None, 0] - found[None, :, 0], found[:, None, 1] - found[None, :, 1]) + 99 * np.eye(len(found))
    twice = np.argwhere(pairs < 3)
    assert all(table["tile"][int(a)] == table["tile"][int(b)] for a, b in twice), "the same object from two tiles"


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=8))
def test_two_tiles_views_of_objects_become_one_each(jitter: list[tuple[float, float]]) -> None:
    places = np.array([[10.0 + 12 * index, 5.0] for index in range(len(jitter))])
    seen = np.concatenate([places, places + np.array(jitter)])
    tiles = np.repeat([0, 1], len(places))
    rank = np.concatenate([np.zeros((len(places), 2)), np.full((len(places), 2), SLACK / 2)])
    kept = join(seen, np.full(len(seen), 6.0), tiles, rank)
    assert kept.tolist() == list(range(len(places)))


def test_close_pairs_across_a_border_stay_two() -> None:
    # both tiles see both objects, 3 px apart, the border between them
    seen = np.array([[10.0, 5.0], [13.0, 5.0], [10.1, 5.0], [13.1, 5.0]])
    rank = np.array([[0, 60.0], [1.5, 62.0], [1.5, 62.0], [0, 60.5]])
    assert join(seen, np.full(4, 6.0), np.array([0, 0, 1, 1]), rank).tolist() == [0, 1]


def test_what_lies_beyond_the_image_is_filled() -> None:
    image = sky(np.array([[50.0, 50.0]]), (100, 200))
    stamps = tile_stamps(image, tiling(image.shape), [0, 1])
    assert not stamps.valid()[:, :, 100:].any()
    assert stamps.valid()[:, :, :100].all()
    with pytest.raises(BadData, match="fluxes and validity"):
        SkyField("wrong", ("g",), image.flux, image.valid)


def tiny_folder(path: Path) -> Path:
    settings = ModelSettings(**TINY.as_dict() | {"heads": ("detection",)})
    save_model(path, new_model(settings, 1), {"name": "tiny", "version": "1"}, "card")
    return path


def test_the_verb_writes_objects_and_names_what_is_wrong(tmp_path: Path) -> None:
    image = sky(np.array([[80.0, 90.0]]), (160, 300))
    header = image.wcs.to_header() if image.wcs is not None else fits.Header()
    header["BANDS"] = "grz"
    good, bad = tmp_path / "field.fits", tmp_path / "bad.fits"
    fits.PrimaryHDU(image.flux, header).writeto(good)
    bad.write_bytes(b"nothing")
    read = file_field(good)
    assert read.shape == (160, 300)
    assert np.allclose(read.flux, image.flux)
    options = [str(good), str(bad), "--out", str(tmp_path / "out"), "--model", str(tiny_folder(tmp_path / "tiny")), "--root", str(tmp_path)]
    ran = CliRunner().invoke(verb, [*options, "--brick", "1501p022", "--json"])
    result = json.loads(ran.stdout)
    assert ran.exit_code == 1
    assert result["status"] == "failed"
    assert [item["kind"] for item in result["failures"]] == ["bad_data", "bad_data"]
    assert "a fetched brick" in result["failures"][1]["reason"]
    table = pq.read_table(result["written"][0]["file"])
    assert table.num_rows == result["counts"]["objects"]
    assert "mask_rle" in table.column_names
    assert CliRunner().invoke(verb, ["--out", str(tmp_path), "--json"]).exit_code == 2
