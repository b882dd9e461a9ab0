"""From seeds to shipped weights: mock bricks, pre-training, multi-task training, evaluation, card. `galpipe train` calls `train_model`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from galpipe.code_version import code_version
from galpipe.lvm.card import card_text
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.evaluate import evaluate
from galpipe.lvm.finetune import FIRST, SECOND, finetune
from galpipe.lvm.frozen import HELD_SEED_OFFSET, fit_frozen
from galpipe.lvm.loop import LoopSettings, Progress
from galpipe.lvm.mocksky import mock_packs, read_packs, real_pack, training_specs
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.pack import Pack, concatenate, read_pack, write_pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.pretrain import pretrain
from galpipe.lvm.weights import load_model, save_model
from galpipe.mock.spec import SKY_VERSION


@dataclass(frozen=True)
class TrainSettings:
    """Everything that the weights depend on, besides the real stamps.

    Parameters
    ----------
    name, version : str
        Of the model.
    seed : int
        Of weights, order and augmentation.
    sky_seed : int
        Of the first training brick.
    sky : str
        Mock sky of training and held-out bricks, ``plain`` or ``survey``.
    bricks, held_bricks : int
        Mock bricks to train on and to score on.
    pretrain_steps, finetune_steps, polish_steps, batch : int
    rate, polish_rate : float
        Largest learning rate of the first two loops, and of the third.
    threads : int
        Torch threads; part of what makes a run repeatable bit by bit.
    model : ModelSettings
    """

    name: str = "mini"
    version: str = "2"
    seed: int = 1
    sky_seed: int = 1001
    sky: str = "plain"
    bricks: int = 14
    held_bricks: int = 2
    pretrain_steps: int = 300
    finetune_steps: int = 2400
    polish_steps: int = 2000
    batch: int = 16
    rate: float = 1.5e-3
    polish_rate: float = 8e-4
    threads: int = 2
    model: ModelSettings = field(default_factory=ModelSettings)

    def pretraining(self) -> LoopSettings:
        """Settings of the first loop."""
        return LoopSettings(self.pretrain_steps, self.batch, self.rate, seed=self.seed, checkpoint=100)

    def finetuning(self) -> LoopSettings:
        """Settings of the second loop."""
        return LoopSettings(self.finetune_steps, self.batch, self.rate, seed=self.seed + 1, checkpoint=100)

    def polishing(self) -> LoopSettings:
        """Settings of the third loop."""
        return LoopSettings(self.polish_steps, self.batch, self.polish_rate, seed=self.seed + 2, checkpoint=100)


def train_model(settings: TrainSettings, work: Path, out: Path, real: Path | None = None, progress: Progress | None = None) -> Path:
    """Make the training sky, train, score and write a model folder; an interrupted call goes on where it stopped.

    Parameters
    ----------
    settings : TrainSettings
    work : Path
        Keeps packs and checkpoints; may be deleted afterwards.
    out : Path
        The model folder to write.
    real : Path, optional
        Folder with ``stamps/*.fits`` and ``labels/*.parquet`` whose pixels join the pre-training.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    Path
        ``out``.
    """
    torch.set_num_threads(settings.threads)
    # stamps and checkpoints of one sky are not another's
    work = work if settings.sky == "plain" else work / settings.sky
    held_seed = settings.sky_seed + HELD_SEED_OFFSET
    held = mock_packs(training_specs(settings.held_bricks, held_seed, settings.sky), work / "packs" / "held", progress)
    training = mock_packs(training_specs(settings.bricks, settings.sky_seed, settings.sky), work / "packs" / "train", progress)
    pack = read_packs(training)
    model = new_model(settings.model, settings.seed).to(device_of())
    without_labels = _unlabelled(pack, real, work)
    unlabelled = len(without_labels)
    history = {"pretrain": pretrain(model, without_labels, settings.pretraining(), work, progress)}
    # two gigabytes that the second loop does not need
    del without_labels
    history["finetune"] = finetune(model, pack, settings.finetuning(), work, FIRST, progress)
    history["polish"] = finetune(model, pack, settings.polishing(), work, SECOND, progress)
    facts: dict[str, Any] = {
        "seconds": sum(part[-1]["seconds"] for part in history.values() if part),
        "stamps": len(pack),
        "real_stamps": unlabelled - len(pack),
        "training_bricks": [path.name for path in training],
        "held_bricks": [path.name for path in held],
        "history": history,
        "code": code_version(),
        "sky_version": SKY_VERSION,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return finish(settings, model, (pack, held), facts, out)


def _unlabelled(pack: Pack, real: Path | None, work: Path) -> Pack:
    """Training stamps without their truth, and the real ones."""
    bare = Pack(pack.image, pack.mask, _conditions_only(pack))
    if real is None:
        return bare
    place = work / "packs" / "real"
    if not place.exists():
        found = real_pack(real)
        if found is None:
            return bare
        write_pack(place, found)
    return concatenate([bare, read_pack(place)])


def _conditions_only(pack: Pack) -> Any:
    names = [name for name in pack.sources.column_names if name.startswith(("psfsize_", "psfdepth_")) or name == "pixscale"]
    return pack.sources.select(names)


def finish(settings: TrainSettings, model: GalaxyModel, data: tuple[Pack, list[Path]], facts: dict[str, Any], out: Path) -> Path:
    """Write the weights, score what was written (float16 as stored), and write the card with the scores."""
    training, held = data
    facts = facts | {"frozen": {"learned": fit_frozen(model, training.stamps(), settings.seed)}}
    card: dict[str, Any] = {"name": settings.name, "version": settings.version, "training": {"settings": asdict(settings)} | facts}
    save_model(out, model, card, "")
    loaded = load_model(out)
    scores: dict[str, Any] = {}
    for path in held:
        predictor = Predictor(loaded.model, loaded.card, loaded.model_hash, device_of())
        scores[path.name] = evaluate(predictor, read_pack(path), training.sources)
    card["scores"] = scores
    save_model(out, model, card, card_text(card, settings.model))
    return out
