"""The model card for people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from galpipe.commit import replace_folder
from galpipe.errors import ConfigurationError
from galpipe.lvm.encoder import ModelSettings
from galpipe.lvm.folder import CARD_FILE, TEXT_FILE, read_card

LIMITS = """\
- Parameters, detection, restoration and redshift were learned from a mock sky: their columns are tagged `mock only`; nothing of them is a
  measurement of a real galaxy. Morphology columns say answer by answer whether real votes, mapped answers or the mock taught them.
- Real galaxies reached the model as pictures (JPEG route) of large, bright galaxies; what it learned there is not proven on survey pixels.
- `z_mock` reproduces the mock's redshifts, which follow from its colors and sizes; it says nothing about real redshifts.
- Questions that few are asked learn least: see `spiral-winding` and `edge-on-bulge` among the scores.
- Detection: clumps and arms of resolved galaxies may count as objects of their own. Purity of the constant answer is 1, because the central
  object alone is always true.
- Sizes and shapes lean on the mock's relation of size and magnitude.
- Stamps of 39.8 arcsec: larger galaxies are cut off, their sizes and magnitudes are wrong.
- Magnitudes are dereddened, because the pixels are.
- Restored images are for the eye: sharpened to 0.85 of the stamp's own PSF (FWHM, per band); no flux may be measured on them.
- `galpipe train` with the code and settings above repeats itself bit by bit on the same kind of processor and with the same
  real galaxies and the same model to begin from; elsewhere it agrees in the scores, because sums depend on the processor.
