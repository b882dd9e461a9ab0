"""Look-alikes and outliers of a published version: its embeddings read in batches, an index of them under the root.

``search/<name>/v<N>/`` belongs to one version and is made the first time somebody asks: ``index.json`` (model, version, rows),
``mean.npy``, ``part-*.faiss`` and ``outliers.parquet``. It is written aside and renamed, never changed, and may be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from catalogs import inventory
from catalogs.hats import INVENTORY, manifest, version_folder, versions
from catalogs.parquet import PARQUET
from galpipe.commit import remove_folder, replace_folder
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout
from galpipe.select.anomaly import NEIGHBOURS, outlier_score, percentiles
from galpipe.select.neighbours import EMPTY, PART_ROWS, Found, Space, build_index, search_exact, search_index

FACTS, MEAN, OUTLIERS = "index.json", "mean.npy", "outliers.parquet"

FORMAT = "galpipe-search-2"
"""Raised by hand when what lies in the folder changes; an older one is made again."""

PLACES = {"ra": pa.float64(), "dec": pa.float64(), "release_name": pa.string(), "region": pa.string(), "brickname": pa.string()}
"""What is told of a row besides its id."""

BATCH = 8192
"""Rows in memory at a time."""

SAMPLE = 100_000
"""Rows that mean and lists are learned from at most, spread evenly over the version's files."""

FloatArray = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Version:
    """A published version whose embeddings can be compared.

    Parameters
    ----------
    layout : Layout
    name : str
    number : int
    folder : Path
    model : str
        Hash of the one model that made it.
    """

    layout: Layout
    name: str
    number: int
    folder: Path
    model: str

    @property
    def files(self) -> list[Path]:
        """Its Parquet partitions."""
        return sorted(self.folder.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"))

    @property
    def rows(self) -> int:
        """Published rows."""
        return int(manifest(self.folder)["rows"])


def open_version(layout: Layout, name: str = "main", number: int | None = None) -> Version:
    """A published version of a catalog, the current one by default.

    Raises
    ------
    ConfigurationError
        If there is none, it has no embeddings, or it is of more than one model: vectors of two models cannot be compared.
    """
    folder = version_folder(layout, name, number)
    models = sorted({entry.model for entry in inventory.load(folder / INVENTORY).shards})
    if len(models) > 1:
        raise ConfigurationError("embeddings of one model", f"models {models}; run the other bricks again", file=str(folder))
    if "embedding" not in pq.read_schema(folder / "dataset" / "_common_metadata").names:
        raise ConfigurationError("a catalog with the column 'embedding'", "none", file=str(folder))
    return Version(layout, name, number or int(folder.name[1:]), folder, models[0] if models else "")


def embedding_batches(version: Version, columns: tuple[str, ...] = ()) -> Iterator[tuple[pa.Table, FloatArray]]:
    """Rows that have an embedding, `BATCH` at most in memory.

    Parameters
    ----------
    version : Version
    columns : tuple of str
        More columns than ``source_id`` for the tables.

    Yields
    ------
    pyarrow.Table
        ``source_id`` and the columns.
    ndarray
        Float32, shape (rows, E).

    Raises
    ------
    BadData
        If a file does not read, or its embeddings differ in length.
    """
    length = 0
    for path in version.files:
        try:
            # memory is let go at once: a scanner would read ahead
            for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=["source_id", *columns, "embedding"]):
                table = pa.Table.from_batches([batch])
                table = table.filter(table["embedding"].is_valid())
                vectors = _vectors(table["embedding"], path)
                if len(vectors) and length not in (0, vectors.shape[1]):
                    raise BadData(f"embeddings of {length} numbers", f"{vectors.shape[1]}", file=str(path))
                length = vectors.shape[1] if len(vectors) else length
                yield table.drop_columns(["embedding"]), vectors
        except (OSError, pa.ArrowInvalid) as error:
            raise BadData("a readable partition", str(error), file=str(path)) from error


