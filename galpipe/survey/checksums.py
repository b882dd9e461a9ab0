"""The survey's lists of published sha256 sums: their names and their lines."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from galpipe.unit import NO_REGION, Unit

_LINE = re.compile(r"\\?([0-9a-fA-F]{64})[ \t]+\*?(.*\S)")
_TAGGED = re.compile(r"SHA(?:2-)?256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})", re.IGNORECASE)
LIST_ENDING = ".sha256sum"


def parse_checksums(text: str) -> dict[str, str]:
    """sha256 (lower case) by bare file name.

    The two separators in use (two blanks, or a blank and ``*``), paths before the name, sums in capitals, lines as Windows ends
    them and the form ``SHA256 (name) = sum`` are accepted; what is not such a line (a comment, an error page) is passed over.
    """
    found = {}
    for line in text.removeprefix("\ufeff").splitlines():
        if match := _LINE.fullmatch(line.strip()):
            found[_bare(match.group(2))] = match.group(1).lower()
        elif match := _TAGGED.fullmatch(line.strip()):
            found[_bare(match.group(1))] = match.group(2).lower()
    return found


def _bare(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def checksum_folders(unit: Unit, prefix: str) -> tuple[str, str]:
    """The two folders whose lists concern a brick: its coadds, and all Tractor tables of its ``AAA``."""
    group = unit.brick[:3]
    return f"{prefix}coadd/{group}/{unit.brick}/", f"{prefix}tractor/{group}/"


def published_name(label: str, region: str, folder: str, prefix: str) -> str:
    """Name under which the survey publishes the list of a folder.

    Parameters
    ----------
    label : str
        The release as its own files call it, such as ``dr9``.
    region, folder, prefix : str
        ``south``, ``south/coadd/000/0001m002/``, ``south/``.
    """
    parts = ["legacysurvey", label, *([region] if region != NO_REGION else []), *folder.removeprefix(prefix).strip("/").split("/")]
    return "_".join(parts) + LIST_ENDING
