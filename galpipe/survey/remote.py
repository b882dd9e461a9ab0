"""Fetch a brick: its files under their published names, each one proven before it gets that name."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from galpipe.commit import fault_point, fsync_folder, write_bytes
from galpipe.config import FetchSettings
from galpipe.errors import BadData, RemoteFailure, ResourceFailure
from galpipe.layout import folder_beside
from galpipe.survey.bricks import known_brick
from galpipe.survey.coadd import check_header, read_image
from galpipe.survey.files import FETCH_FILE, NEIGHBOUR, BrickFiles, FileRecord, FileStatus, load_brick_files
from galpipe.survey.neighbours import completed_by
from galpipe.survey.releases import Release, RemoteFile
from galpipe.survey.tractor import read_tractor
from galpipe.survey.transfer import CHUNK, Downloaded, Limiter, forget, full_disk, read_validator
from galpipe.unit import Unit

__all__ = ["BrickFiles", "FileRecord", "Limiter", "ask_again", "changed_remotely", "fetch_brick", "load_brick_files"]

PART = ".part"


@dataclass(frozen=True)
class _Job:
    """What every file of one brick needs to be fetched."""

    release: Release
    unit: Unit
    settings: FetchSettings
    folder: Path
    limiter: Limiter
    published: dict[str, str]


def fetch_brick(release: Release, unit: Unit, settings: FetchSettings, folder: Path, limiter: Limiter | None = None) -> BrickFiles:
    """Bring a brick's files to a folder; what is already there and whole is not fetched again (but see `ask_again`).

    A file appears under its name only after its published sha256 was met or, where none is published, after its length was
    met and its data decoded. What is unfinished is called ``.part`` and continued by the next call. `FETCH_FILE` comes last.

    Parameters
    ----------
    release : Release
    unit : Unit
    settings : FetchSettings
        Products, bands, connections, retries, time-outs.
    folder : Path
        See `galpipe.layout.Layout.brick_folder`.
    limiter : Limiter, optional
        Bounds the requests of all bricks together; default is one for this brick alone.

    Returns
    -------
    BrickFiles
        One record per wanted file; a file that the release does not have (404) is recorded as absent.

    Raises
    ------
    BadData
        If a file is wrong twice: not what was published, or not what its name says. The brick is then not usable.
    RemoteFailure
        If the server fails after all retries; the files that came stay, another call continues.
    ResourceFailure
        If the disk refuses the bytes.
    """
    wanted = release.wanted_files(unit, settings, settings.bands)
    before = load_brick_files(folder, unit)
    if before is not None and {item.name for item in wanted} == {item.name for item in before.records} and _whole(before):
        return before
    job = _Job(release, unit, settings, folder, limiter or Limiter(settings.connections), published_sums(release, unit))
    with full_disk(folder / FETCH_FILE):
        folder.mkdir(parents=True, exist_ok=True)
        # without its record the folder counts as unfinished while files change
        (folder / FETCH_FILE).unlink(missing_ok=True)
    with ThreadPoolExecutor(settings.connections, "fetch") as pool:
        pending = [pool.submit(_fetch_file, job, item) for item in wanted]
        try:
            records = [future.result() for future in pending]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    files = BrickFiles(unit, folder, tuple(sorted(records, key=lambda record: record.name)))
    write_bytes(folder / FETCH_FILE, files.to_json().encode())
    for item in wanted:
        forget(folder / (item.name + PART))
    return files


def published_sums(release: Release, unit: Unit) -> dict[str, str]:
    """Published sha256 by file name, for a brick's coadds and its Tractor table; empty where none is published."""
    found: dict[str, str] = {}
    for path in release.checksum_lists(unit):
        found.update(release.checksums(path))
    return found


def changed_remotely(release: Release, files: BrickFiles) -> tuple[str, ...]:
    """Names of files that the release has otherwise now than they were fetched: the survey fixes and adds files in place.

    A file with a published sha256 is compared by it; one without, by size and validators, as far as both sides know them; a
    file that was absent counts once the release has it.
    """
    published: dict[str, str] = {}
    listed: set[str] = set()
    for path in release.checksum_lists(files.unit):
        published |= release.checksums(path)
        listed.add(path.rpartition("/")[0])
    changed = []
    for item in files.records:
        # a list that does not name what was absent says that it still is
        settled = item.status == "absent" and item.name not in published and item.path.rpartition("/")[0] in listed
        if not settled and _has_changed(release, item, published.get(item.name, "")):
            changed.append(item.name)
    return tuple(changed)


def _has_changed(release: Release, item: FileRecord, published: str) -> bool:
    if item.status != "absent" and published:
        return published != item.sha256
    told = release.source.state(item.path) if item.path else None
    if told is None or item.status == "absent":
        return told is not None
    pairs = ((item.bytes, told.size), (item.etag, told.etag), (item.last_modified, told.last_modified))
    return any(was and now and was != now for was, now in pairs)


