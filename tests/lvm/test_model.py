from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from galpipe.errors import BadData, ConfigurationError
from galpipe.lvm.encoder import Features, ModelSettings
from galpipe.lvm.inputs import Inputs, stamp_inputs
from galpipe.lvm.model import GalaxyModel, new_model
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import load_model, model_hash, save_model
from tests.lvm.toy import TINY, toy_stamps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, new_model(TINY, 3), {"name": "tiny", "version": "0"}, "# tiny\n")
    return path


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder, device="cpu", threads=1)


def test_one_encoder_pass_answers_every_head(predictor: Predictor) -> None:
    passes: list[int] = []
    hook = predictor.model.encoder.register_forward_hook(lambda *_: passes.append(1))
    table = predictor.predict(toy_stamps(3), batch=4)
    hook.remove()
    assert len(passes) == 1
    assert table.schema.names == [column.name for column in predictor.columns()]
    assert table.num_rows == 3
    for name in ("smooth-or-featured_smooth_fraction", "lvm_mag_r", "n_detections", "restoration_sigma_r", "embedding"):
        assert table[name].null_count == 0


def test_answers_depend_on_neither_the_batch_nor_its_neighbors(predictor: Predictor) -> None:
    stamps = toy_stamps(5)
    whole = predictor.predict(stamps, batch=4)
    assert whole.equals(predictor.predict(stamps, batch=4))
    assert whole.slice(4, 1).equals(predictor.predict(stamps.take([4]), batch=4))


def test_no_stamps_give_an_empty_table(predictor: Predictor) -> None:
    table = predictor.predict(toy_stamps(2).take([]))
    assert table.num_rows == 0
    assert table.schema.names == [column.name for column in predictor.columns()]


def test_a_missing_band_is_told(predictor: Predictor) -> None:
    table = predictor.predict(toy_stamps(2, ("g", "z")))
    assert table["bands_used"].to_pylist() == ["gz", "gz"]
    assert table["degraded"].to_pylist() == [True, True]
    assert np.isfinite(table["lvm_mag_r"].to_numpy()).all()
    assert predictor.predict(toy_stamps(1))["degraded"].to_pylist() == [False]


def test_masked_pixels_are_never_seen(predictor: Predictor) -> None:
    stamps = toy_stamps(1)
    mask, image = stamps.mask.copy(), stamps.image.copy()
    mask[0, 10:30, 10:30] = 0b111
    image[0, :, 10:30, 10:30] = 30_000
    hidden = dataclasses.replace(stamps, mask=mask)
    bright = dataclasses.replace(stamps, mask=mask, image=image)
    assert predictor.predict(hidden).equals(predictor.predict(bright))


def test_restored_images_have_the_stamp_s_shape_and_unit(predictor: Predictor) -> None:
    restored = predictor.restore(toy_stamps(3), [2, 0])
    assert restored.shape == (2, 3, 152, 152)
    assert restored.dtype == np.float32
    assert np.isfinite(restored).all()


def test_weights_come_back_with_their_hash(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder)
    again = save_model(tmp_path / "copy", loaded.model, {"name": "tiny", "version": "0"}, "")
    assert again == loaded.model_hash == model_hash(folder)


def test_changed_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    save_model(copy, load_model(folder).model, {"name": "tiny", "version": "0"}, "")
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(BadData, match=r"model\.safetensors: expected weights with sha256"):
        load_model(copy)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a model folder with a card"):
        load_model(tmp_path)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a head with a module"):
        GalaxyModel(ModelSettings(heads=("astrology",)))


def test_stamps_of_another_size_are_refused(predictor: Predictor) -> None:
    stamps = toy_stamps(1)
    small = dataclasses.replace(
        stamps, image=stamps.image[..., :64, :64], invvar_code=stamps.invvar_code[..., :64, :64], mask=stamps.mask[..., :64, :64]
    )
    with pytest.raises(ConfigurationError, match="stamps of 152 pixels"):
        predictor.predict(small)


def test_unknown_seeing_is_flagged_not_zero() -> None:
    stamps = toy_stamps(2)
    bare = dataclasses.replace(stamps, sources=pa.table({"ra": [0.0, 0.0]}))
    known, unknown = stamp_inputs(stamps).conditions, stamp_inputs(bare).conditions
    assert known[:, 9:12].eq(1).all()
    assert unknown[:, 3:12].eq(0).all()
    assert torch.isfinite(unknown).all()


def test_encoder_gives_four_scales_and_an_embedding() -> None:
    model = new_model(TINY, 1).eval()
    inputs: Inputs = stamp_inputs(toy_stamps(1))
    features: Features = model.encoder(inputs)
    assert [tuple(part.shape[1:]) for part in features.scales] == [(8, 40, 40), (16, 20, 20), (32, 10, 10), (64, 5, 5)]
    assert features.embedding.shape == (1, TINY.embedding)
    assert features.decoded.shape == (1, TINY.decoder, 80, 80)
