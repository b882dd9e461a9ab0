from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from flows.cli.detection import _text
from galpipe.errors import BadData, ConfigurationError, NoWork
from galpipe.evaluate.benchmark import BENCHMARK, SMALL, benchmark_packs, pack_rows
from galpipe.evaluate.detection import Stamp, average_precision, count, stamp_of
from galpipe.evaluate.detection_figure import draw
from galpipe.evaluate.detection_rows import bin_text, rows_of
from galpipe.evaluate.detection_run import Request, chosen_rows, measure_detection
from galpipe.evaluate.maskrcnn import BaselineSettings, detections, example, train_baseline
from galpipe.evaluate.maskrcnn_network import Narrow, network
from galpipe.evaluate.maskrcnn_results import RESULTS, find_results, save_results, saved_results, shipped_results
from galpipe.evaluate.objects import Listing, empty_listing, saved_listing, sep_listings
from galpipe.heads.objectlist import encode_runs
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.pack import Pack, read_pack
from galpipe.lvm.predict import Predictor
from tests.lvm.toy import TINY, toy_pack


def perfect(pack: Pack) -> Iterator[Listing]:
    """A method that lists the counted objects, as they are."""
    for row in range(len(pack)):
        stamp = stamp_of(pack, row)
        codes = np.flatnonzero(stamp.objects[:, 7] == 0)
        own = stamp.objects[codes]
        lookup = np.full(256, -1, np.int16)
        lookup[codes + 1] = np.arange(len(codes))
        scores = np.linspace(0.9, 0.5, len(codes)).astype(np.float32)
        yield Listing(own[:, :2], own[:, 2:6], scores, own[:, 6], len(codes), lookup[stamp.segments])


def figures(rows: list[dict[str, object]], method: str = "m") -> dict[tuple[str, str], dict[str, object]]:
    return {(str(row["metric"]), str(row["bin"])): row for row in rows if row["method"] == method}


@pytest.fixture(scope="module")
def pack(small_benchmark: Path) -> Pack:
    return read_pack(benchmark_packs(small_benchmark, SMALL)[0])


def test_a_perfect_list_scores_one_and_an_empty_one_nothing(pack: Pack) -> None:
    rows = figures(rows_of("m", count(pack, perfect(pack)), {"all": np.ones(len(pack), bool)}, draws=50))
    for metric in ("f1", "completeness", "purity", "f1, centers", "average precision at IoU 0.5", "class right, of those found"):
        assert rows[metric, ""]["value"] == pytest.approx(1.0), metric
    assert rows["mask IoU, of those found", ""]["value"] == pytest.approx(1.0)
    assert rows["f1", "all"]["value"] == rows["f1", ""]["value"]
    binned = [row for (metric, _), row in rows.items() if metric == "completeness by magnitude"]
    assert sum(int(str(row["count"])) for row in binned) == rows["completeness", ""]["count"]
    nothing = figures(rows_of("m", count(pack, (empty_listing(152) for _ in range(len(pack)))), {}, draws=50))
    assert nothing["f1", ""]["value"] == 0.0
    assert nothing["average precision at IoU 0.5", ""]["value"] == 0.0
    assert np.isnan(nothing["purity", ""]["value"])


def test_ignored_objects_neither_reward_nor_punish() -> None:
    toy = toy_pack(1)
    assert toy.objects is not None
    objects = np.concatenate([toy.objects, [[30, 30, 28, 28, 32, 32, 0, 1]]]).astype(np.float32)
    toy = dataclasses.replace(toy, objects=objects, object_start=np.array([0, 2]))
    own = next(perfect(toy))
    spare = np.array([[30.0, 31.0]], np.float32), np.array([[27, 29, 33, 34]], np.float32)
    both = Listing(
        np.concatenate([own.centers, spare[0]]),
        np.concatenate([own.boxes, spare[1]]),
        np.array([0.9, 0.5], np.float32),
        np.zeros(2, np.float32),
        2,
        own.owner,
    )
    far = dataclasses.replace(both, centers=both.centers + np.array([[0], [70]], np.float32), boxes=both.boxes + np.array([[0], [70]]))
    found = [figures(rows_of("m", count(toy, [item]), {}, draws=5)) for item in (own, both, far)]
    assert [item["f1", ""]["value"] for item in found] == pytest.approx([1.0, 1.0, 2 / 3])


def test_average_precision_is_the_area_under_the_envelope() -> None:
    ranking = np.array([[0.9, 1, 0], [0.8, 0, 0], [0.7, 1, 1], [0.6, 0, 1]])
    true = np.array([1.0, 2.0])
    assert average_precision(ranking, true, np.array([[1.0, 1.0]]))[0] == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(ranking, true, np.array([[2.0, 0.0]]))[0] == pytest.approx(1.0)


def test_sep_finds_the_toy_galaxies() -> None:
    toy = toy_pack(6)
    rows = figures(rows_of("m", count(toy, sep_listings(toy.stamps())), {}, draws=20))
    assert rows["completeness, compact", ""]["count"] == 0
    assert rows["f1, centers", ""]["value"] == 1.0
    assert rows["class right, of those found", ""]["count"] == 0
    assert float(str(rows["mask IoU, of those found", ""]["value"])) > 0.5