- Intervals were calibrated on mock stamps (figures under `calibration` in card.json); what they hold on real stamps is not known.
"""


def card_text(card: dict[str, Any], settings: ModelSettings) -> str:
    """Markdown text of ``MODEL_CARD.md``.

    Parameters
    ----------
    card : dict
        Content of ``card.json`` with training facts and scores.
    settings : ModelSettings
    """
    training = card["training"]
    own = training["settings"]
    lines = [
        f"# {card['name']} {card['version']}",
        "",
        "SwinV2 encoder (timm) with a light decoder and heads for " + ", ".join(settings.heads) + ". Weights: safetensors, float16.",
        "",
        "## Training",
        "",
        f"- Mock: {training['stamps']} stamps of {len(training['train_bricks'])} bricks ({own['sky']} mock sky {training['sky_version']},"
        f" DR9 and DR10 layout, north and south), seeds {own['sky_seed']} to {own['sky_seed'] + own['bricks'] - 1};"
        f" {len(training['calibration_bricks'])} more calibrate, {len(training['held_bricks'])} more are scored below.",
        *_began(training),
        *_real(training),
        f"- Every head on mock stamps, and the embedding on real ones in the same steps: {own['polish_steps']} steps of {own['batch']} mock"
        f" and {own['joint_batch'] if training['real_stamps'] else 0} real stamps (since version 4 each twice), seed {own['seed']}.",
        *_metric(training),
        f"- Heads alone on the finished encoder, morphology excepted: {own['settle_steps']} steps of {own['batch']} mock stamps.",
        f"- Time: {training['seconds'] / 60:.0f} minutes, {own['threads']} thread(s), {training['processor']}, code {training['code']}.",
        "",
        "## Scores on held-out mock bricks",
        "",
        "Every figure stands beside that of a constant answer.",
    ]
    if training.get("note"):
        lines.insert(lines.index("## Scores on held-out mock bricks") - 1, f"- {training['note']}")
    for brick, heads in card["scores"].items():
        lines += [
            "",
            f"### Brick {brick.split('-')[0]}",
            "",
            "| head | figure | model | constant | constant is | n |",
            "|---|---|---|---|---|---|",
        ]
        for head, scores in heads.items():
            lines += [_row(head, score) for score in scores]
    return "\n".join([*lines, "", *_objectives(card), "## Limits", "", LIMITS])


def with_objectives(folder: Path, compared: dict[str, Any]) -> None:
    """Put a comparison of objectives into a model's card and its text; the weights, and so the model's hash, stay.

    Parameters
    ----------
    folder : Path
    compared : dict
        Result of `galpipe.evaluate.objectives.compare_objectives`.

    Raises
    ------
    ConfigurationError
        If there is no model in the folder, or its card does not say how it was trained with heads.
    """
    card = read_card(folder) | {"objectives": compared}
    try:
        text = card_text(card, ModelSettings.from_dict(card["settings"]))
    except KeyError as error:
        raise ConfigurationError("the card of a model trained with heads", f"one without {error}", file=str(folder / CARD_FILE)) from error
    with replace_folder(folder) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        (aside / CARD_FILE).write_text(json.dumps(card, indent=1, allow_nan=False) + "\n")
        (aside / TEXT_FILE).write_text(text)


def objectives_table(compared: dict[str, Any]) -> list[str]:
    """Lines of Markdown: what was compared and how, a row per objective and point of its curve, and what the teacher cost beside.

    Parameters
    ----------
    compared : dict
        Result of `galpipe.evaluate.objectives.compare_objectives`.
    """
    settings, probes = compared["settings"], compared["probes"]
    names = [probe["name"] for probe in probes]
    lines = [
        f"The same encoder from the same random weights, {settings['seconds']:.0f} s of processor time for each objective"
        f" ({settings['threads']} thread(s), seed {settings['seed']}), the learning rate falling over that time; probed frozen, one way up,"
        " by a linear model. AUC: mean over draws of the labels and the error of that mean; these labels trained nothing.",
        "",
        "| objective | learns from | CPU seconds | steps | " + " | ".join(names) + " |",
        "|---" * (4 + len(names)) + "|",
    ]
    for name, arm in compared["arms"].items():
        for point in arm["curve"]:
            found = [point["scores"][probe] for probe in names]
            figures = " | ".join(f"{score['mean']:.3f} ± {score['error']:.3f}" for score in found)
            lines.append(f"| {name} | {arm['what']} | {point['seconds']:.0f} | {point['steps']} | {figures} |")
    sets = [f"{probe['name']}: `{probe['set']}`, {probe['rows']['test']} test galaxies, {probe['seeds']} draws" for probe in probes]
    return [*lines, "", "; ".join(sets) + ".", *_teacher_cost(compared["costs"])]


def _teacher_cost(costs: dict[str, float | None]) -> list[str]:
    """The cost that the budgets do not count."""
    tuning, asking = costs["tuning"], costs["asking"]
    parts = [f"tuning it took {tuning:.0f} s by the clock (not for the untuned one)"] if tuning is not None else []
    parts += [f"asking it about every real galaxy {asking:.0f} s of processor time"] if asking is not None else []
    return [f"Not counted, and spent once before the objectives with a teacher: {', '.join(parts)}."] if parts else []


def _objectives(card: dict[str, Any]) -> list[str]:
    if "objectives" not in card:
        return []
    return ["## How the objectives compare", "", *objectives_table(card["objectives"]), ""]


def _began(training: dict[str, Any]) -> list[str]:
    own = training["settings"]
    if training["began"]:
        return [f"- Began from {training['began']}."]
    return [
        f"- Pre-training: masked reconstruction, {own['pretrain_steps']} steps of {own['batch']} stamps, mock and real.",
        f"- First multi-task training: {own['finetune_steps']} steps of {own['batch']} mock stamps.",
    ]


def _metric(training: dict[str, Any]) -> list[str]:
    told = training.get("metric")
    if not told:
        return []
    return [
        f"- The embedding's metric: {told['answers']:.0f} answers of people about {told['galaxies']:.0f} real galaxies made the axes long"
        f" along which they tell galaxies apart (effectively {told['axes']:.0f} axes count); a linear map, nothing is lost."
    ]


def _real(training: dict[str, Any]) -> list[str]:
    """What real galaxies taught: pixels of every set, labels of which."""
    own = training["settings"]
    if not training["real_stamps"]:
        return ["- No real galaxies."]
    taught = (
        f"- Distillation: a teacher (EfficientNet-Lite0 with ImageNet weights, tuned for {own['teacher_steps']} steps on the labels below)"
        f" and those labels taught the encoder, {own['distill_steps']} steps of {own['real_batch']} augmented real galaxies by the"
        " JPEG route."
    )
    lines = [
        taught
        if own["distill_steps"]
        else "- Distillation of real galaxies: in the model that it began from; the last loop goes on with it.",
        "",
        "| real set | galaxies whose pixels trained | of these, whose labels trained |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {counts['galaxies']} | {counts['answered']} |" for name, counts in training["real_sets"].items()]
    return [*lines, ""]


def _row(head: str, score: dict[str, Any]) -> str:
    unit = f" {score['unit']}" if score["unit"] else ""
    mark = "" if score["beats_constant"] else " (worse)"
    return (
        f"| {head} | {score['name']} | {score['value']:.3f}{unit}{mark} | {score['constant']:.3f}{unit} |"
        f" {score['constant_is']} | {score['count']} |"
    )
