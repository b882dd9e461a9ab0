"""Fetching from a real HTTP server that misbehaves in every way a real one does."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from galpipe.config import FetchSettings
from galpipe.errors import BadData, RemoteFailure, ResourceFailure
from galpipe.mock.server import Fault, MockServer
from galpipe.survey.http import retry_after
from galpipe.survey.releases import open_release
from galpipe.survey.remote import BrickFiles, Limiter, changed_remotely, fetch_brick, load_brick_files
from galpipe.survey.transfer import CHUNK
from tests.survey.fake_release import (
    BRICK,
    UNIT,
    bytes_of,
    coadd_name,
    coadd_path,
    image_bytes,
    make_tree,
    tractor_bytes,
    tractor_columns,
    write_list,
)

IMAGE, NAME = coadd_path("image", "g"), coadd_name("image", "g")
MASK, TABLE = IMAGE.replace("image-g", "maskbits"), f"south/tractor/{BRICK[:3]}/tractor-{BRICK}.fits"
BODY = bytes_of(3 * CHUNK + 12_345)


def fetch(server: MockServer, settings: FetchSettings, folder: Path) -> BrickFiles:
    return fetch_brick(open_release(server.url, "dr9", settings), UNIT, settings, folder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A brick of one image, one mask and one Tractor table, with published checksums."""
    return make_tree(tmp_path / "tree", {IMAGE: BODY, MASK: bytes_of(2000, 1), TABLE: bytes_of(3000, 2)})


def test_files_come_whole_and_are_not_fetched_twice(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree) as server:
        files = fetch(server, quick, tmp_path / "b")
        assert (tmp_path / "b" / NAME).read_bytes() == BODY
        assert files.counts() == {"verified": 3, "unverified": 0, "absent": 0}
        record = files.record("image", "g")
        assert record is not None
        assert record.sha256 == hashlib.sha256(BODY).hexdigest()
        assert record.etag
        assert record.last_modified
        assert names(tmp_path / "b") == {"fetch.json", NAME, Path(MASK).name, Path(TABLE).name}
        assert load_brick_files(tmp_path / "b", UNIT) == files
        assert fetch(server, quick, tmp_path / "b") == files
        assert len(server.gets(IMAGE)) == 1
        assert all(item.user_agent.startswith("galpipe/") for item in server.requests)


