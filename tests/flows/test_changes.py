"""Runs of a release that is not as it should be, or not as it was."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from astropy.io import fits

from catalogs.ledger import Ledger
from flows.request import ROOT_LEASE
from galpipe.fingerprint import sha256_file
from galpipe.lvm.encoder import LabelTask
from galpipe.lvm.model import grown, new_model
from galpipe.lvm.weights import save_model
from galpipe.mock.server import Fault, MockServer
from galpipe.mock.spec import MockSummary
from tests.flows.command import arguments, galpipe, one_worker, rows_of
from tests.lvm.toy import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_prefect")]


def test_one_bad_brick_loses_nothing_else(mock_release: MockSummary, tmp_path: Path) -> None:
    bad = mock_release.bricks[1]
    path = f"south/coadd/{bad[:3]}/{bad}/legacysurvey-{bad}-image-z.fits.fz"
    with MockServer(mock_release.release, {path: [Fault("flip", times=2)]}) as broken:
        command = [*arguments(broken, tmp_path / "root"), "--config", one_worker(tmp_path)]
        first = galpipe(command)
        assert first.status == 1
        (failure,) = first.json()["failures"]
        assert failure["kind"] == "bad_data"
        assert bad in failure["unit"]
        assert "image-z" in failure["file"]
        assert first.json()["counts"]["done"] == 1
        told = galpipe(["status", "--root", tmp_path / "root", "--json"])
        assert told.status == 1
        assert bad in told.json()["failures"][0]["unit"]
        # mended meanwhile: the next run does the rest, and only that
        second = galpipe(command)
    assert second.status == 0, second.err[-2000:]
    assert (second.json()["counts"]["up_to_date"], second.json()["counts"]["done"]) == (1, 1)


def test_a_file_that_the_survey_fixed_in_place_is_noticed(mock_release: MockSummary, tmp_path: Path) -> None:
    release, root, brick = tmp_path / "dr9", tmp_path / "root", mock_release.bricks[0]
    shutil.copytree(mock_release.release, release)
    command = ["run", "--release", release, "--as", "mock", "--region", f"bricks:{brick}", "--root", root, "--no-report", "--json"]
    command += ["--config", one_worker(tmp_path)]
    assert galpipe(command).status == 0
    before = rows_of(root)
    fixed = release / f"south/coadd/{brick[:3]}/{brick}/legacysurvey-{brick}-image-r.fits.fz"
    old = sha256_file(fixed)
    with fits.open(fixed, mode="update", disable_image_compression=True) as hdus:
        hdus[0].header["RUNDATE"] = "2026-11-23"
    (listed,) = fixed.parent.glob("*.sha256sum")
    listed.write_text(listed.read_text().replace(old, sha256_file(fixed)))
    assert galpipe(command).json()["counts"]["up_to_date"] == 1
    again = galpipe([*command, "--check-remote"]).json()
    assert (again["counts"]["up_to_date"], again["counts"]["done"]) == (0, 1)
    after = rows_of(root)
    assert after.keys() == before.keys()
    # same pixels, other file: only what the rows were made from differs
    assert after != before
    assert galpipe([*command, "--check-remote"]).json()["counts"]["up_to_date"] == 1


def test_a_new_head_is_answered_without_fetching_or_cutting(mock_release: MockSummary, tmp_path: Path) -> None:
    """Said by a dry run that writes nothing while another run holds the root; then done from what is there."""
    first = new_model(replace(TINY, heads=("morphology",)), 1)
    save_model(tmp_path / "first", first, {"name": "first", "version": "1"}, "")
    more = grown(first, replace(first.settings, tasks=(LabelTask("ring", ("no", "yes")),)))
    save_model(tmp_path / "more", more, {"name": "more", "version": "1"}, "")
    root, region = tmp_path / "root", f"bricks:{mock_release.bricks[0]}"
    with MockServer(mock_release.release) as server:

        def command(model: str, *options: str) -> list[str | Path]:
            config = tmp_path / f"{model}.toml"
            config.write_text(f'[cluster]\nworkers = 1\n[infer]\nmodel = "{tmp_path / model}"\n')
            return [*arguments(server, root, region, "none"), "--config", config, *options]

        done = galpipe(command("first"))
        assert done.status == 0, done.err[-2000:]
        assert [cause["text"] for cause in done.json()["changes"]["causes"]] == ["never done"]
        before = everything(root)
        with Ledger(root / "ledger.sqlite") as ledger, ledger.lease(ROOT_LEASE, "another run"):
            told = galpipe(command("more", "--dry-run")).json()
            forced = galpipe(command("first", "--dry-run", "--force", "--check-remote")).json()
        assert everything(root) == before
        assert [(cause["text"], cause["redo"], cause["bricks"]) for cause in told["changes"]["causes"]] == [("new head `ring`", "heads", 1)]
        assert any("--switch" in note for note in told["notes"])
        assert [cause["text"] for cause in forced["changes"]["causes"]] == ["up to date, but forced"]
        asked = len(server.requests)
        again = galpipe(command("more", "--switch"))
        assert again.status == 0, again.err[-2000:]
        assert not [item.path for item in server.requests[asked:] if item.sent and item.path.endswith((".fz", ".fits"))]
    result = again.json()
    assert result["stages"] == {"catalog": {"done": 1}}
    assert result["changes"]["redo"] == {"brick": 0, "inference": 0, "heads": 1}
    assert "1 new head `ring`" in again.err and result["publication"]["version"] == 2


def everything(root: Path) -> dict[str, bytes]:
    """All files under a root but for SQLite's own beside the ledger, and the lease in it."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith("ledger.sqlite")
    }
