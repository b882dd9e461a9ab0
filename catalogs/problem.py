"""One thing that is wrong with a catalog, as `catalogs.verify` reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    unit : str
        The brick; empty for the catalog as a whole.
    file : str
        Relative to the root.
    what : str
        Expected and found.
    """

    unit: str
    file: str
    what: str
