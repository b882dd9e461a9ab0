"""The kinds of error, and the one treatment each kind gets.

    GalpipeError
    ├── NoWork           nothing to do here: a normal, recorded outcome (no source, band absent, no Tractor table)
    ├── BadData          the input is wrong: never retried, quarantined with its reason
    ├── RemoteFailure    the far side failed: retried with back-off, then recorded
    ├── ConfigurationError  the request is wrong: refused before anything runs
    └── ResourceFailure  this machine failed (disk full, out of memory): the run stops or retries, nothing is recorded as done

Every message names the unit and file, what was expected and what came.
"""

from __future__ import annotations


class GalpipeError(Exception):
    """Base of every error that galpipe raises on purpose.

    Parameters
    ----------
    expected : str
        What should have been there.
    got : str
        What came instead.
    unit : str, optional
        The brick (or stamp file) concerned.
    file : str, optional
        The file concerned.
    """

    kind = "error"

    def __init__(self, expected: str, got: str, *, unit: str = "", file: str = "") -> None:
        self.expected, self.got, self.unit, self.file = expected, got, unit, file
        where = " ".join(part for part in (unit, file) if part)
        super().__init__(f"{where + ': ' if where else ''}expected {expected}, got {got}")

    def __reduce__(self) -> tuple[object, ...]:
        # errors travel from Dask workers by pickle; keyword-only arguments need help
        return (_rebuild, (type(self), self.expected, self.got, self.unit, self.file))


def _rebuild(cls: type[GalpipeError], expected: str, got: str, unit: str, file: str) -> GalpipeError:
    return cls(expected, got, unit=unit, file=file)


class NoWork(GalpipeError):
    """There is nothing to do for this unit; recorded, not a failure."""

    kind = "no_work"


class BadData(GalpipeError):
    """The input is corrupt or contradicts its description; never retried."""

    kind = "bad_data"


class RemoteFailure(GalpipeError):
    """A server failed after all retries; another run may succeed."""

    kind = "remote_failure"


class ConfigurationError(GalpipeError):
    """The request cannot be served as written; raised before anything runs."""

    kind = "configuration"


class ResourceFailure(GalpipeError):
    """The machine ran out of something (disk, memory)."""

    kind = "resource"
