"""A union of releases: a tree whose region folders lie in different places, such as ``ls-dr10`` (DR10 south, DR9 north)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from galpipe.config import FetchSettings
from galpipe.survey.sources import Source
from galpipe.survey.transfer import Downloaded, Fresh, Limiter, RemoteState

KNOWN_UNIONS = {"ls-dr10": "south=dr10,north=dr9"}
"""DR10 has no north: the survey's own viewer fills it up with DR9's."""

_PART = re.compile(r"(?P<region>[A-Za-z0-9][A-Za-z0-9._+-]*)=(?P<spec>.+)")


def union_parts(spec: str) -> dict[str, str]:
    """Release by region of a union, ``REGION=RELEASE,REGION=RELEASE``; empty for anything else.

    Parameters
    ----------
    spec : str
        As on the command line; a name of `KNOWN_UNIONS` stands for its parts.
    """
    parts = [_PART.fullmatch(part.strip()) for part in KNOWN_UNIONS.get(spec, spec).split(",")]
    found = {match["region"]: match["spec"] for match in parts if match}
    return found if len(found) == len(parts) else {}


@dataclass(frozen=True)
class UnionSource:
    """One tree made of region folders of several.

    Parameters
    ----------
    parts : mapping of str to Source
        The tree that holds a region's folder, by region.
    """

    parts: Mapping[str, Source]

    @property
    def base(self) -> str:
        """Where every region lies, for messages."""
        return ", ".join(f"{region}={source.base}" for region, source in self.parts.items())

    def _of(self, path: str) -> Source | None:
        return self.parts.get(path.partition("/")[0])

    def read_small(self, path: str) -> bytes | None:
        """A file's content, or None if there is no such file."""
        source = self._of(path)
        return None if source is None else source.read_small(path)

    def read_unless(self, path: str, known: RemoteState) -> Fresh:
        """A file's content, unless its validators are those that are known."""
        source = self._of(path)
        return Fresh("absent") if source is None else source.read_unless(path, known)

    def list_names(self, folder: str) -> list[str] | None:
        """Names in a folder, folders with a ``/`` at the end; the regions at the top."""
        if not folder:
            return sorted(f"{region}/" for region in self.parts)
        source = self._of(folder)
        return None if source is None else source.list_names(folder)

    def size(self, path: str) -> int | None:
        """A file's size in bytes, or None if it is absent or unknown."""
        source = self._of(path)
        return None if source is None else source.size(path)

    def state(self, path: str) -> RemoteState | None:
        """Size and validators of a file, or None if it is absent or unknown."""
        source = self._of(path)
        return None if source is None else source.state(path)

    def download(self, path: str, part: Path, settings: FetchSettings, limiter: Limiter) -> Downloaded | None:
        """Bring a file to ``part``; None if there is no such file."""
        source = self._of(path)
        return None if source is None else source.download(path, part, settings, limiter)
