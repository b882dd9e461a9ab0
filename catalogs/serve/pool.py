"""Catalogs opened for reading, each used by one request at a time.

A DuckDB connection must not be used by two threads at once, so there are as many as requests may read together. Without a fixed
version a request sees what ``current`` points at when it begins: the service follows publications without a restart.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from catalogs.hats import version_folder
from catalogs.query import Catalog, open_catalog
from catalogs.serve.limits import Busy
from galpipe.layout import Layout


@dataclass(frozen=True)
class Opened:
    """A catalog and which version it is."""

    catalog: Catalog
    version: int


class CatalogPool:
    """At most ``size`` opened catalogs.

    Parameters
    ----------
    layout : Layout
    name : str
    version : int, optional
        A published version; without it the current one at every request.
    size : int
    wait : float
        Seconds that `catalog` waits while all are in use.
    """

    def __init__(self, layout: Layout, name: str, version: int | None = None, size: int = 4, wait: float = 10.0) -> None:
        self._layout, self._name, self._version, self._wait = layout, name, version, wait
        # last in, first out: connections that nobody needs are never opened
        self._slots: queue.LifoQueue[Opened | None] = queue.LifoQueue()
        self._size = size
        for _ in range(size):
            self._slots.put(None)

    @contextmanager
    def catalog(self) -> Iterator[Opened]:
        """A catalog for this thread alone.

        Raises
        ------
        Busy
            If all are in use for too long.
        ConfigurationError
            If there is no such version.
        """
        try:
            held = self._slots.get(timeout=self._wait)
        except queue.Empty as error:
            raise Busy("a free place", f"{self._size} requests that are being read; come again") from error
        try:
            held = self._fresh(held)
            yield held
        finally:
            self._slots.put(held)

    def _fresh(self, held: Opened | None) -> Opened:
        wanted = int(version_folder(self._layout, self._name, self._version).name[1:])
        if held is not None and held.version == wanted:
            return held
        opened = Opened(open_catalog(self._layout, self._name, wanted), wanted)
        if held is not None:
            held.catalog.close()
        return opened

    def close(self) -> None:
        """Close the catalogs that are not in use."""
        while True:
            try:
                held = self._slots.get_nowait()
            except queue.Empty:
                return
            if held is not None:
                held.catalog.close()
