"""What is said about the service, who may reach it, and what it never does."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from astropy.io import votable
from click.testing import CliRunner
from pyvo.dal import SIA2Service
from pyvo.io.vosi import parse_availability, parse_capabilities, parse_tables

from catalogs.hats import publish
from catalogs.query import Catalog, open_catalog
from catalogs.serve.limits import Busy, Limits
from catalogs.serve.pool import CatalogPool
from catalogs.serve.server import Address
from catalogs.serve.service import Service
from flows.cli.serve import serve
from galpipe.errors import ConfigurationError
from galpipe.layout import Layout
from tests.catalogs.serve.conftest import BARE, CUT, EAST, ROWS, running
from tests.catalogs.sky import write_brick

pytestmark = pytest.mark.filterwarnings("ignore:Unknown xsi.type cs.ConeSearch")


def source_of(layout: Layout, unit: object = EAST) -> int:
    with open_catalog(layout) as catalog:
        return int(catalog.sql(f"SELECT source_id FROM galaxies WHERE brickname = '{unit.brick}' LIMIT 1")["source_id"][0].as_py())  # type: ignore[attr-defined]


def test_capabilities_name_every_protocol_and_where_it_is_spoken(url: str) -> None:
    found = {
        item.standardid: item.interfaces[0].accessurls[0].content
        for item in parse_capabilities(io.BytesIO(httpx.get(f"{url}capabilities").content))
    }
    assert found == {
        "ivo://ivoa.net/std/VOSI#capabilities": f"{url}capabilities",
        "ivo://ivoa.net/std/VOSI#availability": f"{url}availability",
        "ivo://ivoa.net/std/VOSI#tables-1.1": f"{url}tables",
        "ivo://ivoa.net/std/ConeSearch": f"{url}scs?UCD=1&",
        "ivo://ivoa.net/std/SIA#query-2.0": f"{url}sia",
        "ivo://ivoa.net/std/SODA#sync-1.0": f"{url}cutout",
    }
    told = re.search("<testQuery><ra>(.*?)</ra><dec>(.*?)</dec><sr>(.*?)</sr>", httpx.get(f"{url}capabilities").text)
    assert told and b"<TR>" in httpx.get(f"{url}scs?RA={told[1]}&DEC={told[2]}&SR={told[3]}").content


def test_every_address_of_the_service_leads_to_its_images(url: str) -> None:
    assert {SIA2Service(address).query_ep for address in (url.rstrip("/"), f"{url}sia")} == {f"{url}sia"}


def test_availability(url: str) -> None:
    told = parse_availability(io.BytesIO(httpx.get(f"{url}availability").content))
    assert told.available is True and told.notes == ["catalog main, version 1"]


def test_tables_have_the_columns_of_the_answers(url: str) -> None:
    tables = {
        table.name: [column.name for column in table.columns]
        for table in parse_tables(io.BytesIO(httpx.get(f"{url}tables").content)).iter_tables()
    }
    rows = votable.parse(io.BytesIO(httpx.get(f"{url}scs?RA=0&DEC=0&SR=0&VERB=3").content)).get_first_table()
    stamps = votable.parse(io.BytesIO(httpx.get(f"{url}sia?MAXREC=0").content)).get_first_table()
    assert tables["galaxies"] == [item.name for item in rows.fields][1:-1]
    assert tables["stamps"] == [item.name for item in stamps.fields]


def test_the_page_loads_nothing_but_its_own_pictures(url: str) -> None:
    answer = httpx.get(url)
    assert "script" not in re.sub("no script", "", answer.text).lower() and "120 galaxies" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self'; style-src 'sha256-") and "unsafe" not in policy
    sheet = re.search("<style>(.*?)</style>", answer.text, re.DOTALL)
    assert sheet and f"'sha256-{base64.b64encode(hashlib.sha256(sheet[1].encode()).digest()).decode()}'" in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert loaded and not [item for item in loaded if re.match(r"\w+:|/", item)]
    for item in loaded[:12]:
        assert httpx.get(url + item.replace("&amp;", "&")).status_code == 200


def test_stamps_that_are_not_there_say_why(url: str, served_layout: Layout) -> None:
    kept = httpx.get(f"{url}stamps/{source_of(served_layout, BARE)}.fits")
    assert kept.status_code == 404 and "the stamps of dr9/south/0003p000 were not kept (galpipe run --keep stamps" in kept.text
    unknown = httpx.get(f"{url}stamps/12345.png")
    assert unknown.status_code == 404 and "expected a source_id of this version of the catalog, got 12345" in unknown.text


@pytest.mark.parametrize(
    "path",
    [
        "stamps/../../../etc/passwd",
        "stamps/..%2f..%2f..%2fetc%2fpasswd",
        "stamps/%2fetc%2fpasswd.fits",
        "stamps/1.fits%00.png",
        "stamps/99999999999999999999.fits",
        "stamps/-9223372036854775809.png",
        "stamps/1e5.fits",
        "stamps/1.zarr",
        "stamps/",
        "catalog/main/collection.json",
        "docs",
        "openapi.json",
    ],
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    # a plain socket: clients tidy such paths up before they send them
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(b" ")[1] == b"404" and b"root:" not in answer and b"Traceback" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["", "scs", "sia", "cutout", "stamps/1.fits"])
def test_nothing_can_be_sent(url: str, method: str, path: str) -> None:
    assert httpx.request(method, url + path, content=b"RA=1").status_code == 405


def test_a_site_whose_name_was_made_to_point_here_gets_nothing(url: str) -> None:
    assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 400
    assert "access-control-allow-origin" not in httpx.get(url, headers={"Origin": "http://evil.example"}).headers


def test_long_queries_are_refused(url: str) -> None:
    answer = httpx.get(f"{url}scs?RA=1&DEC=1&SR=0.1&X={'a' * 5000}")
    assert answer.status_code == 414 and "4096 characters" in answer.text


def test_asking_changes_no_file(url: str, served_layout: Layout) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in served_layout.root.rglob("*") if path.is_file()}

    before = state()
    for path in ("", "scs?RA=0&DEC=0&SR=0.1", "sia?POS=CIRCLE 0 0 0.1", f"stamps/{source_of(served_layout)}.fits", "tables"):
        assert httpx.get(url + path).status_code == 200
    assert state() == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path)
    write_brick(layout, EAST, 5)
    publish(layout, "main")
    yield layout


def test_what_goes_wrong_inside_stays_inside(small: Layout) -> None:
    with running(Service(small, "main")) as url:
        for path in small.hats("main").glob("v1/dataset/**/Npix=*.parquet"):
            path.write_bytes(b"not parquet")
        for path in ("scs?RA=0.1&DEC=0&SR=0.3", "sia?POS=CIRCLE 0.1 0 0.3", "stamps/1.fits", ""):
            answer = httpx.get(url + path)
            assert answer.status_code == 500 and "the service failed; its log says why" in answer.text
            assert str(small.root) not in answer.text and "Traceback" not in answer.text and "arquet" not in answer.text


def test_a_damaged_store_is_told_and_the_others_are_listed(tmp_path: Path) -> None:
    from tests.catalogs.serve.conftest import WEST, write_stamps

    layout = Layout(tmp_path)
    for unit in (EAST, WEST):
        write_brick(layout, unit, ROWS)
        write_stamps(layout, unit)
    publish(layout, "main")
    (layout.stamps(WEST, CUT.name) / "sources.parquet").write_bytes(b"")
    with running(Service(layout, "main")) as url:
        tree = votable.parse(io.BytesIO(httpx.get(f"{url}sia?POS=CIRCLE 0 0 0.2").content))
        assert [info.value for info in tree.resources[0].infos if info.name == "WARNING"] == [
            "stores that do not read, their stamps are left out: dr9/south/3598p000"
        ]
        assert len(tree.get_first_table().array) > 0


def test_a_new_version_is_served_without_a_restart(small: Layout) -> None:
    with running(Service(small, "main")) as newest, running(Service(small, "main", version=1)) as fixed:
        query = "scs?RA=0.1&DEC=0&SR=0.3&VERB=1"
        assert [httpx.get(address + query).text.count("<TR>") for address in (newest, fixed)] == [5, 5]
        write_brick(small, EAST, 9)
        publish(small, "main")
        assert [httpx.get(address + query).text.count("<TR>") for address in (newest, fixed)] == [9, 5]


def test_no_more_requests_read_at_once_than_there_are_connections(small: Layout) -> None:
    pool = CatalogPool(small, "main", size=2, wait=0.05)
    with pool.catalog() as first, pool.catalog() as second:
        assert first.catalog is not second.catalog
        with pytest.raises(Busy, match="2 requests that are being read"), pool.catalog():
            pass
    with pool.catalog() as again:
        assert again.catalog in (first.catalog, second.catalog)
    pool.close()


def test_a_request_that_takes_too_long_is_given_up(small: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    plain = Catalog.cone

    def slow(self: Catalog, *arguments: object) -> object:
        release.wait(30)
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "cone", slow)
    service = Service(small, "main", limits=Limits(workers=1, wait=0.01, seconds=1.0))
    with running(service) as url:
        query = f"{url}scs?RA=0.1&DEC=0&SR=0.3"
        first, second = httpx.get(query), httpx.get(query)
        assert first.status_code == second.status_code == 503 and first.headers["retry-after"] == "5"
        assert b"an answer within 1 s" in first.content and b"1 requests that are being read" in second.content
        # the thread that nobody waits for gives its connection back; a busy machine gets all the time it needs
        service.limits = replace(service.limits, seconds=60.0)
        release.set()
        deadline = time.monotonic() + 60
        while (last := httpx.get(query, timeout=90)).status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert last.status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "myhost.example"])
def test_other_machines_are_let_in_by_an_explicit_word_only(host: str) -> None:
    with pytest.raises(ConfigurationError, match="whoever reaches it may read the whole catalog and its stamps; say --public"):
        Address(host)
    assert Address(host, public=True).hosts() == ["*"]
    assert all(Address(mine).hosts()[0] == "127.0.0.1" for mine in ("127.0.0.1", "::1", "localhost"))


def test_the_verb_refuses_what_cannot_be_served(small: Layout) -> None:
    runner = CliRunner()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = runner.invoke(serve, ["--root", str(small.root), "--port", port])
    assert busy.exit_code == 2 and "a free port at 127.0.0.1 (--port 0 takes one)" in busy.stderr
    public = runner.invoke(serve, ["--root", str(small.root), "--host", "0.0.0.0"])
    assert public.exit_code == 2 and "--public" in public.stderr
    missing = runner.invoke(serve, ["--root", str(small.root), "--as-of", "7"])
    assert missing.exit_code == 2 and "a version of catalog 'main', got v7" in missing.stderr


def test_the_verb_serves_until_it_is_interrupted(small: Layout) -> None:
    command = [sys.executable, "-m", "flows", "serve", "--root", str(small.root), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None and process.stdout is not None
        try:
            first = process.stderr.readline()
            found = re.search(r"catalog 'main', version 1, at (http://127\.0\.0\.1:\d+/)", first)
            assert found, first
            deadline = time.monotonic() + 60
            while True:
                try:
                    answer = httpx.get(f"{found[1]}scs?RA=0.1&DEC=0&SR=0.3&VERB=1", timeout=60)
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert answer.text.count("<TR>") == 5
        finally:
            process.send_signal(signal.SIGINT)
            out = process.stdout.read()
            process.wait(60)
    assert process.returncode == 0
    assert json.loads(out) == {"status": "ok", "counts": {}, "failures": [], "url": found[1], "version": 1}
