"""The unit of work (one brick of one region of one release) and the receipt of a stage."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from galpipe.errors import ConfigurationError

NO_REGION = "all"
"""Folder name of the region of a release whose tree has no region level (DR1 to DR7)."""

STAMPS = "stamps"
"""Name of the release that stamps read from files belong to."""

Status = Literal["done", "no_work", "bad_data", "remote_failure", "resource", "error"]

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, order=True, slots=True)
class Unit:
    """One brick of one region of one release.

    Parameters
    ----------
    release, region, brick : str
        For example ``("dr9", "south", "0001m002")``. A release without regions has region ``"all"``.

    Raises
    ------
    ConfigurationError
        If a part cannot be a folder name.
    """

    release: str
    region: str
    brick: str

    def __post_init__(self) -> None:
        together = self.release + self.region + self.brick
        # the quick way for most of the 366,898 units of a release
        if together.isascii() and together.isalnum() and self.release and self.region and self.brick:
            return
        for part in (self.release, self.region, self.brick):
            if not _SAFE.fullmatch(part):
                raise ConfigurationError("letters, digits and ._+- in a unit's name", repr(part))

    def __str__(self) -> str:
        return f"{self.release}/{self.region}/{self.brick}"

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read back what ``str`` wrote."""
        parts = text.split("/")
        if len(parts) != 3:
            raise ConfigurationError("release/region/brick", repr(text))
        return cls(*parts)


@dataclass(frozen=True)
class Receipt:
    """Proof that a stage dealt with a unit: what stages hand to each other instead of arrays.

    Parameters
    ----------
    unit : Unit
    stage : str
        ``fetch``, ``cut``, ``catalog``.
    status : Status
        ``done``, or the kind of the error that ended it.
    path : str
        The product, relative to the root; empty when there is none.
    rows : int
        Rows (or files) in the product.
    content_hash : str
        sha256 of the product's content; empty when there is none.
    fingerprint : str
        Hash of everything the product was made from.
    file, reason : str
        The file and reason of a status other than ``done``.
    counts : dict
        Totals by name, for the run's summary.
    seconds : float
        Time the stage took.
    """

    unit: Unit
    stage: str
    status: Status
    path: str = ""
    rows: int = 0
    content_hash: str = ""
    fingerprint: str = ""
    file: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