def _vectors(column: pa.ChunkedArray, path: Path) -> FloatArray:
    lists = column.combine_chunks()
    lists = lists if isinstance(lists, pa.Array) else pa.concat_arrays(lists.chunks)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    lengths = set(np.diff(lists.offsets.to_numpy()).tolist()) if pa.types.is_list(lists.type) else {lists.type.list_size}
    if len(lengths) > 1:
        raise BadData("embeddings of one length", f"lengths {sorted(lengths)}", file=str(path))
    vectors = flat.reshape(len(lists), -1).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise BadData("finite embeddings", f"{int((~np.isfinite(vectors)).any(axis=1).sum())} rows with others", file=str(path))
    return vectors


def _pairs(version: Version) -> Iterator[tuple[Ids, FloatArray]]:
    for table, vectors in embedding_batches(version):
        yield table["source_id"].to_numpy(), vectors


@dataclass(frozen=True)
class Search:
    """The index of a version.

    Parameters
    ----------
    version : Version
    folder : Path
    space : Space
    rows : int
        Vectors in it.
    """

    version: Version
    folder: Path
    space: Space
    rows: int

    def find(self, queries: FloatArray, n: int, *, exact: bool = False) -> Found:
        """Neighbours of embeddings, shape (Q, E); exact ones by reading every row."""
        if exact:
            return search_exact(_pairs(self.version), self.space, queries, n)
        return search_index(sorted(self.folder.glob("part-*.faiss")), self.space, queries, n)

    def embedding_of(self, identifier: int) -> FloatArray:
        """The embedding of a row, shape (1, E).

        Raises
        ------
        ConfigurationError
            If the version has no such row, or it has no embedding.
        """
        for path in self.version.files:
            table = pq.read_table(path, columns=["source_id", "embedding"], filters=[("source_id", "==", identifier)], partitioning=None)
            table = table.filter(table["embedding"].is_valid())
            if table.num_rows:
                return _vectors(table["embedding"], path)[:1]
        raise ConfigurationError(
            f"a row {identifier} with an embedding in version v{self.version.number}", "none", file=str(self.version.folder)
        )

    def like(self, query: FloatArray, n: int, *, exact: bool = False, without: int | None = None) -> pa.Table:
        """Look-alikes of one embedding with their places on the sky, nearest first.

        Parameters
        ----------
        query : ndarray
            Shape (1, E).
        n : int
        exact : bool
            Go through every row instead of the index.
        without : int, optional
            A source_id to leave out: the query's own.

        Returns
        -------
        pyarrow.Table
            ``source_id``, ``ra``, ``dec`` (deg), ``release_name``, ``region``, ``brickname``, ``distance`` (one minus the cosine, 0 to 2).
        """
        found = self.find(query, n + (without is not None), exact=exact)
        pairs = [(int(i), float(d)) for i, d in zip(found.ids[0], found.distance[0], strict=True) if i not in (EMPTY, without)][:n]
        ids = pa.array([identifier for identifier, _ in pairs], pa.int64())
        table = pa.table({"source_id": ids, "distance": pa.array([far for _, far in pairs], pa.float32())})
        return with_places(self.version, table)

    def outliers(self, n: int) -> pa.Table:
        """The most unusual rows of the version, first the farthest from all others; columns as in ``outliers.parquet``.

        Returns
        -------
        pyarrow.Table
            ``source_id``, the columns `PLACES`, ``outlier_score`` (mean chord to the nearest others, 0 to 2) and ``outlier_percentile``
            (share of the version's rows with a lower score).
        """
        table = pq.read_table(self.folder / OUTLIERS, partitioning=None)
        return table.sort_by([("outlier_score", "descending"), ("source_id", "ascending")]).slice(0, n)


