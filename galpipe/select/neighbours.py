"""Nearest neighbours among embeddings (faiss): exact by going through all of them, approximate by an inverted index on disk.

Johnson, Douze & Jegou 2019 (arXiv:1702.08734). Vectors are compared after the catalog's mean is taken away, by the angle between them: the
mean is what all galaxies share, and lengths say little behind a layer norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from galpipe.errors import BadData, ConfigurationError

FloatArray = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Batches = Iterable[tuple[Ids, FloatArray]]

PART_ROWS = 500_000
"""Vectors per file of the index: what a build holds in memory, twice 2 bytes a number."""

POINTS_PER_LIST = 39
"""Training vectors per list that faiss asks for."""

MOST_LISTS = 4096

PROBES = 16
"""Lists that a search looks into."""

EMPTY = -1
"""What faiss gives where there are fewer vectors than asked for."""


@dataclass(frozen=True)
class Space:
    """How embeddings are compared.

    Parameters
    ----------
    mean : ndarray
        Float32, shape (E,).
    """

    mean: FloatArray

    @classmethod
    def of(cls, sample: FloatArray) -> Space:
        """The space of a catalog, from some of its embeddings, shape (N, E)."""
        return cls(sample.mean(axis=0, dtype=np.float64).astype(np.float32))

    def directions(self, vectors: FloatArray) -> FloatArray:
        """Unit vectors, float32 of shape (N, E).

        Raises
        ------
        ConfigurationError
            If the vectors are of another length than the space's.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ConfigurationError(f"embeddings of {len(self.mean)} numbers", f"shape {vectors.shape}")
        centered = vectors.astype(np.float32) - self.mean
        length = np.linalg.norm(centered, axis=1, keepdims=True)
        return np.ascontiguousarray(centered / np.maximum(length, np.float32(1e-12)))


@dataclass(frozen=True)
class Found:
    """Neighbours of Q vectors, nearest first.

    Parameters
    ----------
    ids : ndarray
        int64, shape (Q, n); `EMPTY` where there are fewer.
    distance : ndarray
        Float32, shape (Q, n): one minus the cosine, 0 (same direction) to 2; infinite where there are fewer.
    """

    ids: Ids
    distance: FloatArray

    def merged(self, other: Found) -> Found:
        """The nearest of both."""
        ids, distance = np.concatenate([self.ids, other.ids], axis=1), np.concatenate([self.distance, other.distance], axis=1)
        # ids break ties, so that the order of batches does not show
        order = np.lexsort((ids, distance), axis=1)[:, : self.ids.shape[1]]
        return Found(np.take_along_axis(ids, order, axis=1), np.take_along_axis(distance, order, axis=1))


def nothing(queries: int, n: int) -> Found:
    """No neighbours yet."""
    return Found(np.full((queries, n), EMPTY, np.int64), np.full((queries, n), np.inf, np.float32))


def search_exact(batches: Batches, space: Space, queries: FloatArray, n: int) -> Found:
    """Go through every vector, one batch in memory at a time.

    Parameters
    ----------
    batches : iterable of (ids, vectors)
    space : Space
    queries : ndarray
        Embeddings, shape (Q, E).
    n : int
        Neighbours wanted.
    """
    wanted, best = space.directions(queries), nothing(len(queries), n)
    for ids, vectors in batches:
        if len(ids):
            cosine, places = faiss.knn(wanted, space.directions(vectors), min(n, len(ids)), metric=faiss.METRIC_INNER_PRODUCT)
            best = best.merged(_found(cosine, np.where(places >= 0, ids[places], EMPTY)))
    return best


def build_index(folder: Path, batches: Batches, space: Space, sample: FloatArray, part_rows: int = PART_ROWS) -> list[Path]:
    """Write an inverted index with half-precision vectors, a file per ``part_rows`` vectors.

    Parameters
    ----------
    folder : Path
        An existing folder (aside; the caller renames it).
    batches : iterable of (ids, vectors)
    space : Space
    sample : ndarray
        Embeddings that the lists are learned from, shape (M, E).
    part_rows : int

    Returns
    -------
    list of Path
        ``part-00000.faiss``, ...
    """
    trained = _trained(space.directions(sample), part_rows)
    files: list[Path] = []
    part, rows = faiss.clone_index(trained), 0
    for ids, vectors in batches:
        part.add_with_ids(space.directions(vectors), ids)
        rows += len(ids)
        if part.ntotal >= part_rows:
            files.append(_write(part, folder, len(files)))
            part = faiss.clone_index(trained)
    if part.ntotal or not files:
        files.append(_write(part, folder, len(files)))
    return files


def _trained(sample: FloatArray, part_rows: int) -> faiss.Index:
    lists = int(np.clip(min(2 * np.sqrt(min(part_rows, 4 * len(sample))), len(sample) / POINTS_PER_LIST), 1, MOST_LISTS))
    index = faiss.index_factory(sample.shape[1], f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    return index


def _write(part: faiss.Index, folder: Path, number: int) -> Path:
    path = folder / f"part-{number:05d}.faiss"
    faiss.write_index(part, str(path))
    return path


def search_index(files: Sequence[Path], space: Space, queries: FloatArray, n: int, probes: int = PROBES) -> Found:
    """Search the files of `build_index`, mapped into memory one after the other.

    Raises
    ------
    BadData
        If a file is not an index, or one of other vectors.
    """
    wanted, best = space.directions(queries), nothing(len(queries), n)
    for index in opened(files, wanted.shape[1]):
        index.nprobe = min(probes, index.nlist)
        cosine, ids = index.search(wanted, n)
        best = best.merged(_found(cosine, ids))
    return best


def opened(files: Sequence[Path], dimensions: int) -> Iterator[faiss.Index]:
    """The files' indexes, mapped, not read."""
    for path in files:
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise BadData("a faiss index", str(error)[:200], file=str(path)) from error
        if index.d != dimensions:
            raise BadData(f"an index of {dimensions} numbers a vector", str(index.d), file=str(path))
        yield index


def _found(cosine: FloatArray, ids: Ids) -> Found:
    distance = np.where(ids == EMPTY, np.inf, 1 - cosine)
    return Found(ids.astype(np.int64), np.maximum(distance, 0).astype(np.float32))


def recall(approximate: Found, exact: Found) -> float:
    """Share of the true neighbours that an approximate search found, 0 to 1."""
    hits = [len(set(one) & set(other)) for one, other in zip(approximate.ids.tolist(), exact.ids.tolist(), strict=True)]
    return float(sum(hits) / max(exact.ids.size, 1))
