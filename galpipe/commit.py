"""Write aside, then rename: the only way a product appears under its name.

Named fault points (`galpipe.faults`) lie between the steps, so that a test can kill the process inside each kind of write.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from galpipe.errors import ResourceFailure
from galpipe.faults import FAULT_POINTS, fault_point

__all__ = [
    "ASIDE",
    "FAULT_POINTS",
    "FORMER",
    "Replace",
    "fault_point",
    "fsync_folder",
    "recover_folder",
    "refusals",
    "remove_folder",
    "replace_file",
    "replace_folder",
    "replace_together",
    "sweep_asides",
    "write_bytes",
]

ASIDE = ".aside-"
"""Marks unfinished products; whatever carries it may be deleted when no run is at work, but for `FORMER`."""

FORMER = ".old"
"""Ends the name of a whole folder that was moved aside for its successor: all there is, if the writer died just then."""

Replace = Callable[[Path], AbstractContextManager[Path]]
"""How a file is replaced: `replace_file`, or together with others."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def _aside(final: Path) -> Path:
    return final.parent / f"{ASIDE}{final.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_file(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _full_disk(final: Path, error: OSError) -> ResourceFailure:
    return ResourceFailure("room to write the product", f"{error.strerror or error}", file=str(final))


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a ResourceFailure that names the file.

    Raises
    ------
    ResourceFailure
        For a full disk, a quota, a missing permission.
    """
    try:
        yield
    except OSError as error:
        raise _full_disk(path, error) from error


@contextmanager
def replace_file(final: Path) -> Iterator[Path]:
    """Yield a path beside ``final`` to write to; rename it over ``final`` when the block ends well.

    Raises
    ------
    ResourceFailure
        If the operating system refuses the write (disk full, quota, permission).
    """
    aside = _aside(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        _fsync_file(aside)
        fault_point("file.written", final)
        os.replace(aside, final)
        fsync_folder(final.parent)
        fault_point("file.renamed", final)
    except OSError as error:
        raise _full_disk(final, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def replace_together() -> Iterator[Replace]:
    """Yield a `replace_file` whose files get their names, in the order of their blocks, when the outer block ends well.

    Each file is synced while the next one is written, so that the whole waits for the disk about once. A process that dies while
    names are given leaves the first ones new and the others as they were: what proves the work done comes last.

    Raises
    ------
    ResourceFailure
        If the operating system refuses a write.
    """
    written: dict[Path, tuple[Path, Future[None]]] = {}

    with ThreadPoolExecutor(2, "sync") as pool:

        @contextmanager
        def replace(final: Path) -> Iterator[Path]:
            aside = _aside(final)
            try:
                final.parent.mkdir(parents=True, exist_ok=True)
                yield aside
                written[aside] = final, pool.submit(_fsync_file, aside)
            except OSError as error:
                raise _full_disk(final, error) from error
            finally:
                if aside not in written:
                    aside.unlink(missing_ok=True)

        last: Path | None = None
        try:
            yield replace
            for final, synced in written.values():
                last = final
                synced.result()
            for aside, (final, _) in written.items():
                last = final
                fault_point("file.written", final)
                os.replace(aside, final)
                fault_point("file.renamed", final)
            for done in [pool.submit(fsync_folder, folder) for folder in {final.parent for final, _ in written.values()}]:
                done.result()
        except OSError as error:
            if last is None:
                # the block's own: nothing of this was being written
                raise
            raise _full_disk(last, error) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for aside in written:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)


@contextmanager
def replace_folder(final: Path) -> Iterator[Path]:
    """Yield a new folder to fill; put it in the place of ``final`` when the block ends well.

    The two folders change places in one step where the system can (Linux), so that the name always has a whole folder.
    Elsewhere the old one is moved aside first, because POSIX cannot replace a folder that is not empty; a process that dies
    between the two renames leaves it there, and `recover_folder` puts it back.

    Raises
    ------
    ResourceFailure
        If the operating system refuses the write (disk full, quota, permission); ``final`` is then what it was.
    """
    aside = _aside(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        yield aside
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                _fsync_file(path)
        fault_point("folder.written", final)
        _put_in_place(aside, final)
        fsync_folder(final.parent)
        fault_point("folder.renamed", final)
    except OSError as error:
        raise _full_disk(final, error) from error
    finally:
        # after a success this is what was there before
        shutil.rmtree(aside, ignore_errors=True)


def _put_in_place(aside: Path, final: Path) -> None:
    """Give ``final`` the content of ``aside``; what it had before, if anything, lies under ``aside`` afterwards."""
    if _exchange(aside, final):
        fault_point("folder.swapped", final)
    elif final.exists():
        _rename_twice(aside, final)
    else:
        os.rename(aside, final)
        fault_point("folder.swapped", final)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False, and nothing changed, where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)) == 0)


def _rename_twice(aside: Path, final: Path) -> None:
    old = final.parent / f"{aside.name}{FORMER}"
    os.rename(final, old)
    try:
        fault_point("folder.swapped", final)
        os.rename(aside, final)
    except BaseException:
        os.rename(old, final)
        raise
    # under this name it is nothing to go back to any more, so that it may be deleted bit by bit
    os.rename(old, aside)


def _former(final: Path) -> list[Path]:
    """Folders that were moved aside for a successor of ``final``, the last one last."""
    prefix = f"{ASIDE}{final.name}."
    found = [path for path in final.parent.glob(f"{ASIDE}*{FORMER}") if path.name.startswith(prefix) and _final_of(path) == final]
    # a rename changes the time of the inode, not that of the content
    return sorted(found, key=lambda path: (path.stat().st_ctime, path.name))


def _final_of(aside: Path) -> Path:
    """The product that an aside was made for."""
    name = aside.name.removeprefix(ASIDE).removesuffix(FORMER)
    return aside.parent / name.rpartition(".")[0]


def recover_folder(final: Path) -> bool:
    """Put back the folder that a killed `replace_folder` had moved aside, if its name has none now.

    Only to be called where no other writer of that folder can be at work.

    Returns
    -------
    bool
        Whether something was put back.

    Raises
    ------
    ResourceFailure
        If the operating system refuses the rename.
    """
    if final.exists():
        return False
    former = _former(final)
    if not former:
        return False
    try:
        os.rename(former[-1], final)
        fsync_folder(final.parent)
    except OSError as error:
        raise _full_disk(final, error) from error
    return True


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a half-deleted one is never seen under its name; nothing happens if it is not there.

    Raises
    ------
    ResourceFailure
        If the operating system refuses the rename. What cannot be deleted afterwards is left for `sweep_asides`.
    """
    # an older version left by a killed writer must not come back in its place
    for path in [*_former(folder), folder]:
        aside = _aside(folder)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _full_disk(folder, error) from error
        shutil.rmtree(aside, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Give a file that is never changed a second name, or copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_bytes(final: Path, data: bytes) -> None:
    """Replace a file's content in one step."""
    with replace_file(final) as aside:
        aside.write_bytes(data)


def sweep_asides(folder: Path, older_than: float = 0.0) -> int:
    """Delete what killed writers left in a folder (not below it); returns how many entries went.

    A whole folder that was moved aside for a successor which never came is put back, not deleted.

    Parameters
    ----------
    folder : Path
        Need not exist.
    older_than : float
        Seconds since an entry was last written to: 0 only where no other writer can be at work (the run's lease says so).
    """
    newest = time.time() - older_than
    went = 0
    for path in sorted(folder.glob(f"{ASIDE}*")):
        # another process may sweep, or end its own write, at the same time
        with suppress(FileNotFoundError):
            former, state = path.name.endswith(FORMER), path.lstat()
            if (state.st_ctime if former else state.st_mtime) > newest:
                continue
            if former:
                recover_folder(_final_of(path))
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            went += 1
    return went
