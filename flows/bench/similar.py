"""Look-alikes by the index against going through every vector: time, and the neighbours that are lost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flows.bench.figures import Figure, Size, in_turns
from galpipe.select.neighbours import FloatArray, Ids, Space, build_index, recall, search_exact, search_index

VECTORS_PER_GALAXY = 400
"""With the default size 100,000 vectors: the index pays from some ten thousand on."""

LENGTH, QUERIES, WANTED, BATCH = 192, 50, 20, 8192

CLUMPS = 300
"""Kinds of galaxy that the vectors scatter about; one cloud without structure would be harder than any catalog."""

SEED = 1


def run(size: Size) -> list[Figure]:
    """Vectors in clumps of unequal weight, as embeddings lie; the queries are among them."""
    rng = np.random.default_rng(SEED)
    vectors = _vectors(rng, VECTORS_PER_GALAXY * size.galaxies)
    ids = np.arange(len(vectors), dtype=np.int64) << 22

    def batches() -> Iterator[tuple[Ids, FloatArray]]:
        for first in range(0, len(vectors), BATCH):
            yield ids[first : first + BATCH], vectors[first : first + BATCH].astype(np.float32)

    space, queries = Space.of(vectors.astype(np.float32)), vectors[:QUERIES].astype(np.float32)
    with tempfile.TemporaryDirectory() as place:
        files = build_index(Path(place), batches(), space, vectors.astype(np.float32))
        sides = {
            "exact": lambda: search_exact(batches(), space, queries, WANTED),
            "index": lambda: search_index(files, space, queries, WANTED),
        }
        seconds = in_turns(sides, size.repeats)
        share = recall(sides["index"](), sides["exact"]())
        bytes_each = sum(path.stat().st_size for path in files) / len(vectors)
    return [
        Figure("index_recall", share, "ratio", f"share of the {WANTED} true neighbours that the index finds, {len(vectors)} vectors"),
        Figure("exact_over_index", seconds["exact"] / seconds["index"], "ratio", "time through every vector over time by the index"),
        Figure("index_over_vectors", bytes_each / (2 * LENGTH), "ratio", "bytes of the index over those of the stored vectors"),
    ]


def _vectors(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    centers = rng.standard_normal((CLUMPS, LENGTH))
    weights = rng.dirichlet(np.full(CLUMPS, 0.5))
    kind = rng.choice(CLUMPS, count, p=weights)
    scatter = rng.standard_normal((count, LENGTH)) * rng.uniform(0.3, 1.0, (count, 1))
    return (centers[kind] + scatter).astype(np.float16)