def test_all_methods_are_measured_on_the_same_stamps(small_benchmark: Path, tmp_path: Path) -> None:
    settings = ModelSettings(**TINY.as_dict() | {"heads": ("detection",)})
    predictor = Predictor(new_model(settings, 1), {}, "hash", device_of("cpu"))
    request = Request(small_benchmark, ("lvm", "sep", "maskrcnn"), stamps=6, benchmark=SMALL)
    seen: dict[str, int] = {}
    found = measure_detection(request, lambda: predictor, lambda what, done, total: seen.update({what: done}))
    assert found["stamps"] == seen["lvm"] == seen["sep"] == 6
    assert "saved detections of these 6 stamps" in found["left_out"]["maskrcnn"]
    keys = [[(row["metric"], row["bin"]) for row in found["results"] if row["method"] == method] for method in ("lvm", "sep")]
    assert keys[0] == keys[1]
    sep = figures(found["results"], "sep")
    assert float(str(sep["f1", ""]["value"])) > 0.3
    low, value, high = (float(str(sep["f1", ""][name])) for name in ("low", "value", "high"))
    assert low <= value <= high
    assert ("f1", "region south") in sep and ("f1", "brick small, south") in sep
    picture = tmp_path / "plot.png"
    picture.write_bytes(draw(found["results"]))
    with Image.open(picture) as image:
        assert image.size[0] > 600
    assert "completeness by magnitude  r 20 to 21" in _text(found)
    with pytest.raises(ConfigurationError, match="methods among"):
        Request(small_benchmark, ("lvm", "guess"))


def test_bins_and_choices_are_readable() -> None:
    assert [bin_text((-np.inf, 18, 20, np.inf), index) for index in range(3)] == ["< 18", "18 to 20", "> 20"]
    assert chosen_rows(10, 4).tolist() == [0, 3, 6, 9]
    assert chosen_rows(3, 4).tolist() == [0, 1, 2]


def test_examples_of_the_baseline_keep_pixels_boxes_and_masks_together() -> None:
    toy = toy_pack(1)
    for turn in range(8):
        image, target = example(toy, 0, turn)
        x0, y0, x1, y1 = target["boxes"][0].int().tolist()
        rows, columns = np.nonzero(target["masks"][0].numpy())
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
        light = image[1].numpy()
        assert light[y0:y1, x0:x1].mean() > 5 * abs(light[:40].mean())
        assert target["labels"].tolist() == [1]


def named_toys() -> Pack:
    toy = toy_pack(2)
    return dataclasses.replace(toy, sources=toy.sources.append_column("brickname", [["a", "a"]]).append_column("objid", [[1, 2]]))


def test_the_baseline_trains_and_goes_on(tmp_path: Path) -> None:
    toy = toy_pack(2)
    settings = BaselineSettings(epochs=1, batch=2)
    done: list[int] = []
    model = train_baseline(toy, settings, tmp_path, lambda what, step, total: done.append(step))
    assert done == [1]
    fresh = {name: value for name, value in network(settings.seed).state_dict().items() if value.is_floating_point()}
    assert any(not np.allclose(value, model.state_dict()[name].cpu()) for name, value in fresh.items())
    again = train_baseline(toy, settings, tmp_path, lambda what, step, total: done.append(step))
    assert done == [1]
    assert all(np.array_equal(value.cpu(), again.state_dict()[name].cpu()) for name, value in model.state_dict().items())
    with pytest.raises(ConfigurationError, match="a checkpoint of settings"):
        train_baseline(toy, dataclasses.replace(settings, epochs=2), tmp_path)
    listed = list(detections(model, toy))
    assert len(listed) == 2
    for found in listed:
        assert [item["score"] for item in found] == sorted((item["score"] for item in found), reverse=True)
        assert all(0 <= item["x0"] <= item["x1"] < 152 and 0 <= item["y0"] <= item["y1"] < 152 for item in found)


