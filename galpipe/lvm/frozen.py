"""After the last training step: heads that learn from the finished encoder, calibration on held-out stamps, new heads for old weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from galpipe.errors import BadData, ConfigurationError
from galpipe.heads.base import Frozen
from galpipe.lvm.calibrate import calibrate
from galpipe.lvm.calibrationsky import calibration_specs_of
from galpipe.lvm.card import card_text
from galpipe.lvm.encoder import Features
from galpipe.lvm.evaluate import evaluate
from galpipe.lvm.inputs import Inputs
from galpipe.lvm.mocksky import Progress, mock_packs, training_specs
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.pack import Pack, concatenate, read_pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import LoadedModel, load_model, save_model
from galpipe.stamps.stampset import StampSet

HELD_SEED_OFFSET = 8000
"""Held-out bricks have seeds this far from the training bricks', and so other places and skies."""


def fit_frozen(model: GalaxyModel, stamps: StampSet, seed: int, names: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Let heads learn from the finished encoder.

    Parameters
    ----------
    model : GalaxyModel
    stamps : StampSet
        The training stamps with their truth's columns.
    seed : int
    names : sequence of str
        Heads; empty for all.

    Returns
    -------
    dict
        Per head what it measured, for the card.
    """
    model.eval()
    device = next(model.parameters()).device

    def encode(inputs: Inputs) -> Features:
        with torch.inference_mode():
            features: Features = model.encoder(inputs.to(device))
        return features

    facts = {}
    for head in model.head_list():
        if not names or head.name in names:
            facts[head.name] = head.fit_frozen(Frozen(encode, stamps, seed))
    return {name: told for name, told in facts.items() if told}


CALIBRATION_BRICKS = 2
"""Where a card does not say how many."""


@dataclass(frozen=True)
class Extension:
    """Which heads a trained model is given.

    Parameters
    ----------
    names : tuple of str
        Heads to add, or to learn anew where the model has them.
    most : int
        Training stamps, calibrating ones and held-out ones that are used at most, of each; 0 for all.
    """

    names: tuple[str, ...] = ("domain", "lens")
    most: int = 0


def extend_model(source: Path, extension: Extension, work: Path, out: Path, progress: Progress | None = None) -> Path:
    """Give a trained model heads that learn from its frozen encoder; its other answers stay as they are.

    Parameters
    ----------
    source : Path
        A model's folder.
    extension : Extension
    work : Path
        Where the training stamps are (as `galpipe.lvm.train.train_model` left them) or will be.
    out : Path
        The model folder to write.
    progress : callable, optional

    Raises
    ------
    ConfigurationError
        If the model's card does not say what it was trained on.
    """
    loaded, names = load_model(source), extension.names
    packs, seed = _own_packs(loaded, source, work, progress)
    model = _with_heads(loaded.model, names, seed).to(device_of())
    stamps = concatenate([_without_truth(pack) for pack in _read(packs["train"], extension.most)]).stamps()
    facts: dict[str, Any] = {"learned": fit_frozen(model, stamps, seed, names)}
    # the other heads' scores are as they were: only the new ones answer
    new = Predictor(only_heads(model, names), loaded.card, loaded.model_hash, device_of())
    facts["calibrated"] = calibrate(new, _read(packs["calibration"], extension.most))
    model = _with_state_of(model, new.model)
    card = {key: value for key, value in loaded.card.items() if key not in ("format", "settings", "heads", "sha256")}
    card["training"] = card["training"] | {"frozen": facts}
    scores = dict(card.get("scores", {}))
    for path, pack in zip(packs["held"], _read(packs["held"], extension.most), strict=True):
        scores[path.name] = scores.get(path.name, {}) | evaluate(new, pack, stamps.sources)
    save_model(out, model, card | {"scores": scores}, card_text(card | {"scores": scores}, model.settings))
    return out


def _own_packs(loaded: LoadedModel, source: Path, work: Path, progress: Progress | None) -> tuple[dict[str, list[Path]], int]:
    """Packs of a model to train, calibrate and score on, made where they are not there, and its seed."""
    try:
        told = loaded.card["training"]["settings"]
        seed, sky_seed, bricks, held_bricks = (int(told[key]) for key in ("seed", "sky_seed", "bricks", "held_bricks"))
    except KeyError as error:
        raise ConfigurationError("a card that says what the model was trained on", f"none of {error}", file=str(source)) from error
    sky = str(told.get("sky", "plain"))
    place = work / sky / "packs"
    count, names = int(told.get("calibration_bricks", CALIBRATION_BRICKS)), loaded.card["training"].get("calibration_bricks", ())
    wanted = {
        "train": training_specs(bricks, sky_seed, sky),
        "calibration": calibration_specs_of(names, count, sky_seed, sky),
        "held": training_specs(held_bricks, sky_seed + HELD_SEED_OFFSET, sky),
    }
    return {name: mock_packs(specs, place / name, progress) for name, specs in wanted.items()}, seed


def _read(paths: list[Path], most: int) -> list[Pack]:
    """Packs with ``most`` stamps in all, evenly from each; 0 for all."""
    return [_some(read_pack(path), -(-most // len(paths))) for path in paths]


def _some(pack: Pack, count: int) -> Pack:
    """The first stamps of a pack; 0 for all."""
    count = count or len(pack)
    if count >= len(pack):
        return pack
    cut = Pack(pack.image[:count], pack.mask[:count], pack.sources.slice(0, count))
    if pack.clean is None or pack.segments is None or pack.object_start is None:
        return cut
    return replace(
        cut, clean=pack.clean[:count], segments=pack.segments[:count], objects=pack.objects, object_start=pack.object_start[: count + 1]
    )


def only_heads(model: GalaxyModel, names: Sequence[str]) -> GalaxyModel:
    """The same model with some of its heads only, which saves the others' time."""
    return _with_state_of(new_model(replace(model.settings, heads=tuple(names)), 0), model)


def _with_state_of(model: GalaxyModel, other: GalaxyModel) -> GalaxyModel:
    """A model whose weights are those of another where both have them."""
    own = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in other.state_dict().items() if name in own}, strict=False)
    return model.eval()


def _without_truth(pack: Pack) -> Pack:
    return Pack(pack.image, pack.mask, pack.sources)


def _with_heads(old: GalaxyModel, names: Sequence[str], seed: int) -> GalaxyModel:
    heads = (*old.settings.heads, *(name for name in names if name not in old.settings.heads))
    model = new_model(replace(old.settings, heads=heads), seed)
    report = model.load_state_dict(old.state_dict(), strict=False)
    foreign = [key for key in report.missing_keys if not key.startswith(tuple(f"heads.{name}_head." for name in names))]
    if foreign or report.unexpected_keys:
        raise BadData("weights that lack nothing but the new heads", f"{foreign[:5]} {report.unexpected_keys[:5]}")
    return model.eval()
