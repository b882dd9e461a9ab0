from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from galpipe.evaluate.kept import Answer, Kept, rows_digest
from galpipe.labels.labelset import open_labels
from tests.labels.makers import jpeg, parquet


def never() -> Answer:
    raise AssertionError("learned again")


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, array_shapes(min_dims=1, max_dims=2)), st.integers(1, 2000), st.lists(st.floats(0, 9), max_size=2))
def test_an_answer_comes_back_as_it_was(predicted: np.ndarray, labels: int, half_widths: list[float]) -> None:
    answer = Answer(np.arange(len(predicted)), predicted, labels, np.array(half_widths, np.float64))
    with TemporaryDirectory() as folder:
        kept = Kept(Path(folder))
        path = kept.path("resnet18", {"seed": 1})
        assert not kept.has(path)
        kept.get(path, lambda: answer)
        again = kept.get(path, never)
    assert kept.folder is not None and again.labels == labels
    for one, two in ((again.rows, answer.rows), (again.predicted, predicted), (again.half_widths, answer.half_widths)):
        assert np.array_equal(one, two, equal_nan=True) and one.dtype == two.dtype


def test_a_damaged_file_is_learned_again(tmp_path: Path) -> None:
    kept, answer = Kept(tmp_path), Answer(np.arange(2), np.zeros(2), 5, np.zeros(0))
    path = kept.path("lvm", {})
    assert path is not None
    kept.get(path, lambda: answer)
    path.write_bytes(path.read_bytes()[:100])
    assert not kept.has(path)
    assert kept.get(path, lambda: answer) is answer and kept.get(path, never).labels == 5


def test_nothing_is_kept_without_a_folder() -> None:
    answer = Answer(np.arange(2), np.zeros(2), 5, np.zeros(0))
    kept = Kept(None)
    assert kept.path("lvm", {}) is None and kept.get(None, lambda: answer) is answer and not kept.has(None)


def test_a_name_for_all_that_an_answer_depends_on(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    names = [kept.path("lvm", item) for item in ({"seed": 1, "shots": 2}, {"shots": 2, "seed": 1}, {"seed": 2, "shots": 1})]
    assert names[0] == names[1] != names[2]


def test_the_digest_is_of_pictures_and_answers(tmp_path: Path) -> None:
    images = [jpeg(index) for index in range(4)]
    answers, rows = np.array([0, 1, 0, 1]), np.arange(4)
    one = open_labels(parquet(tmp_path / "a.parquet", images, id=list("abcd"), kind=list("xyxy")))
    digest = rows_digest(one, rows, answers)
    moved = tmp_path / "b.parquet"
    pq.write_table(pq.read_table(one.path).append_column("note", pa.array(list("1234"))), moved)
    assert rows_digest(open_labels(moved), rows, answers) == digest
    assert rows_digest(one, rows, answers[::-1].copy()) != digest
    assert rows_digest(one, rows[1:], answers[1:]) != digest
    other = open_labels(parquet(tmp_path / "c.parquet", [*images[:3], jpeg(9)], id=list("abcd"), kind=list("xyxy")))
    assert rows_digest(other, rows, answers) != digest