def test_every_part_of_the_baseline_learns_and_boxes_keep_their_digits() -> None:
    """A frozen normalization of random weights would be an unfair baseline; bfloat16 boxes would be rounded to whole pixels."""
    model = network(1).train()
    image, target = example(toy_pack(1), 0, 0)
    terms = model([image], [target])
    assert all(value.dtype == torch.float32 for value in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    normalizations = [part for part in model.modules() if isinstance(part, torch.nn.GroupNorm)]
    assert len(normalizations) == 53
    assert all(part.weight.grad is not None and bool(part.weight.grad.any()) for part in normalizations)
    assert all(value.grad is not None for value in model.parameters())
    assert sum(isinstance(part, Narrow) for part in model.modules()) == 6
    with torch.inference_mode():
        boxes = model.eval()([image])[0]["boxes"]
    assert boxes.dtype == torch.float32
    assert bool((boxes != boxes.bfloat16().float()).any())


def listed_as_they_are(pack: Pack) -> list[list[dict[str, object]]]:
    """The counted objects as a catalog would list them."""
    return [
        [listed_object(stamp, code) for code in np.flatnonzero(stamp.objects[:, 7] == 0)]
        for stamp in map(partial(stamp_of, pack), range(len(pack)))
    ]


def listed_object(stamp: Stamp, code: int) -> dict[str, object]:
    x, y, *box = (float(value) for value in stamp.objects[code, :6])
    x0, y0, x1, y1 = (int(side) for side in box)
    mask = stamp.segments[y0 : y1 + 1, x0 : x1 + 1] == code + 1
    said = {"score": 0.75, "class": "star" if stamp.objects[code, 6] > 0 else "galaxy", "area": int(mask.sum())}
    return {"x": x, "y": y, "x0": x0, "y0": y0, "x1": x1, "y1": y1, **said, "mask_rle": encode_runs(mask)}


def test_saved_results_stand_for_the_baseline(small_benchmark: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is measured as it was found, wherever it lies: beside the packs, or in the package."""
    monkeypatch.setattr("galpipe.evaluate.maskrcnn_results.shipped_results", lambda version: [tmp_path / "shipped.parquet"])
    some = pack_rows(pack, chosen_rows(len(pack), 6))
    facts = {"benchmark": SMALL.version, "threshold": 0.5}
    save_results(tmp_path / "shipped.parquet", some, listed_as_they_are(some), facts)
    found = measure_detection(Request(small_benchmark, ("maskrcnn",), 6, SMALL), pytest.fail, lambda what, done, total: None)
    assert found["baseline"] == facts and not found["left_out"]
    rows = figures(found["results"], "maskrcnn")
    assert rows["f1", ""]["value"] == rows["class right, of those found", ""]["value"] == pytest.approx(1.0)
    assert rows["mask IoU, of those found", ""]["value"] == pytest.approx(1.0)
    # stamps that were not saved are said to be missing; one's own training goes first
    every = measure_detection(Request(small_benchmark, ("maskrcnn",), 0, SMALL), pytest.fail, lambda what, done, total: None)
    assert every["left_out"]["maskrcnn"].endswith("got 6 of them among 6 (shipped.parquet)") and not every["results"]
    save_results(tmp_path / RESULTS, some, [[] for _ in range(len(some))], facts | {"own": True})
    assert find_results(tmp_path, some, SMALL.version)[1]["own"]


def test_the_saved_results_that_ship_are_of_the_frozen_benchmark() -> None:
    (path,) = shipped_results(BENCHMARK.version)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"maskrcnn"])
    assert path.name == f"maskrcnn-{facts['benchmark']}-{facts['stamps_per_brick']}.parquet" and facts["benchmark"] == BENCHMARK.version
    assert (facts["training_stamps"], facts["epochs"]) == (1000, 8)
    # 60 stamps of each brick that measures, each named once
    rows = table.select(["brickname", "objid"]).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    assert set(Counter(row["brickname"] for row in rows).values()) == {60}
    assert sum(len(found) for found in table["detections"].to_pylist()) > 1000
    assert path.stat().st_size < 300_000


def test_saved_results_of_other_stamps_or_benchmarks_are_refused(tmp_path: Path) -> None:
    toy = named_toys()
    path = tmp_path / RESULTS
    save_results(path, toy, listed_as_they_are(toy), {"benchmark": "1-small", "threshold": 0.5})
    turned, _ = saved_results(path, pack_rows(toy, np.array([1, 0])), "1-small")
    straight, _ = saved_results(path, toy, "1-small")
    assert [item.boxes.tolist() for item in turned] == [item.boxes.tolist() for item in reversed(straight)]
    with pytest.raises(BadData, match="detections on benchmark 2"):
        saved_results(path, toy, "2")
    with pytest.raises(NoWork, match="got 1 of them among 2"):
        other = dataclasses.replace(toy, sources=toy.sources.set_column(toy.sources.schema.get_field_index("objid"), "objid", [[1, 3]]))
        saved_results(path, other, "1-small")
    path.write_bytes(b"no table")
    with pytest.raises(BadData, match="saved detections"):
        saved_results(path, toy, "1-small")


def test_saved_masks_are_owned_by_the_better_detection() -> None:
    def item(x0: int, score: float) -> dict[str, object]:
        box = {"x0": x0, "y0": 0, "x1": x0 + 3, "y1": 3, "x": x0 + 1.5, "y": 1.5}
        return {**box, "score": score, "class": "star", "mask_rle": encode_runs(np.ones((4, 4), bool))}

    listing = saved_listing([item(0, 0.9), item(2, 0.6), item(8, 0.1)], 0.5, 16)
    assert listing.kept == 2
    assert [int((listing.owner == index).sum()) for index in range(3)] == [16, 8, 0]
    assert json.dumps(listing.stars.tolist()) == "[1.0, 1.0, 1.0]"
    assert saved_listing([], 0.5, 16).kept == 0