def with_places(version: Version, table: pa.Table) -> pa.Table:
    """Rows with ``source_id``, order kept, with the columns `PLACES` behind it."""
    wanted, places = set(table["source_id"].to_pylist()), {}
    for path in version.files:
        if len(places) == len(wanted):
            break
        # an id alone does not say its partition; statistics of row groups skip most of what is read
        some = pq.read_table(path, columns=["source_id", *PLACES], filters=[("source_id", "in", list(wanted))], partitioning=None)
        places |= {row["source_id"]: row for row in some.to_pylist()}
    for number, (name, kind) in enumerate(PLACES.items(), 1):
        values = [places.get(identifier, {}).get(name) for identifier in table["source_id"].to_pylist()]
        table = table.add_column(number, name, pa.array(values, kind))
    return table


def open_search(version: Version, progress: Progress | None = None, part_rows: int = PART_ROWS) -> Search:
    """The index of a version; made now if there is none of this version, model and format.

    Parameters
    ----------
    version : Version
    progress : callable, optional
        Called as ``progress(what, done, total)``.
    part_rows : int
        Vectors per file of a new index.
    """
    folder = version.layout.search(version.name, version.number)
    facts = _facts(folder)
    if facts.get("model") != version.model or facts.get("state") != manifest(version.folder)["state"] or facts.get("format") != FORMAT:
        _build(version, folder, progress, part_rows)
        facts = _facts(folder)
        _sweep(version)
    return Search(version, folder, Space(np.load(folder / MEAN, allow_pickle=False)), int(facts["rows"]))


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        return {}
    return facts


def _sweep(version: Version) -> None:
    """Indexes of versions that are gone are of no use."""
    kept = {f"v{number}" for number in versions(version.layout, version.name)}
    for folder in version.layout.search(version.name, version.number).parent.glob("v*"):
        if folder.name not in kept:
            remove_folder(folder)


def _build(version: Version, folder: Path, progress: Progress | None, part_rows: int) -> None:
    sample = _sample(version)
    if not len(sample):
        raise ConfigurationError("rows with an embedding", "none", file=str(version.folder))
    space = Space.of(sample)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(folder) as aside:
        np.save(aside / MEAN, space.mean, allow_pickle=False)
        files = build_index(aside, _told(_pairs(version), "index", version.rows, progress), space, sample, part_rows)
        rows = _write_outliers(version, aside / OUTLIERS, (files, space), progress)
        body = {"format": FORMAT, "model": version.model, "version": version.number, "rows": rows, "parts": len(files)}
        (aside / FACTS).write_text(json.dumps(body | {"state": manifest(version.folder)["state"]}, indent=1) + "\n")


def _told(batches: Iterator[tuple[Ids, FloatArray]], what: str, total: int, progress: Progress | None) -> Iterator[tuple[Ids, FloatArray]]:
    done = 0
    for ids, vectors in batches:
        yield ids, vectors
        done += len(ids)
        if progress is not None:
            progress(what, done, total)


def _sample(version: Version) -> FloatArray:
    """Every k-th row."""
    step = max(1, -(-version.rows // SAMPLE))
    parts, start = [], 0
    for _, vectors in embedding_batches(version):
        parts.append(vectors[(-start) % step :: step])
        start += len(vectors)
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _write_outliers(version: Version, path: Path, index: tuple[list[Path], Space], progress: Progress | None) -> int:
    """Score every row against the index; 24 bytes a row stay in memory for the percentiles."""
    kept: list[pa.Table] = []
    scores: list[npt.NDArray[np.float64]] = []
    done = 0
    for table, vectors in embedding_batches(version, tuple(PLACES)):
        ids = table["source_id"].to_numpy()
        scores.append(outlier_score(search_index(*index, vectors, NEIGHBOURS + 1), ids))
        kept.append(table)
        done += len(ids)
        if progress is not None:
            progress("outliers", done, version.rows)
    score = np.concatenate(scores)
    whole = pa.concat_tables(kept)
    whole = whole.append_column("outlier_score", pa.array(score.astype(np.float32), from_pandas=True))
    whole = whole.append_column("outlier_percentile", pa.array(percentiles(score).astype(np.float32), from_pandas=True))
    pq.write_table(whole, path, **PARQUET)
    return whole.num_rows
