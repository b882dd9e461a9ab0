"""Ask a published catalog: read-only SQL, pieces of sky, ids, a user's table, look-alikes.

Views: ``galaxies`` (a row per galaxy, every column), ``galaxies_clean`` (the science view), ``detections`` (primary ones, a row
each), ``embeddings``, ``ledger``, ``outcomes`` and ``resolved`` (rows at the edges of bricks that another brick has too).

Results are Arrow tables with unit and description of each column in its metadata; `catalogs.formats` makes astropy and pandas tables
and files of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.area import Area, Box, Cone, Coverage, Polygon, ranges_of_bricks, separation
from catalogs.crossmatch import Match, match
from catalogs.live import live_folder
from catalogs.nested import as_rows
from catalogs.opening import live_source, published_source
from catalogs.pushdown import Files, Wanted
from catalogs.ranges import WHOLE_SKY
from catalogs.statements import LedgerTable, Statements, nearest_name
from catalogs.usertable import UserTable
from catalogs.versions import as_of
from catalogs.views import Source
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout

_BRICK_SHIFT, _BRICK_MASK = 22, (1 << 20) - 1
"""Where a packed id has its brick: ``release << 42 | brickid << 22 | objid``."""

_MOST_BRICKS = 2000
"""Bricks up to which ids are looked for in their areas; for more, reading every id is quicker."""


class Catalog:
    """A catalog opened for reading. Use it in a ``with`` block, or `close` it.

    Parameters
    ----------
    layout : Layout
    name : str
    source : Source
        From `open_catalog`.
    folders : sequence of Path
        The only folders that SQL may read, first that of the version, or of the shards.
    ledger : callable, optional
        Gives the ledger's rows when a query names the view.
    """

    def __init__(self, layout: Layout, name: str, source: Source, folders: Sequence[Path], ledger: LedgerTable | None = None) -> None:
        self._layout, self._name, self._source, self._folder = layout, name, source, folders[0]
        self._files = Files(source.files)
        self._statements = Statements(layout, name, source, folders, ledger)

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._statements.close()

    @property
    def schema(self) -> pa.Schema:
        """Columns as stored, with unit and description in each field's metadata."""
        return self._source.schema

    def sql(self, query: str, within: Area | None = None) -> pa.Table:
        """Run one SELECT on the views.

        Parameters
        ----------
        query : str
        within : Area, optional
            A piece of sky: ``galaxies`` and the views made of it, and ``outcomes``, then have its rows only.

        Raises
        ------
        ConfigurationError
            If the text is not one SELECT, names something unknown, or reaches for a file outside the catalog.
        BadData
            If a file of the catalog does not read; it is named.
        """
        return self._statements.run(query, within)

    def within(self, area: Area, columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies in a piece of sky, sorted by ``source_id``.

        Parameters
        ----------
        area : Area
            `Cone`, `Box`, `Polygon` or `Coverage`.
        columns : sequence of str
            Empty for all.

        Raises
        ------
        ConfigurationError
            If a column is unknown; the nearest is named.
        BadData
            If a file of the catalog does not read; it is named.
        """
        wanted = Wanted(area.ranges(), lambda rows: area.inside(rows["ra"].to_numpy(), rows["dec"].to_numpy()))
        return self._search(wanted, columns)

    def cone(self, ra: float, dec: float, radius: float, columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies within an angle of a position (deg), nearest first, with ``separation`` (arcsec) as the last column."""
        return self.nearest_first(Cone(ra, dec, radius), columns)

    def nearest_first(self, cone: Cone, columns: Sequence[str] = ()) -> pa.Table:
        """As `cone`."""
        wanted = self._columns(columns)
        found = self.within(cone, [*wanted, *(name for name in ("ra", "dec", "source_id") if name not in wanted)])
        apart = separation(found["ra"].to_numpy(), found["dec"].to_numpy(), cone.ra, cone.dec)
        item = pa.field("separation", pa.float64(), metadata={"unit": "arcsec", "description": "Distance to the cone's middle"})
        order = np.lexsort([found["source_id"].to_numpy(), apart])
        return found.select(wanted).append_column(item, pa.array(apart)).take(order)

    def box(self, ra: tuple[float, float], dec: tuple[float, float], columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies in a box (deg); where ``ra[0] > ra[1]`` it runs over RA 0. Lower edges are inside, upper ones are not."""
        return self.within(Box(*ra, *dec), columns)

    def polygon(self, vertices: Sequence[tuple[float, float]], columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies in a polygon of RA, Dec (deg) whose sides are great circles."""
        return self.within(Polygon(tuple((float(ra), float(dec)) for ra, dec in vertices)), columns)

    def moc(self, moc: str | Path, columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies in the cells of a MOC: a file (FITS or JSON), or text such as ``6/1-3 7/12``."""
        return self.within(Coverage.read(str(moc)), columns)

    def by_id(self, ids: Sequence[int], columns: Sequence[str] = ()) -> pa.Table:
        """Galaxies by ``source_id``, sorted by it; unknown ids give no row.

        A packed id says its brick, the brick its area; what is not found there, as the ids of stamps, is looked for everywhere.
        """
        wanted = np.unique(np.array([int(value) for value in ids], np.int64))
        bricks = np.unique(wanted >> _BRICK_SHIFT & _BRICK_MASK)
        near = ranges_of_bricks(bricks.tolist()) if len(bricks) <= _MOST_BRICKS else WHOLE_SKY
        names = self._columns(columns)
        inner = [*names, *(["source_id"] if "source_id" not in names else [])]
        found = self._search(Wanted(near, ids=wanted), inner)
        missing = np.setdiff1d(wanted, found["source_id"].to_numpy())
        if len(missing):
            found = pa.concat_tables([found, self._search(Wanted(WHOLE_SKY, ids=missing), inner)]).sort_by("source_id")
        return found.select(names)

    def match(self, user: UserTable, how: Match, columns: Sequence[str] = ()) -> pa.Table:
        """The galaxies at the positions of a user's table: its columns, then the catalog's, then ``separation`` (arcsec).

        Parameters
        ----------
        user : UserTable
            From `catalogs.usertable.read_user_table` or `catalogs.usertable.UserTable.of`.
        how : Match
            Radius, and whether all galaxies within it or the nearest one.
        columns : sequence of str
            Of the catalog; empty for all.
        """
        names = self._columns(columns)

        def search(wanted: Wanted) -> pa.Table:
            return self._search(wanted, [*names, *(name for name in ("ra", "dec", "source_id") if name not in names)])

        return match(user, how, search, names)

    def similar(self, source_id: int, n: int = 20, columns: Sequence[str] = ()) -> pa.Table:
        """The galaxies that look most like one, nearest first, with ``distance`` (one minus the cosine of the embeddings, 0 to 2).

        Uses the version's index, which is made the first time somebody asks (`catalogs.lookalikes`).
        """
        from catalogs.lookalikes import open_search, open_version

        if self._folder.parent != self._layout.hats(self._name).resolve():
            raise ConfigurationError("a published version for look-alikes", "the shards as they are now (--live)")
        search = open_search(open_version(self._layout, self._name, int(self._folder.name[1:])))
        near = search.like(search.embedding_of(source_id), n, without=source_id)
        names = self._columns(columns)
        rows = self.by_id(near["source_id"].to_pylist(), [*names, *(["source_id"] if "source_id" not in names else [])])
        place = pc.index_in(near["source_id"].combine_chunks(), rows["source_id"].combine_chunks())
        item = pa.field("distance", pa.float32(), metadata={"description": "One minus the cosine of the embeddings, 0 to 2"})
        return rows.select(names).take(place).append_column(item, near["distance"])

    def _search(self, wanted: Wanted, columns: Sequence[str]) -> pa.Table:
        names = self._columns(columns)
        inner = names if "source_id" in names else [*names, "source_id"]
        schema = pa.schema([self._source.schema.field(name) for name in inner])
        parts = [part.cast(schema) for part in self._files.read(wanted, inner)]
        found = pa.concat_tables(parts).combine_chunks() if parts else schema.empty_table()
        return as_rows(found.take(np.argsort(found["source_id"].to_numpy(), kind="stable")).select(names))

    def _columns(self, columns: Sequence[str]) -> list[str]:
        """Known columns, all for none."""
        for name in columns:
            if name not in self._source.schema.names:
                nearest = nearest_name(name, self._source.schema.names)
                hint = f"; the nearest is {nearest!r}" if nearest else ""
                raise ConfigurationError(f"columns of catalog {self._name!r}", f"{name!r}{hint}")
        return list(dict.fromkeys(columns)) or list(self._source.schema.names)


def open_catalog(
    layout: Layout,
    name: str = "main",
    version: int | str | None = None,
    *,
    live: bool | str = False,
    ledger: LedgerTable | None = None,
) -> Catalog:
    """Open a catalog for reading.

    Parameters
    ----------
    layout : Layout
    name : str
    version : int or str, optional
        A published version or a date, as in `catalogs.versions.as_of`; the current one by default.
    live : bool or str
        What a publication would show now, of a region (``cone:RA,DEC,DEG`` and so on) or of everything (`catalogs.live`). Without a
        version, everything is the shards themselves, with the rows beyond the edges of their bricks that publication leaves out.
    ledger : callable, optional
        Gives the rows of the view ``ledger``: ``lambda: ledger.table(name)``.

    Raises
    ------
    ConfigurationError
        If there is no such version, no shard, or a newer galpipe wrote the version.
    BadData
        If a file of the version is gone.
    """
    if live and version is not None:
        raise ConfigurationError("a version or what is newer (--live)", "both")
    shards = layout.catalog(name)
    if not live:
        source, folder = published_source(layout, name, as_of(layout, name, version))
        return Catalog(layout, name, source, [folder, shards.resolve()], ledger)
    now = live_folder(layout, name, "all" if live is True else live)
    if now is None:
        return Catalog(layout, name, live_source(layout, name), [shards.resolve()], ledger)
    source = Source(now.files, now.schema, True)
    now.last_as_long_as(source)
    return Catalog(layout, name, source, [now.path.resolve(), layout.hats(name).resolve(), shards.resolve()], ledger)