def test_a_folder_release_gives_the_same_files_and_is_not_touched(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    files = fetch_brick(open_release(str(tree), "dr9"), UNIT, quick, tmp_path / "b")
    assert files.counts()["verified"] == 3
    assert (tmp_path / "b" / NAME).read_bytes() == BODY
    assert not (tmp_path / "b" / NAME).samefile(tree / IMAGE)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_absent_files_are_recorded(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    (tree / TABLE).unlink()
    with MockServer(tree) as server:
        files = fetch(server, replace(quick, bands=("g", "r")), tmp_path / "b")
    assert files.absent == (coadd_name("image", "r"), f"tractor-{BRICK}.fits")
    assert files.bands == ("g",)
    assert files.path("tractor") is None
    assert files.path("image", "r") is None


def test_a_brick_that_is_not_there_at_all_is_absent(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    other = replace(UNIT, brick="1126p225")
    with MockServer(tree) as server:
        files = fetch_brick(open_release(server.url, "dr9", quick), other, quick, tmp_path / "b")
    assert files.counts() == {"verified": 0, "unverified": 0, "absent": 3}


def test_a_cut_connection_continues_where_it_was(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("cut", after=2 * CHUNK + 100)]}) as server:
        fetch(server, quick, tmp_path / "b")
        first, second = server.gets(IMAGE)
        assert (tmp_path / "b" / NAME).read_bytes() == BODY
        assert first.range == ""
        assert second.status == 206
        # what reached the disk is not sent again
        assert second.range == f"bytes={2 * CHUNK + 100}-"
        assert first.sent + second.sent == len(BODY)


def test_cuts_that_make_progress_do_not_use_up_the_retries(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    faults = [Fault("cut", after=CHUNK // 2, times=6)]
    with MockServer(tree, {IMAGE: faults}) as server:
        fetch(server, replace(quick, retries=2), tmp_path / "b")
        assert (tmp_path / "b" / NAME).read_bytes() == BODY
        assert server.sent(IMAGE) == len(BODY)


def test_a_file_that_changed_in_between_is_started_anew(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("cut", after=2 * CHUNK), Fault("status", times=4)]}) as server:
        with pytest.raises(RemoteFailure, match="image-g"):
            fetch(server, quick, tmp_path / "b")
        assert (tmp_path / "b" / f"{NAME}.part").stat().st_size == 2 * CHUNK
        body = bytes_of(len(BODY), 9)
        (tree / IMAGE).write_bytes(body)
        write_list(tree, str(Path(IMAGE).parent), f"legacysurvey_dr9_south_coadd_{BRICK[:3]}_{BRICK}.sha256sum")
        fetch(server, quick, tmp_path / "b")
        last = server.gets(IMAGE)[-1]
        assert last.range == f"bytes={2 * CHUNK}-"
        assert last.status == 200
    assert (tmp_path / "b" / NAME).read_bytes() == body


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_recovers(tree: Path, quick: FetchSettings, tmp_path: Path, status: int) -> None:
    with MockServer(tree, {IMAGE: [Fault("status", times=2, status=status)]}) as server:
        assert fetch(server, quick, tmp_path / "b").counts()["verified"] == 3
        assert [item.status for item in server.gets(IMAGE)] == [status, status, 200]


def test_a_server_that_does_not_recover_is_a_remote_failure(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("status", times=-1)]}) as server:
        with pytest.raises(RemoteFailure, match=rf"dr9/south/{BRICK} {NAME}: .*HTTP 500 after 4 tries"):
            fetch(server, quick, tmp_path / "b")
        assert len(server.gets(IMAGE)) == 4
    assert NAME not in names(tmp_path / "b")
    assert "fetch.json" not in names(tmp_path / "b")
    with MockServer(tree) as server:
        fetch(server, quick, tmp_path / "b")
        # the others were whole and are kept
        assert server.gets(MASK) == []


def test_a_refusal_is_not_retried(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("status", times=-1, status=401)]}) as server:
        with pytest.raises(RemoteFailure, match="HTTP 401"):
            fetch(server, quick, tmp_path / "b")
        assert len(server.gets(IMAGE)) == 1


def test_retry_after_is_honoured(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("status", status=429, retry_after="1")]}) as server:
        start = time.monotonic()
        fetch(server, quick, tmp_path / "b")
        assert time.monotonic() - start >= 1.0


def test_retry_after_forms() -> None:
    assert retry_after("7") == 7.0
    assert retry_after(None) is None
    assert retry_after("soon") is None
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    assert later is not None
    assert 90 < later <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_stalled_connection_is_given_up_and_continued(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("stall", after=CHUNK + 5)]}) as server:
        start = time.monotonic()
        fetch(server, replace(quick, timeout=0.5), tmp_path / "b")
        assert time.monotonic() - start < 10
        assert [item.status for item in server.gets(IMAGE)] == [206]
    assert (tmp_path / "b" / NAME).read_bytes() == BODY


def test_a_server_that_is_not_there(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree) as server:
        release = open_release(server.url, "dr9", quick)
        release.summary_path("south")
    with pytest.raises(RemoteFailure, match="after 4 tries"):
        fetch_brick(release, UNIT, quick, tmp_path / "b")


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault("truncate", times=-1, after=CHUNK), rf"published, got [0-9a-f]{{64}} \({CHUNK} bytes\)"),
        (Fault("flip", times=-1, after=5_000), "published, got [0-9a-f]{64}"),
        (Fault("truncate", times=-1, after=0), "an empty file"),
        (Fault("html", times=-1), "an HTML page"),
    ],
)
def test_what_is_not_as_published_is_bad_data(tree: Path, quick: FetchSettings, tmp_path: Path, fault: Fault, what: str) -> None:
    with MockServer(tree, {IMAGE: [fault]}) as server:
        with pytest.raises(BadData, match=rf"dr9/south/{BRICK} {NAME}: .*{what}"):
            fetch(server, quick, tmp_path / "b")
        assert len(server.gets(IMAGE)) == 2
    assert NAME not in names(tmp_path / "b")
    assert f"{NAME}.part" not in names(tmp_path / "b")
    assert "fetch.json" not in names(tmp_path / "b")


