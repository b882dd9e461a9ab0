import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalogs.ledger import Ledger, ledger_of_files, set_aside_damaged
from catalogs.outcomes import OutcomesMeta, empty, write_outcomes
from galpipe.errors import ConfigurationError, ResourceFailure
from galpipe.layout import Layout
from galpipe.unit import Receipt, Unit
from tests.catalogs.sky import FAR, UNITS, write_brick

POSTGRES = Path("/usr/lib/postgresql/15/bin")
ROOT = Path(__file__).parents[2]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _cluster(folder: Path) -> Iterator[str]:
    """A private PostgreSQL, run by a user that is not root."""
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    if as_user:
        folder.chmod(0o777)
    port, data = _free_port(), folder / "data"
    run = [*as_user, str(POSTGRES / "initdb"), "-D", str(data), "-U", "galpipe", "-A", "trust", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True, cwd="/")
    options = f"-p {port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*as_user, str(POSTGRES / "pg_ctl"), "-D", str(data), "-w"]
    subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], check=True, capture_output=True, cwd="/")
    try:
        yield f"postgresql://galpipe@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if not (POSTGRES / "initdb").exists():
        pytest.skip(f"PostgreSQL is not installed under {POSTGRES}")
    # not under pytest's folder, which only its owner may enter
    folder = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    try:
        with _cluster(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    where = tmp_path / "ledger.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres")
    with Ledger(where) as opened:
        yield opened


def receipt(unit: Unit, stage: str = "catalog", status: str = "done", rows: int = 10, fingerprint: str = "f") -> Receipt:
    return Receipt(unit, stage, status, f"{unit}.x", rows, "hash", fingerprint, "file", "reason", {"predicted": rows}, 1.5)  # type: ignore[arg-type]


def test_record_done_replace_and_summary(ledger: Ledger) -> None:
    name = f"n{os.urandom(4).hex()}"
    assert ledger.record([receipt(unit) for unit in UNITS], "run-1", name) == 3
    ledger.record([receipt(UNITS[0], fingerprint="g", rows=20), receipt(FAR, status="bad_data", rows=0)], "run-2", name)
    done = ledger.done("catalog", name)
    assert {unit: (state.status, state.fingerprint, state.rows) for unit, state in done.items()} == {
        UNITS[0]: ("done", "g", 20),
        UNITS[1]: ("done", "f", 10),
        UNITS[2]: ("done", "f", 10),
        FAR: ("bad_data", "f", 0),
    }
    mine = [row for row in ledger.summary(name) if row["stage"] == "catalog"]
    assert [(row["region"], row["status"], row["bricks"], row["rows"]) for row in mine] == [
        ("north", "bad_data", 1, 0),
        ("south", "done", 3, 40),
    ]
    assert [failure.unit for failure in ledger.failures(name)] == [FAR]
    assert list(ledger.receipts("catalog", name))[1] == receipt(UNITS[0], fingerprint="g", rows=20)


def test_a_batch_may_hold_a_unit_twice_and_the_later_wins(ledger: Ledger) -> None:
    name = f"n{os.urandom(4).hex()}"
    ledger.record([receipt(FAR, rows=1), receipt(FAR, rows=2)], "run", name)
    assert ledger.done("catalog", name)[FAR].rows == 2


def test_fetch_and_cut_belong_to_no_catalog(ledger: Ledger) -> None:
    unit = Unit(f"r{os.urandom(4).hex()}", "all", "0001m002")
    ledger.record([receipt(unit, "fetch"), receipt(unit, "cut")], "run", "one")
    assert unit in ledger.done("fetch", "another", release=unit.release)
    assert unit in ledger.done("cut")


def test_runs_have_a_beginning_and_an_end(ledger: Ledger) -> None:
    name, run = f"n{os.urandom(4).hex()}", os.urandom(4).hex()
    ledger.start_run(run, name, {"cut": {"size": 152}})
    assert ledger.runs(name)[0]["ended"] is None
    ledger.end_run(run, "ok")
    assert ledger.runs(name)[0]["status"] == "ok"
    assert ledger.runs(name)[0]["settings"] == {"cut": {"size": 152}}


def test_one_coordinator_at_a_time(ledger: Ledger) -> None:
    name = f"n{os.urandom(4).hex()}"
    with ledger.lease(name, "first") as lease:
        lease.renew()
        with pytest.raises(ConfigurationError, match=rf"'{name}' to be free, got run 'first' at work .*process {os.getpid()}"):
            ledger.lease(name, "second")
        with ledger.lease(f"{name}-other", "second"):
            pass
    with ledger.lease(name, "second"):
        pass


