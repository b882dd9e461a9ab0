"""Encoders by configuration: SwinV2 of the shipped weights' arithmetic, timm's encoders, sizes from one file, what they cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from galpipe.errors import ConfigurationError
from galpipe.lvm.cost import Plan, hours, measure_cost
from galpipe.lvm.encoder import Encoder, ModelSettings
from galpipe.lvm.finetune import finetune
from galpipe.lvm.folder import WEIGHTS_FILE, read_card, shipped_folder
from galpipe.lvm.inputs import Inputs, stamp_inputs
from galpipe.lvm.loop import LoopSettings
from galpipe.lvm.model import GalaxyModel, new_model
from galpipe.lvm.presets import PRESETS, training_settings
from galpipe.lvm.train import TrainSettings
from galpipe.lvm.unlabelled import UnlabelledSettings
from galpipe.lvm.weights import load_model, save_model
from tests.lvm.toy import TINY, toy_pack, toy_stamps

ENCODERS = ("convnext_atto", "resnet18", "efficientnet_lite0", "swinv2_tiny_window8_256")


def small(name: str) -> ModelSettings:
    return replace(TINY, encoder=name, heads=())


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return stamp_inputs(toy_stamps(2))


def plain_scales(encoder: Encoder, inputs: Inputs) -> list[torch.Tensor]:
    """The SwinV2 path written out as the shipped weights were trained: stem, FiLM, stage by stage."""
    _, tokens = encoder.stem(inputs)
    numbers = torch.cat([inputs.conditions, encoder.photometry(inputs)], dim=1)
    scale, shift = encoder.film(numbers).chunk(2, dim=1)
    hidden = (tokens * (1 + scale[:, :, None, None]) + shift[:, :, None, None]).permute(0, 2, 3, 1)
    maps = []
    for stage, norm in zip(encoder.stages, encoder.norms, strict=True):  # type: ignore[call-overload]
        hidden = stage(hidden)
        maps.append(norm(hidden).permute(0, 3, 1, 2))
    return maps


def test_the_shipped_encoder_keeps_its_names_and_arithmetic(inputs: Inputs) -> None:
    settings = ModelSettings.from_dict({key: value for key, value in read_card(shipped_folder())["settings"].items() if key != "heads"})
    assert replace(settings, heads=PRESETS["mini"].heads) == PRESETS["mini"] == ModelSettings()
    model = GalaxyModel(replace(settings, heads=())).eval()
    with safe_open(shipped_folder() / WEIGHTS_FILE, "pt") as file:
        stored = {name: file.get_tensor(name).float() for name in file.keys() if not name.startswith("heads.")}  # noqa: SIM118
    model.load_state_dict(stored)
    with torch.inference_mode():
        for one, other in zip(model.encoder(inputs).scales, plain_scales(model.encoder, inputs), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_timm_encoder_gives_four_scales_and_hears_the_conditions(name: str, inputs: Inputs) -> None:
    model = new_model(small(name), 1).eval()
    with torch.no_grad():
        features = model.encoder(inputs)
        told = model.encoder(replace(inputs, conditions=inputs.conditions + 1))
    assert [tuple(map_.shape) for map_ in features.scales] == [
        (2, dim, 40 // 2**place, 40 // 2**place) for place, dim in enumerate(model.settings.stage_dims)
    ]
    assert features.embedding.shape == (2, TINY.embedding)
    assert features.decoded.shape == (2, TINY.decoder, 80, 80)
    assert not torch.equal(features.scales[0], told.scales[0])
    model.train().reconstruct(inputs).sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None and "embed" not in name]
    assert without == []


def test_a_timm_encoder_with_batch_norm_is_stored_and_read(tmp_path: Path, inputs: Inputs) -> None:
    model = new_model(small("resnet18"), 1).train()
    with torch.no_grad():
        model.encoder(inputs)
        next(value for name, value in model.named_buffers() if name.endswith("running_var")).fill_(1e6)
    save_model(tmp_path / "m", model, {"name": "m", "version": "1"}, "")
    read = load_model(tmp_path / "m").model
    for name, value in model.state_dict().items():
        expected = value if "running" in name or not value.is_floating_point() else value.half().float()
        assert torch.equal(read.state_dict()[name], expected), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tinny", "an encoder of timm, such as .*convnext_tiny"),
        ("hf_hub:someone/something", "an encoder of timm"),
        ("vit_tiny_patch16_224", r"strides \(4, 8, 16, 32\), got vit_tiny_patch16_224 with \(16, 16, 16\)"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelSettings(encoder=name)


def test_an_encoder_without_drop_paths_says_so() -> None:
    with pytest.raises(ConfigurationError, match="drop paths"):
        new_model(replace(small("densenet121"), drop_path=0.1), 1)


def test_sizes_files_and_changes_make_settings(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text('[model]\npreset = "base"\ndepths = [2, 2, 6, 2]\n[train]\nbricks = 3\nrate = 1\n[unlabelled]\nlanes = 4\n')
    made = training_settings(TrainSettings, file, ["bricks=5", "model.window=10", "model.heads=detection,restoration"])
    assert (made.name, made.bricks, made.rate, made.batch) == ("base", 5, 1.0, 64)
    assert (made.model.dims, made.model.depths, made.model.window) == (128, (2, 2, 6, 2), 10)
    assert made.model.heads == ("detection", "restoration")
    assert training_settings(UnlabelledSettings, file).lanes == 4
    assert training_settings(TrainSettings) == TrainSettings()
    assert training_settings(TrainSettings, size="base").model == PRESETS["base"]
    # what a card holds makes the model again
    assert ModelSettings.from_dict(json.loads(json.dumps(made.model.as_dict()))) == made.model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.preset=huge"], r"a size among \['base', 'mini'\], got 'huge'"),
        (["brick=5"], "a setting among .*'bricks'"),
        (["bricks=many"], "bricks as a whole number, got 'many'"),
        (["model.depths=1,2,x,1"], "model.depths as a list of whole numbers"),
        (["model.depths=1,2"], "four stages in depths"),
        (["model.colour=red"], "a setting among .*'model.dims'"),
        (["bricks"], "--set KEY=VALUE, got 'bricks'"),
    ],
)
def test_wrong_settings_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        training_settings(TrainSettings, None, changes)


@pytest.mark.parametrize(
    ("text", "message"), [("[models]\n", "tables"), ("[model", "readable TOML"), ("[model]\ndims = 8.5\n", "model.dims as a whole number")]
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        training_settings(TrainSettings, tmp_path / "train.toml")


def test_costs_are_counted_without_memory() -> None:
    mini, base = (measure_cost(PRESETS[size]) for size in ("mini", "base"))
    assert mini.parameters["total"] == sum(value.numel() for value in new_model(ModelSettings(), 1).parameters())
    assert 90e6 < base.parameters["total"] < 110e6
    for cost in (mini, base):
        # a backward pass costs about twice the forward one
        assert 2.5 < cost.training / cost.forward < 3.2
        assert cost.pretraining < cost.training
    one, many = hours(base.pretraining, Plan(gpus=1))[0], hours(base.pretraining, Plan(gpus=8, epochs=20))[0]
    assert many.gpu_hours == pytest.approx(2 * one.gpu_hours)
    assert many.hours == pytest.approx(one.hours / 4)
    # one stage by hand: products of matrices and convolutions of the stem at half resolution
    stem = 2 * 80 * 80 * (6 * 24 * 16 + 24 * 24 * 9) + 2 * 40 * 40 * 24 * 32 * 16
    assert mini.forward > stem
    with pytest.raises(ConfigurationError, match="utilization"):
        Plan(utilization=0)


@pytest.mark.slow
def test_base_trains_a_step_is_saved_and_goes_on_the_same(tmp_path: Path) -> None:
    pack, settings = toy_pack(2), LoopSettings(2, batch=1, rate=1e-4, warmup=1, checkpoint=1)

    def stop(_: str, done: int, __: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    def run(place: Path, seed: int, progress: object = None) -> dict[str, torch.Tensor]:
        model = new_model(PRESETS["base"], seed)
        finetune(model, pack, settings, place, progress=progress)  # type: ignore[arg-type]
        return model.state_dict()

    straight = run(tmp_path / "straight", 1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 1, stop)
    again = run(tmp_path / "broken", 2)
    for name, value in straight.items():
        assert torch.equal(value, again[name]), name