def test_damage_on_the_way_is_mended_by_a_second_download(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree, {IMAGE: [Fault("flip", after=7)]}) as server:
        assert fetch(server, quick, tmp_path / "b").counts()["verified"] == 3
        assert [item.range for item in server.gets(IMAGE)] == ["", ""]


@pytest.mark.parametrize("line", ["{sha}  {name}", "{sha} *{name}", "{sha} *coadd/112/x/{name}", "{sha}  ./{name}"])
def test_published_lists_of_every_form(tmp_path: Path, quick: FetchSettings, line: str) -> None:
    tree = make_tree(tmp_path / "tree", {IMAGE: b"any", MASK: b"bytes", TABLE: b"here"}, line=line)
    with MockServer(tree) as server:
        assert fetch(server, quick, tmp_path / "b").counts()["verified"] == 3


def test_a_release_named_otherwise_still_finds_its_lists(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    unit = replace(UNIT, release="mine")
    with MockServer(tree) as server:
        files = fetch_brick(open_release(server.url, "mine", quick), unit, quick, tmp_path / "b")
    assert files.counts()["verified"] == 3


class TestUnpublished:
    """Without checksums the data themselves must decode."""

    @pytest.fixture
    def bare(self, tmp_path: Path, brick_image: bytes) -> Path:
        return make_tree(tmp_path / "tree", {IMAGE: brick_image, TABLE: tractor_bytes(tractor_columns())}, published=False)

    def test_good_files_are_kept_as_unverified(self, bare: Path, quick: FetchSettings, tmp_path: Path) -> None:
        with MockServer(bare) as server:
            files = fetch(server, quick, tmp_path / "b")
        assert files.counts() == {"verified": 0, "unverified": 2, "absent": 1}
        assert files.checksums[NAME] == hashlib.sha256((bare / IMAGE).read_bytes()).hexdigest()

    @pytest.mark.parametrize(
        ("fault", "what"),
        [
            (Fault("html", times=-1), "an HTML page"),
            (Fault("truncate", times=-1, after=0), "an empty file"),
            (Fault("truncate", times=-1, after=40_000), "truncated"),
        ],
    )
    def test_bad_bytes(self, bare: Path, quick: FetchSettings, tmp_path: Path, fault: Fault, what: str) -> None:
        with MockServer(bare, {IMAGE: [fault]}) as server, pytest.raises(BadData, match=rf"{BRICK} {NAME}: .*{what}"):
            fetch(server, quick, tmp_path / "b")
        assert NAME not in names(tmp_path / "b")

    def test_a_flipped_bit_in_a_tile(self, bare: Path, quick: FetchSettings, tmp_path: Path, brick_image: bytes) -> None:
        # the last noisy tile ends the heap; zeros follow in tiny tiles
        place = len(brick_image) // 3
        server = MockServer(bare, {IMAGE: [Fault("flip", times=-1, after=place)]})
        with server, pytest.raises(BadData, match=f"{NAME}: expected a readable FITS image"):
            fetch(server, quick, tmp_path / "b")

    def test_a_wrong_shape(self, bare: Path, quick: FetchSettings, tmp_path: Path) -> None:
        (bare / IMAGE).write_bytes(image_bytes((200, 300)))
        with (
            MockServer(bare) as server,
            pytest.raises(BadData, match=rf"{NAME}: expected an image of shape \(3600, 3600\), got .*200, 300"),
        ):
            fetch(server, quick, tmp_path / "b")

    def test_a_table_without_a_needed_column(self, bare: Path, quick: FetchSettings, tmp_path: Path) -> None:
        columns = tractor_columns()
        del columns["flux_ivar_z"]
        (bare / TABLE).write_bytes(tractor_bytes(columns))
        with MockServer(bare) as server, pytest.raises(BadData, match=f"tractor-{BRICK}.fits: expected a column 'flux_ivar_z'"):
            fetch(server, quick, tmp_path / "b")


def test_connections_are_bounded_over_bricks(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    settings = replace(quick, connections=2, bands=("g", "r", "i", "z"))
    with MockServer(tree, delay=0.05) as server, ThreadPoolExecutor(3) as pool:
        release, limiter = open_release(server.url, "dr9", settings), Limiter(2)
        release.checksum_lists(UNIT)
        server.most_open = 0
        jobs = [pool.submit(fetch_brick, release, UNIT, settings, tmp_path / str(index), limiter) for index in range(3)]
        assert all(job.result().counts()["verified"] == 3 for job in jobs)
        assert server.most_open <= 2


def test_a_damaged_file_on_disk_is_fetched_again(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree) as server:
        files = fetch(server, quick, tmp_path / "b")
        (tmp_path / "b" / NAME).write_bytes(BODY[:-1] + b"!")
        again = fetch(server, quick, tmp_path / "b")
        assert (tmp_path / "b" / NAME).read_bytes() == BODY
        assert again.checksums == files.checksums
        assert len(server.gets(MASK)) == 1


def test_files_replaced_in_place_are_noticed(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree) as server:
        files = fetch(server, quick, tmp_path / "b")
        assert changed_remotely(open_release(server.url, "dr9"), files) == ()
        (tree / IMAGE).write_bytes(b"fixed")
        write_list(tree, str(Path(IMAGE).parent), f"legacysurvey_dr9_south_coadd_{BRICK[:3]}_{BRICK}.sha256sum")
        assert changed_remotely(open_release(server.url, "dr9"), files) == (NAME,)


FETCH = """
import sys
from pathlib import Path
from galpipe.config import FetchSettings
from galpipe.survey.releases import open_release
from galpipe.survey.remote import fetch_brick
from galpipe.unit import Unit
url, unit, folder = sys.argv[1:]
settings = FetchSettings(products=("image",), bands=("g",), connections=1)
fetch_brick(open_release(url, "dr9"), Unit.parse(unit), settings, Path(folder))
"""


def in_process(url: str, folder: Path, fault: str = "", limit: int = 0) -> subprocess.CompletedProcess[str]:
    """Fetch in a process group of its own, which a fault point may kill and a file size limit may hinder."""

    def hinder() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = [sys.executable, "-c", FETCH, url, str(UNIT), str(folder)]
    environment = {**os.environ, "GALPIPE_FAULT": fault, "GALPIPE_FAULT_DIR": str(folder.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, start_new_session=True, preexec_fn=hinder)


@pytest.mark.parametrize("fault", ["download.part:20", "download.verified"])
def test_a_killed_fetch_is_continued(tree: Path, quick: FetchSettings, tmp_path: Path, fault: str) -> None:
    with MockServer(tree) as server:
        died = in_process(server.url, tmp_path / "b", fault)
        assert died.returncode == -signal.SIGKILL
        assert names(tmp_path / "b") == {f"{NAME}.part", f"{NAME}.part.json"}
        have = (tmp_path / "b" / f"{NAME}.part").stat().st_size
        assert have > 0
        before = server.sent(IMAGE)
        fetch(server, quick, tmp_path / "b")
        assert (tmp_path / "b" / NAME).read_bytes() == BODY
        assert server.sent(IMAGE) - before <= len(BODY) - have
        assert names(tmp_path / "b") == {"fetch.json", NAME, Path(MASK).name, Path(TABLE).name}


def test_a_full_disk_is_a_resource_failure(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    with MockServer(tree) as server:
        ended = in_process(server.url, tmp_path / "b", limit=CHUNK)
        assert ended.returncode == 1
        assert f"ResourceFailure: dr9/south/{BRICK} {NAME}: expected room to write" in ended.stderr
        assert NAME not in names(tmp_path / "b")
        assert fetch(server, quick, tmp_path / "b").counts()["verified"] == 3


def test_a_disk_that_has_no_room_at_all(tree: Path, quick: FetchSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with MockServer(tree) as server, pytest.raises(ResourceFailure, match="expected room to write"):
        fetch(server, quick, tmp_path / "file" / "b")
