"""Pre-training on stores of stamps: alone, killed and taken up again, on two ranks, and by the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from flows.cli.model import models
from flows.cli.model import train as train_verb
from galpipe.errors import ConfigurationError
from galpipe.lvm.model import new_model
from galpipe.lvm.train import Places
from galpipe.lvm.unlabelled import UnlabelledSettings, train_unlabelled
from galpipe.lvm.weights import load_model, save_model
from tests.flows.command import REPOSITORY, galpipe
from tests.labels.makers import jpeg, parquet
from tests.lvm.ranks_job import train
from tests.lvm.stores import stores
from tests.lvm.toy import TINY

STEPS = 9
"""One epoch of 53 stamps has 7 steps, the last with one stamp on three of four lanes: the run ends in the second epoch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores")
    stores(path, [7, 1, 13, 30, 2])
    return path


@pytest.fixture(scope="module")
def straight(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run that nothing ended, on one rank."""
    return train(folder, tmp_path_factory.mktemp("straight"), STEPS).state_dict()


def job(folder: Path, work: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*start, "tests.lvm.ranks_job", str(folder), str(work), str(STEPS), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False, timeout=240)


def test_a_killed_run_ends_with_the_same_weights(folder: Path, straight: dict[str, torch.Tensor], tmp_path: Path) -> None:
    ended = job(folder, tmp_path, "5")
    assert ended.returncode == -9, ended.stderr
    again = train(folder, tmp_path, STEPS)
    for name, value in again.state_dict().items():
        assert torch.equal(value, straight[name]), name


def test_two_ranks_learn_what_one_does_of_twice_the_batch(folder: Path, straight: dict[str, torch.Tensor], tmp_path: Path) -> None:
    done = job(folder, tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    found = [load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2)]
    heads = [load_file(tmp_path / f"heads-{rank}.safetensors") for rank in range(2)]
    start = new_model(TINY, 1).state_dict()
    moved = max(float((straight[name] - start[name]).abs().max()) for name in start)
    assert moved > 3e-3
    for name, value in straight.items():
        assert torch.equal(found[0][name], found[1][name]), name
        assert torch.equal(heads[0][name], heads[1][name]), name
        # sums over another number of stamps round otherwise
        assert float((found[0][name] - value).abs().max()) < 0.01 * moved, name
    assert any(not torch.equal(heads[0][name], found[0][name]) for name in straight if name.startswith("heads."))


def test_a_checkpoint_of_other_stamps_is_refused(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, 2)
    other = tmp_path / "other"
    stores(other, [9, 9])
    with pytest.raises(ConfigurationError, match="a checkpoint of data"):
        train(other, tmp_path, 2)


def test_the_command_pretrains_base_or_any_size_on_own_stamps(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    parquet(own / "pictures.parquet", [jpeg(1), b"none", jpeg(2)])
    config = tmp_path / "train.toml"
    config.write_text(
        '[model]\npreset = "base"\ndims = 8\ndepths = [1, 1, 1, 1]\nattention_heads = [1, 1, 2, 2]\nstem = 8\ndecoder = 8\n'
        'embedding = 16\npyramid = 16\n[unlabelled]\nname = "own"\nbatch = 8\nlanes = 4\nbuffer = 16\ncheckpoint = 3\nwarmup = 2\n'
    )
    said = ["train", "--root", tmp_path / "root", "--unlabelled", own, "--config", config, "--set", "steps=4", "--json"]
    ended = galpipe(said)
    assert ended.status == 0, ended.err
    result = ended.json()
    assert result["counts"] == {"stamps": 56, "refused": 1}
    assert [Path(item["file"]).name for item in result["failures"]] == ["pictures.parquet[1]"]
    loaded = load_model(tmp_path / "root" / "models" / "own" / "1")
    assert loaded.card["heads"] == {}
    assert loaded.card["training"]["history"][-1]["step"] == 4
    assert (loaded.model.settings.drop_path, loaded.model.settings.dims) == (0.2, 8)


def test_wrong_requests_say_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        ended = CliRunner().invoke(train_verb, ["--root", str(tmp_path), "--json", *arguments])
        assert ended.exit_code == 2
        failures: list[dict[str, str]] = json.loads(ended.stdout)["failures"]
        return failures[0]["reason"]

    stamps = f"--unlabelled={folder}"
    assert "a size among ['base', 'mini'], got 'huge'" in said("--size", "huge")
    assert "a store, file or folder of stamps, got nothing" in said("--unlabelled", str(tmp_path / "absent"))
    assert "--unlabelled with all stamps, or --real beside mock ones, got both" in said(stamps, "--real", str(tmp_path))
    assert "number of lanes divides, got batch 6, lanes 8" in said(stamps, "--set", "batch=6")
    assert "an encoder of timm, such as convnext_tiny" in said("--set", "model.encoder=convnext_tinyy")


def test_costs_are_told() -> None:
    told = CliRunner().invoke(models, ["cost", "--size", "mini", "--epochs", "2", "--json"])
    assert told.exit_code == 0, told.output
    row = json.loads(told.stdout)["models"][0]
    assert row["plan"]["epochs"] == 2
    for item in row["hours"]:
        assert item["gpu_hours"] == pytest.approx(2 * row["plan"]["stamps"] / item["rate"] / 3600)


def test_it_may_begin_from_another_encoder(folder: Path, tmp_path: Path) -> None:
    bare = new_model(replace(TINY, heads=()), 7)
    save_model(tmp_path / "bare", bare, {"name": "bare", "version": "1"}, "")
    # no step of any size: what comes out is what was begun with
    settings = UnlabelledSettings(steps=1, batch=8, lanes=4, buffer=16, rate=0.0, threads=1, model=TINY)
    facts = train_unlabelled(settings, [folder], Places(tmp_path / "work", tmp_path / "out", start=tmp_path / "bare"))
    assert facts["began"].endswith(f"{len(bare.state_dict())} tensors taken over")
    for name, value in load_model(tmp_path / "out").model.state_dict().items():
        assert torch.equal(value, bare.state_dict()[name].half().float()), name
