"""From seeds to shipped weights: mock bricks, pre-training, multi-task training, evaluation, card. `galpipe train` calls `train_model`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from galpipe.code_version import code_version
from galpipe.commit import write_bytes
from galpipe.errors import ConfigurationError
from galpipe.lvm.calibrate import calibrate
from galpipe.lvm.calibrationsky import CALIBRATION_SEED_OFFSET, calibration_specs
from galpipe.lvm.card import card_text
from galpipe.lvm.distill import Student, distill, joint
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.evaluate import evaluate
from galpipe.lvm.finetune import FIRST, SECOND, finetune, settle
from galpipe.lvm.frozen import HELD_SEED_OFFSET, fit_frozen
from galpipe.lvm.loop import CHECKPOINT, LoopSettings, Progress
from galpipe.lvm.metric import set_metric
from galpipe.lvm.mocksky import mock_packs, read_packs, training_specs
from galpipe.lvm.model import GalaxyModel, device_of, new_model
from galpipe.lvm.pack import Pack, concatenate, read_pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.pretrain import pretrain
from galpipe.lvm.ranks import first_rank_first, rank
from galpipe.lvm.realset import RealSet, read_real, real_set, write_real
from galpipe.lvm.teacher import Lesson, lessons, read_lesson, train_teacher, write_lesson
from galpipe.lvm.weights import load_model, read_card, save_model, take_over
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
    bricks, held_bricks, calibration_bricks : int
        Mock bricks to train on, to score on and to calibrate on.
    pretrain_steps, finetune_steps, polish_steps, batch : int
        Of masked reconstruction, of the heads on mock stamps, and of the heads with the embedding on real galaxies.
    settle_steps : int
        Of the heads alone, at the end.
    teacher_steps, distill_steps, real_batch, joint_batch : int
        Of the teacher and of what the encoder learns from it; real galaxies in a step of distillation, and beside the mock stamps.
    rate, polish_rate, teacher_rate : float
        Largest learning rates: pre-training, heads and distillation; the last loop; the teacher.
    without : str
        Label sets, joined by commas, whose labels must not train: for figures on these very sets.
    unseen : str
        The same for sets whose pixels must not train either.
    threads : int
        Torch threads; part of what makes a run repeatable bit by bit.
    model : ModelSettings
    """

    name: str = "mini"
    version: str = "4"
    seed: int = 1
    sky_seed: int = 1001
    sky: str = "survey"
    bricks: int = 20
    held_bricks: int = 2
    calibration_bricks: int = 6
    pretrain_steps: int = 300
    finetune_steps: int = 2400
    polish_steps: int = 1700
    settle_steps: int = 800
    teacher_steps: int = 1200
    distill_steps: int = 2200
    batch: int = 16
    real_batch: int = 32
    joint_batch: int = 16
    rate: float = 1.5e-3
    polish_rate: float = 8e-4
    teacher_rate: float = 4e-4
    without: str = ""
    unseen: str = ""
    threads: int = 2
    model: ModelSettings = field(default_factory=ModelSettings)

    def pretraining(self) -> LoopSettings:
        """Settings of the first loop."""
        return LoopSettings(self.pretrain_steps, self.batch, self.rate, seed=self.seed, checkpoint=100)

    def finetuning(self) -> LoopSettings:
        """Settings of the second loop."""
        return LoopSettings(self.finetune_steps, self.batch, self.rate, seed=self.seed + 1, checkpoint=100)

    def settling(self) -> LoopSettings:
        """Settings of the last loop."""
        return LoopSettings(self.settle_steps, self.batch, self.polish_rate, seed=self.seed + 5, checkpoint=100)

    def teaching(self) -> LoopSettings:
        """Settings of the teacher's own loop."""
        return LoopSettings(self.teacher_steps, 24, self.teacher_rate, seed=self.seed + 3, checkpoint=100)

    def distilling(self) -> LoopSettings:
        """Settings of the distillation."""
        return LoopSettings(self.distill_steps, self.real_batch, self.rate, seed=self.seed + 4, checkpoint=100)

    def polishing(self) -> LoopSettings:
        """Settings of the third loop."""
        return LoopSettings(self.polish_steps, self.batch, self.polish_rate, seed=self.seed + 2, checkpoint=100)