def ask_again(folder: Path, unit: Unit) -> None:
    """Have the next `fetch_brick` ask for every file again, also for those that were absent.

    What a published sha256 proves stays and is proven again; what nothing proves is fetched anew.
    """
    before = load_brick_files(folder, unit)
    (folder / FETCH_FILE).unlink(missing_ok=True)
    for item in before.records if before else ():
        if item.status == "unverified":
            (folder / item.name).unlink(missing_ok=True)


def _whole(files: BrickFiles) -> bool:
    present = (item for item in files.records if item.status != "absent")
    return all(_is_file(files.folder / item.name, item.bytes, item.sha256) for item in present)


def _is_file(path: Path, size: int, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size == size and _hash(path) == sha256


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch_file(job: _Job, item: RemoteFile) -> FileRecord:
    """Fetch one file, unless a run that was cut off had already proven it."""
    final, part = job.folder / item.name, job.folder / (item.name + PART)
    if final.is_file():
        said = read_validator(part)
        kept = Downloaded(_hash(final), final.stat().st_size, said.etag, said.last_modified, said.url)
        if _fault_of(job, item, kept, final) is None:
            return _record(job, item, kept)
        final.unlink()
    linked = _from_beside(job, item, final)
    if linked is not None:
        return _record(job, item, linked)
    for attempt in (1, 2):
        came = _download(job, item, part)
        if came is None:
            forget(part)
            return FileRecord(item.name, item.path, item.product, item.band, "absent")
        fault = _fault_of(job, item, came, part)
        if fault is None:
            _accept(part, final)
            return _record(job, item, came)
        # a partial file of a killed run may be to blame: once more, from the first byte
        forget(part)
        if attempt == 2:
            raise fault
    raise AssertionError("two attempts either return or raise")


def _from_beside(job: _Job, item: RemoteFile, final: Path) -> Downloaded | None:
    """Link a file that another brick near the pole was fetched with, if it is what is published; None if there is none."""
    owner = known_brick(item.product.partition(NEIGHBOUR)[2] or job.unit.brick)
    for other in (owner, *completed_by(owner)) if owner else ():
        folder = folder_beside(job.folder, other.name)
        files = load_brick_files(folder, replace(job.unit, brick=other.name)) if other.name != job.unit.brick else None
        told = next((known for known in files.records if known.name == item.name), None) if files else None
        if told is None or not told.sha256 or told.sha256 != job.published.get(item.name):
            continue
        with suppress(OSError):
            # a file system without links, or a folder that goes while it is read: the release is asked
            if _is_file(folder / item.name, told.bytes, told.sha256):
                os.link(folder / item.name, final)
                fsync_folder(final.parent)
                return Downloaded(told.sha256, told.bytes, told.etag, told.last_modified, told.url)
    return None


def _download(job: _Job, item: RemoteFile, part: Path) -> Downloaded | None:
    """Have the source bring the bytes; an error names the brick and the file."""
    try:
        return job.release.source.download(item.path, part, job.settings, job.limiter)
    except (RemoteFailure, ResourceFailure) as error:
        raise type(error)(error.expected, f"{error.got} ({error.file})", unit=str(job.unit), file=item.name) from error


def _accept(part: Path, final: Path) -> None:
    with full_disk(part):
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        fault_point("download.verified", final)
        part.replace(final)
        fsync_folder(final.parent)


def _record(job: _Job, item: RemoteFile, came: Downloaded) -> FileRecord:
    status: FileStatus = "verified" if item.name in job.published else "unverified"
    head = (item.name, item.path, item.product, item.band, status)
    return FileRecord(*head, came.sha256, came.bytes, came.etag, came.last_modified, came.url)


def _fault_of(job: _Job, item: RemoteFile, came: Downloaded, path: Path) -> BadData | None:
    """What is wrong with a file's bytes; None if nothing is."""
    expected = job.published.get(item.name)
    if expected == came.sha256:
        return None
    label = str(job.unit)
    with path.open("rb") as handle:
        start = handle.read(256).lstrip().lower()
    page = "an HTML page" if start.startswith((b"<!doctype html", b"<html")) else ""
    empty = "" if came.bytes else "an empty file"
    if expected is not None:
        got = page or empty or f"{came.sha256} ({came.bytes} bytes)"
        return BadData(f"sha256 {expected}, as published", got, unit=label, file=item.name)
    if page or empty:
        return BadData("a FITS file", page or empty, unit=label, file=item.name)
    try:
        if item.product == "tractor":
            read_tractor(path, job.unit)
        else:
            check_header(read_image(path, unit=label)[1], item.name, label)
    except BadData as error:
        return BadData(error.expected, error.got, unit=label, file=item.name)
    return None
