from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.errors import BadData, ConfigurationError
from galpipe.select.anomaly import found_within, outlier_score, percentiles
from galpipe.select.neighbours import EMPTY, FloatArray, Found, Ids, Space, build_index, recall, search_exact, search_index

FIRST_ID = 9011 << 42


def clumps(count: int, length: int = 24, seed: int = 1) -> FloatArray:
    rng = np.random.default_rng(seed)
    centers = 3 * rng.standard_normal((12, length))
    return (centers[rng.integers(0, 12, count)] + rng.standard_normal((count, length))).astype(np.float32)


def batches(vectors: FloatArray, size: int) -> Iterator[tuple[Ids, FloatArray]]:
    for first in range(0, len(vectors), size):
        yield FIRST_ID + np.arange(first, min(first + size, len(vectors)), dtype=np.int64), vectors[first : first + size]


def by_hand(vectors: FloatArray, queries: FloatArray, n: int) -> tuple[Ids, FloatArray]:
    center = vectors.mean(axis=0)
    one, other = queries - center, vectors - center
    cosine = (one @ other.T) / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(other, axis=1)[None]
    order = np.argsort(-cosine, axis=1)[:, :n]
    return FIRST_ID + order, (1 - np.take_along_axis(cosine, order, axis=1)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 70), count=st.integers(3, 60), n=st.integers(1, 12))
def test_exact_search_agrees_with_all_cosines_whatever_the_batches(size: int, count: int, n: int) -> None:
    vectors = clumps(count)
    space = Space.of(vectors)
    found = search_exact(batches(vectors, size), space, vectors[:3], n)
    ids, distance = by_hand(vectors, vectors[:3], n)
    have = min(n, count)
    assert found.ids[:, :have].tolist() == ids.tolist()
    assert found.distance[:, :have] == pytest.approx(distance, abs=1e-5)
    assert (found.ids[:, have:] == EMPTY).all()
    assert np.isinf(found.distance[:, have:]).all()


def test_the_index_finds_most_neighbours_in_several_files_and_every_one_when_it_looks_everywhere(tmp_path: Path) -> None:
    vectors = clumps(3000)
    space = Space.of(vectors)
    files = build_index(tmp_path, batches(vectors, 500), space, vectors, part_rows=1000)
    assert [path.name for path in files] == [f"part-{number:05d}.faiss" for number in range(3)]
    exact = search_exact(batches(vectors, 700), space, vectors[:40], 10)
    assert recall(search_index(files, space, vectors[:40], 10), exact) > 0.9
    # stored in half precision: only neighbours at the same distance may change places
    assert recall(search_index(files, space, vectors[:40], 10, probes=10_000), exact) > 0.99
    few = search_index(files, space, vectors[:40], 10, probes=1)
    assert recall(few, exact) < 1
    again = build_index(tmp_path, batches(vectors, 500), space, vectors, part_rows=1000)
    assert search_index(again, space, vectors[:5], 10).ids.tolist() == search_index(files, space, vectors[:5], 10).ids.tolist()


def test_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    vectors = clumps(100)
    space = Space.of(vectors)
    files = build_index(tmp_path, batches(vectors, 50), space, vectors)
    with pytest.raises(ConfigurationError, match="embeddings of 24 numbers"):
        search_index(files, space, np.zeros((1, 16), np.float32), 3)
    with pytest.raises(BadData, match="an index of 16 numbers a vector"):
        search_index(files, Space(np.zeros(16, np.float32)), np.ones((1, 16), np.float32), 3)
    files[0].write_bytes(b"no index")
    with pytest.raises(BadData, match="a faiss index"):
        search_index(files, space, vectors[:1], 3)


def test_an_object_far_from_all_others_has_the_highest_score() -> None:
    vectors = clumps(400)
    vectors[7] = -4 * vectors[:100].mean(axis=0) + 9 * np.eye(24)[3]
    found = search_exact(batches(vectors, 128), Space.of(vectors), vectors, 11)
    score = outlier_score(found, FIRST_ID + np.arange(400))
    assert int(np.argmax(score)) == 7
    share = percentiles(score)
    assert share[7] == 1
    assert share.min() == 0
    assert share.mean() == pytest.approx(0.5, abs=0.01)


def test_the_score_is_the_mean_chord_to_the_ten_nearest_others() -> None:
    ids = np.array([[5, 1, 2] + [EMPTY] * 9, [*range(100, 112)]])
    distance = np.array([[0.0, 0.5, 2.0] + [np.inf] * 9, [0.02] * 10 + [1.0, 1.0]], np.float32)
    score = outlier_score(Found(ids, distance), np.array([5, 7]))
    # two others at cosines 0.5 and -1; then ten at 0.98, the eleventh does not count
    assert score == pytest.approx([(1.0 + 2.0) / 2, 0.2], abs=1e-6)
    assert np.isnan(outlier_score(Found(np.array([[5, EMPTY]]), np.array([[0, np.inf]], np.float32)), np.array([5]))[0])


def test_unknown_scores_have_no_percentile_and_ties_share_theirs() -> None:
    assert percentiles(np.array([1.0, np.nan, 2.0, 2.0, 3.0])) == pytest.approx([0, np.nan, 0.5, 0.5, 1.0], nan_ok=True)


def test_recall_and_purity_of_a_budget_of_looks() -> None:
    score = np.array([0.9, 0.8, 0.1, 0.7, np.nan])
    rare = np.array([True, False, True, False, False])
    assert found_within(score, rare, 2) == (0.5, 0.5)
    assert found_within(score, rare, 4) == (1.0, 0.5)
