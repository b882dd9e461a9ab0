"""The doctor finds what is broken; benches measure two ways of the same work."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hats.pixel_math.healpix_pixel import HealpixPixel

from flows import machine
from flows.bench import books
from flows.bench import publish as republish
from flows.bench.crowded import write_crowded
from flows.bench.cut import sections, whole_bands
from flows.bench.figures import BENCHES, Size, in_turns, measure, peak_bytes
from flows.bench.planning import CHANGED, fill, plan_once
from flows.cli.machine import bench, doctor
from galpipe.config import ClusterSettings, InferSettings, Settings
from galpipe.errors import ConfigurationError
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.model import new_model
from galpipe.lvm.weights import save_model
from galpipe.stamps.cut import BrickCut
from galpipe.stamps.result import outcome_counts
from galpipe.stamps.windows import Windows
from galpipe.survey.files import BrickFiles, load_brick_files
from galpipe.survey.releases import open_release
from galpipe.survey.remote import fetch_brick
from galpipe.unit import Unit
from tasks.plan import EXAMINED
from tests.mock_fixtures import build


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    settings = ModelSettings(dims=16, depths=(1, 1, 1, 1), heads=("morphology",))
    save_model(folder, new_model(settings, 1), {"name": "small", "version": "1", "scores": [{"name": "x"}]}, "# small\n")
    return folder


def settings(model: Path, address: str = "") -> Settings:
    return Settings(infer=InferSettings(model=str(model)), cluster=ClusterSettings(address=address))


def test_this_machine_passes(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    checks = {check.name: check for check in machine.examine(tmp_path / "not" / "yet", settings(model_folder))}
    assert [check for check in checks.values() if check.state == "fail"] == []
    assert "hard link" in checks["file system"].text and "small 1" in checks["model"].text
    assert "embedded" in checks["prefect"].text
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> machine.Check:
        raise RuntimeError("driver gone")

    monkeypatch.setattr(machine, "gpu", explode)
    checks = {check.name: check for check in machine.examine(tmp_path, settings(model_folder))}
    assert (checks["gpu"].state, checks["gpu"].text) == ("fail", "RuntimeError: driver gone")


def test_a_root_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert machine.file_system(tmp_path).state == "fail"


def test_a_file_system_without_links_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("operation not supported")

    monkeypatch.setattr("os.link", refuse)
    found = machine.file_system(tmp_path)
    assert found.state == "fail" and "hard link" in found.text


def test_damaged_and_untrained_models_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    save_model(folder, new_model(ModelSettings(dims=16, depths=(1, 1, 1, 1), heads=()), 1), {"name": "raw", "version": "0"}, "")
    assert machine.model(settings(folder), tmp_path).state == "warn"
    with (folder / "model.safetensors").open("ab") as handle:
        handle.write(b"\0")
    assert machine.model(settings(folder), tmp_path).state == "fail"
    assert machine.model(settings(tmp_path / "nothing"), tmp_path).state == "fail"


def test_wrong_versions_of_packages_that_break_runs_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["fastapi>=0.139,<0.151", "httpx>=0.27", "nothing-of-this-name>=1", "extra-only>=1; extra == 'dev'"]
    monkeypatch.setattr(machine, "requires", lambda _: wanted)
    monkeypatch.setattr(machine, "_version", {"fastapi": "0.140.0", "httpx": "0.20"}.get)
    monkeypatch.setattr(machine, "requires", lambda _: wanted[:2])
    assert machine.packages().state == "warn"
    monkeypatch.setattr(machine, "_version", {"fastapi": "0.160.0", "httpx": "0.28"}.get)
    assert machine.packages().state == "fail"
    monkeypatch.setattr(machine, "requires", lambda _: wanted[1:])
    found = machine.packages()
    assert found.state == "fail" and "nothing-of-this-name missing" in found.text and "extra-only" not in found.text


def test_a_scheduler_or_server_that_does_not_answer_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert machine.cluster(settings(tmp_path, f"tcp://127.0.0.1:{port}")).state == "fail"
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        assert machine.prefect(tmp_path).state == "fail"
        taken.listen()
        assert machine.cluster(settings(tmp_path, f"tcp://127.0.0.1:{port}")).state == "ok"


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def healthy() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Healthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_prefect_by_address_is_asked_for_its_health(tmp_path: Path, healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{healthy}/api")
    assert machine.prefect(tmp_path).state == "ok"
    monkeypatch.setenv("PREFECT_API_URL", f"{healthy}/wrong")
    assert machine.prefect(tmp_path).state == "fail"


def invoke_doctor(root: Path, model: Path) -> Result:
    config = root / "galpipe.toml"
    config.write_text(f'[infer]\nmodel = "{model}"\n')
    return CliRunner().invoke(doctor, ["--root", str(root), "--config", str(config), "--json"])


def test_doctor_ends_with_the_status_it_found(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    good, bad = invoke_doctor(tmp_path, model_folder), invoke_doctor(tmp_path, tmp_path / "nothing")
    assert (good.exit_code, bad.exit_code) == (0, 1), good.output + bad.output
    told = json.loads(bad.stdout)
    assert told["status"] == "failed" and [item["kind"] for item in told["failures"]] == ["model"]
    assert sum(told["counts"].values()) == len(told["checks"])


def test_bench_lists_and_refuses() -> None:
    listed = CliRunner().invoke(bench, ["--json"])
    known = {"books", "heads", "cut", "kills", "loader", "memory", "overhead", "planning", "publish", "query", "similar", "writing"}
    assert set(json.loads(listed.stdout)["benches"]) == set(BENCHES) == known
    assert CliRunner().invoke(bench, ["speed", "--json"]).exit_code == 2
    with pytest.raises(ConfigurationError, match="at least one stamp"):
        Size(0, 1)


def test_sides_are_measured_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == list("ababab") and set(seconds) == {"a", "b"}


def test_heads_bench_gives_ratios_that_make_sense() -> None:
    result = measure("heads", Size(1, 1))
    figures = {item["name"]: item["value"] for item in result["figures"]}
    assert figures["heads_over_encoder"] > 0.5 and figures["whole_rate"] > 0
    # five tasks, each with an encoder pass of its own
    assert figures["apart_over_whole"] > 1


def test_loader_bench_reads_stores() -> None:
    figures = {item["name"]: item["value"] for item in measure("loader", Size(1, 1))["figures"]}
    # a batch is read before it is turned
    assert figures["stream_over_read"] > 0.8 and figures["read_rate"] > 0


def test_planning_bench_finds_the_bricks_that_changed_among_those_done(tmp_path: Path) -> None:
    # more than the plans whose shards are opened: those of the bench are empty
    assert fill(tmp_path, EXAMINED + 100) == EXAMINED + 100
    planned = plan_once(tmp_path)
    assert planned.to_do == planned.explained == CHANGED and planned.peak > 0


def test_publish_bench_finds_the_partitions_that_changed_bricks_concern() -> None:
    sky = republish.simulate(400)
    assert sum(rows for members in sky.tiling.members.values() for _, rows in members) == sum(entry.rows for entry in sky.stock.shards)
    name = sorted(sky.by_brick)[200]
    own = {HealpixPixel(5, pixel) for pixel, _ in sky.stock.shards[sky.by_brick[name]].pixels}
    found = set(republish.rewritten(sky, [name]))
    assert own <= found < set(sky.tiling.members)
    told = {item.name: item.value for item in republish.figures(sky, "one", [name])}
    assert told["one_partitions"] == len(found)
    assert told["one_written"] * 1e6 > sum(republish.partition_bytes(sky, pixel) for pixel in found)
    assert republish.rewritten(sky, []) == []


def test_books_bench_counts_what_is_lost_and_what_is_doubled() -> None:
    wanted = books.spec()
    stars_only = wanted.brick_list()[wanted.empty_bricks[0]].brickid
    true = np.concatenate([books.brick_sky(wanted, area, area.brickid == stars_only) for area in wanted.brick_list()])
    galaxies = true[true["kind"] != "star"]
    ra, dec, every = galaxies["ra"], galaxies["dec"], np.ones(len(galaxies), bool)
    table = books.Table(ra, dec, every, every)

    def counted(*rows: slice) -> list[float]:
        shown = np.concatenate([ra[part] for part in rows]), np.concatenate([dec[part] for part in rows])
        return [figure.value for figure in books.compare(wanted, [table], shown)]

    whole = slice(None)
    assert counted(whole) == [0, 0, 0]
    assert counted(slice(3, None)) == [3, 0, 0]
    assert counted(whole, slice(2)) == [0, 2, 0]


@pytest.fixture(scope="module")
def brick(tmp_path_factory: pytest.TempPathFactory) -> BrickFiles:
    made = build(tmp_path_factory)
    unit = Unit("mock", made.region, made.bricks[0])
    bench_settings = Settings().fetch
    return fetch_brick(open_release(str(made.release), "mock"), unit, bench_settings, tmp_path_factory.mktemp("brick"))


def test_a_crowded_brick_is_a_brick(tmp_path: Path) -> None:
    """What the memory bench measures on: so many sources, so many of them selected, all with pixels."""
    unit = Unit("crowded", "south", "1126p222")
    files = write_crowded(tmp_path / "brick", unit, 60, 0.5, ("z",))
    assert load_brick_files(tmp_path / "brick", unit) == files and files.bands == ("z",)
    cut = BrickCut(files, Settings().cut, Settings().selection, block=20)
    assert [len(block.stamps) for block in cut.blocks()] == [20, 10]
    assert outcome_counts(cut.outcomes)["sources"] == 60
    assert peak_bytes() > 1e8


def test_section_reads_and_whole_band_reads_cut_the_same_pixels(brick: BrickFiles) -> None:
    corners = np.array([-70, 100, 1795, 3550]), np.array([10, -151, 1800, 3500])
    windows = Windows(corners[0], corners[1], 152, (3600, 3600))
    one, other = whole_bands(brick, windows), sections(brick, windows)
    assert len(one) == 6 and all(np.array_equal(one[key], other[key]) for key in one)
    assert any(values.any() for values in one.values())
