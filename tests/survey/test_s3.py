"""A release in a bucket of a real (local) S3 server, and one that misbehaves."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from galpipe.config import FetchSettings
from galpipe.errors import BadData, ConfigurationError, RemoteFailure
from galpipe.mock.server import Fault, MockServer
from galpipe.survey.files import BrickFiles
from galpipe.survey.http import user_agent
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import Release, open_release
from galpipe.survey.remote import changed_remotely, fetch_brick
from galpipe.survey.transfer import CHUNK, Limiter, Validator, validator_path
from tests.survey.fake_release import BRICK, UNIT, bytes_of, coadd_name, coadd_path, image_bytes, make_tree, tractor_bytes, tractor_columns

IMAGE, NAME = coadd_path("image", "g"), coadd_name("image", "g")
MASK, TABLE = IMAGE.replace("image-g", "maskbits"), f"south/tractor/{BRICK[:3]}/tractor-{BRICK}.fits"
BODY = bytes_of(3 * CHUNK + 12_345)
LIST = f"{Path(IMAGE).parent}/legacysurvey_dr9_south_coadd_{BRICK[:3]}_{BRICK}.sha256sum"
ADDRESS = "s3://surveys/public/dr9"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture
def bucket(endpoint: str, no_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The files of a small release under a prefix; returns a client to change them with."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    client.create_bucket(Bucket="surveys")
    tree = make_tree(tmp_path / "tree", {IMAGE: BODY, MASK: bytes_of(2000, 1), TABLE: bytes_of(3000, 2)})
    upload(client, tree)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    yield client
    for item in client.list_objects_v2(Bucket="surveys").get("Contents", []):
        client.delete_object(Bucket="surveys", Key=item["Key"])
    client.delete_bucket(Bucket="surveys")


def upload(client: Any, tree: Path) -> None:
    for path in tree.rglob("*"):
        if path.is_file():
            put(client, path.relative_to(tree).as_posix(), path.read_bytes())


def put(client: Any, path: str, content: bytes, acl: str = "public-read") -> None:
    client.put_object(Bucket="surveys", Key=f"public/dr9/{path}", Body=content, ACL=acl)


def fetch(settings: FetchSettings, folder: Path, release: Release | None = None) -> BrickFiles:
    return fetch_brick(release or open_release(ADDRESS, settings=settings), UNIT, settings, folder)


def test_plan_and_files_are_those_of_a_folder(bucket: Any, quick: FetchSettings, tmp_path: Path) -> None:
    release = open_release(ADDRESS)
    assert (release.name, release.regions(), release.label("south")) == ("dr9", ("south",), "dr9")
    assert make_plan(release, "all", quick) == make_plan(open_release(str(tmp_path / "tree"), "dr9"), "all", quick)
    files = fetch(quick, tmp_path / "b")
    assert files.counts() == {"verified": 3, "unverified": 0, "absent": 0}
    assert (tmp_path / "b" / NAME).read_bytes() == BODY
    record = files.record("image", "g")
    assert record is not None
    assert record.url == f"{ADDRESS}/{IMAGE}"
    head = bucket.head_object(Bucket="surveys", Key=f"public/dr9/{IMAGE}")
    assert (record.etag, record.bytes) == (head["ETag"], len(BODY))
    assert record.last_modified.endswith(" GMT")


def test_absent_files_are_recorded(bucket: Any, quick: FetchSettings, tmp_path: Path) -> None:
    bucket.delete_object(Bucket="surveys", Key=f"public/dr9/{TABLE}")
    files = fetch(replace(quick, bands=("g", "r")), tmp_path / "b")
    assert files.absent == (coadd_name("image", "r"), f"tractor-{BRICK}.fits")


def test_what_is_not_as_published_is_bad_data(bucket: Any, quick: FetchSettings, tmp_path: Path) -> None:
    put(bucket, IMAGE, BODY[:-1] + b"!")
    with pytest.raises(BadData, match=rf"dr9/south/{BRICK} {NAME}: expected sha256 [0-9a-f]{{64}}, as published"):
        fetch(quick, tmp_path / "b")
    assert not [path for path in (tmp_path / "b").iterdir() if path.name.startswith(NAME)]


def test_without_lists_files_are_decoded(bucket: Any, quick: FetchSettings, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "bare", {IMAGE: image_bytes(), TABLE: tractor_bytes(tractor_columns())}, published=False)
    for key in (LIST, MASK, f"south/tractor/{BRICK[:3]}/legacysurvey_dr9_south_tractor_{BRICK[:3]}.sha256sum"):
        bucket.delete_object(Bucket="surveys", Key=f"public/dr9/{key}")
    upload(bucket, tree)
    assert fetch(quick, tmp_path / "b").counts() == {"verified": 0, "unverified": 2, "absent": 1}


def test_a_partial_file_is_continued_and_one_of_another_version_is_not_used(bucket: Any, quick: FetchSettings, tmp_path: Path) -> None:
    source, part = open_release(ADDRESS).source, tmp_path / "x.part"
    etag = bucket.head_object(Bucket="surveys", Key=f"public/dr9/{IMAGE}")["ETag"]

    for have, known in ((CHUNK, etag), (len(BODY), etag), (CHUNK, '"other"'), (len(BODY) + 5, etag)):
        part.write_bytes(BODY[:have].ljust(have, b"x"))
        validator_path(part).write_text(json.dumps(asdict(Validator(known, "", f"{ADDRESS}/{IMAGE}"))))
        done = source.download(IMAGE, part, quick, Limiter(1))
        assert done is not None
        assert (done.sha256, done.bytes) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
        assert part.read_bytes() == BODY
        assert done.etag == etag


def test_files_replaced_in_place_are_noticed(bucket: Any, quick: FetchSettings, tmp_path: Path) -> None:
    files = fetch(quick, tmp_path / "b")
    assert changed_remotely(open_release(ADDRESS), files) == ()
    text = bucket.get_object(Bucket="surveys", Key=f"public/dr9/{LIST}")["Body"].read().decode()
    fixed = text.replace(hashlib.sha256(BODY).hexdigest(), hashlib.sha256(b"fixed").hexdigest())
    put(bucket, LIST, fixed.encode())
    assert changed_remotely(open_release(ADDRESS), files) == (NAME,)
    # without a list the ETag tells
    bucket.delete_object(Bucket="surveys", Key=f"public/dr9/{LIST}")
    assert changed_remotely(open_release(ADDRESS), files) == ()
    put(bucket, IMAGE, BODY[::-1])
    assert changed_remotely(open_release(ADDRESS), files) == (NAME,)


def test_what_is_not_public_needs_credentials(bucket: Any, quick: FetchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bucket, IMAGE, BODY, "private")
    with pytest.raises(RemoteFailure, match=rf"dr9/south/{BRICK} {NAME}: .*HTTP 403 .*no right to read it"):
        fetch(quick, tmp_path / "b")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(RemoteFailure, match="HTTP 403"):
        fetch(replace(quick, credentials="none"), tmp_path / "b")
    assert fetch(quick, tmp_path / "b").counts()["verified"] == 3


def test_a_bucket_that_is_not_there(bucket: Any, quick: FetchSettings) -> None:
    with pytest.raises(RemoteFailure, match=r"s3://nowhere/dr9/.*HTTP 404 NoSuchBucket"):
        open_release("s3://nowhere/dr9", settings=quick).regions()
    with pytest.raises(ConfigurationError, match="s3://bucket/prefix"):
        open_release("s3:///dr9")


def test_a_prefix_with_nothing_in_it(bucket: Any, quick: FetchSettings) -> None:
    with pytest.raises(ConfigurationError, match="a release tree"):
        open_release("s3://surveys/other", settings=quick).regions()


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "galpipe.survey.s3", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'galpipe\[s3\]'"):
        open_release(ADDRESS)


class TestMisbehaving:
    """The same requests against a server that cuts, stalls and refuses: a bucket is a folder to it."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        make_tree(tmp_path / "web" / "surveys" / "public" / "dr9", {IMAGE: BODY, MASK: bytes_of(2000, 1), TABLE: bytes_of(3000, 2)})
        return tmp_path / "web"

    @contextmanager
    def served(self, tree: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Fault]) -> Iterator[MockServer]:
        with MockServer(tree, {f"surveys/public/dr9/{IMAGE}": faults}) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            yield server

    def release(self, settings: FetchSettings) -> Release:
        release = open_release(ADDRESS, settings=settings)
        release._found["summary/south"] = "south/survey-bricks-dr9-south.fits.gz"
        return release

    @pytest.mark.parametrize(
        "faults",
        [
            [Fault("cut", after=2 * CHUNK + 100)],
            [Fault("stall", after=CHUNK + 5)],
            [Fault("status", times=2, status=503)],
            [Fault("truncate", after=CHUNK)],
        ],
    )
    def test_it_is_mended(
        self, tree: Path, quick: FetchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_credentials: None, faults: list[Fault]
    ) -> None:
        with self.served(tree, monkeypatch, faults) as server:
            settings = replace(quick, timeout=1.0)
            files = fetch(settings, tmp_path / "b", self.release(settings))
            assert files.counts()["verified"] == 3
            assert (tmp_path / "b" / NAME).read_bytes() == BODY
            gets = server.gets(f"surveys/public/dr9/{IMAGE}")
            if faults[0].kind in ("cut", "stall"):
                begun = int(gets[-1].range.removeprefix("bytes=").removesuffix("-"))
                assert faults[0].after - (1 << 16) <= begun <= faults[0].after
            assert all(user_agent() in item.user_agent for item in gets)

    def test_a_service_that_stays_away_is_a_remote_failure(
        self, tree: Path, quick: FetchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_credentials: None
    ) -> None:
        with self.served(tree, monkeypatch, [Fault("status", times=-1, status=500)]) as server:
            with pytest.raises(RemoteFailure, match=rf"dr9/south/{BRICK} {NAME}: .*HTTP 500 .*after 4 tries"):
                fetch(quick, tmp_path / "b", self.release(quick))
            assert len(server.gets(f"surveys/public/dr9/{IMAGE}")) == 4

    def test_a_refusal_says_what_it_may_mean(
        self, tree: Path, quick: FetchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_credentials: None
    ) -> None:
        with self.served(tree, monkeypatch, [Fault("status", times=-1, status=403)]) as server:
            with pytest.raises(RemoteFailure, match=r"HTTP 403 .*no right to read it, or no such file"):
                fetch(quick, tmp_path / "b", self.release(quick))
            assert len(server.gets(f"surveys/public/dr9/{IMAGE}")) == 1