@dataclass(frozen=True)
class Places:
    """Where a training reads and writes.

    Parameters
    ----------
    work : Path
        Keeps packs and checkpoints; may be deleted afterwards.
    out : Path
        The model folder to write.
    real : Path, optional
        Folder with ``stamps/*.fits`` and ``labels/*.parquet``: their pixels teach the encoder, and labels where they may
        (`galpipe.lvm.realset`). None trains on the mock sky alone.
    start : Path, optional
        Model folder to begin from, in the place of pre-training and the first loop; whatever fits is taken over. One without heads
        takes the place of pre-training only.
    """

    work: Path
    out: Path
    real: Path | None = None
    start: Path | None = None


def train_model(settings: TrainSettings, places: Places, progress: Progress | None = None) -> Path:
    """Make the training sky, train, calibrate, score and write a model folder; an interrupted call goes on where it stopped.

    Parameters
    ----------
    settings : TrainSettings
    places : Places
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    Path
        ``places.out``.
    """
    torch.set_num_threads(settings.threads)
    # stamps and checkpoints of one sky are not another's
    work = places.work / settings.sky
    with first_rank_first():
        _one_training(settings, places, work)
        bricks = mock_bricks(settings, work, progress)
        pack = read_packs(bricks["train"])
        real = _real(settings, places.real, work)
    model = new_model(settings.model, settings.seed).to(device_of())
    history: dict[str, list[dict[str, float]]] = {}
    began = _begin(model, (settings, places.start), (pack, real), work, history, progress)
    student = Student(model, settings.seed)
    metric: dict[str, float] = {}
    if real is None:
        history["polish"] = finetune(model, pack, settings.polishing(), work, SECOND, progress)
    else:
        lesson = _lesson(settings, real, work, history, progress)
        history["distill"] = distill(student, (real, lesson), settings.distilling(), work, progress)
        mixed = (pack, (real, lesson), settings.joint_batch)
        history["polish"] = joint(student, mixed, settings.polishing(), work, SECOND, progress)
        with first_rank_first():
            metric = set_metric(model, real, work, progress)
    history["settle"] = settle(model, pack, settings.settling(), work, progress)
    facts: dict[str, Any] = {
        "seconds": sum(part[-1]["seconds"] for part in history.values() if part),
        "stamps": len(pack),
        "began": began,
        "real_sets": real.sets if real else {},
        "real_stamps": len(real.pack) if real else 0,
        **{f"{name}_bricks": [path.name for path in paths] for name, paths in bricks.items()},
        "metric": metric,
        "history": history,
        "code": code_version(),
        "sky_version": SKY_VERSION,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return places.out if rank() else finish(settings, model, (pack, bricks), facts, (work, places.out))


def _one_training(settings: TrainSettings, places: Places, work: Path) -> None:
    """Refuse a work folder of another training: its checkpoints know labels and pixels that this one may have to leave out.

    Raises
    ------
    ConfigurationError
        If the folder was made with other galaxies, another model to begin from, or another seed or size.
    """
    files = sorted(places.real.glob("*/*")) if places.real is not None else []
    mine = {
        "without": settings.without,
        "unseen": settings.unseen,
        "start": read_card(places.start)["sha256"] if places.start is not None else "",
        "real": [f"{file.name} {file.stat().st_size}" for file in files if file.suffix in (".parquet", ".fits")],
        "seeds": [settings.seed, settings.sky_seed, settings.bricks],
        "model": settings.model.as_dict(),
    }
    place = work / "training.json"
    if not place.exists():
        if any(work.glob(f"*-{CHECKPOINT}")):
            raise ConfigurationError("a work folder that says of which training it is, or a new one", "checkpoints alone", file=str(work))
        write_bytes(place, json.dumps(mine, indent=1).encode())
        return
    theirs = json.loads(place.read_text())
    other = [name for name, value in json.loads(json.dumps(mine)).items() if theirs.get(name) != value]
    if other:
        raise ConfigurationError(
            "a work folder of this training, or a new one (--work)", f"one with other {', '.join(other)}", file=str(work)
        )


def mock_bricks(settings: TrainSettings, work: Path, progress: Progress | None) -> dict[str, list[Path]]:
    """Packs to train on, to calibrate on and to score on; other seeds, so other places and skies."""
    first, sky = settings.sky_seed, settings.sky
    wanted = {
        "train": training_specs(settings.bricks, first, sky),
        "calibration": calibration_specs(settings.calibration_bricks, first + CALIBRATION_SEED_OFFSET, sky),
        "held": training_specs(settings.held_bricks, first + HELD_SEED_OFFSET, sky),
    }
    return {name: mock_packs(specs, work / "packs" / name, progress) for name, specs in wanted.items()}


def _real(settings: TrainSettings, folder: Path | None, work: Path) -> RealSet | None:
    """Real galaxies, read once."""
    if folder is None:
        return None
    place = work / "real"
    if not place.exists():
        found = real_set(folder, *(tuple(name for name in told.split(",") if name) for told in (settings.without, settings.unseen)))
        if found is None:
            return None
        write_real(place, found)
    return read_real(place)


def _begin(
    model: GalaxyModel,
    how: tuple[TrainSettings, Path | None],
    data: tuple[Pack, RealSet | None],
    work: Path,
    history: dict[str, list[dict[str, float]]],
    progress: Progress | None,
) -> str:
    """Take over another model's weights, or pre-train and teach the heads once; says which."""
    (settings, start), (pack, real) = how, data
    if start is not None:
        taken, new = take_over(model, start)
        card = read_card(start)
        if not card["heads"]:
            # an encoder of `galpipe train --unlabelled`: its heads are still to be taught
            history["finetune"] = finetune(model, pack, settings.finetuning(), work, FIRST, progress)
        return f"{card['name']} {card['version']} ({card['sha256'][:16]}): {taken} tensors taken over, {new} new"
    bare = Pack(pack.image, pack.mask, _conditions_only(pack))
    everything = concatenate([bare, real.pack]) if real else bare
    history["pretrain"] = pretrain(model, everything, settings.pretraining(), work, progress)
    # two gigabytes that the second loop does not need
    del everything, bare
    history["finetune"] = finetune(model, pack, settings.finetuning(), work, FIRST, progress)
    return ""


def _lesson(
    settings: TrainSettings, real: RealSet, work: Path, history: dict[str, list[dict[str, float]]], progress: Progress | None
) -> Lesson:
    """What the teacher says, asked once."""
    place = work / "lesson"
    teacher, history["teacher"] = train_teacher(real.pictures, real.answers, settings.teaching(), work / "lesson-teacher", progress)
    with first_rank_first():
        if not place.exists():
            write_lesson(place, lessons(teacher.eval(), real.pictures, progress))
    return read_lesson(place)


def _conditions_only(pack: Pack) -> Any:
    names = [name for name in pack.sources.column_names if name.startswith(("psfsize_", "psfdepth_")) or name == "pixscale"]
    return pack.sources.select(names)


def finish(
    settings: TrainSettings, model: GalaxyModel, data: tuple[Pack, dict[str, list[Path]]], facts: dict[str, Any], places: tuple[Path, Path]
) -> Path:
    """Calibrate and score the weights as they are stored (float16), and write them with their card; a folder under ``work`` keeps what is
    not finished, so that no model without its calibration ever stands at ``out``.
    """
    (training, bricks), (work, out) = data, places
    rough = work / "unfinished"
    facts = facts | {"frozen": {"learned": fit_frozen(model, training.stamps(), settings.seed)}}
    card: dict[str, Any] = {"name": settings.name, "version": settings.version, "training": {"settings": asdict(settings)} | facts}
    predictor = _as_stored(model, card, rough)
    card["calibration"] = calibrate(predictor, [read_pack(path) for path in bricks["calibration"]])
    predictor = _as_stored(predictor.model, card, rough)
    card["scores"] = {path.name: evaluate(predictor, read_pack(path), training.sources) for path in bricks["held"]}
    save_model(out, predictor.model, card, card_text(card, settings.model))
    return out


def _as_stored(model: GalaxyModel, card: dict[str, Any], folder: Path) -> Predictor:
    """A model as it comes back from its file."""
    save_model(folder, model, card, "")
    loaded = load_model(folder)
    return Predictor(loaded.model, loaded.card, loaded.model_hash, device_of())
