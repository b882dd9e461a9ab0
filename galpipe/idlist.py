"""Lists of source ids, by which a selection may be given."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from galpipe.errors import ConfigurationError


def read_ids(path: Path) -> set[int]:
    """Packed ids of a text file: one a line, either the 64-bit number or ``release brickid objid``.

    Parts may be separated by blanks, commas, underscores or hyphens; ``#`` starts a comment.

    Raises
    ------
    ConfigurationError
        If the file cannot be read or a line is neither.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("a readable list of ids", str(error), file=str(path)) from error
    found = set()
    for number, line in enumerate(lines, 1):
        parts = [part for part in re.split(r"[\s,_-]+", line.partition("#")[0]) if part]
        if not parts:
            continue
        if len(parts) not in (1, 3) or not all(part.isdigit() for part in parts):
            raise ConfigurationError("an id, or release brickid objid", f"{line!r} in line {number}", file=str(path))
        values = [int(part) for part in parts]
        found.add(values[0] if len(values) == 1 else (values[0] << 42) | (values[1] << 22) | values[2])
    return found


def ids_hash(path: Path) -> str:
    """sha256 of a list's sorted ids, as 64 hexadecimal digits: order, comments and spelling do not matter.

    Raises
    ------
    ConfigurationError
        As `read_ids`.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise ConfigurationError("a readable list of ids", str(error), file=str(path)) from error
    return _hash_of(path.absolute(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _hash_of(path: Path, _mtime_ns: int, _size: int) -> str:
    # asked for every brick of a run: read once for each state of the file
    return hashlib.sha256("\n".join(map(str, sorted(read_ids(path)))).encode()).hexdigest()
