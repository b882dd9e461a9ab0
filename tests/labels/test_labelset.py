"""Every layout through one interface: streamed, by row, taken up again; what is missing or damaged is named and counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from galpipe.errors import BadData, ConfigurationError
from galpipe.labels import sources
from galpipe.labels.labelset import Dropped, LabelBatch, open_labels, position_of_name
from galpipe.labels.target import TargetSpec
from galpipe.lvm.inputs import stamp_inputs
from tests.labels.makers import cube, flux, jpeg, parquet, stein


def pixels(batch: LabelBatch) -> np.ndarray:
    assert batch.stamps is not None
    return batch.stamps.image


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """Seven rows in three groups; row 2 has no image, row 4 a damaged one, row 5 the id of row 1."""
    images = [jpeg(seed) for seed in range(7)]
    ids = ["a", "b", "c", "d", "e", "b", "g"]
    images[2], images[4] = None, images[4][:300]
    return parquet(tmp_path / "legacy_galaxy10_part.parquet", images, 3, id=ids, label=["x", "y"] * 3 + ["x"])


def test_parquet(seven: Path) -> None:
    labels = open_labels(seven)
    assert (len(labels), labels.route, labels.ids[3]) == (7, "JPEG route", "d")
    assert labels.kind is not None and labels.kind.name == "legacy_galaxy10" and not labels.kind_assumed
    assert labels.column("label").counts == {"x": 4, "y": 3}
    with pytest.raises(ConfigurationError, match="'lable'"):
        labels.column("lable")


def test_streaming_covers_all_rows_and_names_the_dropped(seven: Path) -> None:
    labels = open_labels(seven)
    batches = list(labels.batches(2))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1], [3], [], [6]]
    dropped = {item.id: item.reason for batch in batches for item in batch.dropped}
    assert "an image, got none" in dropped["c"] and "can be decoded" in dropped["e"] and "of row 1 again" in dropped["b"]
    assert sum(len(batch.rows) + len(batch.dropped) for batch in batches) == len(labels)
    assert batches[2].stamps is None


def test_rows_are_the_same_streamed_or_asked_for(seven: Path) -> None:
    labels = open_labels(seven)
    whole = np.concatenate([pixels(batch) for batch in labels.batches(3) if batch.stamps is not None])
    by_row = labels.stamps([0, 3, 6])
    assert by_row.rows.tolist() == [0, 3, 6]
    assert np.array_equal(pixels(by_row), whole[[0, 2, 3]])
    resumed = [row for batch in labels.batches(3, after=1) for row in batch.rows.tolist()]
    assert resumed == [3, 6]
    assert [row for batch in labels.batches(2, rows=[1, 6]) for row in batch.rows] == [1, 6]


def test_batches_are_model_inputs_and_say_their_route(seven: Path) -> None:
    (batch,) = open_labels(seven).batches(10)
    assert batch.stamps is not None
    inputs = stamp_inputs(batch.stamps)
    assert inputs.pixels.shape == (4, 3, 160, 160) and bool(inputs.valid[:, :, 20:140, 20:140].all())
    assert batch.stamps.sources["jpeg_route"].to_pylist() == [True] * 4
    truth = np.arcsinh(flux(0)[1, 60:93, 60:93] / 0.007)
    assert np.median(np.abs(batch.stamps.normalized()[0, 1, 60:93, 60:93] - truth)) < 0.35


def test_groups_without_a_wanted_row_are_not_read(seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = open_labels(seven)
    read = []
    original = sources.ParquetSource._group

    def watched(source: sources.ParquetSource, group: int, first: int, rows: list[int]) -> Iterator[tuple[int, sources.Item | BadData]]:
        read.append(group)
        return original(source, group, first, rows)

    monkeypatch.setattr(sources.ParquetSource, "_group", watched)
    assert labels.stamps([6]).rows.tolist() == [6]
    assert read == [2]


def test_rows_must_ascend(seven: Path) -> None:
    labels = open_labels(seven)
    for rows in ([1, 0], [0, 0], [7], [-1]):
        with pytest.raises(ConfigurationError, match="ascend from 0 to 6"):
            labels.stamps(rows)
    with pytest.raises(ConfigurationError, match="at least one"):
        next(labels.batches(0))


def test_targets_leave_out_rows_without_an_image(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [jpeg(1), jpeg(2), jpeg(1)], id=["a", "b", "a"], label=["x", "y", "x"])
    found = open_labels(path).target(TargetSpec("label"))
    assert found.rows.tolist() == [0, 1] and found.left_out == {"no image, or a row again": 1}


def test_an_unknown_set_is_an_assumption_unless_told(tmp_path: Path) -> None:
    path = parquet(tmp_path / "mine.parquet", [jpeg(1), jpeg(2)], id=["a", "b"])
    assert open_labels(path).kind_assumed
    told = open_labels(path, "sdss_gz2_votes")
    assert told.kind is not None and told.kind.stretch.name == "skyserver_fitted" and not told.kind_assumed
    with pytest.raises(ConfigurationError, match="'gz3'"):
        open_labels(path, "gz3")


def test_stein_layout(tmp_path: Path) -> None:
    cubes = [flux(seed) for seed in range(4)]
    cubes[1] = np.zeros_like(cubes[1])
    fields = {
        "ra": [10.0, 20.0, 30.0, 30.0],
        "dec": [1.0, 2.0, 3.0, 3.0],
        "release": [9010] * 4,
        "brickid": [327000, 327001, 327002, 327002],
        "objid": [5, 6, 7, 8],
        "inds": [100, 101, 104, 104],
        "z_spec": [0.1, -99.0, 0.2, 0.3],
        "transmission": np.full((4, 3), 0.5),
    }
    labels = open_labels(stein(tmp_path / "images_npix152_000000000_000000004.h5", cubes, **fields))
    assert (labels.route, labels.kind, labels.ids[0], labels.ra[2]) == ("survey pixels", None, "9010-327000-5", 30.0)
    assert labels.source.remarks == ("inds skips 2 values",)
    (batch,) = labels.batches(10)
    assert batch.rows.tolist() == [0, 2]
    assert {item.row: item.reason for item in batch.dropped}[3] == "row 2 again (inds 104)"
    assert "a pixel with data" in {item.row: item.reason for item in batch.dropped}[1]
    assert batch.stamps is not None
    assert batch.stamps.flux(1)[1, 76, 76] == pytest.approx(2 * cubes[2][1, 76, 76], rel=1e-2)
    assert batch.stamps.sources["jpeg_route"].to_pylist() == [False, False]
    with pytest.raises(ConfigurationError, match="a set of pictures"):
        next(labels.pictures())


def test_folders_of_classes(tmp_path: Path) -> None:
    for seed, name in enumerate(("ring/a.jpg", "ring/b.jpg", "none/c.jpg")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(jpeg(seed))
    (tmp_path / "set" / "ring" / "notes.txt").write_text("x")
    labels = open_labels(tmp_path / "set")
    assert labels.ids == ("none/c.jpg", "ring/a.jpg", "ring/b.jpg")
    assert labels.target(TargetSpec("label")).counts() == {"none": 1, "ring": 2}
    assert labels.stamps([1]).rows.tolist() == [1]


def test_tables_beside_images(tmp_path: Path) -> None:
    cube(tmp_path / "fits" / "a.fits", 1)
    cube(tmp_path / "fits" / "b.fits", 2)
    (tmp_path / "fits" / "b.fits").write_bytes((tmp_path / "fits" / "b.fits").read_bytes()[:5000])
    (tmp_path / "labels.csv").write_text("file,ra,dec,bar\nfits/a.fits,10,2,0.5\nfits/b.fits,11,2,\nfits/c.fits,12,2,0.1\n")
    labels = open_labels(tmp_path / "labels.csv")
    assert labels.route == "survey pixels" and labels.dec.tolist() == [2.0] * 3
    (batch,) = labels.batches()
    assert batch.rows.tolist() == [0]
    reasons = [item.reason for item in batch.dropped]
    assert "truncated" in reasons[0] or "readable" in reasons[0]
    assert reasons[1] == "no file c.fits"
    (tmp_path / "tables").mkdir()
    moved = (tmp_path / "labels.csv").rename(tmp_path / "tables" / "labels.csv")
    with pytest.raises(BadData, match="none of 3 files"):
        open_labels(moved)
    assert open_labels(moved, images=tmp_path).stamps([0]).rows.tolist() == [0]


def test_what_is_no_label_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a.h5").write_bytes(b"no")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "empty").mkdir()
    cases = {"a.parquet": "readable Parquet", "a.csv": "a column of images", "a.h5": "readable HDF5", "a.txt": "'a.txt'"}
    cases |= {"empty": "subfolders of images", "gone": "nothing"}
    for name, text in cases.items():
        with pytest.raises((BadData, ConfigurationError), match=text) as error:
            open_labels(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(BadData, match="at least one row"):
        open_labels(parquet(tmp_path / "none.parquet", [], id=[]))


def test_routes_are_not_mixed(tmp_path: Path) -> None:
    cube(tmp_path / "set" / "x" / "a.fits", 1)
    (tmp_path / "set" / "x" / "b.jpg").write_bytes(jpeg(2))
    with pytest.raises(BadData, match="figures are given per route"):
        open_labels(tmp_path / "set")


def test_iau_names_tell_positions(tmp_path: Path) -> None:
    assert position_of_name("J000411.19+020924.0") == (pytest.approx(1.046625), pytest.approx(2.156667, abs=1e-6))
    assert position_of_name("J234803.69-000320.9") == (pytest.approx(357.015375), pytest.approx(-0.055806, abs=1e-6))
    assert position_of_name("587722981748965649") is None
    labels = open_labels(parquet(tmp_path / "a.parquet", [jpeg(1), jpeg(2)], id=["J000411.19+020924.0", "x"]))
    assert np.isfinite(labels.ra).tolist() == [True, False]


def test_pictures_come_decoded_or_dropped(seven: Path) -> None:
    found = dict(open_labels(seven).pictures([0, 4]))
    assert isinstance(found[0], np.ndarray) and found[0].shape == (152, 152, 3)
    assert isinstance(found[4], Dropped) and found[4].file == str(seven)