def test_an_expired_lease_is_taken_and_its_owner_told(ledger: Ledger) -> None:
    name = f"n{os.urandom(4).hex()}"
    old = ledger.lease(name, "first", seconds=-1)
    new = ledger.lease(name, "second")
    with pytest.raises(ResourceFailure, match="it was taken over"):
        old.renew()
    old.release()
    new.renew()


def test_the_lease_of_a_dead_process_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code = f"from catalogs.ledger import Ledger; Ledger({str(path)!r}).lease('main', 'dead', 3600)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with Ledger(path) as ledger, ledger.lease("main", "next") as lease:
        assert lease.owner == "next"


def test_the_view_table_has_a_column_for_each_fact(ledger: Ledger) -> None:
    name = f"n{os.urandom(4).hex()}"
    ledger.record([receipt(FAR)], "run", name)
    rows = [row for row in ledger.table(name).to_pylist() if row["name"] == name]
    assert [(row["brick"], row["rows"], row["counts"]) for row in rows] == [("1801p400", 10, '{"predicted": 10}')]
    assert ledger.table("unheard of").num_rows == ledger.table("").num_rows


def test_rebuild_from_shards_and_outcomes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    meta, sha256 = write_brick(layout, UNITS[0], 7)
    write_brick(layout, UNITS[1], 0)
    write_outcomes(layout.outcomes(FAR, "main"), empty(), OutcomesMeta(FAR, "bad_data", "image-g", "cut off"))
    # killed between outcomes and shard: the brick is not done
    write_brick(layout, UNITS[2], 5)
    layout.shard(UNITS[2], "main").unlink()
    with Ledger(layout.ledger) as ledger:
        ledger.record([receipt(Unit("dr9", "south", "0010m002"))], "run", "main")
        # with what was fetched, by the provenance records of the two that have rows
        assert ledger.rebuild(layout, "main") == 5
        found = {one.unit: one for one in ledger.receipts("catalog", "main")}
    assert set(found) == {UNITS[0], UNITS[1], FAR}
    assert (found[UNITS[0]].rows, found[UNITS[0]].content_hash, found[UNITS[0]].fingerprint) == (7, sha256, meta.fingerprint)
    assert found[UNITS[0]].counts["filtered:faint"] == 3
    assert (found[FAR].status, found[FAR].file, found[FAR].reason) == ("bad_data", "image-g", "cut off")


def test_an_unknown_database_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="a database driver"):
        Ledger("oracle9://nowhere/x")


def test_two_processes_write_one_sqlite_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code = (
        "import sys\nfrom catalogs.ledger import Ledger\nfrom galpipe.unit import Receipt, Unit\n"
        f"ledger = Ledger({str(path)!r})\n"
        "for k in range(40):\n    ledger.record([Receipt(Unit('dr9', sys.argv[1], f'b{k}'), 'catalog', 'done')], 'run', 'main')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, region], cwd=ROOT) for region in ("north", "south")]
    assert [writer.wait() for writer in writers] == [0, 0]
    with Ledger(path) as ledger:
        assert [row["bricks"] for row in ledger.summary("main")] == [40, 40]


def test_a_damaged_file_names_what_mends_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.ledger.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigurationError, match=r"ledger.sqlite: expected an undamaged ledger.*galpipe ledger rebuild"):
        Ledger(layout.ledger)
    aside = set_aside_damaged(layout)
    assert aside is not None and aside.name == "ledger.sqlite.damaged-1"
    with Ledger(layout.ledger) as ledger:
        assert ledger.summary("main") == []
    assert set_aside_damaged(layout) is None


def test_damage_inside_the_file_is_named_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with Ledger(layout.ledger) as ledger:
        ledger.record([receipt(Unit("dr9", "south", f"b{number}")) for number in range(500)], "run", "main")
    content = bytearray(layout.ledger.read_bytes())
    # every page but the first, which has the schema
    content[4096:] = bytes(len(content) - 4096)
    layout.ledger.write_bytes(content)
    with Ledger(layout.ledger) as ledger, pytest.raises(ConfigurationError, match="galpipe ledger rebuild"):
        ledger.done("catalog", "main")
    assert set_aside_damaged(layout) is not None


def test_without_a_ledger_the_files_tell(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_brick(layout, UNITS[0], 7)
    with ledger_of_files(layout, "main") as ledger:
        assert [row["rows"] for row in ledger.summary("main") if row["stage"] == "catalog"] == [7]
    assert not layout.ledger.exists()


def test_a_ledger_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    # what SQLite says of a folder it says of a file that it may not open, too
    layout.ledger.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="unable to open"):
        set_aside_damaged(layout)
    assert layout.ledger.is_dir() and len(list(tmp_path.iterdir())) == 1
